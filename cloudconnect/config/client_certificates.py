"""Layer 5: the certificates with which tenants' machines log in, in the place of passwords.

Such a certificate is known by its key alone: the provider keeps the SHA-256 of its
SubjectPublicKeyInfo, and who signed it does not count. The key is a file that stays on the machine.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL

from cloudconnect.config.profile import write_private
from cloudconnect.config.reading import read_bounded
from cloudconnect.errors import UsageError
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.keyfiles import check_private

#: Days that a certificate is valid which a machine makes for itself: who is to be shut out is shut
#: out by taking the credential back, and a machine that may not back up any more helps nobody.
CLIENT_DAYS: Final = 3650
#: A provider whose clock is behind by less than this, in seconds, can use a fresh one.
SKEW_SECONDS: Final = 3600
#: Longest file with a certificate, in bytes.
CERTIFICATE_MAX: Final = 64 << 10
#: Fewest bits of an RSA key, and of a curve.
RSA_BITS_MIN: Final = 2048
CURVE_BITS_MIN: Final = 256


def certificate_pin(path: Path) -> bytes:
    """What a provider keeps of a certificate: SHA-256 of its SubjectPublicKeyInfo, 32 bytes.

    :param path: PEM file, the certificate first
    :raises UsageError: it cannot be read
    """
    octets = _key_of(_read(path), path).public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(octets).digest()


def certificate_end(path: Path) -> float:
    """When a certificate ends, in seconds since 1970.

    :param path: PEM file, the certificate first
    :raises UsageError: it cannot be read
    """
    return _read(path).not_valid_after_utc.timestamp()


def check_certificate(path: Path) -> None:
    """Whether a tenant could log in with a certificate.

    :param path: PEM file, the certificate first
    :raises UsageError: it could not, or the file cannot be read
    """
    certificate = _read(path)
    if certificate.not_valid_after_utc <= datetime.datetime.now(datetime.UTC):
        raise UsageError(f"the certificate {path} has expired")
    _check_kind(certificate, path)


def _check_kind(certificate: x509.Certificate, path: Path) -> None:
    key = _key_of(certificate, path)
    strong = (
        isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey)
        or (isinstance(key, rsa.RSAPublicKey) and key.key_size >= RSA_BITS_MIN)
        or (isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= CURVE_BITS_MIN)
    )
    if not strong:
        raise UsageError(
            f"the key of {path} cannot be used: it must be RSA of {RSA_BITS_MIN} bits or more, "
            "Ed25519, Ed448, or ECDSA on P-256 or more"
        )
    try:
        uses = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        uses = None
    except ValueError:
        raise UsageError(f"the certificate {path} cannot be read") from None
    if uses is not None and ExtendedKeyUsageOID.CLIENT_AUTH not in uses:
        raise UsageError(f"the certificate {path} is not for clients: its uses lack clientAuth")


def _key_of(certificate: x509.Certificate, path: Path) -> CertificatePublicKeyTypes:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError(f"the key of {path} cannot be read, or is of an unknown kind") from None


def _read(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(read_bounded(path, "certificate", CERTIFICATE_MAX))[
            0
        ]
    except ValueError:
        raise UsageError(f"{path} does not hold a certificate in PEM") from None


def client_identity(certificate: str, key: str) -> ServerIdentity:
    """The certificate and key with which this machine logs in, checked.

    Whether it has expired is left to the provider's clock.

    :param certificate: path of a PEM file
    :param key: path of a PEM file that others cannot read
    :raises UsageError: a file cannot be used, the key is open to others or of another certificate
    """
    _check_kind(_read(Path(certificate)), Path(certificate))
    check_private(key)
    identity = ServerIdentity(certificate, key)
    identity.install(SSL.Context(SSL.TLS_METHOD))
    return identity


def make_client_certificate(name: str, certificate: Path, key: Path) -> None:
    """Write a new key of mode 0600, ECDSA on P-256, and a self-signed certificate for it.

    :param name: what the certificate says of its owner; nobody goes by it
    """
    made = ec.generate_private_key(ec.SECP256R1())
    write_private(key, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    written = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=SKEW_SECONDS))
        .not_valid_after(now + datetime.timedelta(days=CLIENT_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
        .sign(made, hashes.SHA256())
    )
    write_private(certificate, written.public_bytes(Encoding.PEM))


def own_certificate(name: str, certificate: str, key: str) -> ServerIdentity:
    """The certificate and key in two files, which are made where there is neither of them.

    :param name: as for :func:`make_client_certificate`
    :raises UsageError: only one of them is there, or they cannot be used
    """
    there = [os.path.lexists(path) for path in (certificate, key)]
    if not any(there):
        make_client_certificate(name, Path(certificate), Path(key))
    return client_identity(certificate, key)
