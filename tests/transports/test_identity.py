"""Tests of :mod:`cloudconnect.transports.identity`."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.transports.identity import ServerIdentity
from tests.certificates import Authority, self_signed


class IdentityTests(SynchronousTestCase):
    """Files with a certificate and its key."""

    def setUp(self) -> None:
        self.issued = Authority("between", issuer=Authority()).issue()
        self.identity = self.issued.write(self.mktemp())
        self.context = SSL.Context(SSL.TLS_METHOD)

    def test_read(self) -> None:
        """The certificate comes first, then its chain."""
        self.assertEqual(
            [self.issued.certificate, *self.issued.chain], self.identity.certificates()
        )
        self.identity.install(self.context)

    def test_fingerprints(self) -> None:
        """Its fingerprints are those of its own certificate."""
        self.assertEqual((self.issued.spki, self.issued.fingerprint), self.identity.fingerprints())

    def refused(self, identity: ServerIdentity, path: str) -> None:
        """The error names the file and nothing that is in it."""
        error = self.assertRaises(UsageError, identity.install, self.context)
        self.assertIn(path, str(error))
        self.assertNotIn("PRIVATE", str(error))

    def test_missing(self) -> None:
        """A file that is not there is named."""
        for path in (self.identity.certificate_path, self.identity.key_path):
            os.rename(path, f"{path}.away")
            self.refused(self.identity, path)
            os.rename(f"{path}.away", path)

    def test_not_pem(self) -> None:
        """A file with something else in it is named."""
        for path in (self.identity.certificate_path, self.identity.key_path):
            before = Path(path).read_bytes()
            for content in (b"", b"nothing", before.replace(b"A", b"!")):
                Path(path).write_bytes(content)
                self.refused(self.identity, path)
            Path(path).write_bytes(before)

    def test_other_key(self) -> None:
        """The key of another certificate is refused."""
        other = self_signed().write(self.mktemp())
        mixed = ServerIdentity(self.identity.certificate_path, other.key_path)
        self.refused(mixed, other.key_path)

    def test_encrypted_key(self) -> None:
        """An encrypted key is refused: nobody would be there to open it."""
        Path(self.identity.key_path).write_bytes(
            self.issued.key.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
            )
        )
        self.refused(self.identity, self.identity.key_path)
