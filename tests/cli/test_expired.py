"""Tests of :mod:`cloudconnect.cli.expired`; that a restore goes on is in the stories."""

from __future__ import annotations

from tests.cli.commands import CommandCase

WHERE = ("--provider", "localhost:1", "--tenant", "acme", "--password-file", "/dev/null")


class ExpiredTests(CommandCase):
    """``--accept-expired``."""

    def test_fingerprint(self) -> None:
        """Without a fingerprint it is refused: nothing would say who that is."""
        done = self.call("points", "--accept-expired", *WHERE)
        self.assertEqual(2, done.status)
        self.assertIn("fingerprint", done.err)

    def test_only_reading(self) -> None:
        """Commands that store something do not have it."""
        for words in (("backup", "/etc"), ("connect", "localhost"), ("delete", "latest")):
            done = self.call(*words, "--accept-expired")
            self.assertEqual(2, done.status)
            self.assertIn("--accept-expired", done.err)
