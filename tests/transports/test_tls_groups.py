"""Tests of :mod:`cloudconnect.transports.tls_groups`."""

from __future__ import annotations

from typing import Any

import attrs
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation, ProviderNotTrusted
from cloudconnect.transports import tls, tls_layer
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.tls_groups import HYBRID, is_allowed
from cloudconnect.transports.trust import TrustPolicy
from tests.certificates import HOST, self_signed
from tests.transports.tls_parts import Link


@attrs.frozen
class Only(PinnedTLS):
    """One end that does one curve, and no other."""

    curve: Any = attrs.field(kw_only=True)

    def _context(self, is_client: bool) -> SSL.Context:
        context = super()._context(is_client)
        context.set_tmp_ecdh(self.curve)
        return context


class AllowedTests(SynchronousTestCase):
    """Names of key exchanges."""

    def test_names(self) -> None:
        """The hybrid one, X25519 and two curves by any of their names; where none is told, any."""
        for name in (HYBRID, "x25519", "secp256r1", "prime256v1", "P-384", ""):
            self.assertTrue(is_allowed(name), name)
        for name in ("X448", "secp521r1", "ffdhe2048", "brainpoolP256r1tls13"):
            self.assertFalse(is_allowed(name), name)


class GroupTests(SynchronousTestCase):
    """Key exchanges between two ends."""

    def setUp(self) -> None:
        issued = self_signed()
        self.trust = TrustPolicy(HOST, fingerprints=(issued.spki,))
        self.identity = issued.write(self.mktemp())
        self.client = PinnedTLS(trust=self.trust)
        self.server = PinnedTLS(identity=self.identity)

    def test_hybrid(self) -> None:
        """Between two of ours it is the hybrid one, wherever OpenSSL has it."""
        link = Link(self.client, self.server).pump()
        hybrid = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000
        self.assertEqual(HYBRID if hybrid else "x25519", link.client.facts.group)
        self.assertEqual(link.client.facts.group, link.server.facts.group)

    def test_allowed(self) -> None:
        """A peer that can do less than the hybrid one is served."""
        link = Link(Only(trust=self.trust, curve=ec.SECP384R1()), self.server).pump()
        self.assertEqual("secp384r1", link.server.facts.group)
        self.assertEqual((1, 1), (link.client_app.handshakes, link.server_app.handshakes))

    def test_not_offered(self) -> None:
        """A peer that insists on another curve gets no handshake, whichever end it is."""
        link = Link(self.client, Only(identity=self.identity, curve=ec.SECP521R1())).pump()
        self.assertIsInstance(link.client_app.reason, ProviderNotTrusted)
        self.assertEqual(0, link.client_app.handshakes)
        link = Link(Only(trust=self.trust, curve=ec.SECP521R1()), self.server).pump()
        self.assertEqual((0, b""), (link.server_app.handshakes, link.server_app.data))

    def test_looked_at(self) -> None:
        """Where the list could not be said, what came out is looked at before anything is sent."""
        self.patch(tls, "offer_groups", lambda context: context.set_tmp_ecdh(ec.SECP521R1()))
        link = Link(self.client, self.server).pump()
        self.assertIsInstance(link.client_app.reason, ProtocolViolation)
        self.assertEqual(b"", link.server_app.data)
        self.patch(tls_layer, "is_allowed", lambda group: True)
        link = Link(self.client, self.server).pump()
        self.assertNotEqual(b"", link.server_app.data)
