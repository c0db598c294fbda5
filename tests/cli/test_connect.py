"""Tests of :mod:`cloudconnect.cli.connect`: what is decided before the provider is reached."""

from __future__ import annotations

import os
import sys

import cloudconnect.cli.connect
from cloudconnect.config.profile import Profile, load, save
from cloudconnect.errors import NotReachable
from tests.cli.commands import CommandCase

#: Not the command of the same name in it.
module = sys.modules[cloudconnect.cli.connect.__name__]


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

    def test_no_passphrase(self) -> None:
        """In modes in which the provider may read, no passphrase is asked for, and none is taken:
        nobody shall believe that something is encrypted under it."""

        def on_line(*_: object, **__: object) -> None:
            raise NotReachable("nobody is there")

        self.patch(module, "on_line", on_line)
        for mode in ("provider", "none"):
            words = ("connect", "127.0.0.1:1", "--tenant", "acme", "--encryption", mode)
            words += ("--password-file", self.file(b"x" * 20, "login"))
            self.assertEqual(22, self.call(*words).status)  # as far as the provider
            done = self.call(*words, "--passphrase-file", self.file(b"y" * 20, "phrase"))
            self.assertEqual(2, done.status)
            self.assertIn("no passphrase", done.err)

    def test_open_files(self) -> None:
        """A file with a secret that everybody can read is told, by name, while the profile is
        made; one that only the owner or a group can read is not."""

        def on_line(*_: object, **__: object) -> None:
            raise NotReachable("nobody is there")

        self.patch(module, "on_line", on_line)
        for mode, told in ((0o644, True), (0o640, False), (0o600, False)):
            for name in ("login", "phrase"):
                self.file(b"x" * 20, name)
                os.chmod(self.home / name, mode)
            done = self.call(
                "connect", "127.0.0.1:1", "--tenant", "acme",
                "--password-file", str(self.home / "login"),
                "--passphrase-file", str(self.home / "phrase"),
            )  # fmt: skip
            for name in ("login", "phrase"):
                self.assertIs(told, f"can read {self.home / name}" in done.err, done.err)

    def test_help(self) -> None:
        """Help says of each mode who can read."""
        done = self.call("connect", "--help")
        for words in (
            "tenant    only you",
            "provider  you and the provider",
            "none      everybody",
        ):
            self.assertIn(words, done.out)
