"""Layer 1: how two ends of a record stream begin (``docs/protocol.rst``, section 5).

Three messages: hello, welcome, begin. After them each side knows that the other one holds the same
secret and context, and both have the keys of both directions.
"""

from __future__ import annotations

import enum
import hmac
import os
from collections.abc import Callable
from typing import Final

from cloudconnect.errors import CloudConnectError, Replayed, Tampered
from cloudconnect.keys import Secret
from cloudconnect.wire.protection import Buffer, RecordOpener, RecordSealer
from cloudconnect.wire.schedule import (
    COMMITMENT_SIZE,
    FROM_INITIATOR,
    FROM_RESPONDER,
    SALT_SIZE,
    TrafficSecret,
)

#: The initiator's first message: its salt and the connection's number (u32).
HELLO_SIZE: Final = SALT_SIZE + 4
#: The responder's message: its salt and its commitment.
WELCOME_SIZE: Final = SALT_SIZE + COMMITMENT_SIZE
#: The initiator's second message: its commitment.
BEGIN_SIZE: Final = COMMITMENT_SIZE


class _Step(enum.Enum):
    """Which message a handshake waits for; the value is its size in bytes."""

    HELLO = HELLO_SIZE
    WELCOME = WELCOME_SIZE
    BEGIN = BEGIN_SIZE
    DONE = 0


class RecordHandshake:
    """Makes the keys of one connection and checks that the peer makes the same ones.

    :param initiator: this side opened the connection
    :param secret: the shared secret; the reference is dropped when the handshake is over
    :param context: what the keys are bound to; both sides give the same bytes
    :param connection: the connection's number, 0 to 2**32 - 1; a responder learns it instead
    :param allow: a responder's question whether this number may be used (now, and not again);
        asked once, and only after the peer has proved that it holds the secret
    :param salt: 32 bytes, for tests only
    :ivar done: both sides have proved themselves; :attr:`sealer` and :attr:`opener` are there
    :ivar peer_proved: the peer has proved that it holds the secret, even where an error followed
    :ivar leftover: bytes that came behind the handshake, to be taken as records
    :raises ValueError: a salt or a number of the wrong size
    """

    def __init__(
        self,
        initiator: bool,
        secret: Secret,
        context: bytes,
        connection: int = 0,
        allow: Callable[[int], bool] | None = None,
        salt: bytes | None = None,
    ) -> None:
        salt = os.urandom(SALT_SIZE) if salt is None else salt
        if len(salt) != SALT_SIZE or not 0 <= connection < 1 << 32:
            raise ValueError("a salt has 32 bytes, a connection's number 32 bits")
        self._initiator = initiator
        self._secret: Secret | None = secret
        self._context = context
        self._allow = allow
        self._salt = salt
        self._buffer = bytearray()
        self._step = _Step.WELCOME if initiator else _Step.HELLO
        self._sealer: RecordSealer | None = None
        self._opener: RecordOpener | None = None
        self.connection = connection
        self.peer_proved = False
        self.leftover = b""
        self.failure: CloudConnectError | None = None

    @property
    def done(self) -> bool:
        """Whether records may follow."""
        return self._step is _Step.DONE

    @property
    def sealer(self) -> RecordSealer:
        """Seals what this side sends, once :attr:`done`.

        :raises RuntimeError: before that
        """
        if self._sealer is None or not self.done:
            raise RuntimeError("the handshake is not over")
        return self._sealer

    @property
    def opener(self) -> RecordOpener:
        """Opens what the peer sends, once :attr:`done`.

        :raises RuntimeError: before that
        """
        if self._opener is None or not self.done:
            raise RuntimeError("the handshake is not over")
        return self._opener

    def start(self) -> bytes:
        """The hello, 36 bytes, to be sent at once.

        :raises RuntimeError: on the responder's side
        """
        if not self._initiator:
            raise RuntimeError("a responder waits for the hello")
        return self._salt + self.connection.to_bytes(4, "big")

    def receive(self, data: Buffer) -> bytes:
        """Take bytes of the peer.

        :param data: any number of them, cut anywhere
        :return: what to send now, may be empty
        :raises Tampered: the peer's commitment is not the one of this secret, context, connection
            number and direction
        :raises Replayed: the peer has proved itself, and ``allow`` refused the connection's number
        :raises KeyForgotten: the secret has been forgotten meanwhile
        :raises RuntimeError: called after :attr:`done`
        """
        if self.failure is not None:
            raise self.failure
        if self.done:
            raise RuntimeError("the handshake is over")
        self._buffer += data
        answer = b""
        try:
            while not self.done and len(self._buffer) >= self._step.value:
                message = bytes(self._buffer[: self._step.value])
                del self._buffer[: self._step.value]
                answer += self._take(message)
        except CloudConnectError as error:
            self._fail(error)
            raise
        self._clean_up()
        return answer

    def _clean_up(self) -> None:
        if self.done:
            self.leftover = bytes(self._buffer)
            self._buffer.clear()
            self._secret = None

    def _take(self, message: bytes) -> bytes:
        if self._step is _Step.HELLO:
            self.connection = int.from_bytes(message[SALT_SIZE:], "big")
            sealer = self._make_keys(message[:SALT_SIZE], self._salt)
            self._step = _Step.BEGIN
            return self._salt + sealer.commitment
        if self._step is _Step.WELCOME:
            sealer = self._make_keys(self._salt, message[:SALT_SIZE])
            self._check(message[SALT_SIZE:])
            self._step = _Step.DONE
            return sealer.commitment
        self._check(message)
        if self._allow is not None and not self._allow(self.connection):
            raise Replayed(f"connection {self.connection} of this hop was used before")
        self._step = _Step.DONE
        return b""

    def _make_keys(self, salt_i: bytes, salt_r: bytes) -> RecordSealer:
        assert self._secret is not None
        there, back = (
            TrafficSecret(self._secret, self._context, self.connection, direction, salt_i + salt_r)
            for direction in (FROM_INITIATOR, FROM_RESPONDER)
        )
        ours, theirs = (there, back) if self._initiator else (back, there)
        self._sealer, self._opener = RecordSealer(ours), RecordOpener(theirs)
        return self._sealer

    def _check(self, commitment: bytes) -> None:
        assert self._opener is not None
        if not hmac.compare_digest(commitment, self._opener.commitment):
            raise Tampered(
                "the peer's commitment is not that of this session's key: another key or context, "
                "or the handshake was changed on the way"
            )
        self.peer_proved = True

    def _fail(self, error: CloudConnectError) -> None:
        self.failure = error
        self._secret = None
        self._buffer.clear()
        for direction in (self._sealer, self._opener):
            if direction is not None:
                direction.forget()
