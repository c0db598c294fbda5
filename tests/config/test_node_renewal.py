"""Tests of :mod:`cloudconnect.config.node_renewal`: certificates of nodes, over the years."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.certificates import DAYS_MAX, load_certificate
from cloudconnect.config.node_certificates import (
    AUTHORITY_DAYS,
    issue_node_certificate,
    make_node_ca,
    sign_node_request,
)
from cloudconnect.config.node_renewal import NEXT, adopt_next, is_due, keep_own, node_in, renew
from cloudconnect.errors import NotReachable, UsageError
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeName

DAY = 86400.0
NODE = NodeName("mover", "one")


class NodeCase(SynchronousTestCase):
    """A test with an authority and a node."""

    def setUp(self) -> None:
        self.authority, self.node = Path(self.mktemp()), Path(self.mktemp())
        self.authority.mkdir()
        self.node.mkdir()
        make_node_ca(self.authority)
        issue_node_certificate(self.authority, NODE.name, NODE.role, self.node)

    def identity(self) -> ServerIdentity:
        return ServerIdentity(str(self.node / "certificate.pem"), str(self.node / "key.pem"))

    def pin(self) -> str:
        """The key that the node shows; certificate and key are a pair."""
        self.identity().install(SSL.Context(SSL.TLS_METHOD))
        return self.identity().fingerprints()[0]

    def issued_by_authority(self) -> None:
        """Who trusts the authority as it is now trusts what the node shows."""
        certificate = load_certificate(self.node / "certificate.pem")
        authority = load_certificate(self.authority / "ca.pem")
        certificate.verify_directly_issued_by(authority)


class DueTests(NodeCase):
    """When it is time."""

    def test_two_thirds(self) -> None:
        """When two thirds of its life are over, and not before."""
        certificate = load_certificate(self.node / "certificate.pem")
        now = time.time()
        self.assertFalse(is_due(certificate, now))
        self.assertFalse(is_due(certificate, now + (DAYS_MAX * 2 / 3 - 1) * DAY))
        self.assertTrue(is_due(certificate, now + (DAYS_MAX * 2 / 3 + 1) * DAY))

    def test_which(self) -> None:
        """Which node it is stands in its certificate; where there is none, that is said."""
        self.assertEqual(NODE, node_in(self.node))
        self.assertRaises(UsageError, node_in, self.authority)


class RenewTests(NodeCase):
    """A node gets its next certificate from the service."""

    def renew(
        self,
        show: Any = None,
        authority: Path | None = None,
        said: Callable[[bytes], bytes] = lambda issuer: issuer,
    ) -> Deferred[x509.Certificate]:
        async def ask(request: bytes) -> tuple[bytes, bytes]:
            where = authority or self.authority
            certificate, issuer, _ = sign_node_request(where, NODE.role, NODE.name, request)
            return certificate, said(issuer)

        async def let_in() -> None:
            if show is not None:
                show()

        return Deferred.fromCoroutine(renew(self.node, ask, let_in))

    def test_renewed(self) -> None:
        """It has another key and certificate then; until the service has let it in it has the old
        ones."""
        before, seen = self.pin(), list[str]()
        made = self.successResultOf(self.renew(lambda: seen.append(self.pin())))
        self.assertEqual([before], seen)
        self.assertNotEqual(before, self.pin())
        self.assertEqual(made, load_certificate(self.node / "certificate.pem"))
        self.assertEqual(0o600, (self.node / "key.pem").stat().st_mode & 0o777)
        self.assertEqual([], list(self.node.glob(f"{NEXT}*")))

    def test_not_let_in(self) -> None:
        """Where the service is away just then all stays as it was, and can be tried again."""
        before = self.pin()

        def away() -> None:
            raise NotReachable("away")

        self.failureResultOf(self.renew(away), NotReachable)
        self.assertEqual(before, self.pin())
        self.successResultOf(self.renew())
        self.assertNotEqual(before, self.pin())

    def test_other_authority(self) -> None:
        """What another authority has issued is not taken."""
        before, other = self.pin(), Path(self.mktemp())
        other.mkdir()
        make_node_ca(other)
        self.failureResultOf(self.renew(authority=other), UsageError)
        self.assertEqual(before, self.pin())
        self.assertFalse(adopt_next(self.node))

    def test_smuggled(self) -> None:
        """Nor is a certificate that the node's own authority has not issued, though that is shown
        beside it, or another authority behind it."""
        before, other = self.pin(), Path(self.mktemp())
        other.mkdir()
        make_node_ca(other)
        ours = (self.node / "ca.pem").read_bytes()
        theirs = (other / "ca.pem").read_bytes()
        self.failureResultOf(self.renew(authority=other, said=lambda _: ours), UsageError)
        self.assertEqual(before, self.pin())
        self.successResultOf(self.renew(said=lambda issuer: issuer + theirs))
        self.assertEqual(ours, (self.node / "ca.pem").read_bytes())

    def test_crashes(self) -> None:
        """A process that dies behind any of its steps finds a pair at its next start: the old one,
        or the next one where that was issued."""
        before = self.pin()

        class Dead(Exception):
            """It dies."""

        def die() -> None:
            raise Dead

        self.failureResultOf(self.renew(die), Dead)
        (self.node / f"{NEXT}key.pem").replace(self.node / "key.pem")  # the first of two renames
        self.assertTrue(adopt_next(self.node))
        after = self.pin()
        self.assertNotEqual(before, after)
        self.failureResultOf(self.renew(die), Dead)
        self.assertTrue(adopt_next(self.node))
        self.assertNotIn(self.pin(), (before, after))
        self.failureResultOf(self.renew(die), Dead)
        now = self.pin()
        (self.node / f"{NEXT}key.pem").write_bytes(b"a key that was not written wholly")
        self.assertFalse(adopt_next(self.node))
        self.assertEqual(now, self.pin())


class OwnTests(NodeCase):
    """Who has the authority itself."""

    def keep(self, days: float = 0.0) -> bool:
        return keep_own(self.authority, self.node, NODE, time.time() + days * DAY)

    def test_certificate(self) -> None:
        """It issues its next certificate when that is due; the authority stays."""
        before, authority = self.pin(), (self.authority / "ca.pem").read_bytes()
        self.assertFalse(self.keep())
        self.assertFalse(self.keep(DAYS_MAX / 2))
        self.assertEqual(before, self.pin())
        self.assertTrue(self.keep(DAYS_MAX * 0.7))
        self.assertNotEqual(before, self.pin())
        self.assertEqual(authority, (self.authority / "ca.pem").read_bytes())

    def test_authority(self) -> None:
        """The authority is made again for its own key: what it issued before is trusted by who has
        the new one, what it issues now by who has the old one."""
        old = load_certificate(self.authority / "ca.pem")
        self.assertTrue(self.keep(AUTHORITY_DAYS * 0.7))
        new = load_certificate(self.authority / "ca.pem")
        self.assertNotEqual(old, new)
        self.assertEqual(old.public_key(), new.public_key())
        self.assertEqual(new, load_certificate(self.node / "ca.pem"))
        self.issued_by_authority()
        load_certificate(self.node / "certificate.pem").verify_directly_issued_by(old)

    def test_mended(self) -> None:
        """A pair that is none any more, as after a crash amid it, is made again."""
        other = Path(self.mktemp())
        other.mkdir()
        issue_node_certificate(self.authority, NODE.name, NODE.role, other)
        (self.node / "key.pem").write_bytes((other / "key.pem").read_bytes())
        self.assertTrue(self.keep())
        self.pin()
        self.issued_by_authority()
