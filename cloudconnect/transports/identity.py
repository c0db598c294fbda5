"""Layer 2, transports: the certificate and key that this side of a TLS connection shows.

Source: RFC 7468 (PEM) and RFC 8446, section 4.4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from cloudconnect.errors import UsageError
from cloudconnect.shown import Shown
from cloudconnect.transports.trust import certificate_fingerprint, spki_fingerprint

_Parsed = TypeVar("_Parsed")


def _read(path: str, what: str, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    try:
        return parse(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError):  # without their text: the file may be a key
        raise UsageError(f"{path} does not hold a {what}") from None


def _parse_key(data: bytes) -> Any:
    return load_pem_private_key(data, None)


@attrs.frozen(repr=False)
class ServerIdentity(Shown):
    """A certificate with its chain, and the key that it is for; files, read when they are used.

    :ivar certificate_path: PEM file, this side's certificate first
    :ivar key_path: PEM file, not encrypted
    """

    certificate_path: str
    key_path: str

    def certificates(self) -> list[x509.Certificate]:
        """The certificate, and behind it its chain.

        :raises UsageError: the file cannot be used
        """
        return _read(self.certificate_path, "certificate in PEM", x509.load_pem_x509_certificates)

    def fingerprints(self) -> tuple[str, str]:
        """The ``SPKI-SHA256:`` and the ``SHA256:`` fingerprint, to hand to the other side.

        :raises UsageError: the file cannot be used
        """
        certificate = self.certificates()[0]
        return spki_fingerprint(certificate), certificate_fingerprint(certificate)

    def install(self, context: SSL.Context, chained: bool = True) -> None:
        """Have connections of ``context`` show this.

        :param chained: with its chain
        :raises UsageError: a file cannot be used, or the key is another certificate's
        """
        first, *chain = self.certificates()
        key = _read(self.key_path, "private key in PEM that is not encrypted", _parse_key)
        try:
            context.use_certificate(first)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise UsageError(
                f"{self.key_path} is not the key of the certificate in {self.certificate_path}"
            ) from error
        for certificate in chain if chained else ():
            context.add_extra_chain_cert(certificate)
