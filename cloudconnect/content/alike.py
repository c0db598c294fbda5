"""Layer 1: manifest entries that are like one before, decoded without a general decoder.

Nearly every entry is a file of one run, or a directory, with the owner and the mode of one of its
neighbours. Its item then begins, and ends, with the very bytes of that one; path, time, run and
size are all that need be read, and each of them stands where it must. Whatever differs in anything
else is left to the general decoder (:mod:`cloudconnect.content.manifest`), which gives the same for
what is read here.
"""

from __future__ import annotations

import re
from typing import Any, Final

import cbor2

from cloudconnect.content.entries import Entry, EntryType, PathCheck
from cloudconnect.content.runs import Run
from cloudconnect.settings import CHUNK_MAX

#: How many kinds of files are remembered.
KNOWN_MAX: Final = 64

_NUMBER: Final = rb"(?:[\x00-\x17]|\x18.|\x19..|\x1a....)"
#: How an item begins: its length; a map's first fields, whichever; "n", a time in 8 bytes; "p", the
#: head of a byte string. What may have any length is bounded: no item is looked at for long.
_BEGINS: Final = re.compile(
    rb"(\x58.|\x59..)([\xa6-\xab].{5,160}?)\x61n\x1b(.{8})\x61p(\x58.|[\x40-\x57])", re.DOTALL
)
_OWNER: Final = rb"\x61u" + _NUMBER + rb")"
#: How that of a file goes on behind its path: "r", a list of three: id, offset, length; "s", size;
#: and what it ends with, "t" and "u".
_FILE_ENDS: Final = re.compile(
    rb"\x61r\x83\x58\x20(.{32})(%b)(%b)\x61s(%b)(\x61t\x61f" % ((_NUMBER,) * 3) + _OWNER,
    re.DOTALL,
)
#: And that of a directory.
_FOLDER_ENDS: Final = re.compile(rb"(\x61t\x61d" + _OWNER, re.DOTALL)
#: The head of a byte string of no bytes; of one of up to 23 it is so many more.
_OCTETS: Final = 0x40
#: Fields beside those that may be left out: g, m, n, p, t, u; those of a file: r, s.
_FIELDS: Final = 6
_OF_FILES: Final = 2
_MAP: Final = 0xA0
_I63: Final = 1 << 63
#: Fields that a usual file does not have.
_UNUSUAL: Final = frozenset("xldhc")
_AFTER_PATH, _TIME = Entry._fields.index("path") + 1, Entry._fields.index("mtime_ns")
_AFTER_RUNS: Final = Entry._fields.index("runs") + 1
#: Makes a tuple of a class without a look at what is in it.
_new: Final = tuple.__new__
_number: Final = int.from_bytes  # big-endian


class AlikeFiles:
    """Remembers kinds of files that the general decoder has read, and reads what is like them."""

    def __init__(self) -> None:
        # By how they begin and end: what an entry has before and behind what is its own.
        self._known: dict[bytes, tuple[tuple[Any, ...], tuple[Any, ...]]] = {}
        self._paths = PathCheck()

    def remember(self, item: bytes, fields: dict[str, Any], entry: Entry) -> None:
        """Remember a file of one run, or a directory; of the kinds that are known the one that came
        first is forgotten, where there are too many.

        :param item: its encoded map, which the general decoder has read
        :param fields: those of it but for its runs
        :param entry: what they are
        """
        begins = _begins(fields, _OF_FILES if entry.type is EntryType.FILE else 0)
        if not item.startswith(begins) or fields.keys() & _UNUSUAL:
            return
        known = self._known
        ends = b"".join(cbor2.dumps(part) for name in "tu" for part in (name, fields.get(name)))
        if begins + ends not in known and len(known) >= KNOWN_MAX:
            del known[next(iter(known))]
        known[begins + ends] = (entry[_AFTER_PATH:_TIME], entry[_AFTER_RUNS:])

    def read(self, octets: bytes, at: int) -> tuple[Entry, int] | None:
        """The entry whose item begins at ``at``, and where that ends; None where it is like none
        that is remembered, is not all there, or has something that is out of bounds.
        """
        found = _BEGINS.match(octets, at)
        if found is None:
            return None
        head, begins, time, path_head = found.groups()
        start = found.end()
        behind = start + (path_head[1] if len(path_head) > 1 else path_head[0] - _OCTETS)
        path = octets[start:behind]
        own: tuple[Any, ...]
        if (found := _FILE_ENDS.match(octets, behind)) is not None:
            name, offset, size, total, ends = found.groups()
            first, length = _integer(offset), _integer(size)
            if size != total or not 1 <= length <= CHUNK_MAX - first:
                return None
            own = (_number(time), length, (_new(Run, (name, first, length)),))
        elif (found := _FOLDER_ENDS.match(octets, behind)) is not None:
            ends, own = found[1], (_number(time), 0, ())
        else:
            return None
        known, end = self._known.get(begins + ends), found.end()
        if (
            known is None
            or end - at != (head[1] + 2 if len(head) == 2 else _number(head[1:]) + 3)
            or own[0] >= _I63
            or not path
            or not self._paths.names(path)
        ):
            return None
        return _new(Entry, (path,) + known[0] + own + known[1]), end


def _integer(encoded: bytes) -> int:
    """A number of CBOR."""
    return encoded[0] if len(encoded) == 1 else _number(encoded[1:])


def _begins(fields: dict[str, Any], others: int) -> bytes:
    """What stands before the time, in canonical order.

    :param others: how many fields there are that an entry of its type has
    """
    first = [name for name in ("G", "U", "f") if name in fields]
    count = bytes((_MAP | (_FIELDS + others + len(first)),))
    return count + b"".join(
        cbor2.dumps(part) for name in (*first, "g", "m") for part in (name, fields.get(name))
    )
