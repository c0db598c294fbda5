"""Tests of :mod:`cloudconnect.config.certificates`."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloudconnect.config.certificates import make_server_certificate
from cloudconnect.errors import CertificateUntrusted, UsageError
from cloudconnect.transports.tls import PinnedTLS
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
