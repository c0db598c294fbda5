"""What the tests of the layer base are made of: the simplest layers, and a played transport."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation, Tampered
from cloudconnect.testing import Recorder
from cloudconnect.transports.layer import EndingLayer, Layer
from cloudconnect.transports.recipe import Recipe


class PlainLayer(Layer):
    """Adds nothing: no handshake, no end."""

    name: ClassVar[str] = "plain"

    def _opened(self) -> None:
        self._ready()

    def _received(self, data: bytes) -> Iterator[bytes]:
        yield data

    def _seal(self, data: bytes) -> bytes:
        return data


class FramedLayer(EndingLayer):
    """A handshake of one byte, messages of at most 255 bytes, an empty one as the end.

    A message of the length 7 is a bad one; one of the length 9 is a question, answered by itself.
    """

    name: ClassVar[str] = "framed"

    def __init__(self, protocol: Any, clock: Any) -> None:
        super().__init__(protocol, clock)
        self.buffer = b""
        self.key: str | None = "key"

    def _opened(self) -> None:
        self._write_below(b"H")

    def _received(self, data: bytes) -> Iterator[bytes]:
        self.buffer += data
        if self.buffer and not self._is_ready:
            if self.buffer[:1] != b"H":
                raise ProtocolViolation("not a greeting")
            self.buffer = self.buffer[1:]
            self._ready()
        while self.buffer and len(self.buffer) > self.buffer[0]:
            size = self.buffer[0]
            message, self.buffer = self.buffer[1 : size + 1], self.buffer[size + 1 :]
            if size == 7:
                raise Tampered("seven")
            if size == 9:
                self._answer(message * 100)
            elif message:
                yield memoryview(message)
            else:
                self._end_came()

    def _seal(self, data: bytes) -> Iterator[bytes]:
        for offset in range(0, len(data), 255):
            part = data[offset : offset + 255]
            pieces = [part] if len(part) not in (7, 9) else [part[:1], part[1:4], part[4:]]
            for piece in pieces:
                yield bytes((len(piece),)) + piece

    def _seal_end(self) -> bytes:
        return b"\0"

    def _forget_keys(self) -> None:
        assert self.key is not None, "called twice"
        self.key = None


class PlainRecipe(Recipe):
    """Makes plain layers."""

    name = "plain"

    def layer(self, initiator: bool, protocol: Any, clock: Any) -> Layer:
        return PlainLayer(protocol, clock)


class FramedRecipe(Recipe):
    """Makes framed layers."""

    name = "framed"

    def layer(self, initiator: bool, protocol: Any, clock: Any) -> Layer:
        return FramedLayer(protocol, clock)


class Below:
    """A transport that does nothing but keep what it is told."""

    disconnecting = False

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.written = b""
        self.producer: Any = None
        self.on_write: Any = None

    def __getattr__(self, name: str) -> Any:
        known = ("pauseProducing", "resumeProducing", "loseConnection", "abortConnection")
        if name not in known:
            raise AttributeError(name)
        return lambda: self.calls.append(name)

    def write(self, data: bytes) -> None:
        self.written += data
        if self.on_write is not None:
            self.on_write()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def getPeer(self) -> str:
        return "peer"


class PlayedTransportTestCase(SynchronousTestCase):
    """A framed layer between a recorder and a transport that the test plays."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.app: Any = Recorder()
        self.below = Below()
        self.layer = FramedLayer(self.app, self.clock)

    def connect(self, ready: bool = True) -> None:
        self.layer.makeConnection(self.below)
        if ready:
            self.layer.dataReceived(b"H")
            self.below.written = b""
