"""Layer 1: canonical CBOR with bounds, for small maps that a peer sends.

RFC 8949 with the length-first key order of its section 4.2.3: the same value has one encoding, so a
hash or a signature over the bytes is one over the value. What is read is measured before it is
decoded: depth and number of items are bounded, tags, indefinite lengths and bytes behind the end
are refused, and what does not encode back to the same bytes is refused too.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import cbor2

from cloudconnect.errors import ProtocolViolation

#: Levels of maps and lists in one another: deeper than any message of the protocol.
DEPTH_MAX: Final = 8
#: Map keys, values, list members and containers together: more than any message needs.
ITEMS_MAX: Final = 4096

_ARGUMENT: Final = {24: struct.Struct(">B"), 25: struct.Struct(">H"), 26: struct.Struct(">I")}
_ARGUMENT[27] = struct.Struct(">Q")


def encode(value: Any) -> bytes:
    """``value`` (maps, lists, text, bytes, integers, floats, booleans, None) as canonical CBOR."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes | memoryview, max_depth: int = DEPTH_MAX, max_items: int = ITEMS_MAX) -> Any:
    """The one value that is encoded in ``data``; the caller bounds the length of ``data``.

    :param max_depth: most levels of nesting
    :param max_items: most values in all
    :raises ProtocolViolation: not canonical CBOR of that depth and number of items
    """
    data = bytes(data)
    _measure(data, max_depth, max_items)
    try:
        value = cbor2.loads(data)
        same = encode(value) == data
    except (cbor2.CBORError, ValueError, TypeError, OverflowError) as error:
        raise ProtocolViolation("a message is not well-formed CBOR") from error
    if not same:
        raise ProtocolViolation("a message is not canonical CBOR")
    return value


def decode_map(
    data: bytes | memoryview, max_depth: int = DEPTH_MAX, max_items: int = ITEMS_MAX
) -> dict[str, Any]:
    """As :func:`decode`, and the value is a map whose keys are all text.

    :param data: bounded in length by the caller
    :param max_depth: most levels of nesting
    :param max_items: most values in all
    :raises ProtocolViolation: it is not
    """
    value = decode(data, max_depth, max_items)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ProtocolViolation("a message is not a map with text keys")
    return value


def _measure(data: bytes, max_depth: int, max_items: int) -> None:
    """Walk the heads of ``data`` without building anything."""
    position, items = 0, 0
    left = [1]  # members still to come, for each container that is open; the root has one
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        items += 1
        if items > max_items:
            raise ProtocolViolation(f"a message has more than {max_items} items")
        if position >= len(data):
            raise ProtocolViolation("a message ends early")
        major, additional = data[position] >> 5, data[position] & 0x1F
        position += 1
        argument = additional
        if additional >= 24:
            reader = _ARGUMENT.get(additional)
            if reader is None or position + reader.size > len(data):
                raise ProtocolViolation("a message ends early, or has an indefinite length")
            (argument,) = reader.unpack_from(data, position)
            position += reader.size
        if major in (2, 3):
            if argument > len(data) - position:
                raise ProtocolViolation("a message ends early")
            position += argument
        elif major in (4, 5):
            if argument > max_items:
                raise ProtocolViolation(f"a message has more than {max_items} items")
            if len(left) > max_depth:
                raise ProtocolViolation(f"a message is nested deeper than {max_depth}")
            left.append(argument * (major - 3))
        elif major == 6 or (major == 7 and additional not in (20, 21, 22, 25, 26, 27)):
            raise ProtocolViolation("a message holds a CBOR tag or an unknown simple value")
    if position != len(data):
        raise ProtocolViolation("there are bytes behind the end of a message")
