"""Tests of :mod:`cloudconnect.provider.nodes.enrolment`, and of what is said on the line for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import connectProtocol

from cloudconnect.commands.enrolling import NodeInvitation, enroll_node
from cloudconnect.config.node_certificates import make_node_ca, make_node_request, sign_node_request
from cloudconnect.errors import CertificateUntrusted, NotFound, Refused, UsageError
from cloudconnect.keys import EnrollmentToken
from cloudconnect.provider.nodes.enrolment import EnrolmentTarget
from cloudconnect.testing import Recorder
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.switch import FirstBytesFactory
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.provider.stage import StageCase

SPKI = "SPKI-SHA256:" + "0" * 64


class EnrolmentCase(StageCase):
    """A test with an authority and a LAN port in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.accounts = self.provider.accounts
        self.authority = Path(self.mktemp())
        self.authority.mkdir()
        make_node_ca(self.authority)
        self.enrolled: list[tuple[str, str]] = []
        target = EnrolmentTarget(
            self.reactor,
            self.accounts,
            maybeDeferred,
            lambda role, name, request: sign_node_request(self.authority, role, name, request),
            lambda role, name: self.enrolled.append((role, name)),
        )
        self.lan = MemoryEndpoint(self.reactor, "LAN")
        self.lan.listen(FirstBytesFactory(lambda route: target, None, self.reactor))
        self.node = Path(self.mktemp())
        self.node.mkdir()
        self.request = make_node_request(self.node, "mover", "one")

    def invite(self, name: str = "one", seconds: float = 60.0) -> NodeInvitation:
        token = self.accounts.invite_node("mover", name, seconds)
        return NodeInvitation("mover", name, "h:1", token.identifier, token.secret)

    def ask(self, invitation: NodeInvitation, request: bytes | None = None) -> Deferred[Any]:
        asking = enroll_node(self.reactor, self.lan, invitation, request or self.request)
        asked = Deferred.fromCoroutine(asking)
        self.reactor.settle()
        return asked


class EnrolmentTests(EnrolmentCase):
    """A token, and what it gives."""

    def test_certificate(self) -> None:
        """A node gets a certificate of its role and name for its own key, and is let in with that
        and no other, also after it was removed and enrolled again."""
        certificate, _ = self.successResultOf(self.ask(self.invite()))
        self.assertIn(b"BEGIN CERTIFICATE", certificate)
        self.assertEqual([("mover", "one")], self.enrolled)
        (row,) = self.accounts.nodes()
        self.assertFalse(self.accounts.admit_node("mover", "one", row["spki"]).leaving)
        self.assertRaises(Refused, self.accounts.admit_node, "mover", "one", SPKI)
        self.assertRaises(UsageError, self.accounts.invite_node, "mover", "one", 60)
        self.accounts.revoke_node("mover", "one")
        self.assertRaises(Refused, self.accounts.admit_node, "mover", "one", row["spki"])
        self.assertRaises(UsageError, self.accounts.note_node, "mover", "one", SPKI)
        again = make_node_request(self.node, "mover", "one")
        self.successResultOf(self.ask(self.invite(), again))
        self.assertRaises(Refused, self.accounts.admit_node, "mover", "one", row["spki"])

    def test_once(self) -> None:
        """A token is spent by its first use, and by another token for the same node; one whose time
        is over is worth nothing, nor is one that was taken back."""
        invitation = self.invite()
        secret = invitation.secret.reveal()
        self.successResultOf(self.ask(invitation))
        copy = NodeInvitation(*invitation_parts(invitation), EnrollmentToken(secret))
        self.failureResultOf(self.ask(copy), Refused)
        first = self.invite("two")
        self.invite("two")
        self.failureResultOf(self.ask(first), Refused)
        self.failureResultOf(self.ask(self.invite("three", -1.0)), Refused)
        taken = self.invite("four")
        self.accounts.revoke_node("mover", "four")
        self.failureResultOf(self.ask(taken), Refused)
        self.assertEqual(1, len(self.enrolled))

    def test_stranger(self) -> None:
        """Who knows what names a token, and not its secret, gets nothing and does not spend it; nor
        does who means it for another role."""
        invitation = self.invite()
        for role, secret in (("mover", b"x" * 32), ("gateway", invitation.secret.reveal())):
            stranger = NodeInvitation(
                role, "one", "h:1", invitation.identifier, EnrollmentToken(secret)
            )
            self.failureResultOf(self.ask(stranger), CertificateUntrusted, Refused)
        self.assertEqual([], self.enrolled)
        self.successResultOf(self.ask(invitation))

    def test_bad_request(self) -> None:
        """A request that is none is refused, and the token stays good."""
        invitation = self.invite()
        secret = invitation.secret.reveal()
        for request in (b"nonsense", self.request[:-1] + b"\0"):
            copy = NodeInvitation(*invitation_parts(invitation), EnrollmentToken(secret))
            self.failureResultOf(self.ask(copy, request), Refused)
        self.successResultOf(self.ask(invitation))

    def test_stream(self) -> None:
        """What is no tunnel is cut off."""
        opened = Recorder()
        opened.greeting = Preamble(ConnectionKind.KEY_B_STREAM, b"r" * 16).encode()
        connectProtocol(self.lan, opened)
        self.reactor.settle()
        self.assertIsNotNone(opened.reason)

    def test_text(self) -> None:
        """An invitation survives its text, whose secret is in no repr; anything else is refused."""
        invitation = self.invite()
        text = invitation.to_text()
        again = NodeInvitation.from_text(f" {text}\n")
        self.assertEqual(invitation.secret, again.secret)
        self.assertEqual(invitation_parts(invitation), invitation_parts(again))
        self.assertNotIn(invitation.secret.reveal().hex(), repr(invitation))
        for wrong in (
            "",
            text[:-4],
            text.replace(":", "!"),
            text + "A" * 1024,
            "cloudconnect-node-1:AA==",
        ):
            self.assertRaises(UsageError, NodeInvitation.from_text, wrong)


class RecordTests(EnrolmentCase):
    """What is known of nodes."""

    def test_older(self) -> None:
        """A node that an older release has enrolled is noted when it comes, and then it is known
        by this certificate."""
        self.assertFalse(self.accounts.admit_node("gateway", "edge", SPKI).leaving)
        self.assertRaises(Refused, self.accounts.admit_node, "gateway", "edge", SPKI[:-1] + "1")
        self.accounts.note_node("gateway", "edge", SPKI[:-1] + "1")
        self.accounts.admit_node("gateway", "edge", SPKI[:-1] + "1")

    def test_leaving(self) -> None:
        """That a node is drained outlives everything; a node that is not there cannot be."""
        self.accounts.note_node("mover", "one", SPKI)
        self.accounts.change_node("mover", "one", True)
        self.assertTrue(self.accounts.admit_node("mover", "one", SPKI).leaving)
        self.assertRaises(NotFound, self.accounts.change_node, "mover", "two", True)
        self.assertRaises(NotFound, self.accounts.revoke_node, "gateway", "one")


def invitation_parts(invitation: NodeInvitation) -> tuple[str, str, str, bytes]:
    """All of it but the secret."""
    return invitation.role, invitation.name, invitation.service, invitation.identifier
