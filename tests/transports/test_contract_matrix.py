"""The contract of a transport wrapper, passed by each of ours, over each connection, and by stacks.

One table: what is below (memory with somebody in the middle, TCP, a UNIX socket, Twisted's own TLS)
and what lies on it. A record stream takes a reactor's socket over (its fast path) where it lies on
one directly; ``plain`` ones may not, so that both paths are run over sockets.
"""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL.crypto import X509, PKey
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionAborted
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.trial.unittest import TestCase

from cloudconnect.errors import KeyForgotten
from cloudconnect.settings import EPOCH_MAX, REKEY_BYTES
from cloudconnect.testing import (
    BufferRecorder,
    Flood,
    MemoryContract,
    Recorder,
    SocketContract,
    TCPContract,
    TransportContract,
    UNIXContract,
    flood_bytes,
)
from cloudconnect.transports.layer import Layer
from cloudconnect.transports.stream import RecordStreamLayer
from cloudconnect.transports.tls_layer import TLSLayer
from cloudconnect.transports.tunnel import NoiseTunnelLayer
from tests.certificates import HOST, self_signed
from tests.transports.layer_parts import FramedLayer
from tests.transports.stacks import framed, plain, plain_stream, stream, tls, tunnel

# --- what lies on it ----------------------------------------------------------------------------


def keys_of_stream(layer: Any) -> list[Any]:
    found = []
    if layer._session is not None:
        for direction in (layer._session.sealer, layer._session.opener):
            found += [direction._cipher] if direction._cipher is not None else []
            try:
                found.append(direction._traffic.record_key())
            except KeyForgotten:
                continue
    return found


def keys_of_tunnel(layer: Any) -> list[Any]:
    found = [layer._handshake] if layer._handshake is not None else []
    for cipher in (layer._send_cipher, layer._receive_cipher):
        if cipher is not None and cipher._aead is not None:
            found.append(cipher)
    return found


KEYS: dict[type, Callable[[Any], list[Any]]] = {
    RecordStreamLayer: keys_of_stream,
    NoiseTunnelLayer: keys_of_tunnel,
    TLSLayer: lambda layer: [layer._tls] if layer._tls is not None else [],
    FramedLayer: lambda layer: [layer.key] if layer.key is not None else [],
}


class OurStack(TransportContract):
    """Layers of this project: how to look into them, and what they promise beyond the contract."""

    parts: tuple[Callable[[], Any], ...] = ()

    def stack(self) -> Any:
        """One new recipe for each layer."""
        return [part() for part in self.parts]

    def layers_below(self, transport: Any) -> list[Layer]:
        """The layers below a protocol, the highest first."""
        found = []
        while isinstance(transport, Layer):
            found.append(transport)
            transport = transport.transport
        return found

    def held_keys(self, transport: Any) -> list[Any]:
        """Of all layers."""
        found: list[Any] = []
        for layer in self.layers_below(transport):
            held = KEYS.get(type(layer), lambda _: [])(layer)
            found += held if held or layer._keys_forgotten or not self.cipher else [layer]
        return found

    def use_up(self, transport: Any) -> bool:
        """The highest layer's counter; OpenSSL has its own."""
        if isinstance(transport, RecordStreamLayer):
            assert transport._session is not None
            transport._session.sealer._traffic.epoch = EPOCH_MAX
            transport._session.sealer._epoch_bytes = REKEY_BYTES
            return True
        if isinstance(transport, NoiseTunnelLayer):
            assert transport._send_cipher is not None
            transport._send_cipher._nonce = (1 << 64) - 1
            return True
        return False

    async def test_12_names(self) -> None:
        """Each layer's own name stands in the log prefix."""
        client, _ = await self.joined()
        for layer in self.layers_below(client.transport):
            self.assertIn(layer.name, layer.logPrefix())

    async def test_12_buffer_receiver(self) -> None:
        """An IBufferReceiver is handed memoryviews."""
        client, server = Recorder(), BufferRecorder()
        await self.join(client, server)
        Flood(client.transport, 300_000).start()
        await self.until(lambda: len(server.data) == 300_000)
        self.assertEqual(server.data, flood_bytes(0, 300_000))
        self.assertGreater(server.buffers, 0)

    async def test_12_hand_over(self) -> None:
        """The protocol above may be exchanged from inside dataReceived."""
        client, server = await self.joined()
        second = Recorder()
        near: Any = client.transport
        far: Any = server.transport

        def exchange(data: bytes) -> None:
            far.wrappedProtocol = second
            second.makeConnection(far)
            second.dataReceived(data)

        server.on_data = exchange
        near.write(flood_bytes(0, 400_000))
        near.loseConnection()
        await self.until(lambda: second.losses and client.losses)
        self.assertEqual(second.data, flood_bytes(0, 400_000))
        self.assertEqual(server.losses, 0)
        self.assert_clean(client, second)

    async def test_12_when_ready(self) -> None:
        """when_ready fires with the protocol above, also later; after the end with its reason."""
        client, server = await self.joined()
        near: Any = client.transport
        self.assertIs(self.successResultOf(near.when_ready()), client)
        near.abortConnection()
        self.failureResultOf(near.when_ready(), ConnectionAborted)
        await self.until_lost(client, server)
        self.failureResultOf(near.when_ready(), ConnectionAborted)


# --- what is below ------------------------------------------------------------------------------


class TLSContract(SocketContract):
    """Over Twisted's TLS, over TCP."""

    def setUp(self) -> None:
        """A certificate for the server."""
        super().setUp()
        self.issued = self_signed()

    def server_endpoint(self) -> Any:
        """A free port."""
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(self.issued.key),
            certificate=X509.from_cryptography(self.issued.certificate),
        )
        return SSL4ServerEndpoint(self.reactor, 0, options, interface="127.0.0.1")

    def client_endpoint(self, port: Any) -> Any:
        """That port."""
        certificate = Certificate(X509.from_cryptography(self.issued.certificate))
        return wrapClientTLS(
            optionsForClientTLS(HOST, trustRoot=trustRootFromCertificates([certificate])),
            TCP4ClientEndpoint(self.reactor, "127.0.0.1", port.getHost().port),
        )


# --- the table ----------------------------------------------------------------------------------

MEMORY, TCP, UNIX, TLS = MemoryContract, TCPContract, UNIXContract, TLSContract

#: Of lower layers, what comes last may be changed when the upper ones have verified everything; of
#: one TLS connection, the minor version of the first record (RFC 8446, section 5.1). The steps are
#: prime and keep the time short; each single byte was tried once.
LOWER = {"strict": False, "flip_step": 31}

#: Name; what lies on it, from the bottom to the top; what is below, with what is special there.
TABLE: list[tuple[str, tuple[Callable[[], Any], ...], dict[Any, dict[str, Any]]]] = [
    ("Stream", (stream,), {MEMORY: {}, TCP: {}, UNIX: {}, TLS: {}}),
    ("PlainStream", (plain_stream,), {TCP: {}, UNIX: {}}),
    ("Tunnel", (tunnel,), {MEMORY: {}, TCP: {}, UNIX: {}, TLS: {}}),
    (
        "PinnedTLS",
        (tls,),
        {MEMORY: {"strict": False, "flip_step": 37}, TCP: {}, UNIX: {}, TLS: {}},
    ),
    ("StreamOnStream", (stream, stream), {MEMORY: LOWER, TCP: {}, UNIX: {}}),
    ("StreamOnTLS", (tls, stream), {MEMORY: {**LOWER, "flip_step": 97}, TCP: {}}),
    ("TLSOnStream", (stream, tls), {MEMORY: {**LOWER, "flip_step": 97}, TCP: {}}),
    ("TunnelOnTLS", (tls, tunnel), {MEMORY: {**LOWER, "flip_step": 97}, TCP: {}}),
    ("TLSOnTLS", (tls, tls), {MEMORY: {**LOWER, "flip_step": 131}}),
    ("StreamOnTunnelOnStream", (stream, tunnel, stream), {MEMORY: LOWER, TCP: {}, UNIX: {}}),
    ("StreamOnTunnelOnTLS", (tls, tunnel, stream), {MEMORY: {**LOWER, "flip_step": 131}, UNIX: {}}),
    ("Plain", (plain,), {MEMORY: {}, TCP: {}}),
    ("Framed", (framed,), {MEMORY: {}, TCP: {}}),
    ("Mixed", (plain, tunnel, framed, stream), {MEMORY: LOWER, TCP: {}}),
]

#: What layers without a cipher, or without an end, cannot promise; and their bulk, which is slow.
WITHOUT: dict[str, dict[str, Any]] = {
    "Plain": {"authenticated_end": False, "cipher": False, "handshake": False},
    "Framed": {"cipher": False, "bulk": 1_000_000},
    "Mixed": {"bulk": 1_000_000},
}

for _name, _parts, _below in TABLE:
    for _contract, _special in _below.items():
        _test = f"{_name}Over{_contract.__name__.removesuffix('Contract')}Tests"
        globals()[_test] = type(
            _test,
            (OurStack, _contract, TestCase),
            {"parts": _parts, "__module__": __name__, **WITHOUT.get(_name, {}), **_special},
        )
del _test, _name, _parts, _below, _contract, _special
