"""Layer 2, transports: the recipes for TLS 1.3.

:class:`PinnedTLS` is the control channel: the server shows a certificate, the client judges it by a
:class:`~cloudconnect.transports.trust.TrustPolicy`, and may show one of its own.
:class:`MutualTLS` is the LAN link: both show certificates of one's own authority, which name nodes.
Both are TLS 1.3 and nothing else, with TLS_AES_256_GCM_SHA384, one application protocol (ALPN) that
must be common, no resumption and no early data (``docs/protocol.rst``, section 2).

The key exchange is X25519MLKEM768 where OpenSSL has it (since version 3.5), or else one of a few
curves (:mod:`~cloudconnect.transports.tls_groups`). What came out of it stands in
:attr:`TLSFacts.group <cloudconnect.transports.tls_layer.TLSFacts.group>`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs
from OpenSSL import SSL
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime

from cloudconnect.errors import UsageError
from cloudconnect.settings import HANDSHAKE_SECONDS
from cloudconnect.shown import Shown
from cloudconnect.transports.hosts import is_address
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeTrust
from cloudconnect.transports.recipe import LayerFactory, Recipe
from cloudconnect.transports.tls_groups import offer_groups
from cloudconnect.transports.tls_layer import CIPHER_SUITE, NoCommonProtocol, TLSLayer
from cloudconnect.transports.trust import AnyClient, Policy, TrustPolicy
from cloudconnect.transports.verification import Verification

#: Application protocol of the control channel ...
CONTROL_ALPN: Final = "cloudconnect/1"
#: ... and of the LAN link: what is meant for the one never speaks with the other.
LAN_ALPN: Final = "cloudconnect-lan/1"
#: How many authorities the server follows above a client's certificate, where none counts: each
#: would cost a check of a signature, and a stranger could send a hundred.
_CLIENT_CHAIN: Final = 0
#: ... and between nodes, whose small authority most often issues their certificates itself.
_NODE_CHAIN: Final = 4
#: OpenSSL's SSL_MODE_NO_AUTO_CHAIN, which pyOpenSSL has no name for: a certificate goes out without
#: what looks like its issuer among the authorities that the other side is judged by.
_NO_AUTO_CHAIN: Final = 0x00000008


class TLSServerFactory(LayerFactory):
    """A :class:`~cloudconnect.transports.recipe.LayerFactory` that can take a renewed certificate.

    :param factory: builds the protocols above
    :param make_context: reads the files
    :param make: makes a layer from a context and the protocol above
    :param name: what the log calls the layer
    """

    def __init__(
        self,
        factory: IProtocolFactory,
        make_context: Callable[[], SSL.Context],
        make: Callable[[SSL.Context, IProtocol], TLSLayer],
        name: str,
    ) -> None:
        super().__init__(factory, lambda protocol: make(self._context, protocol), name)
        self._make_context = make_context
        self._context = make_context()

    def reload(self, recipe: _TLSRecipe | None = None) -> None:
        """Read certificate, key and authorities again, for the connections from now on.

        :param recipe: one that names other files; None: those that it had
        :raises UsageError: they cannot be used; the old ones stay
        """
        make = self._make_context if recipe is None else partial(recipe._context, False)
        self._context = make()
        self._make_context = make


class _TLSRecipe(Recipe, Shown):
    """What both recipes have in common: one context serves many connections."""

    name = TLSLayer.name
    alpn: str
    handshake_seconds: float

    def _context(self, is_client: bool) -> SSL.Context:
        """Read the files."""
        raise NotImplementedError

    def _judge(self, is_client: bool) -> TrustPolicy | NodeTrust | AnyClient | None:
        """Who judges the peer; None where it shows no certificate."""
        raise NotImplementedError

    def layer(self, initiator: bool, protocol: IProtocol, clock: IReactorTime) -> TLSLayer:
        """A new layer around ``protocol``. Reads the files: for many, use one of the factories.

        :raises UsageError: a file cannot be used, or this side was left out of the recipe
        """
        return self._make(initiator, self._context(initiator), protocol, clock)

    def client_factory(self, factory: IProtocolFactory, reactor: IReactorTime) -> LayerFactory:
        """Wrap ``factory`` for connections that we open.

        :raises UsageError: a file cannot be used, or this side was left out of the recipe
        """
        context = self._context(True)
        return LayerFactory(factory, lambda p: self._make(True, context, p, reactor), self.name)

    def server_factory(self, factory: IProtocolFactory, reactor: IReactorTime) -> TLSServerFactory:
        """Wrap ``factory`` for connections that we accept.

        :raises UsageError: a file cannot be used, or this side was left out of the recipe
        """
        return TLSServerFactory(
            factory,
            lambda: self._context(False),
            lambda context, p: self._make(False, context, p, reactor),
            self.name,
        )

    def _make(
        self, is_client: bool, context: SSL.Context, protocol: IProtocol, clock: IReactorTime
    ) -> TLSLayer:
        connection = SSL.Connection(context, None)
        judge = self._judge(is_client)
        verification = None
        if judge is not None:
            demanded = not isinstance(judge, AnyClient)
            verification = Verification(judge, demanded)
            mode = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if demanded else 0
            connection.set_verify(SSL.VERIFY_PEER | mode, verification.step)
        if isinstance(judge, TrustPolicy) and not is_address(judge.host):
            connection.set_tlsext_host_name(judge.host.encode("ascii"))
        layer = TLSLayer(protocol, clock, connection, is_client, verification, self.alpn)
        layer.handshake_seconds = self.handshake_seconds
        return layer


@attrs.frozen(repr=False)
class PinnedTLS(_TLSRecipe):
    """TLS 1.3 in which the server shows a certificate and the client judges it.

    :ivar trust: how the client judges; a server can do without
    :ivar identity: what the server shows; a client can do without, or shows its own here where it
        is asked for one
    :ivar asking: the server asks for the client's certificate, and goes on without one; whose it is
        must be judged above, by :attr:`TLSFacts.peer_spki
        <cloudconnect.transports.tls_layer.TLSFacts.peer_spki>` and the certificate's time
    :ivar alpn: the application protocol that both must speak
    :ivar handshake_seconds: the handshake must be over by then
    """

    trust: TrustPolicy | None = None
    identity: ServerIdentity | None = None
    alpn: str = CONTROL_ALPN
    handshake_seconds: float = HANDSHAKE_SECONDS
    asking: bool = False

    def _context(self, is_client: bool) -> SSL.Context:
        if is_client:
            if self.trust is None:
                raise UsageError("a TLS client needs to be told whom it trusts")
            context = client_context(self.alpn)
            if self.identity is not None:
                self.identity.install(context, chained=False)  # it is known by its key
                context.set_mode(_NO_AUTO_CHAIN)
            if self.trust.policy is not Policy.PIN:
                load_authorities(context, self.trust.ca_file)
            return context
        if self.identity is None:
            raise UsageError("a TLS server needs a certificate and its key")
        context = server_context(self.alpn)
        self.identity.install(context)
        if self.asking:
            context.set_verify_depth(_CLIENT_CHAIN)
        return context

    def _judge(self, is_client: bool) -> TrustPolicy | AnyClient | None:
        if is_client:
            return self.trust
        return AnyClient() if self.asking else None


@attrs.frozen(repr=False)
class MutualTLS(_TLSRecipe):
    """TLS 1.3 between nodes of one LAN: each shows a certificate of the authority that both trust.

    :ivar trust: which nodes may be at the other end
    :ivar identity: what this node shows
    :ivar alpn: the application protocol that both must speak
    :ivar handshake_seconds: the handshake must be over by then
    """

    trust: NodeTrust
    identity: ServerIdentity
    alpn: str = LAN_ALPN
    handshake_seconds: float = HANDSHAKE_SECONDS

    def _context(self, is_client: bool) -> SSL.Context:
        context = client_context(self.alpn) if is_client else server_context(self.alpn)
        context.set_verify_depth(_NODE_CHAIN)
        load_authorities(context, self.trust.ca_file)
        self.identity.install(context)
        return context

    def _judge(self, is_client: bool) -> NodeTrust:
        return self.trust


def client_context(alpn: str) -> SSL.Context:
    """OpenSSL's context for a client that offers ``alpn``; it trusts nobody yet."""
    context = _context()
    context.set_alpn_protos([alpn.encode("ascii")])
    return context


def server_context(alpn: str) -> SSL.Context:
    """OpenSSL's context for a server that speaks ``alpn`` only; it has no certificate yet.

    :param alpn: the application protocol; a client that offers another one is refused by an
        alert
    """
    ours = alpn.encode("ascii")

    def choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
        if ours not in offered:
            raise NoCommonProtocol
        return ours

    context = _context()
    context.set_alpn_select_callback(choose)
    return context


def load_authorities(context: SSL.Context, ca_file: str | None) -> None:
    """Have ``context`` trust the authorities in a PEM file, or the system's.

    :param ca_file: its path, or None for the system's
    :raises UsageError: the file cannot be used
    """
    if ca_file is None:
        context.set_default_verify_paths()
        return
    try:
        context.load_verify_locations(ca_file)
    except SSL.Error as error:
        raise UsageError(
            f"{ca_file} does not hold certificates in PEM, or cannot be read"
        ) from error


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHER_SUITE.encode("ascii"))
    offer_groups(context)
    # Either of the two alone would still let a client resume.
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"cloudconnect")
    return context
