"""Tests of :mod:`cloudconnect.cli.dump`: what is refused before the provider is asked."""

from __future__ import annotations

import sys

from cloudconnect.config.profile import Profile, save
from tests.cli.commands import CommandCase


class RefusedTests(CommandCase):
    """Options that make no sense together, or here."""

    def setUp(self) -> None:
        super().setUp()
        save(self.environment, "default", Profile(provider="p.example", tenant="acme"))

    def test_names_of_one_file(self) -> None:
        """A file alone has no name in its content from which something could be taken."""
        done = self.call("dump", "latest", "/etc/fstab", "--strip-components", "1")
        self.assertEqual((2, ""), (done.status, done.out))
        self.assertIn("--tar", done.err)

    def test_terminal(self) -> None:
        """An archive does not go to a terminal."""
        self.patch(type(sys.stdout), "isatty", lambda stream: True)
        done = self.call("dump", "latest", "/etc", "--tar")
        self.assertEqual((2, ""), (done.status, done.out))
        self.assertIn("terminal", done.err)
