"""Layer 5: makes the certificates that a provider, or a LAN, can give itself.

A provider without a certificate of a public authority shows a self-signed one, which tenants know
by its fingerprint. The nodes of a LAN have certificates of a small authority of their own, which
name role and node (:mod:`cloudconnect.transports.nodes`). All keys are ECDSA on P-256. Keys are
files of mode 0600, and a file is there whole or not at all.
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
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudconnect.errors import CertificateUntrusted, Refused, UsageError
from cloudconnect.transports.hosts import is_address, parse_host
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeName, node_named_in
from cloudconnect.transports.trust import spki_fingerprint

#: Days that a certificate is valid: what public authorities may issue is at most this ...
SERVER_DAYS: Final = 397
#: ... and some clients refuse a server's that is valid for longer than this.
DAYS_MAX: Final = 825
#: An authority of a LAN's own: renewed for the same key, long before its end.
AUTHORITY_DAYS: Final = 3650
#: A node whose clock is behind by less than this, in seconds, can use a fresh certificate.
SKEW_SECONDS: Final = 3600

_SERVER: Final = [ExtendedKeyUsageOID.SERVER_AUTH]
_NODE: Final = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


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
    _check_days(days)
    names = list(dict.fromkeys(parse_host(host) for host in hosts))
    if not names:
        raise UsageError("a certificate needs at least one host name")
    directory = Path(directory)
    key_path = directory / "key.pem"
    key = _load_key(key_path) if keep_key else _write_new_key(key_path)
    subject = _name(names[0])
    certificate = (
        _builder(subject, key.public_key(), days)
        .issuer_name(subject)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), False)
        .add_extension(x509.ExtendedKeyUsage(_SERVER), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_key_usage(signs_certificates=False), True)
        .sign(key, hashes.SHA256())
    )
    return _write_certificate(directory / "certificate.pem", certificate, key_path)


def make_node_ca(directory: str | Path, name: str = "cloudconnect LAN") -> Path:
    """Write a new authority for nodes: ``ca.pem`` to hand out and ``ca-key.pem`` to keep.

    :param directory: where; it is there already
    :param name: what the authority calls itself
    :returns: where ``ca.pem`` is
    :raises FileExistsError: there is an authority already
    :raises OSError: the files cannot be written
    """
    directory = Path(directory)
    path = directory / "ca.pem"
    if path.exists():
        raise FileExistsError(f"{path} is there already: a new authority would shut out its nodes")
    key = _write_new_key(directory / "ca-key.pem")
    return _write_authority(path, _name(name), key)


def renew_node_ca(directory: str | Path) -> Path:
    """Make an authority's certificate again for the key and name that it has: whoever trusts the
    one before it trusts what it has issued and will issue, and the other way round.

    :param directory: where :func:`make_node_ca` has written
    :returns: where ``ca.pem`` is
    :raises UsageError: there is no authority
    """
    authority, key = _authority(directory)
    return _write_authority(Path(directory) / "ca.pem", authority.subject, key)


def _write_authority(path: Path, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> Path:
    certificate = (
        _builder(subject, key.public_key(), AUTHORITY_DAYS)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_key_usage(signs_certificates=True), True)
        .sign(key, hashes.SHA256())
    )
    _write(path, certificate.public_bytes(Encoding.PEM), 0o644)
    return path


def issue_node_certificate(
    ca_directory: str | Path, name: str, role: str, directory: str | Path, days: int = DAYS_MAX
) -> ServerIdentity:
    """Write ``certificate.pem``, ``key.pem`` and a copy of ``ca.pem`` for one node.

    :param ca_directory: where :func:`make_node_ca` has written
    :param name: the node's name, 1 to 64 of ``[a-z0-9._-]``
    :param role: what it does, such as ``gateway``, of the same characters
    :param directory: where; it is there already
    :param days: how long the certificate is valid: 1 to 825
    :raises UsageError: there is no authority, or the name, role or number of days is none
    :raises OSError: the files cannot be written
    """
    node = NodeName(role, name)
    directory = Path(directory)
    _authority(ca_directory)
    key = _write_new_key(directory / "key.pem")
    authority, certificate = _issued(ca_directory, node, key.public_key(), days)
    _write(directory / "ca.pem", authority.public_bytes(Encoding.PEM), 0o644)
    return _write_certificate(directory / "certificate.pem", certificate, directory / "key.pem")


def _authority(ca_directory: str | Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        authority = x509.load_pem_x509_certificate((Path(ca_directory) / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"there is no authority in {ca_directory}") from error
    return authority, _load_key(Path(ca_directory) / "ca-key.pem")


def _issued(
    ca_directory: str | Path, node: NodeName, key: ec.EllipticCurvePublicKey, days: int
) -> tuple[x509.Certificate, x509.Certificate]:
    """The authority, and a certificate of its for a node's key."""
    _check_days(days)
    authority, ca_key = _authority(ca_directory)
    uri = x509.UniformResourceIdentifier(node.uri)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        _builder(_name(str(node)), key, days)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName([uri]), False)
        .add_extension(x509.ExtendedKeyUsage(_NODE), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_key_usage(signs_certificates=False), True)
        .add_extension(identifier, False)
        .sign(ca_key, hashes.SHA256())
    )
    return authority, certificate


def make_node_request(directory: str | Path, role: str, name: str, prefix: str = "") -> bytes:
    """Write a new ``key.pem`` for a node, and ask for a certificate: a PKCS #10 request, DER.

    :param directory: where; it is there already
    :param prefix: what the file's name begins with, for a pair beside the one that is used
    """
    key = _write_new_key(Path(directory) / f"{prefix}key.pem")
    subject = _name(str(NodeName(role, name)))
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def sign_node_request(
    ca_directory: str | Path, role: str, name: str, request: bytes, days: int = DAYS_MAX
) -> tuple[bytes, bytes, str]:
    """Issue a certificate for the key in a node's request; nothing else in it counts.

    :param ca_directory: where :func:`make_node_ca` has written
    :param request: PKCS #10, DER
    :return: certificate and authority, PEM, and the ``SPKI-SHA256:`` fingerprint of the key
    :raises Refused: it is no request for such a key, or not signed with that key
    :raises UsageError: there is no authority
    """
    try:
        asked = x509.load_der_x509_csr(request)
        key = asked.public_key()
        valid = asked.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        valid = False
    if not valid or not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refused("that is not a request for a node's certificate")
    if not isinstance(key.curve, ec.SECP256R1):
        raise Refused("a node's key is on the curve P-256")
    authority, certificate = _issued(ca_directory, NodeName(role, name), key, days)
    pem = certificate.public_bytes(Encoding.PEM)
    return pem, authority.public_bytes(Encoding.PEM), spki_fingerprint(certificate)


def install_node_certificate(
    directory: str | Path,
    role: str,
    name: str,
    certificate: bytes,
    authority: bytes,
    prefix: str = "",
) -> None:
    """Write ``certificate.pem`` and ``ca.pem`` beside the ``key.pem`` that they were asked for.

    :param certificate: PEM
    :param authority: PEM; where there is one already, of the same key
    :param prefix: what the names of certificate and key begin with, as in the request
    :raises UsageError: they are not for this key and this node, or of another authority
    """
    directory = Path(directory)
    key = _load_key(directory / f"{prefix}key.pem")
    known = directory / "ca.pem"
    try:
        made = x509.load_pem_x509_certificate(certificate)
        issuer = x509.load_pem_x509_certificate(authority).public_key()
        ours = made.public_key() == key.public_key()
        ours = ours and node_named_in(made) == NodeName(role, name)
        if known.exists():
            ours = ours and load_certificate(known).public_key() == issuer
    except (ValueError, UsageError, CertificateUntrusted):
        ours = False
    if not ours:
        raise UsageError("the provider has sent a certificate that is not this node's")
    _write(directory / "ca.pem", authority, 0o644)
    _write(directory / f"{prefix}certificate.pem", certificate, 0o600)


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


def _check_days(days: int) -> None:
    if not 1 <= days <= DAYS_MAX:
        raise UsageError(f"a certificate is valid for 1 to {DAYS_MAX} days, not for {days}")


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])  # X.520's limit


def _general_name(host: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(host)) if is_address(host) else x509.DNSName(host)


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
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


def _key_usage(signs_certificates: bool) -> x509.KeyUsage:
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


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError):  # without their text: it is a key
        raise UsageError(f"{path} does not hold a private key that is not encrypted") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UsageError(f"{path} does not hold a key on an elliptic curve")
    return key


def _write_new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    return key


def _write_certificate(path: Path, certificate: x509.Certificate, key_path: Path) -> ServerIdentity:
    _write(path, certificate.public_bytes(Encoding.PEM), 0o600)
    return ServerIdentity(str(path), str(key_path))


def _write(path: Path, data: bytes, mode: int) -> None:
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
