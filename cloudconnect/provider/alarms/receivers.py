"""Layer 4: whom alarms may go to: this machine, or who shows a certificate that is trusted."""

from __future__ import annotations

import ipaddress
from typing import Any

from twisted.internet.ssl import Certificate, trustRootFromCertificates


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine itself."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def authorities(pem: bytes) -> Any:
    """Trust in authorities of one's own, in the place of the system's, as Twisted takes it.

    :param pem: their certificates
    """
    end = b"-----END CERTIFICATE-----"
    blocks = [part + end for part in pem.split(end)[:-1]]
    return trustRootFromCertificates([Certificate.loadPEM(block) for block in blocks])
