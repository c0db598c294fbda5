"""What a vector is, and how it is written down."""

from __future__ import annotations

from typing import Any

import attrs

from tests.vectors.talks import Talk


@attrs.frozen
class Case:
    """One vector: one thing that is right, or one that is wrong.

    :ivar name: folder and name of its file
    :ivar section: of ``docs/protocol.rst``
    :ivar shows: what it shows, in a sentence
    :ivar talk: the conversation
    :ivar error: the word with which it ends, or None
    :ivar valid: whether nobody did anything wrong
    """

    name: str
    section: int
    shows: str
    talk: Talk
    error: str | None = None
    valid: bool = attrs.field()

    @valid.default
    def _no_error(self) -> bool:
        return self.error is None

    def as_json(self) -> dict[str, Any]:
        """The content of its file."""
        talk = self.talk
        return {
            "name": self.name,
            "section": self.section,
            "shows": self.shows,
            "valid": self.valid,
            "protocol": talk.protocol,
            "test_secrets": in_hexadecimal(talk.secrets),
            "inputs": in_hexadecimal(talk.inputs),
            "bytes": talk.bytes,
            "outcome": {"events": talk.events, "error": self.error},
        }


def in_hexadecimal(values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with hexadecimal digits in the place of bytes."""
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()
    }


def changed(octets: bytes, at: int, mask: int = 0x01) -> bytes:
    """``octets`` with some bits of one byte changed."""
    copy = bytearray(octets)
    copy[at] ^= mask
    return bytes(copy)
