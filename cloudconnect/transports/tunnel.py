"""Layer 2, transports: a byte stream inside a Noise tunnel that a pre-shared key authenticates.

:class:`NoiseTunnel` is the public description, for the Key A tunnel of ``docs/protocol.rst``,
section 4, and for any other pair of programs that share 32 bytes: the key is good for one
handshake, and a key that leaks later opens nothing that was recorded. On the wire each Noise
message stands behind its length in two bytes; an empty payload is the authenticated end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import attrs
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from zope.interface import Attribute, implementer

from cloudconnect.errors import KeyARejected, Tampered, Truncated
from cloudconnect.keys import Secret
from cloudconnect.settings import RECORD_SECONDS, TUNNEL_PAYLOAD_MAX
from cloudconnect.shown import Shown
from cloudconnect.transports.layer import EndingLayer, IHalfCloseTransport
from cloudconnect.transports.recipe import Recipe
from cloudconnect.wire.noise import (
    FIRST_MESSAGE_SIZE,
    MESSAGE_MAX,
    TAG_SIZE,
    CipherState,
    NoiseHandshake,
)

#: Size of the length before each Noise message, in bytes.
LENGTH_SIZE = 2
#: Most bytes of the application in one Noise message.
PART_MAX = MESSAGE_MAX - TAG_SIZE


class INoiseTunnelTransport(IHalfCloseTransport):
    """The transport of a protocol inside a tunnel."""

    handshake_hash = Attribute(
        "32 bytes that name this one handshake, the same on both sides; RuntimeError before it is"
        " over."
    )
    payload = Attribute(
        "What the responder sent in the handshake's second message; RuntimeError before it is over."
    )


@implementer(INoiseTunnelTransport)
class NoiseTunnelLayer(EndingLayer):
    """One connection of a :class:`NoiseTunnel`.

    The reason of its end is ``ConnectionDone`` after the authenticated end of both directions,
    :class:`~cloudconnect.errors.KeyARejected` when the peer does not hold the key or disagrees
    about the prologue, :class:`~cloudconnect.errors.Tampered` when a later byte was changed, and
    :class:`~cloudconnect.errors.Truncated` when the bytes stopped.

    :param protocol: the protocol above
    :param clock: the reactor, or a ``Clock``
    :param recipe: key, prologue and the rest
    :param initiator: whether this side opened the connection
    :ivar proven: whether a message of the peer's has verified; until then what happens here may be
        any stranger's doing, and says nothing of a session
    """

    name: ClassVar[str] = "noise tunnel"

    def __init__(
        self, protocol: IProtocol, clock: IReactorTime, recipe: NoiseTunnel, initiator: bool
    ) -> None:
        super().__init__(protocol, clock)
        self._recipe = recipe
        self._initiator = initiator
        self._handshake: NoiseHandshake | None = None
        self._send_cipher: CipherState | None = None
        self._receive_cipher: CipherState | None = None
        self._buffer = bytearray()
        self._end_read = False
        self._rest_timer: IDelayedCall | None = None
        self._hash = b""
        self._payload = b""
        self.proven = False

    @property
    def handshake_hash(self) -> bytes:
        """32 bytes that name this one handshake, the same on both sides.

        :raises RuntimeError: the handshake is not over
        """
        if not self._hash:
            raise RuntimeError("the tunnel's handshake is not over")
        return self._hash

    @property
    def payload(self) -> bytes:
        """What the responder sent in the second message, verified.

        :raises RuntimeError: the handshake is not over
        """
        if not self._hash:
            raise RuntimeError("the tunnel's handshake is not over")
        return self._payload

    # --- the handshake --------------------------------------------------------------------------

    def _opened(self) -> None:
        recipe = self._recipe
        self._handshake = NoiseHandshake(self._initiator, recipe.psk.reveal(), recipe.prologue)
        if self._initiator:
            self._write_below(framed(self._handshake.write_message()))

    def _handshake_size_fits(self, size: int) -> bool:
        if self._initiator:
            return 0 <= size - FIRST_MESSAGE_SIZE <= TUNNEL_PAYLOAD_MAX
        return size == FIRST_MESSAGE_SIZE

    def _shake(self, handshake: NoiseHandshake, message: bytes) -> None:
        """Take the peer's one handshake message."""
        self._payload = handshake.read_message(message)
        if not self._initiator:
            if self._recipe.psk_taken is not None:
                # The key is spent before anything else happens; who comes second is refused here.
                self._recipe.psk_taken()
            self._payload = self._recipe.payload
        self.proven = True
        if not self._initiator:
            self._write_below(framed(handshake.write_message(self._payload)))
        self._hash = handshake.handshake_hash
        self._send_cipher, self._receive_cipher = handshake.split()
        self._handshake = None
        self._ready()

    # --- bytes ----------------------------------------------------------------------------------

    def _received(self, data: bytes) -> Iterator[bytes]:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= LENGTH_SIZE:
            size = int.from_bytes(buffer[:LENGTH_SIZE], "big")
            self._check_size(size)
            if len(buffer) < LENGTH_SIZE + size:
                break
            message = bytes(memoryview(buffer)[LENGTH_SIZE : LENGTH_SIZE + size])
            del buffer[: LENGTH_SIZE + size]
            self._set_rest_timer(False)
            if self._handshake is not None:
                self._shake(self._handshake, message)
            else:
                yield from self._open(message)
            if self._over:
                return
        self._set_rest_timer(bool(buffer) and self._handshake is None)

    def _set_rest_timer(self, started: bool) -> None:
        """A message that has started must be complete in time; nothing else would notice."""
        if self._rest_timer is None and started:
            self._rest_timer = self._clock.callLater(RECORD_SECONDS, self._rest_late)
        elif self._rest_timer is not None and not started:
            self._rest_timer.cancel()
            self._rest_timer = None

    def _rest_late(self) -> None:
        self._rest_timer = None
        if self._paused_below:  # it is our side that does not read
            self._set_rest_timer(True)
        else:
            self._fail(
                Truncated(
                    f"a tunnel message has started and is not complete in {RECORD_SECONDS:g} s"
                )
            )

    def _check_size(self, size: int) -> None:
        """Refuse a message that cannot be one by its length, before any of it is kept."""
        if self._handshake is not None:
            if not self._handshake_size_fits(size):
                raise KeyARejected("the tunnel's first message from the peer has a wrong length")
        elif self._end_read:
            raise Tampered("bytes came after the end of the tunnel")
        elif size < TAG_SIZE:
            raise Tampered("a tunnel message has an impossible length")

    def _open(self, message: bytes) -> Iterator[bytes]:
        assert self._receive_cipher is not None
        part = self._receive_cipher.decrypt(b"", message)
        if part:
            yield part
        else:
            self._end_read = True
            self._end_came()

    def _seal(self, data: bytes) -> bytes:
        assert self._send_cipher is not None
        view = memoryview(data)
        return b"".join(
            framed(self._send_cipher.encrypt(b"", view[offset : offset + PART_MAX]))
            for offset in range(0, len(view), PART_MAX)
        )

    def _seal_end(self) -> bytes:
        assert self._send_cipher is not None
        return framed(self._send_cipher.encrypt(b"", b""))

    # --- the end --------------------------------------------------------------------------------

    def _log_failure(self, error: Exception) -> None:
        if self._initiator or self.proven or self._recipe.refused is None:
            super()._log_failure(error)
        else:
            try:
                self._recipe.refused(error)
            except Exception:
                self._log.failure("bug in what a {layer} calls when it refuses", layer=self.name)

    def _forget_keys(self) -> None:
        self._set_rest_timer(False)
        self._handshake = None
        self._buffer.clear()
        for cipher in (self._send_cipher, self._receive_cipher):
            if cipher is not None:
                cipher.forget()


def framed(message: bytes) -> bytes:
    """``message`` behind its length in two bytes."""
    return len(message).to_bytes(LENGTH_SIZE, "big") + message


@attrs.frozen(eq=False, repr=False)
class NoiseTunnel(Recipe, Shown):
    """How both sides of a tunnel are made: ``Noise_NNpsk0_25519_AESGCM_SHA256``.

    The protocol inside finds :class:`INoiseTunnelTransport` as its transport.

    :param psk: 32 bytes that nobody but the two sides knows; to be used for one tunnel
    :param prologue: what both sides must agree on, any bytes; it does not go over the wire
    :param payload: sent by the responder with its handshake, at most ``TUNNEL_PAYLOAD_MAX`` bytes
    :param psk_taken: called on the responder when the first message has verified and before
        anything is answered: the place where the key is taken away, so that it is used once. What
        it raises ends the connection with that reason, without an answer
    :param refused: called on the responder with the reason when a peer fails that has not proved
        that it holds the key; without it the failure is logged. Only that connection is closed,
        the key stays: anybody may have sent those bytes
    :raises ValueError: ``payload`` too long
    """

    psk: Secret = attrs.field(repr=False)
    prologue: bytes = attrs.field(repr=False)
    payload: bytes = attrs.field(default=b"", kw_only=True, repr=False)
    psk_taken: Callable[[], object] | None = attrs.field(default=None, kw_only=True)
    refused: Callable[[Exception], object] | None = attrs.field(default=None, kw_only=True)

    name = NoiseTunnelLayer.name

    @payload.validator
    def _payload_fits(self, _: Any, payload: bytes) -> None:
        if len(payload) > TUNNEL_PAYLOAD_MAX:
            raise ValueError(f"a tunnel's payload has at most {TUNNEL_PAYLOAD_MAX} bytes")

    def layer(self, initiator: bool, protocol: IProtocol, clock: IReactorTime) -> NoiseTunnelLayer:
        """A new connection's layer around ``protocol``."""
        return NoiseTunnelLayer(protocol, clock, self, initiator)
