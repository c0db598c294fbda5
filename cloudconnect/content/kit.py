"""Layer 1: the recovery kit: what an empty machine needs to restore, as text for paper.

Between a first and a last line stand lines of a name, a value and a check over both; the master
key stands in groups of five characters, of which the last one is a check over the group and its
place. Any one character that was mistyped is found, and its line or group is named. What stands
outside the first and the last line is for people, and is not read.

::

    -----BEGIN CLOUDCONNECT RECOVERY KIT-----
    provider    backup.example.net:6180                              [9Q0C]
    ...
    key  1- 5   0G2DX 4K7PC 9W3M2 B0V7A 11Z0Q
    whole       MB4W-55SC-7ZQF-90WJ                                  [3N1K]
    -----END CLOUDCONNECT RECOVERY KIT-----

The master key stands in clear in it: whoever has the kit and a login can read everything.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Final

import attrs

from cloudconnect.content.subkeys import IDENTIFIER_SIZE, EncryptionMode
from cloudconnect.errors import UsageError
from cloudconnect.keys import KEY_SIZE, MasterKey
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical

#: The version of this form.
VERSION: Final = 1
#: Longest text that is looked at, in characters: a kit with its QR code has some 6000.
KIT_MAX: Final = 64 << 10
#: Most pins.
PINS_MAX: Final = 16

#: Crockford's base 32: no I, L, O and U, which a reader may take for 1, 1, 0 and V.
ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ALIKE: Final = str.maketrans("ILO", "110")
_BEGIN: Final = "-----BEGIN CLOUDCONNECT RECOVERY KIT-----"
_END: Final = "-----END CLOUDCONNECT RECOVERY KIT-----"
_LINE: Final = re.compile(r"([a-z]+)\s+(\S+(?: \S+)*)\s+\[(\S{4})\]")
_KEY_LINE: Final = re.compile(r"key\s+(\d+)\s*-\s*(\d+)\s+(\S.*)")
_GROUP_DATA: Final = 4
_GROUPS: Final = 13  # 52 digits of 5 bits hold 256 bits, and 4 that are zero
_GROUPS_LINE: Final = 5
_WHOLE_SIZE: Final = 10
_NAMES: Final = ("version", "provider", "tenant", "pin", "repository", "encryption", "head")


@attrs.frozen(kw_only=True, repr=False)
class Kit(Shown):
    """What stands in a recovery kit.

    :ivar provider: ``HOST:PORT``
    :ivar tenant: the tenant's name at the provider
    :ivar pins: fingerprints of the provider's certificate
    :ivar repository: its 16 bytes
    :ivar mode: who can read it
    :ivar head_number: of the newest head when the kit was made; 0 where there was none
    :ivar head_value: its hash, 32 bytes
    :ivar master: the newest master key when the kit was made
    """

    provider: str
    tenant: str
    pins: tuple[str, ...]
    repository: bytes
    mode: EncryptionMode
    head_number: int
    head_value: bytes
    master: MasterKey = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.master, MasterKey):
            raise TypeError("a recovery kit holds a repository's master key, and no other key")
        for text in (self.provider, self.tenant, *self.pins):
            if not text.isascii() or not text.isprintable() or " " in text or not text:
                raise UsageError("a recovery kit holds plain words only")
        if len(self.repository) != IDENTIFIER_SIZE or len(self.head_value) != 32:
            raise UsageError("a repository's id or a head in a recovery kit has the wrong size")
        if not 0 <= self.head_number < 1 << 53 or len(self.pins) > PINS_MAX:
            raise UsageError("a recovery kit names an impossible head, or too many pins")

    def text(self) -> str:
        """The lines that are read again, with the first and the last one."""
        lines = [_line(name, value) for name, value in self._values()]
        return "\n".join([_BEGIN, *lines, *_key_lines(self.master), *self._whole(), _END]) + "\n"

    def groups(self) -> str:
        """The groups of the master key alone, with a word before them: for a QR code."""
        return "CLOUDCONNECT KEY " + " ".join(_groups(self.master))

    def _values(self) -> list[tuple[str, str]]:
        return [
            ("version", str(VERSION)),
            ("provider", self.provider),
            ("tenant", self.tenant),
            *(("pin", pin) for pin in self.pins),
            ("repository", self.repository.hex()),
            ("encryption", self.mode.value),
            ("head", f"{self.head_number} {self.head_value.hex()}"),
        ]

    def _whole(self) -> list[str]:
        """The line that finds a line which was left out."""
        values = [list(pair) for pair in self._values()]
        told = canonical.encode([*values, self.master.reveal()])
        digest = hashlib.sha256(b"cloudconnect/1 recovery kit" + told).digest()[:_WHOLE_SIZE]
        digits = _digits(digest)
        parts = [digits[at : at + 4] for at in range(0, len(digits), 4)]
        return [_line("whole", "-".join(parts))]


def parse_kit(text: str) -> Kit:
    """The kit in ``text``.

    :raises UsageError: there is none, or a line or a group of the key is not as it was printed; it
        is named
    """
    if len(text) > KIT_MAX:
        raise UsageError(f"a recovery kit has at most {KIT_MAX} characters")
    lines = [line.strip() for line in text.splitlines()]
    if lines.count(_BEGIN) != 1 or lines.count(_END) != 1:
        raise UsageError(
            f"this is no recovery kit: it has no line {_BEGIN!r}, or no line {_END!r}, or several"
        )
    inside = [line for line in lines[lines.index(_BEGIN) + 1 : lines.index(_END)] if line]
    found: dict[str, list[str]] = {}
    groups: list[str] = []
    for line in inside:
        if line.startswith("key"):
            groups += _groups_in(line, len(groups))
            continue
        name, value = _read_line(line)
        found.setdefault(name, []).append(value)
    kit = _kit(found, _master(groups))
    if _read_line(kit._whole()[0])[1] != found["whole"][0]:
        raise UsageError(
            "the recovery kit's lines are each as they were printed, and yet do not belong "
            "together: is a line missing, or from another kit?"
        )
    return kit


def _kit(found: dict[str, list[str]], master: MasterKey) -> Kit:
    for name in (*_NAMES, "whole"):
        if name != "pin" and len(found.get(name, ())) != 1:
            raise UsageError(f"a recovery kit has one line {name!r}")
    if found["version"] != [str(VERSION)]:
        raise UsageError("a newer release of cloudconnect is needed for this recovery kit")
    try:
        number, _, value = found["head"][0].partition(" ")
        return Kit(
            provider=found["provider"][0],
            tenant=found["tenant"][0],
            pins=tuple(found.get("pin", ())),
            repository=bytes.fromhex(found["repository"][0]),
            mode=EncryptionMode(found["encryption"][0]),
            head_number=int(number),
            head_value=bytes.fromhex(value),
            master=master,
        )
    except ValueError as error:
        raise UsageError(f"a value in the recovery kit cannot be used: {error}") from None


# --- lines ---------------------------------------------------------------------------------------


def _line(name: str, value: str) -> str:
    check = binascii.crc_hqx(f"{name} {value}".encode(), 0xFFFF)  # CRC-16/CCITT
    return f"{name:<11} {value:<56} [{_digits(check.to_bytes(2, 'big'))}]"


def _read_line(line: str) -> tuple[str, str]:
    """Name and value of a line whose check holds."""
    shown = line.split()[0][:12]
    match = _LINE.fullmatch(line)
    if match is None:
        raise UsageError(f"the recovery kit's line {shown!r} cannot be read")
    name, value, check = match.groups()
    if name not in (*_NAMES, "whole"):
        raise UsageError(f"a recovery kit has no line {shown!r}: is the word mistyped?")
    if _line(name, value).rpartition("[")[2] != f"{check.upper().translate(_ALIKE)}]":
        raise UsageError(f"the recovery kit's line {shown!r} is mistyped: its check does not hold")
    return name, value


# --- the key -------------------------------------------------------------------------------------


def _digits(octets: bytes) -> str:
    """Base 32, with zero bits at the end where they are needed."""
    count = -(-8 * len(octets) // 5)
    number = int.from_bytes(octets, "big") << (5 * count - 8 * len(octets))
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(count - 1, -1, -1))


def _groups(master: MasterKey) -> list[str]:
    digits = _digits(master.reveal())
    parts = [digits[at : at + _GROUP_DATA] for at in range(0, len(digits), _GROUP_DATA)]
    return [part + _check_digit(number, part) for number, part in enumerate(parts)]


def _key_lines(master: MasterKey) -> list[str]:
    groups, lines = _groups(master), []
    for at in range(0, _GROUPS, _GROUPS_LINE):
        part = groups[at : at + _GROUPS_LINE]
        lines.append(f"key {at + 1:>2}-{at + len(part):>2}   {' '.join(part)}")
    return lines


def _groups_in(line: str, before: int) -> list[str]:
    """The groups in a line of the key; each holds by itself.

    :param before: how many came before this line
    """
    match = _KEY_LINE.fullmatch(line)
    if match is None:
        raise UsageError(f"the recovery kit's line of the key behind group {before} cannot be read")
    first, last, rest = match.groups()
    groups = [group.upper().translate(_ALIKE) for group in rest.split()]
    if (int(first), int(last)) != (before + 1, before + len(groups)):
        raise UsageError(
            f"the recovery kit's key: behind group {before} group {before + 1} is due, and as many "
            "groups in a line as it says"
        )
    for number, group in enumerate(groups, before):
        good = len(group) == _GROUP_DATA + 1 and not set(group) - set(ALPHABET)
        if not good or _check_digit(number, group[:-1]) != group[-1]:
            raise UsageError(f"group {number + 1} of the key in the recovery kit is mistyped")
    return groups


def _master(groups: list[str]) -> MasterKey:
    if len(groups) != _GROUPS:
        raise UsageError(f"the key in a recovery kit has {_GROUPS} groups, and {len(groups)} came")
    number = 0
    for digit in "".join(group[:-1] for group in groups):
        number = number << 5 | ALPHABET.index(digit)
    spare = 5 * _GROUP_DATA * _GROUPS - 8 * KEY_SIZE
    if number & ((1 << spare) - 1):
        raise UsageError(f"group {_GROUPS} of the key in the recovery kit is mistyped")
    return MasterKey((number >> spare).to_bytes(KEY_SIZE, "big"))


def _check_digit(number: int, digits: str) -> str:
    """A digit that is another one if any one digit is, or two are exchanged, or two groups.

    The sum of the digits, each times a power of 2 in the field of 32 elements (modulo x^5 + x^2 +
    1), and the group's number.
    """
    total = number
    for digit in digits:
        total = _twice(total ^ ALPHABET.index(digit))
    return ALPHABET[total]


def _twice(element: int) -> int:
    element <<= 1
    return element ^ 0b100101 if element & 0b100000 else element
