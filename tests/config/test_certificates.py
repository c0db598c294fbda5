"""Tests of :mod:`cloudconnect.config.certificates`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloudconnect.config.certificates import (
    AUTHORITY_DAYS,
    issue_node_certificate,
    make_node_ca,
    make_server_certificate,
)
from cloudconnect.errors import CertificateUntrusted, UsageError
from cloudconnect.transports.nodes import NodeName, NodeTrust, node_named_in
from cloudconnect.transports.tls import MutualTLS, PinnedTLS
from tests.transports.tls_parts import Link, TLSTestCase

HOSTS = ["backup.example.com", "192.0.2.1", "2001:db8::1"]


def mode(path: str | Path) -> int:
    """The permission bits of a file."""
    return os.stat(path).st_mode & 0o777


def days(certificate: x509.Certificate) -> float:
    """How many days it is valid from now."""
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return left / datetime.timedelta(days=1)


class ServerTests(TLSTestCase):
    """A provider's own certificate."""

    def test_files(self) -> None:
        """Two files that only their owner can read, and no others."""
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        os.mkdir(directory := self.mktemp())
        identity = make_server_certificate(HOSTS, directory)
        self.assertEqual(["certificate.pem", "key.pem"], sorted(os.listdir(directory)))
        self.assertEqual(0o600, mode(identity.key_path))
        self.assertEqual(0o600, mode(identity.certificate_path))

    def test_content(self) -> None:
        """ECDSA on P-256, for these hosts and this time, for a server, and no authority."""
        identity = make_server_certificate(["Backup.Example.com", *HOSTS], self.directory, days=30)
        (certificate,) = identity.certificates()
        key = certificate.public_key()
        self.assertIsInstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual("secp256r1", key.curve.name)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(HOSTS, [str(name.value) for name in names])
        self.assertAlmostEqual(30, days(certificate), places=2)
        self.assertLess(certificate.not_valid_before_utc, datetime.datetime.now(datetime.UTC))
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        self.assertEqual((False, True), (basic.value.ca, basic.critical))

    def test_works(self) -> None:
        """Tenants may know it by either fingerprint, by file, or by both; each host works."""
        identity = make_server_certificate(HOSTS, self.directory)
        spki, whole = identity.fingerprints()
        path = identity.certificate_path
        for host in HOSTS:
            for parts in (
                {"fingerprints": [spki]},
                {"fingerprints": [whole]},
                {"ca_file": path},
                {"ca_file": path, "fingerprints": [spki]},
            ):
                self.assert_works(Link(self.trusting(host, **parts), PinnedTLS(identity=identity)))
        stranger = Link(self.by_ca(), PinnedTLS(identity=identity))
        self.assert_refuses(stranger, CertificateUntrusted)

    def test_renewal(self) -> None:
        """With the same key the SPKI fingerprint stays; a new certificate has a new key."""
        first = make_server_certificate(HOSTS, self.directory).fingerprints()
        second = make_server_certificate(HOSTS, self.directory, keep_key=True).fingerprints()
        third = make_server_certificate(HOSTS, self.directory).fingerprints()
        self.assertEqual(first[0], second[0])
        self.assertEqual(3, len({first[1], second[1], third[1]}))
        self.assertNotEqual(second[0], third[0])

    def test_refused(self) -> None:
        """No host, strange hosts, a time that no client accepts, and no key to keep."""
        for hosts, parts in (
            ([], {}),
            (["*.example.com"], {}),
            (["a b"], {}),
            (HOSTS, {"days": 0}),
            (HOSTS, {"days": 826}),
            (HOSTS, {"keep_key": True}),
        ):
            os.mkdir(directory := self.mktemp())
            self.assertRaises(UsageError, make_server_certificate, hosts, directory, **parts)
            self.assertEqual([], os.listdir(directory))

    def test_keep_strange_key(self) -> None:
        """A key of another kind, or something else, is not kept and not overwritten."""
        key = rsa.generate_private_key(65537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = Path(self.directory, "key.pem")
        for content in (pem, b"nothing"):
            path.write_bytes(content)
            error = self.assertRaises(
                UsageError, make_server_certificate, HOSTS, self.directory, keep_key=True
            )
            self.assertNotIn("PRIVATE", str(error))
            self.assertEqual(content, path.read_bytes())

    def test_failed_write(self) -> None:
        """Where a file cannot be put in place, nothing half is left behind."""
        os.mkdir(directory := self.mktemp())
        os.mkdir(f"{directory}/key.pem")
        self.assertRaises(OSError, make_server_certificate, HOSTS, directory)
        self.assertEqual(["key.pem"], os.listdir(directory))


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
