"""Tests of :mod:`cloudconnect.config.renewal`: a provider's certificate over the years."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.endings import endings
from cloudconnect.config.provider import CONFIGURATION, initialize, load
from cloudconnect.config.renewal import (
    import_certificate,
    next_key_path,
    next_pin,
    next_request,
    prepare_next,
    renew,
    shown,
)
from cloudconnect.errors import NotFound, UsageError
from tests.certificates import self_signed


class RenewalCase(SynchronousTestCase):
    """A test with a provider's directory."""

    def setUp(self) -> None:
        self.settings = initialize(Path(self.mktemp()), ("a.example.com", "192.0.2.1"))

    def pin(self) -> str:
        return self.settings.identity.fingerprints()[0]

    def assert_usable(self) -> None:
        """Certificate and key belong together."""
        self.settings.identity.install(SSL.Context(SSL.TLS_METHOD))


class RenewTests(RenewalCase):
    """A self-signed one."""

    def test_same_key(self) -> None:
        """A renewal keeps the key, and so the pin that tenants check."""
        before = self.settings.identity.fingerprints()
        made = renew(self.settings, 100)
        self.assertEqual(before[0], made.spki)
        self.assertNotEqual(before[1], made.fingerprint)
        self.assertEqual("a.example.com, 192.0.2.1", made.names)
        self.assert_usable()

    def test_next(self) -> None:
        """The next key is announced first, then used; the old pair stays beside it."""
        self.assertRaises(NotFound, renew, self.settings, 100, True)
        before, pin = self.pin(), prepare_next(self.settings)
        self.assertEqual((pin, pin), (next_pin(self.settings), prepare_next(self.settings)))
        self.assertNotEqual(before, pin)
        self.assertEqual(0o600, next_key_path(self.settings).stat().st_mode & 0o777)
        made = renew(self.settings, 100, True)
        self.assertEqual((pin, pin), (made.spki, self.pin()))
        self.assertIsNone(next_pin(self.settings))
        self.assert_usable()
        tls = self.settings.directory / "tls"
        old = x509.load_pem_x509_certificate((tls / "previous-certificate.pem").read_bytes())
        self.assertEqual(before, shown(old).spki)
        self.assertEqual([], list(self.settings.directory.glob(".tls-*")))

    def test_elsewhere(self) -> None:
        """A certificate that lies elsewhere is somebody else's to renew."""
        files = self_signed(("a.example.com",)).write(Path(self.mktemp()))
        path = self.settings.directory / CONFIGURATION
        text = path.read_text().replace("tls/certificate.pem", files.certificate_path)
        path.write_text(text.replace("tls/key.pem", files.key_path))
        self.assertRaises(UsageError, renew, load(self.settings.directory), 100)


class ImportTests(RenewalCase):
    """Another one."""

    def setUp(self) -> None:
        super().setUp()
        self.issued = self_signed(("a.example.com",))
        self.files = self.issued.write(Path(self.mktemp()))
        self.certificate = Path(self.files.certificate_path)
        self.key = Path(self.files.key_path)

    def test_unannounced(self) -> None:
        """A key that tenants were not told of would shut them out: only by force."""
        self.assertRaises(UsageError, import_certificate, self.settings, self.certificate, self.key)
        self.assertNotEqual(self.issued.spki, self.pin())
        import_certificate(self.settings, self.certificate, self.key, force=True)
        self.assertEqual(self.issued.spki, self.pin())
        self.assert_usable()

    def test_announced(self) -> None:
        """A key of one's own is announced, and its certificate then needs no key file."""
        self.assertEqual(self.issued.spki, prepare_next(self.settings, self.key))
        import_certificate(self.settings, self.certificate, None)
        self.assertEqual(self.issued.spki, self.pin())
        self.assertIsNone(next_pin(self.settings))
        self.assert_usable()

    def test_one_at_a_time(self) -> None:
        """While one key is announced another one is not."""
        prepare_next(self.settings)
        self.assertRaises(UsageError, prepare_next, self.settings, self.key)

    def test_not_together(self) -> None:
        """A key that is not the certificate's changes nothing."""
        other = Path(self_signed(("a.example.com",)).write(Path(self.mktemp())).key_path)
        before = self.pin()
        for key in (other, self.certificate):
            with self.assertRaises(UsageError):
                import_certificate(self.settings, self.certificate, key, force=True)
        self.assertEqual(before, self.pin())
        self.assert_usable()

    def test_request(self) -> None:
        """An authority is asked for a certificate of the next key, for all hosts."""
        self.assertRaises(NotFound, next_request, self.settings)
        pin = prepare_next(self.settings)
        request = x509.load_pem_x509_csr(next_request(self.settings))
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(["a.example.com"], names.get_values_for_type(x509.DNSName))
        self.assertTrue(request.is_signature_valid)
        self.assertEqual(pin, next_pin(self.settings))


class EndingTests(RenewalCase):
    """Which certificates end."""

    def test_endings(self) -> None:
        """The control channel's, the LAN's and its authority's; what is not there is left out."""
        self.assertEqual(3, len(list(endings(self.settings))))
        (self.settings.node_authority / "ca.pem").unlink()
        found = list(endings(self.settings))
        self.assertEqual(2, len(found))
        ends = shown(self.settings.identity.certificates()[0]).ends
        self.assertEqual(ends, found[0].ends)
