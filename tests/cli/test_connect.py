"""Tests of :mod:`cloudconnect.cli.connect`: what is decided before the provider is reached."""

from __future__ import annotations

import os

from cloudconnect.config.profile import Profile, load, save
from tests.cli.commands import CommandCase


class BeforeTests(CommandCase):
    """Profiles, and what is checked before anybody is asked for a secret."""

    def connect(self, *words: str) -> tuple[int, str]:
        """Connect to where nobody listens, as tenant acme."""
        files = ("--password-file", self.file(b"x" * 20, "login"))
        files += ("--passphrase-file", self.file(b"y" * 20, "phrase"))
        done = self.call("connect", "127.0.0.1:1", "--tenant", "acme", *files, *words)
        return done.status, done.err

    def test_another_profile_is_kept(self) -> None:
        """A profile of another tenant is not written over; another name may be given."""
        save(os.environ, "default", Profile(provider="backup.example.net", tenant="other"))
        status, error = self.connect()
        self.assertEqual(2, status)
        self.assertIn("--profile", error)
        saved = load(os.environ, "default")
        assert saved is not None
        self.assertEqual("other", saved.tenant)

    def test_nothing_is_inherited(self) -> None:
        """What an older profile says of secrets does not count: they are asked for anew."""
        old = Profile(provider="127.0.0.1:1", tenant="acme", password_file=self.file(b"old", "old"))
        save(os.environ, "default", old)
        done = self.call("connect", "127.0.0.1:1", "--tenant", "acme")
        self.assertEqual(2, done.status)
        self.assertIn("--password-file", done.err)

    def test_malformed_pin(self) -> None:
        """A fingerprint that is none is told before a password is asked for."""
        done = self.call(
            "connect", "127.0.0.1:1", "--tenant", "acme", "--fingerprint", "SPKI-SHA256:00"
        )
        self.assertEqual(2, done.status)
        self.assertIn("fingerprint", done.err)
        self.assertNotIn("password", done.err)

    def test_tenant_is_needed(self) -> None:
        """The tenant's name is not taken from an older profile."""
        save(os.environ, "default", Profile(provider="127.0.0.1:1", tenant="acme"))
        done = self.call("connect", "127.0.0.1:1")
        self.assertEqual(2, done.status)
        self.assertIn("--tenant", done.err)
