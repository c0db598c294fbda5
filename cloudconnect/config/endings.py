"""Layer 5: the certificates of a provider's directory, and of a node's, that end one day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from cloudconnect.config.provider import ProviderSettings
from cloudconnect.provider.alarms.expiry import Ending


def endings(settings: ProviderSettings) -> Iterator[Ending]:
    """The control channel's, the LAN's, and that of the LAN's authority; what is not there is not.

    What cannot be read is left out: who uses it says so.
    """
    lan = settings.node_authority
    for name, path in (
        ("the provider's certificate", settings.directory / settings.certificate),
        ("the service's certificate in the LAN", lan / "service" / "certificate.pem"),
        ("the LAN's own authority", lan / "ca.pem"),
    ):
        ends = _end_of(path)
        if ends is not None:
            yield Ending(name, ends)


def node_endings(directory: Path) -> Iterator[Ending]:
    """A node's certificate and its LAN's authority, as :func:`endings`."""
    for name, path in (
        ("this node's certificate in the LAN", directory / "certificate.pem"),
        ("the LAN's own authority", directory / "ca.pem"),
    ):
        ends = _end_of(path)
        if ends is not None:
            yield Ending(name, ends)


def _end_of(path: Path) -> float | None:
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return None
    return min(certificate.not_valid_after_utc.timestamp() for certificate in certificates)
