"""Layer 5: the certificates of a LAN's nodes over the years: no node ends because nobody knew.

A node asks for its next certificate when two thirds of the life of the one that it has are over,
for a new key. Both lie beside the old pair as ``next-key.pem`` and ``next-certificate.pem``, until
the service has let a line in that shows them; only then they take its place. Who has the authority
itself, the service and a tenant's own accelerator, issues its next one, and renews the authority
for the same key.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from cryptography import x509
from OpenSSL import SSL

from cloudconnect.config.certificates import load_certificate
from cloudconnect.config.node_certificates import (
    install_node_certificate,
    issue_node_certificate,
    make_node_request,
    renew_node_ca,
)
from cloudconnect.errors import CertificateUntrusted, UsageError
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeName, NodeTrust, node_named_in
from cloudconnect.transports.tls import MutualTLS

#: The part of a certificate's life after which it is renewed: a third is left to notice a failure.
RENEW_AFTER: Final = 2 / 3
#: What the names of the next pair begin with.
NEXT: Final = "next-"
_PAIR: Final = ("key.pem", "certificate.pem")


def is_due(certificate: x509.Certificate, now: float) -> bool:
    """Whether it is time to renew a certificate.

    :param now: seconds since 1970
    """
    begins = certificate.not_valid_before_utc.timestamp()
    ends = certificate.not_valid_after_utc.timestamp()
    return now >= begins + (ends - begins) * RENEW_AFTER


def node_in(directory: Path) -> NodeName:
    """The node whose directory this is.

    :raises UsageError: it is none's
    """
    try:
        return node_named_in(load_certificate(directory / "certificate.pem"))
    except CertificateUntrusted:
        raise UsageError(f"{directory} is not the directory of a node") from None


def next_tls(directory: Path, *peer_roles: str) -> MutualTLS:
    """TLS that shows the next certificate."""
    certificate, key = (directory / f"{NEXT}{name}" for name in reversed(_PAIR))
    identity = ServerIdentity(str(certificate), str(key))
    return MutualTLS(NodeTrust(str(directory / "ca.pem"), peer_roles), identity)


async def renew(
    directory: Path,
    ask: Callable[[bytes], Awaitable[tuple[bytes, bytes]]],
    show: Callable[[], Awaitable[None]],
) -> x509.Certificate:
    """Get a node's next certificate, and use it once the service has seen it; the certificate.

    Lines that are up go on as they are.

    :param ask: asks the service for the certificate of a request (PKCS #10, DER), on a line that
        shows the one that the node has: certificate and authority, PEM
    :param show: opens a line that shows the next one (:func:`next_tls`), and waits until the node
        is let in
    :raises CloudConnectError: the service does not give one, or does not let the node in with it:
        then all stays as it was
    """
    node = node_in(directory)
    request = make_node_request(directory, node.role, node.name, NEXT)
    certificate, authority = await ask(request)
    install_node_certificate(directory, node.role, node.name, certificate, authority, NEXT)
    await show()
    adopt_next(directory)
    return load_certificate(directory / "certificate.pem")


def adopt_next(directory: Path) -> bool:
    """Put the next pair in the place of the one that is used, where both are there; whether it was.

    Also at a start: a process may have died before or amid it. The service lets a node in with its
    next certificate from the moment on at which it has issued it.
    """
    key, certificate = (directory / f"{NEXT}{name}" for name in _PAIR)
    if not certificate.exists() or not (
        _belong(certificate, key) or _belong(certificate, directory / "key.pem")
    ):
        return False  # none was issued, or not yet for the newest key
    if key.exists():
        key.replace(directory / "key.pem")
    certificate.replace(directory / "certificate.pem")
    return True


def _belong(certificate: Path, key: Path) -> bool:
    """Whether both files are there, and a pair."""
    if not (certificate.exists() and key.exists()):
        return False
    try:
        ServerIdentity(str(certificate), str(key)).install(SSL.Context(SSL.TLS_METHOD))
    except UsageError:
        return False
    return True


def keep_own(authority: Path, directory: Path, node: NodeName, now: float | None = None) -> bool:
    """Renew what is due of an authority and of the node that has it; whether anything was.

    Also where the node's pair is none, as after a crash amid this: for who has the authority that
    is no loss.

    :param authority: folder of the authority
    :param directory: folder of the node
    :param now: seconds since 1970
    :raises UsageError: there is no authority
    """
    now = time.time() if now is None else now
    renewed = is_due(load_certificate(authority / "ca.pem"), now)
    if renewed:
        renew_node_ca(authority)
    certificate = directory / "certificate.pem"
    whole = _belong(certificate, directory / "key.pem")
    if whole and not renewed and not is_due(load_certificate(certificate), now):
        return False
    issue_node_certificate(authority, node.name, node.role, directory)
    return True
