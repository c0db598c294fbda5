"""Fuzz targets: frames, commands, and the tokens of accelerators."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from blake3 import blake3
from twisted.internet.task import Clock
from twisted.protocols import amp

from cloudconnect.commands import admin, control, lan, tunnel
from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.commands.box_parser import BoxParser, encode_box
from cloudconnect.commands.fields import carried_error, read_fields, write_fields
from cloudconnect.dedup.exchange import Exchange
from cloudconnect.dedup.limits import WINDOW_MIN
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.errors import CloudConnectError, ProtocolViolation
from cloudconnect.keys import Subkey
from cloudconnect.settings import BOX_MAX_UNAUTHENTICATED
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.wire.channel import failure
from cloudconnect.wire.frames import (
    HEADER_SIZE,
    Frame,
    FrameKind,
    FrameReader,
    decode_body,
    encode_body,
    split_ids,
    unpack_bitmap,
    unpack_chunk,
)
from tests.accelerator.hostile import batch, joined, noise, referring
from tests.fuzz.target import Acts, Target, act, cut

# --- frames --------------------------------------------------------------------------------------

_KEY = b"i" * 32


def frames(data: bytes) -> None:
    """A mover's reader, with a peer that makes good tags for bad frames; and what the bodies say.

    A frame that nobody tagged must never come out.
    """
    acts = Acts(data)
    reader = FrameReader(Subkey(_KEY), 0, 1 << 16)
    tagged: list[bytes] = []
    try:
        while acts.left:
            what = acts.number() % 3
            if what == 0:
                octets = acts.piece()
            else:
                head = acts.take(HEADER_SIZE - 4).ljust(HEADER_SIZE - 4, b"\0")
                body = acts.piece()
                head += len(body).to_bytes(4, "big")
                covered = body
                if head[0] == FrameKind.CHUNK and what == 1 and len(body) > 69:
                    covered = body[:37] + blake3(body[69:]).digest()
                    body = covered + body[69:]
                hasher = blake3(len(tagged).to_bytes(8, "big") + head, key=_KEY)
                octets = head + body + hasher.update(covered).digest(16)
                tagged.append(body)
            for piece in cut(octets, what):
                for frame in reader.receive(piece):
                    assert bytes(frame.body) in tagged, "a frame without a tag came out"
                    look_into(frame)
        reader.eof()
    except CloudConnectError:
        pass


def look_into(frame: Frame) -> None:
    """Parse the body as whoever the frame is for does."""
    try:
        if frame.kind is FrameKind.CHUNK:
            unpack_chunk(frame.body)
        elif frame.kind in (FrameKind.HAVE, FrameKind.GET, FrameKind.STORED, FrameKind.VERIFY):
            split_ids(frame.body)
        elif frame.kind is FrameKind.WANT:
            unpack_bitmap(frame.body, len(frame.body) * 8 - 3)
        elif frame.kind is FrameKind.FAIL:
            failure(frame)
        else:
            decode_body(frame)
    except ProtocolViolation:
        pass


def first_frames() -> Iterable[bytes]:
    yield act(0, bytes((FrameKind.HELLO,)) + bytes(40))  # one with a good tag would be no finding
    for kind, body in (
        (FrameKind.HELLO, encode_body(versions=[1], coding="x")),
        (FrameKind.HAVE, bytes(64)),
        (FrameKind.WANT, b"\x03"),
        (FrameKind.POINT, encode_body(manifest=b"", reference=[1, 2, {"a": None}])),
        (FrameKind.FAIL, encode_body(reason="tampered", text="no")),
        (FrameKind.TOTALS, encode_body(bytes=1, frames=2)),
        (FrameKind.CHUNK, bytes(32) + b"\0\0\0\1\0" + bytes(32) + b"x"),
    ):
        yield bytes((1, kind)) + bytes(7) + len(body).to_bytes(2, "big") + body


# --- commands ------------------------------------------------------------------------------------

COMMANDS: dict[bytes, type[BoundedCommand]] = {
    found.commandName: found
    for module in (admin, control, lan, tunnel)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, BoundedCommand) and found is not BoundedCommand
}


class Everything(BoundedAMP):
    """Reads the arguments of every command there is, and refuses it."""


def _dispatch(command: type[BoundedCommand]) -> Any:
    def responder(self: Any, **arguments: Any) -> dict[str, Any]:
        raise ProtocolViolation("whatever it is, no")

    return command, responder


Everything._commandDispatch = {name: _dispatch(command) for name, command in COMMANDS.items()}


def boxes(data: bytes) -> None:
    """Boxes of any command there is, before and after log-in; and answers to what was asked."""
    acts = Acts(data)
    what = acts.number()
    if what & 1:
        parser = BoxParser(BOX_MAX_UNAUTHENTICATED)
        try:
            for piece in cut(acts.rest(), what >> 1):
                for box in parser.receive(piece):
                    assert len(encode_box(box, BOX_MAX_UNAUTHENTICATED)) <= BOX_MAX_UNAUTHENTICATED
                    look_at(box)
                assert parser.held <= BOX_MAX_UNAUTHENTICATED
        except ProtocolViolation:
            pass
        return
    clock = Clock()
    pair = MemoryPair(clock)
    mine = Everything(clock, box_max=BOX_MAX_UNAUTHENTICATED, requests_max=2)
    pair.connect(Recorder(), mine)
    clock.advance(0)
    answer = mine.call(control.Ping)
    answer.addErrback(lambda failed: failed.trap(CloudConnectError))
    for piece in cut(acts.rest(), what >> 1):
        pair.left.write(piece)
        clock.advance(0)
    pair.left.loseConnection()
    clock.advance(60)
    clock.advance(60)


def look_at(box: amp.AmpBox) -> None:
    """Read the fields of a box as its command's, as a question and as an answer."""
    carried_error(box)
    command = COMMANDS.get(box.get(amp.COMMAND, b""))
    if command is None:
        return
    for fields in (command.arguments, command.response):
        try:
            values = read_fields(box.copy(), fields, command, None)
        except ProtocolViolation:
            continue
        write_fields(values, fields, command, None)


def first_boxes() -> Iterable[bytes]:
    for name, command in sorted(COMMANDS.items()):
        box = amp.AmpBox()
        for field, argument in command.arguments:
            box[field] = b"\x80" if "CBOR" in type(argument).__name__ else b"1"
        box[amp.COMMAND], box[amp.ASK] = name, b"1"
        for how in (0, 1):
            yield bytes((how,)) + box.serialize()
    yield b"\x00" + amp.AmpBox({amp.ANSWER: b"1"}).serialize()
    error = {amp.ERROR: b"1", amp.ERROR_CODE: b"tampered", amp.ERROR_DESCRIPTION: b"no"}
    yield b"\x00" + amp.AmpBox(error).serialize()


# --- tokens --------------------------------------------------------------------------------------


def tokens(data: bytes) -> None:
    """An accelerator's end with a peer that sends any messages."""
    acts = Acts(data)
    by = acts.number()
    exchange = Exchange(MemoryCache(1 << 20), window=WINDOW_MIN)
    exchange.start()
    if by & 4:
        exchange.send(noise(1000))
        exchange.flush()
    try:
        for piece in cut(acts.rest(), by):
            exchange.receive(piece)
        exchange.eof()
    except CloudConnectError:
        pass
    finally:
        exchange.close()


def first_tokens() -> Iterable[bytes]:
    greeting = b"\x00\x01\x00\x00\x00\x06\x01\x01" + WINDOW_MIN.to_bytes(4, "big")
    one = joined(batch(0, [b"x" * 300]))
    yield greeting + one + b"\x04" + (16).to_bytes(4, "big") + bytes(15) + b"\x01"
    yield greeting + joined(referring(0, 300, [bytes(32)]))
    yield greeting + b"\x05\x00\x00\x00\x08" + bytes(8)
    yield b"\x04" + greeting[1:] + b"\x06\x00\x00\x00\x0a" + bytes(8) + b"\x00\x01"
    yield b"\x04" + greeting[1:] + one + joined(batch(1, [b"y" * 300, b"z" * 500]))


TARGETS = (
    Target("frames", frames, first_frames),
    Target("boxes", boxes, first_boxes, 6000),
    Target("tokens", tokens, first_tokens, 8192),
)
