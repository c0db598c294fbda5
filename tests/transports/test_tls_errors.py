"""Tests of :mod:`cloudconnect.transports.tls_errors`."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    Aborted,
    CertificateUntrusted,
    ControlTampered,
    ProtocolViolation,
    ProviderNotTrusted,
    Refused,
    SecurityError,
)
from cloudconnect.transports.tls_errors import after_handshake, in_handshake, reason_of


def error(*words: str) -> SSL.Error:
    """OpenSSL's error with these words in its queue."""
    return SSL.Error([("SSL routines", "", word) for word in words])


class ErrorTests(SynchronousTestCase):
    """What OpenSSL's words mean."""

    def test_reason(self) -> None:
        """The first words are the exact ones."""
        for found, words in (
            (error("bad record mac", "record layer failure"), "bad record mac"),
            (error("TLSv1 alert unknown ca"), "tlsv1 alert unknown ca"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "unexpected eof"),
            (SSL.Error([]), "unexpected eof"),
            (SSL.Error(), "unexpected eof"),
            (SSL.ZeroReturnError(), "alert close notify"),
        ):
            self.assertEqual(words, reason_of(found))

    def test_client(self) -> None:
        """To a client a failed handshake means that this may not be the provider."""
        for words, kind in (
            ("unsupported protocol", CertificateUntrusted),
            ("wrong version number", CertificateUntrusted),
            ("tlsv1 alert protocol version", CertificateUntrusted),
            ("certificate verify failed", CertificateUntrusted),
            ("decryption failed or bad record mac", ControlTampered),
            ("bad signature", ControlTampered),
            ("tls alert bad record mac", ControlTampered),
            ("tlsv1 alert decode error", ControlTampered),
            ("tls alert handshake failure", ProviderNotTrusted),
            ("tlsv1 alert insufficient security", ProviderNotTrusted),
            ("tlsv1 alert no application protocol", ProtocolViolation),
            ("tlsv1 alert internal error", Aborted),
            ("tlsv1 alert user cancelled", Aborted),
            ("words that nobody has seen", ControlTampered),
        ):
            found = in_handshake(error(words), is_client=True)
            self.assertIs(kind, type(found), words)
            if kind is not ProtocolViolation:
                self.assertIn(words, str(found))
        self.assertIs(Aborted, type(in_handshake(SSL.ZeroReturnError(), is_client=True)))

    def test_server(self) -> None:
        """To a server it means a stranger, and a stranger cannot raise a security warning."""
        for words, kind in (
            ("http request", ProtocolViolation),
            ("unsupported protocol", ProtocolViolation),
            ("no shared cipher", ProtocolViolation),
            ("decryption failed or bad record mac", ProtocolViolation),
            ("tlsv1 alert unknown ca", Aborted),
            ("tls alert bad record mac", Aborted),
            ("peer did not return a certificate", CertificateUntrusted),
        ):
            found = in_handshake(error(words), is_client=False)
            self.assertIs(kind, type(found), words)
            self.assertNotIsInstance(found, SecurityError)

    def test_afterwards(self) -> None:
        """After the handshake a bad record was changed; an alert says what the peer thinks."""
        for words, kind in (
            ("decryption failed or bad record mac", ControlTampered),
            ("bad record type", ControlTampered),
            ("words that nobody has seen", ControlTampered),
            ("tls alert bad record mac", ControlTampered),
            ("tlsv13 alert certificate required", Refused),
            ("tlsv1 alert unknown ca", Refused),
            ("tls alert bad certificate", Refused),
            ("tlsv1 alert internal error", Aborted),
        ):
            self.assertIs(kind, type(after_handshake(error(words))), words)
