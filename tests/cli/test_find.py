"""Tests of :mod:`cloudconnect.cli.find`: which points are searched, and how they are shown."""

from __future__ import annotations

from cloudconnect.cli.find import heading, newest
from tests.cli.commands import CommandCase
from tests.cli.test_points import row


class FindTests(CommandCase):
    """Without a provider."""

    def test_newest(self) -> None:
        """The newest of each host and job, in the order of their arrival."""
        rows = [
            row("a", 1),
            row("b", 2, job="photos"),
            row("c", 3, host="there"),
            row("d", 4),
            row("e", 5, host="there"),
        ]
        self.assertEqual(["b", "d", "e"], [one["point"].rstrip("0") for one in newest(rows)])
        self.assertEqual([], newest([]))

    def test_heading(self) -> None:
        """A point's heading is one line, whatever the provider says of it."""
        line = heading(row("abcdef01", host="x\x1b[2J\n", time=1e30))
        self.assertTrue(line.isprintable(), line)
        self.assertIn("abcdef01", line)

    def test_pattern_that_means_nothing(self) -> None:
        """A pattern that cannot be understood is told before anything is asked."""
        for pattern in ("[", "/", ""):
            self.assertEqual(2, self.call("find", pattern).status, pattern)
