"""Tests of :mod:`cloudconnect.cli.key`: what is decided before the provider is reached."""

from __future__ import annotations

import sys
from typing import Any

import click

from cloudconnect.cli.key import _remember, new_secret
from cloudconnect.cli.kit import kit_page
from cloudconnect.cli.tenant import TenantSettings, resolve
from cloudconnect.config.profile import Profile, load, save
from cloudconnect.content.atrest import EncryptionMode, SlotKind, describe
from cloudconnect.errors import UsageError
from cloudconnect.keys import MasterKey
from tests.cli.commands import CommandCase
from tests.cli.test_tenant import NOTHING
from tests.content.test_kit import KIT


class SecretTests(CommandCase):
    """Where a new passphrase or key comes from."""

    def settings(self, **options: Any) -> TenantSettings:
        return resolve(**{**NOTHING, "tenant": "acme", **options})

    def test_files(self) -> None:
        """From a file, without the newline of a passphrase, with that of a key."""
        path = self.file(b"new words\n")
        new, kind = new_secret(self.settings(), path, None)
        self.assertEqual((new.reveal(), kind), (b"new words", SlotKind.PASSPHRASE))
        new, kind = new_secret(self.settings(), None, path)
        self.assertEqual((new.reveal(), kind), (b"new words\n", SlotKind.KEY_FILE))
        self.assertRaises(UsageError, new_secret, self.settings(), path, path)
        for empty in (self.file(b"", "empty"), self.file(b"\n", "newline"), "/nowhere"):
            self.assertRaises(UsageError, new_secret, self.settings(), empty, None)

    def test_prompt(self) -> None:
        """Asked for twice on a terminal; without one the text says what to name."""
        error = self.assertRaises(UsageError, new_secret, self.settings(), None, None)
        self.assertIn("--new-passphrase-file", str(error))
        asked: list[dict[str, Any]] = []

        def prompt(text: str, **options: Any) -> str:
            asked.append({"text": text, **options})
            return "typed"

        self.patch(click, "prompt", prompt)
        self.patch(sys.stdin, "isatty", lambda: True)
        new, _ = new_secret(self.settings(), None, None)
        self.assertEqual(new.reveal(), b"typed")
        self.assertTrue(asked[0]["hide_input"] and asked[0]["confirmation_prompt"])

    def test_open_modes(self) -> None:
        """Where the provider may read there is no passphrase to be changed."""
        for mode in ("provider", "none"):
            save(self.environment, "default", Profile(provider="p", encryption=mode))
            path = self.file(b"x")
            self.assertRaises(UsageError, new_secret, self.settings(), path, None)


class CommandTests(CommandCase):
    """What is refused at once."""

    def test_kit_as_json(self) -> None:
        """JSON lines are kept by programs: the kit goes to a file that was named, or not at all."""
        done = self.call("key", "kit", "--json", "--provider", "p:1", "--tenant", "acme")
        self.assertEqual(done.status, 2)
        self.assertIn("--output", done.err)

    def test_rotate_with_kit(self) -> None:
        """A kit has no passphrase that could be replaced."""
        kit = self.file(kit_page(KIT, 0.0).encode(), "kit")
        done = self.call("key", "rotate", "--kit", kit, "--new-passphrase-file", self.file(b"x"))
        self.assertEqual(done.status, 2)
        self.assertIn("key add", done.err)

    def test_help(self) -> None:
        """Help says what a new master key does and does not do."""
        done = self.call("key", "rotate", "--help")
        self.assertEqual(done.status, 0)
        self.assertIn("stays the same unless", done.out)
        self.assertIn("sends everything again", done.out)


class ProfileTests(CommandCase):
    """A profile follows a rotation."""

    def test_follows(self) -> None:
        """It names the new file; where the passphrase was typed it names none; another
        repository's stays."""
        description = describe(MasterKey.generate(), bytes(16), EncryptionMode.TENANT, ())
        settings = resolve(**{**NOTHING, "provider": "p", "tenant": "acme"})
        old = Profile(provider="p", repository=bytes(16).hex(), passphrase_file="/old")
        for new, expected in ((("/new", None), ("/new", "")), ((None, "/k"), ("", "/k")),
                              ((None, None), ("", ""))):  # fmt: skip
            save(self.environment, "default", old)
            self.assertTrue(_remember(settings, description, *new))
            saved = load(self.environment, "default")
            assert saved is not None
            self.assertEqual((saved.passphrase_file, saved.key_file), expected)
        other = Profile(provider="p", repository="ab" * 16, passphrase_file="/old")
        save(self.environment, "default", other)
        self.assertEqual(_remember(settings, description, "/new", None), "")
        self.assertEqual(load(self.environment, "default"), other)
