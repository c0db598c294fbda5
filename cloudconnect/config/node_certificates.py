"""Layer 5: the small authority of a LAN, and the certificates of its nodes.

A node's certificate names its role and itself (:mod:`cloudconnect.transports.nodes`). Who has the
authority issues one with its key; a node of another host makes its own key, and asks for one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudconnect.config.certificates import (
    DAYS_MAX,
    builder_for,
    check_days,
    key_usage,
    load_certificate,
    load_key,
    name_of,
    write_certificate,
    write_file,
    write_new_key,
)
from cloudconnect.errors import CertificateUntrusted, Refused, UsageError
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeName, node_named_in
from cloudconnect.transports.trust import spki_fingerprint

#: Days that an authority is valid; it is renewed for the same key, long before its end.
AUTHORITY_DAYS: Final = 3650
_USES: Final = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]


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
    key = write_new_key(directory / "ca-key.pem")
    return _write_authority(path, name_of(name), key)


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
        builder_for(subject, key.public_key(), AUTHORITY_DAYS)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(key_usage(signs_certificates=True), True)
        .sign(key, hashes.SHA256())
    )
    write_file(path, certificate.public_bytes(Encoding.PEM), 0o644)
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
    key = write_new_key(directory / "key.pem")
    authority, certificate = _issued(ca_directory, node, key.public_key(), days)
    write_file(directory / "ca.pem", authority.public_bytes(Encoding.PEM), 0o644)
    return write_certificate(directory / "certificate.pem", certificate, directory / "key.pem")


def _authority(ca_directory: str | Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        authority = x509.load_pem_x509_certificate((Path(ca_directory) / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"there is no authority in {ca_directory}") from error
    return authority, load_key(Path(ca_directory) / "ca-key.pem")


def _issued(
    ca_directory: str | Path, node: NodeName, key: ec.EllipticCurvePublicKey, days: int
) -> tuple[x509.Certificate, x509.Certificate]:
    """The authority, and a certificate of its for a node's key."""
    check_days(days)
    authority, ca_key = _authority(ca_directory)
    uri = x509.UniformResourceIdentifier(node.uri)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    certificate = (
        builder_for(name_of(str(node)), key, days)
        .issuer_name(authority.subject)
        .add_extension(x509.SubjectAlternativeName([uri]), False)
        .add_extension(x509.ExtendedKeyUsage(_USES), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(key_usage(signs_certificates=False), True)
        .add_extension(identifier, False)
        .sign(ca_key, hashes.SHA256())
    )
    return authority, certificate


def make_node_request(directory: str | Path, role: str, name: str, prefix: str = "") -> bytes:
    """Write a new ``key.pem`` for a node, and ask for a certificate: a PKCS #10 request, DER.

    :param directory: where; it is there already
    :param prefix: what the file's name begins with, for a pair beside the one that is used
    """
    key = write_new_key(Path(directory) / f"{prefix}key.pem")
    subject = name_of(str(NodeName(role, name)))
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
    key = load_key(directory / f"{prefix}key.pem")
    known = directory / "ca.pem"
    try:
        made = x509.load_pem_x509_certificate(certificate)
        issuer = x509.load_pem_x509_certificate(authority)
        made.verify_directly_issued_by(issuer)
        ours = made.public_key() == key.public_key()
        ours = ours and node_named_in(made) == NodeName(role, name)
        if known.exists():
            ours = ours and load_certificate(known).public_key() == issuer.public_key()
    except (ValueError, TypeError, InvalidSignature, UsageError, CertificateUntrusted):
        ours = False
    if not ours:
        raise UsageError("the provider has sent a certificate that is not this node's")
    # As they were read: behind the first one there could be others, which nobody has looked at.
    for path, found, mode in (
        (directory / "ca.pem", issuer, 0o644),
        (directory / f"{prefix}certificate.pem", made, 0o600),
    ):
        write_file(path, found.public_bytes(Encoding.PEM), mode)
