"""Layer 1: manifest entries that are like one before, decoded without a general decoder.

Nearly every entry is a file of one run with the owner and the mode of one of its neighbours. Its
item then begins, and ends, with the very bytes of that one; path, time, run and size are all that
need be read, and each of them stands where it must. Whatever differs in anything else is left to
the general decoder (:mod:`cloudconnect.content.manifest`), which gives the same for what is read
here.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final

import cbor2

#: How many files are remembered.
KNOWN_MAX: Final = 4

# "n", a time in 8 bytes, "p", and the head of a byte string.
_TIME: Final = struct.Struct(">3sQ2sB")
_TIME_KEY: Final = b"\x61n\x1b"
_PATH_KEY: Final = b"\x61p"
_OCTETS: Final = 0x40
_OCTETS_1: Final = 0x58  # its length in one byte more
_SHORT: Final = 24
_NUMBER: Final = rb"([\x00-\x17]|\x18.|\x19..|\x1a....)"
#: "r", a list of three: id, offset, length; "s", size; and what follows.
_RUN: Final = re.compile(
    rb"\x61r\x83\x58\x20(.{32})" + _NUMBER * 2 + rb"\x61s" + _NUMBER, re.DOTALL
)
#: Fields beside those that may be left out: g, m, n, p, r, s, t, u.
_FIELDS: Final = 8
_MAP: Final = 0xA0

#: Path, time, id of the chunk, offset, length.
Content = tuple[bytes, int, bytes, int, int]


class AlikeFiles:
    """Remembers the last few files that the general decoder has read, and reads what is like
    them."""

    def __init__(self) -> None:
        self._known: list[tuple[bytes, bytes, Any]] = []  # beginning, end, what goes with it

    def remember(self, item: bytes, fields: dict[str, Any], what: Any) -> None:
        """Remember a file.

        :param item: its encoded map, which the general decoder has read
        :param fields: those of it
        :param what: what :meth:`read` is to return for items like it
        """
        begins = _begins(fields)
        if not item.startswith(begins) or fields.keys() & {"x", "l", "d", "h", "c"}:
            return
        end = b"\x61t\x61f\x61u" + cbor2.dumps(fields.get("u"))
        self._known = [(begins, end, what), *self._known[: KNOWN_MAX - 1]]

    def read(self, item: bytes) -> tuple[Content, Any] | None:
        """What ``item`` has of its own, and what goes with the rest; None where it is not alike.

        The values are those that stand there; whether they are within their bounds is not looked
        at, but that there is nothing else.
        """
        known = None
        for one in self._known:
            if item.startswith(one[0]):
                known = one
                break
        if known is None:
            return None
        begins, end, what = known
        at = len(begins)
        if len(item) < at + _TIME.size:
            return None
        time_key, time, path_key, head = _TIME.unpack_from(item, at)
        at += _TIME.size
        if time_key != _TIME_KEY or path_key != _PATH_KEY:
            return None
        if head == _OCTETS_1 and len(item) > at:
            length = item[at]
            at += 1
        elif _OCTETS <= head < _OCTETS + _SHORT:
            length = head - _OCTETS
        else:
            return None
        behind = at + length
        found = _RUN.match(item, behind)
        if found is None or item[found.end() :] != end:
            return None
        name, offset, size, total = found.groups()
        if size != total:
            return None
        return (item[at:behind], time, name, _number(offset), _number(size)), what


def _number(encoded: bytes) -> int:
    """A number of CBOR."""
    return encoded[0] if len(encoded) == 1 else int.from_bytes(encoded[1:], "big")


def _begins(fields: dict[str, Any]) -> bytes:
    """What stands before the time, in canonical order."""
    first = [name for name in ("G", "U", "f") if name in fields]
    count = bytes((_MAP | (_FIELDS + len(first)),))
    return count + b"".join(
        cbor2.dumps(part) for name in (*first, "g", "m") for part in (name, fields.get(name))
    )
