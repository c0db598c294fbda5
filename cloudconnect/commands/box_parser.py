"""Layer 3: AMP boxes as bytes, bounded while they are read; no Twisted transport in here.

A box is keys with their values, each behind its length (u16), and an empty key at the end. Two
rules are stricter than AMP's: the size of a whole box is bounded, and its keys stand in ascending
order, each once, as Twisted writes them. So a box has one encoding, and a digest of it is a digest
of the very bytes that were on the wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from twisted.protocols.amp import AmpBox

from cloudconnect.errors import ProtocolViolation

#: Most keys in a box: commands have about ten arguments.
KEYS_MAX: Final = 64
#: Longest key, in bytes (AMP's own limit).
KEY_MAX: Final = 255
#: Longest value, in bytes (AMP's own limit).
VALUE_MAX: Final = 0xFFFF
_LENGTH: Final = 2


class BoxTooLarge(Exception):
    """A box, or something in it, is larger than may be sent."""


def encode_box(box: AmpBox, box_max: int) -> bytes:
    """The bytes of ``box``.

    :param box_max: largest size in bytes
    :raises BoxTooLarge: it is larger; the text names sizes only
    """
    for name, value in box.items():
        if len(name) > KEY_MAX or len(value) > VALUE_MAX:
            raise BoxTooLarge(f"a value of {len(value)} bytes does not fit into {VALUE_MAX}")
    octets: bytes = box.serialize()
    if len(octets) > box_max:
        raise BoxTooLarge(f"a box of {len(octets)} bytes does not fit into {box_max}")
    return octets


def digest_of_box(box: AmpBox) -> bytes:
    """SHA-256 over the bytes that ``box`` had, or will have, on the wire."""
    octets: bytes = box.serialize()
    return hashlib.sha256(octets).digest()


class BoxParser:
    """Makes boxes of received bytes. Every length is checked before anything is kept for it.

    :param box_max: largest box, in bytes with all its lengths; may be changed between boxes
    """

    def __init__(self, box_max: int) -> None:
        self.box_max = box_max
        self._buffer = bytearray()
        self._at = 0  # where in the buffer the next length stands
        self._size = 0  # of the current box, so far
        self._box = AmpBox()
        self._key: bytes | None = None
        self._last_key = b""

    @property
    def held(self) -> int:
        """Bytes that are kept for a box that is not complete."""
        return len(self._buffer) - self._at + self._size

    def receive(self, data: bytes) -> Iterator[AmpBox]:
        """Take ``data`` and yield the boxes that are complete, one at a time.

        After an error nothing more may be given to this parser.

        :raises ProtocolViolation: not a box, or one that is too large
        """
        self._buffer += data
        while (string := self._next_string()) is not None:
            if self._key is not None:
                self._box[self._key] = string
                self._key = None
            elif string:
                if string <= self._last_key:
                    raise ProtocolViolation("the keys of a box are not in ascending order")
                self._key = self._last_key = string
            else:
                box = self._box
                self._box = AmpBox()
                self._size, self._last_key = 0, b""
                yield box
        del self._buffer[: self._at]
        self._at = 0

    def _next_string(self) -> bytes | None:
        """The next key or value; None while it is not complete."""
        start = self._at + _LENGTH
        if len(self._buffer) < start:
            return None
        length = int.from_bytes(self._buffer[self._at : start], "big")
        if self._size + _LENGTH + length > self.box_max:
            raise ProtocolViolation(f"a box is larger than {self.box_max} bytes")
        if self._key is None:
            if length > KEY_MAX:
                raise ProtocolViolation(f"a key in a box is longer than {KEY_MAX} bytes")
            if length and len(self._box) == KEYS_MAX:
                raise ProtocolViolation(f"a box has more than {KEYS_MAX} keys")
        if len(self._buffer) < start + length:
            return None
        self._at = start + length
        self._size += _LENGTH + length
        return bytes(self._buffer[start : self._at])
