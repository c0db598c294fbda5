"""Layer 2, transports: a stream of AES-256-GCM records over any transport.

:class:`RecordStream` is the public description: a secret and a context that both sides hold. The
bytes are those of ``docs/protocol.rst``, sections 5 and 6: hello, welcome, begin, then records.
:class:`RecordStreamLayer`, one connection of it, is in :mod:`cloudconnect.transports.stream_layer`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.interfaces import IProtocol, IReactorTime

from cloudconnect.keys import Secret
from cloudconnect.settings import RECORD_PAYLOAD_MAX
from cloudconnect.shown import Shown
from cloudconnect.transports.recipe import Recipe
from cloudconnect.transports.stream_layer import RecordStreamLayer
from cloudconnect.wire.records import RecordHandshake

__all__ = ["RecordStream", "RecordStreamLayer"]


@attrs.frozen(eq=False, repr=False)
class RecordStream(Recipe, Shown):
    """How both sides of a record stream are made.

    Secret and context alone give secrecy and integrity of each connection, in both directions, but
    **no forward secrecy**: whoever records a connection and learns the secret later reads it. Use
    a secret once, for one session, and forget it; or agree on it through a
    :class:`~cloudconnect.transports.tunnel.NoiseTunnel`, which has forward secrecy.

    :param secret: 32 bytes that nobody but the two sides knows
    :param context: what the keys are bound to, any bytes: two streams of one secret whose contexts
        differ cannot be taken for each other
    :param connection: the number of the connection that a client opens, 0 to 2**32 - 1; each one
        is to be used once
    :param allow: asked by a server, after the client has proved that it knows the secret, whether
        this connection number may be used; it answers True once for each. Without it a client may
        use a number again (a recorded connection can never be played again: both sides add salt)
    :param payload: most payload bytes of one record, 1 to 1 MiB; by default 64 KiB over any
        transport, and ``RECORD_PAYLOAD_FAST`` where the stream owns the socket
    :param own_socket: whether a reactor's TCP or UNIX transport may be taken over
    :raises ValueError: ``payload`` out of bounds
    """

    secret: Secret = attrs.field(repr=False)
    context: bytes = attrs.field(repr=False)
    connection: int = attrs.field(default=0, kw_only=True)
    allow: Callable[[int], bool] | None = attrs.field(default=None, kw_only=True)
    payload: int | None = attrs.field(default=None, kw_only=True)
    own_socket: bool = attrs.field(default=True, kw_only=True)

    name = RecordStreamLayer.name

    @payload.validator
    def _payload_fits(self, _: Any, payload: int | None) -> None:
        if payload is not None and not 0 < payload <= RECORD_PAYLOAD_MAX:
            raise ValueError(f"a record has 1 to {RECORD_PAYLOAD_MAX} bytes of payload")

    def layer(self, initiator: bool, protocol: IProtocol, clock: IReactorTime) -> RecordStreamLayer:
        """A new connection's layer around ``protocol``."""
        handshake = RecordHandshake(
            initiator, self.secret, self.context, self.connection, None if initiator else self.allow
        )
        return RecordStreamLayer(
            protocol, clock, handshake, initiator, self.payload, self.own_socket
        )
