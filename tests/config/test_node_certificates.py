"""Tests of :mod:`cloudconnect.config.node_certificates`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography import x509

from cloudconnect.config.node_certificates import (
    AUTHORITY_DAYS,
    issue_node_certificate,
    make_node_ca,
)
from cloudconnect.errors import UsageError
from cloudconnect.transports.nodes import NodeName, NodeTrust, node_named_in
from cloudconnect.transports.tls import MutualTLS
from tests.config.test_certificates import days, mode
from tests.transports.tls_parts import Link, TLSTestCase


class NodeTests(TLSTestCase):
    """The certificates of a LAN."""

    def setUp(self) -> None:
        super().setUp()
        self.ca_directory = self.mktemp()
        os.mkdir(self.ca_directory)
        self.ca_path = make_node_ca(self.ca_directory)

    def node(self, role: str, name: str, *trusted: str) -> MutualTLS:
        """A node with a directory of its own that trusts these roles."""
        os.mkdir(directory := self.mktemp())
        identity = issue_node_certificate(self.ca_directory, name, role, directory)
        return MutualTLS(NodeTrust(f"{directory}/ca.pem", trusted), identity)

    def test_authority(self) -> None:
        """It may issue certificates for nodes and for no other authority; its key is private."""
        self.assertEqual(["ca-key.pem", "ca.pem"], sorted(os.listdir(self.ca_directory)))
        self.assertEqual(0o600, mode(f"{self.ca_directory}/ca-key.pem"))
        certificate = x509.load_pem_x509_certificate(self.ca_path.read_bytes())
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        self.assertEqual((True, 0), (basic.ca, basic.path_length))
        self.assertAlmostEqual(AUTHORITY_DAYS, days(certificate), places=2)

    def test_authority_stays(self) -> None:
        """A second one does not replace the first."""
        before = self.ca_path.read_bytes()
        self.assertRaises(FileExistsError, make_node_ca, self.ca_directory)
        self.assertEqual(before, self.ca_path.read_bytes())

    def test_node(self) -> None:
        """A node has its name in the certificate, a key of its own, and a copy of the authority."""
        recipe = self.node("gateway", "g1", "service")
        directory = os.path.dirname(recipe.identity.key_path)
        self.assertEqual(["ca.pem", "certificate.pem", "key.pem"], sorted(os.listdir(directory)))
        self.assertEqual(0o600, mode(recipe.identity.key_path))
        self.assertEqual(self.ca_path.read_bytes(), Path(directory, "ca.pem").read_bytes())
        (certificate,) = recipe.identity.certificates()
        self.assertEqual(NodeName("gateway", "g1"), node_named_in(certificate))

    def test_works(self) -> None:
        """Nodes of one authority trust each other, as far as their roles go."""
        gateway = self.node("gateway", "g1", "service")
        facts = self.assert_works(Link(self.node("service", "main", "gateway"), gateway))
        self.assertEqual(("gateway", "g1"), (facts.peer_role, facts.peer_name))
        link = Link(self.node("target-mover", "m1", "gateway"), gateway).pump()
        self.assertEqual((0, b""), (link.server_app.handshakes, link.server_app.data))

    def test_refused(self) -> None:
        """Strange names, a strange time, no authority."""
        for arguments in (
            (self.ca_directory, "g 1", "gateway"),
            (self.ca_directory, "g1", "gate/way"),
            (f"{self.directory}/none", "g1", "gateway"),
        ):
            self.assertRaises(UsageError, issue_node_certificate, *arguments, self.directory)
        for number in (0, 826):
            self.assertRaises(
                UsageError,
                issue_node_certificate,
                self.ca_directory,
                "g",
                "r",
                self.directory,
                number,
            )
