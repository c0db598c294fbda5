"""Tests of :mod:`cloudconnect.config.profile`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.profile import (
    Profile,
    cache_folder,
    config_folder,
    load,
    profile_path,
    save,
    split_provider,
    write_private,
)
from cloudconnect.errors import UsageError

texts = st.text(st.characters(codec="utf-8", min_codepoint=32, exclude_characters="\x7f"))


class AddressTests(SynchronousTestCase):
    """HOST or HOST:PORT."""

    def test_good(self) -> None:
        """A port may be left out; an IPv6 address with one stands in brackets."""
        for text, wanted in (
            ("a.example.com", ("a.example.com", 6180)),
            ("a.example.com:7000", ("a.example.com", 7000)),
            ("192.0.2.1", ("192.0.2.1", 6180)),
            ("2001:db8::1", ("2001:db8::1", 6180)),
            ("[2001:db8::1]", ("2001:db8::1", 6180)),
            ("[2001:db8::1]:7000", ("2001:db8::1", 7000)),
        ):
            self.assertEqual(wanted, split_provider(text))
            self.assertEqual(wanted, Profile(provider=text).address)

    def test_bad(self) -> None:
        """Everything else is named and refused."""
        for text in (
            "",
            ":",
            ":6180",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[]:1",
        ):
            error = self.assertRaises(UsageError, split_provider, text)
            self.assertIn(repr(text), str(error))


class ProfileCase(SynchronousTestCase):
    """A test with a home."""

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.environment = {"HOME": str(self.home)}
        self.path = self.home / ".config/cloudconnect/default.toml"

    def write(self, text: str, mode: int = 0o600) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
        self.path.chmod(mode)


class PlaceTests(ProfileCase):
    """Where things are."""

    def test_xdg(self) -> None:
        """XDG's variables say where, and HOME where they do not."""
        self.assertEqual(self.path.parent, config_folder(self.environment))
        environment = {"XDG_CONFIG_HOME": "/c", "XDG_CACHE_HOME": "/k"}
        self.assertEqual(Path("/c/cloudconnect"), config_folder(environment))
        self.assertEqual(
            Path("/k/cloudconnect") / ("aa" * 16) / ("bb" * 16),
            cache_folder(environment, b"\xaa" * 16, b"\xbb" * 16),
        )
        self.assertTrue(
            cache_folder(self.environment, b"a", b"b").is_relative_to(self.home / ".cache")
        )

    def test_names(self) -> None:
        """A profile's name cannot lead anywhere else."""
        for name in ("", ".", "..", "../x", "a/b", "-x", ".x", "a\n", "a" * 65, "ä"):
            self.assertRaises(UsageError, profile_path, self.environment, name)
        self.assertEqual(
            self.path.parent / "a.b-c_1.toml", profile_path(self.environment, "a.b-c_1")
        )


class SaveTests(ProfileCase):
    """Saving and loading."""

    def test_round_trip(self) -> None:
        """What was saved comes back, readable by its owner alone."""
        profile = Profile(
            provider="a.example.com",
            tenant="acme",
            fingerprints=("SPKI-SHA256:" + "ab" * 32,),
            key_file='/a "quoted" \\ path',
        )
        path = save(self.environment, "default", profile)
        self.assertEqual((self.path, profile), (path, load(self.environment, "default")))
        self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode))
        self.assertEqual(0o700, stat.S_IMODE(path.parent.stat().st_mode))

    @settings(max_examples=50, deadline=None)
    @given(texts, st.lists(texts, max_size=3))
    def test_any_text(self, text: str, fingerprints: list[str]) -> None:
        """Whatever is printable comes back."""
        profile = Profile(tenant=text, fingerprints=tuple(fingerprints))
        self.write(profile.to_toml())
        self.assertEqual(profile, load(self.environment, "default"))

    def test_control_characters(self) -> None:
        """Control characters are not saved, and what was saved before stays."""
        save(self.environment, "default", Profile(tenant="acme"))
        for odd in ("a\nb", "\x00", "\x1b[2J"):
            self.assertRaises(UsageError, save, self.environment, "default", Profile(tenant=odd))
        self.assertEqual(Profile(tenant="acme"), load(self.environment, "default"))

    def test_replaced(self) -> None:
        """A new one takes the place of the old one at once; nothing else is left in the folder."""
        for tenant in ("one", "two"):
            save(self.environment, "default", Profile(tenant=tenant))
        self.assertEqual(Profile(tenant="two"), load(self.environment, "default"))
        self.assertEqual(["default.toml"], os.listdir(self.path.parent))

    def test_no_link_is_followed(self) -> None:
        """A link that somebody has put in the way of the temporary file is not written through."""
        victim = Path(self.mktemp())
        victim.write_text("precious")
        self.path.parent.mkdir(parents=True)
        (self.path.parent / f".default.toml.{os.getpid()}").symlink_to(victim.absolute())
        write_private(self.path, b"x")
        self.assertEqual("precious", victim.read_text())
        self.assertEqual(b"x", self.path.read_bytes())

    def test_nobody_has_it_open(self) -> None:
        """Whoever has made the temporary file before, and has it open, does not read what it gets:
        keys and kits go into folders that somebody names."""
        self.path.parent.mkdir(parents=True)
        waiting = self.path.parent / f".default.toml.{os.getpid()}"
        waiting.touch(mode=0o666)
        with waiting.open("rb") as theirs:
            write_private(self.path, b"secret")
            self.assertEqual(b"", theirs.read())
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)

    def test_not_there(self) -> None:
        """A profile that is not there is none."""
        self.assertIsNone(load(self.environment, "default"))

    def test_open_to_others(self) -> None:
        """A profile that others may read is refused, and the text says what to do."""
        for mode in (0o640, 0o604, 0o620):
            self.write('tenant = "acme"', mode)
            error = self.assertRaises(UsageError, load, self.environment, "default")
            self.assertIn("chmod 600", str(error))

    def test_unusable(self) -> None:
        """What cannot be used is refused: unknown names, other types, no TOML."""
        for text in (
            "tenant = ",
            'password = "secret"',
            "tenant = 5",
            'fingerprints = "SPKI-SHA256:00"',
            "fingerprints = 5",
            "fingerprints = [5]",
        ):
            self.write(text)
            error = self.assertRaises(UsageError, load, self.environment, "default")
            self.assertIn(str(self.path), str(error))
            self.assertNotIn("secret", str(error))
