"""Certificates for tests: good ones, and bad ones of every kind.

An :class:`Authority` issues; what is wrong with a certificate is a keyword of
:meth:`Authority.issue` or of :func:`self_signed`.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.trust import certificate_fingerprint, spki_fingerprint

HOST = "backup.example.com"
SERVER_USE = (ExtendedKeyUsageOID.SERVER_AUTH,)
CLIENT_USE = (ExtendedKeyUsageOID.CLIENT_AUTH,)
NODE_USE = SERVER_USE + CLIENT_USE
#: Days from now: valid since, valid until.
VALID = (-1.0, 30.0)
EXPIRED = (-30.0, -1.0)
NOT_YET_VALID = (1.0, 30.0)


@attrs.frozen
class Issued:
    """A certificate, its key, and the certificates between it and its root."""

    certificate: x509.Certificate
    key: Any = attrs.field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def spki(self) -> str:
        """The SPKI fingerprint."""
        return spki_fingerprint(self.certificate)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole certificate."""
        return certificate_fingerprint(self.certificate)

    def write(self, directory: str | Path) -> ServerIdentity:
        """Write files into ``directory``, which is made."""
        os.makedirs(directory, exist_ok=True)
        identity = ServerIdentity(f"{directory}/certificate.pem", f"{directory}/key.pem")
        pem = [c.public_bytes(Encoding.PEM) for c in (self.certificate, *self.chain)]
        Path(identity.certificate_path).write_bytes(b"".join(pem))
        Path(identity.key_path).write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        return identity


def general_names(hosts: Iterable[str], uris: Iterable[str] = ()) -> list[x509.GeneralName]:
    """``hosts``, names or IP addresses, and ``uris`` for a subjectAltName."""
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return names + [x509.UniformResourceIdentifier(uri) for uri in uris]


def build(
    common_name: str,
    issuer: Issued | None,
    *,
    hosts: Iterable[str] = (),
    uris: Iterable[str] = (),
    days: tuple[float, float] = VALID,
    uses: tuple[x509.ObjectIdentifier, ...] | None = None,
    is_ca: bool = False,
    path_length: int | None = None,
    key: Any = None,
    extensions: Iterable[tuple[x509.ExtensionType, bool]] = (),
    signing_key: Any = None,
) -> Issued:
    """A certificate; self-signed without an ``issuer``, badly signed with a ``signing_key``."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days[0]))
        .not_valid_after(now + datetime.timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_ca, path_length), True)
    )
    names = general_names(hosts, uris)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    if uses is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = signing_key or (issuer.key if issuer else key)
    return Issued(builder.sign(signer, hashes.SHA256()), key)


def self_signed(hosts: Iterable[str] = (HOST,), **wrong: Any) -> Issued:
    """A server's certificate that no authority has signed."""
    return build("self", None, hosts=hosts, **{"uses": SERVER_USE, **wrong})


class Authority:
    """A root that issues certificates.

    :param name: its common name
    :param wrong: what is wrong with it, as in :func:`build`
    """

    def __init__(self, name: str = "Test root", issuer: Authority | None = None, **wrong: Any):
        self._issuer = issuer
        self.root = build(name, issuer.root if issuer else None, **{"is_ca": True, **wrong})

    def issue(self, hosts: Iterable[str] = (HOST,), **wrong: Any) -> Issued:
        """A server's certificate; an intermediate authority comes with it as its chain."""
        issued = build("server", self.root, hosts=hosts, **{"uses": SERVER_USE, **wrong})
        return attrs.evolve(issued, chain=self.chain)

    def issue_node(self, uri: str, **wrong: Any) -> Issued:
        """A node's certificate."""
        return self.issue(**{"hosts": (), "uris": (uri,), "uses": NODE_USE, **wrong})

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """What stands between a certificate of ours and its root."""
        return (self.root.certificate, *self._issuer.chain) if self._issuer else ()

    def write(self, path: str | Path) -> str:
        """Write the certificate as a file of trusted authorities."""
        Path(path).write_bytes(self.root.certificate.public_bytes(Encoding.PEM))
        return str(path)
