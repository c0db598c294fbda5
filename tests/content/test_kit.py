"""The recovery kit."""

from __future__ import annotations

import binascii
import string

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.kit import ALPHABET, KIT_MAX, Kit, _line, parse_kit
from cloudconnect.content.subkeys import EncryptionMode
from cloudconnect.errors import UsageError
from cloudconnect.keys import MasterKey

PIN = "SPKI-SHA256:" + "0123456789abcdef" * 4
KIT = Kit(
    provider="backup.example.net:6180",
    tenant="acme",
    pins=(PIN, "SHA256:" + "ab" * 32),
    repository=bytes(range(16)),
    mode=EncryptionMode.TENANT,
    head_number=17,
    head_value=bytes(range(32)),
    master=MasterKey(bytes(range(100, 132))),
)
TEXT = KIT.text()


class RoundTripTests(SynchronousTestCase):
    """What was printed is read again."""

    def test_there_and_back(self) -> None:
        """A kit comes back as it was, with whatever stands before and behind it."""
        self.assertEqual(parse_kit(TEXT), KIT)
        around = f"\nRECOVERY KIT\nkeep it safe\n\n{TEXT}\n█▀ ▄ a code\nkey 1- 2 XXXXX\n"
        self.assertEqual(parse_kit(around), KIT)
        self.assertEqual(parse_kit(around.replace("\n", "\r\n")), KIT)

    def test_typed(self) -> None:
        """What a person types differently without meaning anything by it makes no difference."""
        lines = TEXT.splitlines()
        keys = [number for number, line in enumerate(lines) if line.startswith("key")]
        for number in keys:
            name, groups = lines[number][:11], lines[number][11:]
            lines[number] = "  " + name + groups.lower().replace("0", "o").replace("1", "l") + " "
        lines.insert(keys[0], "")
        self.assertEqual(parse_kit("\n".join(lines)), KIT)

    def test_few_columns(self) -> None:
        """It fits on paper: no line has more than 100 characters, and all of them are plain."""
        self.assertLessEqual(max(map(len, TEXT.splitlines())), 100)
        self.assertTrue(TEXT.isascii())

    def test_groups(self) -> None:
        """The groups for a QR code have only characters that make a small one."""
        groups = KIT.groups()
        self.assertLessEqual(set(groups), set(string.ascii_uppercase + string.digits + " "))
        for group in groups.split()[2:]:
            self.assertIn(group, TEXT)

    @given(
        st.binary(min_size=32, max_size=32),
        st.binary(min_size=16, max_size=16),
        st.sampled_from(EncryptionMode),
        st.integers(0, (1 << 53) - 1),
        st.lists(st.text(string.ascii_letters + string.digits + ":.-", min_size=1), max_size=3),
    )
    @settings(deadline=None, max_examples=200)
    def test_any(
        self,
        master: bytes,
        repository: bytes,
        mode: EncryptionMode,
        number: int,
        pins: list[str],
    ) -> None:
        """So does any other."""
        kit = Kit(
            provider="[2001:db8::1]:6180",
            tenant="a",
            pins=tuple(pins),
            repository=repository,
            mode=mode,
            head_number=number,
            head_value=master[::-1],
            master=MasterKey(master),
        )
        self.assertEqual(parse_kit(kit.text()), kit)

    def test_no_key_shown(self) -> None:
        """The key is in the text, and not in what an object shows of itself."""
        for octets in (KIT.master.reveal().hex(), repr(KIT.master.reveal())[2:-1]):
            self.assertNotIn(octets, repr(KIT))
        self.assertNotIn(KIT.groups().split()[2], repr(KIT))

    def test_odd_values(self) -> None:
        """What could not be read again is not printed."""
        for changes in (
            {"tenant": "a b"},
            {"tenant": ""},
            {"provider": "h\nost"},
            {"provider": "hö"},
            {"pins": ("a b",)},
            {"pins": ("a",) * 17},
            {"repository": b""},
            {"head_value": b""},
            {"head_number": -1},
            {"head_number": 1 << 53},
        ):
            with self.assertRaises(UsageError, msg=str(changes)):
                attrs.evolve(KIT, **changes)


class TypoTests(SynchronousTestCase):
    """What was mistyped is found, and named."""

    def error(self, text: str) -> str:
        return str(self.assertRaises(UsageError, parse_kit, text))

    def test_every_character(self) -> None:
        """Each single character that is another one, is missing or is too many is found, or makes
        no difference; no text of an error repeats the key."""
        characters = string.ascii_uppercase + string.digits + "ab:-[ "
        secrets = [group[:4] for group in KIT.groups().split()[2:]]
        found = same = 0
        for at in range(len(TEXT.rstrip("\n"))):
            changed = [TEXT[:at] + c + TEXT[at + 1 :] for c in characters if c != TEXT[at]]
            changed += [TEXT[:at] + TEXT[at + 1 :], TEXT[:at] + "5" + TEXT[at:]]
            for text in changed:
                try:
                    kit = parse_kit(text)
                except UsageError as error:
                    found += 1
                    shown = str(error)
                    self.assertFalse([part for part in secrets if part in shown], shown)
                else:
                    same += 1
                    self.assertEqual(kit, KIT)
        self.assertGreater(found, 20 * same)

    def test_group_is_named(self) -> None:
        """A mistyped group of the key is named by its number, two exchanged ones too."""
        groups = KIT.groups().split()[2:]
        for number, group in enumerate(groups, 1):
            for at, digit in enumerate(group):
                for other in ALPHABET:
                    if other != digit:
                        bad = group[:at] + other + group[at + 1 :]
                        self.assertIn(
                            f"group {number} of the key", self.error(TEXT.replace(group, bad))
                        )
            for at in range(4):
                if group[at] != group[at + 1]:
                    turned = group[:at] + group[at + 1] + group[at] + group[at + 2 :]
                    self.assertIn(
                        f"group {number} of the key", self.error(TEXT.replace(group, turned))
                    )
        one, two = groups[3], groups[7]
        swapped = TEXT.replace(one, "?????").replace(two, one).replace("?????", two)
        self.assertIn("group 4 of the key", self.error(swapped))

    def test_line_is_named(self) -> None:
        """A mistyped line is named by its word."""
        for old, new, word in (
            ("backup.example", "backup.exmaple", "provider"),
            ("acme ", "acne ", "tenant"),
            ("SPKI-SHA256:0123", "SPKI-SHA256:0132", "pin"),
            ("000102", "000103", "repository"),
            ("  tenant ", "  none   ", "encryption"),
            ("17 00", "18 00", "head"),
        ):
            self.assertIn(repr(word), self.error(TEXT.replace(old, new, 1)))
        self.assertIn("'tenamt'", self.error(TEXT.replace("tenant ", "tenamt ", 1)))

    def test_lines_missing(self) -> None:
        """A line that is left out, repeated or of another kit is found."""
        lines = TEXT.splitlines()
        for number in range(len(lines)):
            self.error("\n".join(lines[:number] + lines[number + 1 :]))
            self.error("\n".join(lines[: number + 1] + lines[number:]))
        other = attrs.evolve(KIT, tenant="other", master=MasterKey(bytes(32))).text().splitlines()
        for number in range(len(lines)):
            if lines[number] != other[number]:
                mixed = [*lines[:number], other[number], *lines[number + 1 :]]
                self.error("\n".join(mixed))
        self.assertIn("belong together", self.error("\n".join(lines[:4] + lines[5:])))

    def test_no_kit(self) -> None:
        """Something else is told from a kit."""
        for text in ("", "x", TEXT * 2, TEXT[:-10], "\0" * 100):
            self.assertIn("recovery kit", self.error(text))
        self.assertIn("characters", self.error(" " * (KIT_MAX + 1)))

    def test_newer(self) -> None:
        """A kit of a newer release says so."""
        self.assertEqual(binascii.crc_hqx(b"123456789", 0xFFFF), 0x29B1)  # as published
        text = TEXT.replace(_line("version", "1"), _line("version", "2"))
        self.assertIn("newer release", self.error(text))

    @given(st.text())
    @settings(deadline=None)
    def test_anything(self, inside: str) -> None:
        """Whatever stands between the first and the last line, nothing but the error comes."""
        lines = TEXT.splitlines()
        self.error("\n".join([lines[0], inside, lines[-1]]))
