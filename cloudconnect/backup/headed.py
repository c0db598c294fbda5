"""Layer 3: questions about a repository's heads, and their answers (``docs/protocol.rst``, 7).

HEADS asks, HEADED answers; what comes is taken apart and bounded here, and believed by nobody yet.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from cloudconnect.backup.dialogue import expect
from cloudconnect.content.heads import SignedHead
from cloudconnect.errors import ProtocolViolation
from cloudconnect.shown import Shown
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameKind, decode_body, encode_body

#: Heads about which one question may ask.
ABOUT_MAX: Final = 256
#: Longest word for a state, or for who brought it about, in characters.
WORD_MAX: Final = 16

#: Sends the body of a HEADS and returns the map of the HEADED.
Exchange = Callable[[bytes], dict[str, Any]]


@attrs.frozen(repr=False)
class Page(Shown):
    """A part of the chain, and where it ends.

    :ivar number: of the newest head; 0 where there is none
    :ivar value: its hash
    :ivar heads: in order
    :ivar live: bit n - 1: the point of head n is published; with the last part only
    """

    number: int
    value: bytes
    heads: tuple[SignedHead, ...]
    live: int


@attrs.frozen(repr=False)
class Fate(Shown):
    """What became of a head's point, as the repository says.

    :ivar number: the head's
    :ivar state: ``published``, ``deleted``, ``removed``, ``withdrawn``, ``missing`` ...
    :ivar by: who brought it about, or empty
    :ivar time: when the point had arrived, in seconds since 1970
    """

    number: int
    state: str
    by: str
    time: float


def page_question(after: int) -> bytes:
    """The body of a HEADS that asks for the heads behind number ``after``."""
    return encode_body(after=after, about=[])


def exchange_over(channel: FrameChannel, asked: bytes | None = None) -> Exchange:
    """Questions over a dialogue in which nothing else is under way.

    :param asked: a question that was sent already, whose answer comes next; where the first one is
        another, that answer is dropped
    """
    waiting = asked

    def exchange(body: bytes) -> dict[str, Any]:
        nonlocal waiting
        if waiting is not None and waiting != body:
            expect(channel.receive(), FrameKind.HEADED)
            waiting = None
        if waiting is None:
            channel.send(FrameKind.HEADS, 0, body)
        waiting = None
        return decode_body(expect(channel.receive(), FrameKind.HEADED))

    return exchange


def ask_page(exchange: Exchange, after: int) -> Page:
    """The heads behind number ``after``, as many as come at a time.

    :raises ProtocolViolation: the answer cannot be used
    """
    body = exchange(page_question(after))
    number, value, live = body.get("number"), body.get("chain"), body.get("live")
    entries = body.get("entries")
    if type(number) is not int or type(value) is not bytes or type(live) is not bytes:
        raise ProtocolViolation("a HEADED does not have its fields")
    if not isinstance(entries, list):
        raise ProtocolViolation("a HEADED has no entries")
    heads = tuple(_signed(pair) for pair in entries)
    bits = int.from_bytes(live, "little")
    end = after + len(heads)
    if end > number >= after or (end < number and not heads):
        raise ProtocolViolation("a HEADED has other entries than it says")
    if end == number and (len(live) != (number + 7) // 8 or bits >> number):
        raise ProtocolViolation("a HEADED does not say which points are there")
    return Page(number, value, heads, bits if end == number else 0)


def ask_fates(exchange: Exchange, after: int, numbers: Sequence[int]) -> Iterator[Fate]:
    """What became of the points of these heads.

    :param after: number of the newest head that is known
    :raises ProtocolViolation: the answer cannot be used
    """
    for at in range(0, len(numbers), ABOUT_MAX):
        asked = list(numbers[at : at + ABOUT_MAX])
        about = exchange(encode_body(after=after, about=asked)).get("about")
        if not isinstance(about, list) or len(about) != len(asked):
            raise ProtocolViolation("a HEADED does not answer what was asked")
        for number, answer in zip(asked, about, strict=True):
            yield _fate(number, answer)


def bits_of(mask: int) -> Iterator[int]:
    """The numbers, from 1, whose bits are set."""
    octets = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    for at, octet in enumerate(octets):
        for bit in range(8 if octet else 0):
            if octet >> bit & 1:
                yield 8 * at + bit + 1


def _signed(pair: Any) -> SignedHead:
    if isinstance(pair, list) and len(pair) == 2:
        encoded, signature = pair
        if type(encoded) is bytes and type(signature) is bytes:
            return SignedHead(encoded, signature)
    raise ProtocolViolation("a HEADED has an entry that is none")


def _fate(number: int, answer: Any) -> Fate:
    if isinstance(answer, list) and len(answer) == 4 and answer[0] == number:
        _, state, by, arrived = answer
        # They are shown to a person.
        words = [word for word in (state, by) if isinstance(word, str) and word.isprintable()]
        if len(words) == 2 and max(map(len, words)) <= WORD_MAX and type(arrived) in (int, float):
            with contextlib.suppress(ValueError, OverflowError, OSError):
                time.localtime(arrived)
                return Fate(number, state, by, float(arrived))
    raise ProtocolViolation("a HEADED does not say what became of a point")
