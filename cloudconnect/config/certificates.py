"""Layer 5: makes certificates: a provider's self-signed one, and the parts that all have in common.

A provider without a certificate of a public authority shows a self-signed one, which tenants know
by its fingerprint. Those of the nodes of a LAN are in
:mod:`cloudconnect.config.node_certificates`. All keys are ECDSA on P-256. Keys are files of mode
0600, and a file is there whole or not at all.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudconnect.errors import UsageError
from cloudconnect.transports.hosts import is_address, parse_host
from cloudconnect.transports.identity import ServerIdentity

#: Days that a certificate is valid: what public authorities may issue is at most this ...
SERVER_DAYS: Final = 397
#: ... and some clients refuse a server's that is valid for longer than this.
DAYS_MAX: Final = 825
#: A node whose clock is behind by less than this, in seconds, can use a fresh certificate.
SKEW_SECONDS: Final = 3600

_SERVER: Final = [ExtendedKeyUsageOID.SERVER_AUTH]


def make_server_certificate(
    hosts: Sequence[str],
    directory: str | Path,
    days: int = SERVER_DAYS,
    keep_key: bool = False,
) -> ServerIdentity:
    """Write a self-signed ``certificate.pem`` and its ``key.pem``, over what is there.

    :param hosts: the host names and IP addresses that it is for, the main one first
    :param directory: where; it is there already
    :param days: how long it is valid: 1 to 825
    :param keep_key: make it for the key that is there, so that its SPKI fingerprint stays the same
    :raises UsageError: a host or the number of days is none, or there is no key to keep
    :raises OSError: the files cannot be written
    """
    check_days(days)
    names = list(dict.fromkeys(parse_host(host) for host in hosts))
    if not names:
        raise UsageError("a certificate needs at least one host name")
    directory = Path(directory)
    key_path = directory / "key.pem"
    key = load_key(key_path) if keep_key else write_new_key(key_path)
    subject = name_of(names[0])
    certificate = (
        builder_for(subject, key.public_key(), days)
        .issuer_name(subject)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
        .add_extension(x509.ExtendedKeyUsage(_SERVER), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(key_usage(signs_certificates=False), True)
        .sign(key, hashes.SHA256())
    )
    return write_certificate(directory / "certificate.pem", certificate, key_path)


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate in a file.

    :raises UsageError: there is none
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} does not hold a certificate in PEM") from None


def check_days(days: int) -> None:
    """Whether a certificate may be valid for so many days.

    :raises UsageError: it may not
    """
    if not 1 <= days <= DAYS_MAX:
        raise UsageError(f"a certificate is valid for 1 to {DAYS_MAX} days, not for {days}")


def name_of(text: str) -> x509.Name:
    """A common name, cut to what X.520 allows."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # X.520's limit


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def builder_for(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """A certificate that begins now, with all but its issuer and what it is for."""
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=SKEW_SECONDS))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


def key_usage(signs_certificates: bool) -> x509.KeyUsage:
    """What the key of a certificate is for: to sign certificates, or in handshakes."""
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file.

    :raises UsageError: there is none on an elliptic curve, or it is encrypted
    """
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError):  # without their text: it is a key
        raise UsageError(f"{path} does not hold a private key that is not encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} does not hold a key on an elliptic curve")
    return key


def write_new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Make a key, and write it for the owner's eyes only."""
    key = ec.generate_private_key(ec.SECP256R1())
    write_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def write_certificate(path: Path, certificate: x509.Certificate, key_path: Path) -> ServerIdentity:
    """Write a certificate beside its key; both files."""
    write_file(path, certificate.public_bytes(Encoding.PEM), 0o600)
    return ServerIdentity(str(path), str(key_path))


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Write ``path`` so that a crash leaves the old file or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
