"""Tests of :mod:`cloudconnect.transports.nodes`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import CertificateUntrusted, HostnameMismatch, UsageError
from cloudconnect.transports.nodes import NodeName, NodeTrust, node_named_in
from cloudconnect.transports.trust import Problem, Verdict
from tests.certificates import self_signed

URI = "cloudconnect:target-mover/m1"


class NameTests(SynchronousTestCase):
    """How a node is called."""

    def test_round_trip(self) -> None:
        """A name stands in a URI, and is read from it."""
        node = NodeName("target-mover", "m1")
        self.assertEqual((URI, "target-mover/m1"), (node.uri, str(node)))
        self.assertEqual(node, NodeName.parse(URI))

    def test_no_name(self) -> None:
        """Anything else is refused."""
        for uri in (
            "",
            "cloudconnect:",
            "cloudconnect:mover",
            "cloudconnect:mover/",
            "cloudconnect:/m1",
            "cloudconnect:mover/m1/x",
            "cloudconnect:Mover/m1",
            "CLOUDCONNECT:mover/m1",
            "https://mover/m1",
            "mover/m1",
            "cloudconnect:mover/" + "m" * 65,
            "cloudconnect:mover/m1\n",
        ):
            self.assertRaises(UsageError, NodeName.parse, uri)

    def test_named_in(self) -> None:
        """A certificate is for one node."""
        certificate = self_signed((), uris=[URI]).certificate
        self.assertEqual(NodeName("target-mover", "m1"), node_named_in(certificate))
        for names in ({"uris": []}, {"uris": [URI, "cloudconnect:gateway/g1"]}, {"uris": ["x:y"]}):
            issued = self_signed((), **names)
            error = self.assertRaises(CertificateUntrusted, node_named_in, issued.certificate)
            self.assertEqual(issued.spki, error.presented)


class TrustTests(SynchronousTestCase):
    """Who is trusted."""

    def setUp(self) -> None:
        self.issued = self_signed((), uris=[URI])

    def judge(self, *problems: Problem, **parts: Any) -> Verdict:
        trust = NodeTrust(**{"ca_file": "ca.pem", "roles": ["target-mover"], **parts})
        return trust.judge(self.issued.certificate, problems)

    def test_trusted(self) -> None:
        """A node of one of the roles, with any name or the right one."""
        verdict = Verdict("ca", "target-mover", "m1")
        self.assertEqual(verdict, self.judge())
        self.assertEqual(verdict, self.judge(roles="target-mover", name="m1"))
        self.assertEqual(verdict, self.judge(roles=["gateway", "target-mover"]))

    def test_another(self) -> None:
        """Another role or name is another node's."""
        for parts in ({"roles": ["gateway"]}, {"name": "m2"}, {"name": ""}):
            error = self.assertRaises(HostnameMismatch, self.judge, **parts)
            self.assertIn("target-mover/m1", str(error))
            self.assertEqual(self.issued.spki, error.presented)

    def test_chain(self) -> None:
        """No problem with the chain is overlooked."""
        for code in (10, 18, 20, 26, 999):
            self.assertRaises(CertificateUntrusted, self.judge, Problem(code, 0))
        self.assertRaises(CertificateUntrusted, self.judge, Problem(10, 1))

    def test_no_role(self) -> None:
        """A link that trusts no role is refused where it is made."""
        self.assertRaises(UsageError, NodeTrust, "ca.pem", [])
