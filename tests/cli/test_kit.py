"""Tests of :mod:`cloudconnect.cli.kit`: the recovery kit as a page."""

from __future__ import annotations

import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import segno

from cloudconnect.cli.console import Console
from cloudconnect.cli.kit import kit_of, kit_page, save_kit
from cloudconnect.cli.tenant import resolve
from cloudconnect.config.profile import Profile, save
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.heads import first_chain
from cloudconnect.content.kit import parse_kit
from cloudconnect.keys import MasterKey
from tests.cli.commands import CommandCase
from tests.cli.test_tenant import NOTHING
from tests.content.test_kit import KIT, PIN

PRESENTED = "SPKI-SHA256:" + "ee" * 32


class PageTests(CommandCase):
    """What is printed."""

    def test_read_again(self) -> None:
        """The whole page is read as a kit, and says how it is used; no line is wider than paper."""
        page = kit_page(KIT, 0.0)
        self.assertEqual(parse_kit(page), KIT)
        self.assertIn("--kit kit.txt --password-file F", page)
        self.assertIn("pip install cloudconnect==", page)
        self.assertLessEqual(max(map(len, page.splitlines())), 100)

    def test_worth(self) -> None:
        """It says what it is worth: everything in mode tenant, little in the others."""
        pages = {m: kit_page(attrs.evolve(KIT, mode=m), 0.0) for m in EncryptionMode}
        self.assertIn("READ EVERY BACKUP", pages[EncryptionMode.TENANT])
        for mode in (EncryptionMode.PROVIDER, EncryptionMode.NONE):
            self.assertIn("keeps nobody out", pages[mode])
            self.assertNotIn("READ EVERY BACKUP", pages[mode])
            self.assertNotIn("cloudconnect key", pages[mode])
        self.assertIn("cloudconnect key add", pages[EncryptionMode.TENANT])

    def test_code(self) -> None:
        """The QR code is that of the key's groups, module by module."""
        text = kit_page(KIT, 0.0).partition("for a camera:\n\n")[2]
        pairs = {" ": (0, 0), "▀": (1, 0), "▄": (0, 1), "█": (1, 1)}
        rows: list[list[int]] = []
        for line in text.rstrip("\n").split("\n"):
            upper, lower = zip(*(pairs[c] for c in line[4:]), strict=True)
            rows += [list(upper), list(lower)]
        matrix = [list(row) for row in segno.make(KIT.groups(), error="m", micro=False).matrix]
        width = len(matrix[0])
        self.assertEqual([[*row, *[0] * width][:width] for row in rows[: len(matrix)]], matrix)

    def test_saved(self) -> None:
        """A file is readable by nobody else, and who reads it is said; the key is not."""
        path = self.home / "folder" / "kit.txt"
        save_kit(path, kit_page(KIT, 0.0), Console())
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(parse_kit(path.read_text()), KIT)
        self.assertIn("can read every backup", self.err.text())
        self.assertNotIn(KIT.groups().split()[2], self.err.text() + self.out.text())


class MakingTests(CommandCase):
    """What a kit is made of."""

    def made(self, provider: str, pins: tuple[str, ...]) -> Any:
        options = {"provider": provider, "tenant": "acme", "fingerprint": pins}
        settings = resolve(**{**NOTHING, **options})
        line: Any = SimpleNamespace(settings=settings, manager=SimpleNamespace(presented=PRESENTED))
        master = MasterKey.generate()
        description = describe(master, bytes(16), EncryptionMode.TENANT, ())
        chain = attrs.evolve(first_chain(RepositoryKeys(master, bytes(16))), number=4)
        kit = kit_of(line, description, master, chain)
        self.assertEqual((kit.master, kit.head_number), (master, 4))
        return kit

    def test_pins(self) -> None:
        """The profile's pins; where none of them is of the key, the one that was presented too."""
        other = "SHA256:" + "11" * 32
        self.assertEqual(self.made("host", (PIN,)).pins, (PIN,))
        self.assertEqual(self.made("host", (other,)).pins, (other, PRESENTED))
        self.assertEqual(self.made("host", ()).pins, (PRESENTED,))

    def test_address(self) -> None:
        """Always with the port, and readable again."""
        for given, shown in (
            ("host", "host:6180"),
            ("host:7000", "host:7000"),
            ("[2001:db8::1]:7", "[2001:db8::1]:7"),
            ("2001:db8::1", "[2001:db8::1]:6180"),
        ):
            self.assertEqual(self.made(given, (PIN,)).provider, shown)


class FileTests(CommandCase):
    """--kit."""

    def kit_file(self, text: str | None = None) -> str:
        page = kit_page(KIT, 0.0) if text is None else text
        return self.file(page.encode(), "kit.txt")

    def resolve(self, **options: Any) -> Any:
        return resolve(**{**NOTHING, "kit_file": self.kit_file(), **options})

    def test_everything(self) -> None:
        """Provider, tenant, pins, repository and mode come from it."""
        settings = self.resolve()
        self.assertEqual(settings.kit, KIT)
        profile = settings.profile
        self.assertEqual(settings.address, ("backup.example.net", 6180))
        self.assertEqual(
            (settings.tenant, profile.fingerprints, settings.mode, profile.repository),
            (KIT.tenant, KIT.pins, KIT.mode, KIT.repository.hex()),
        )

    def test_above_it(self) -> None:
        """Options and the environment stand above it, and it above a profile of something else."""
        save(
            self.environment,
            "default",
            Profile(provider="old", tenant="old", ca="/old", repository="ab" * 16),
        )
        settings = self.resolve()
        self.assertEqual((settings.tenant, settings.profile.ca), (KIT.tenant, ""))
        self.environment["CLOUDCONNECT_TENANT"] = "told"
        settings = self.resolve(provider="moved.example.net", fingerprint=("SHA256:x",))
        self.assertEqual(
            (settings.tenant, settings.profile.provider, settings.profile.fingerprints),
            ("told", "moved.example.net", ("SHA256:x",)),
        )

    def test_own_profile(self) -> None:
        """A profile of the same repository still says where the login password is."""
        saved = Profile(repository=KIT.repository.hex(), password_file="/login", key_file="/k")
        save(self.environment, "default", saved)
        profile = self.resolve().profile
        self.assertEqual((profile.password_file, profile.key_file), ("/login", ""))

    def test_passphrase_beside_it(self) -> None:
        """A passphrase or key file that is named beside it opens in its place."""
        for name in ("passphrase_file", "key_file"):
            settings = self.resolve(**{name: "/x"})
            self.assertIsNone(settings.kit)
            self.assertEqual(settings.tenant, KIT.tenant)

    def test_unusable(self) -> None:
        """A file that is missing, no text, no kit or mistyped is named, the key not shown."""
        group = KIT.groups().split()[3]
        mistyped = kit_page(KIT, 0.0).replace(group, group[:-1] + "?")
        for content in (b"\xff\xfe", b"text", mistyped.encode()):
            path = self.file(content, "bad.txt")
            done = self.call("ls", "latest", "--kit", path)
            self.assertEqual(done.status, 2)
            self.assertIn("bad.txt", done.err)
            self.assertNotIn(group[:4], done.err)
        done = self.call("ls", "latest", "--kit", str(Path(self.home) / "nowhere"))
        self.assertEqual(done.status, 2)
        self.assertIn("nowhere", done.err)

    def test_not_printed(self) -> None:
        """What is printed of settings does not show the key."""
        shown = repr(self.resolve())
        self.assertNotIn(KIT.master.reveal().hex(), shown)
        self.assertNotIn(KIT.groups().split()[2][:4], shown)
