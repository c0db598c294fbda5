"""Layer 2, transports: host names and addresses, as certificates have them.

Source: RFC 9525 (names in certificates) and RFC 5890 (how they are written).
"""

from __future__ import annotations

import ipaddress

from cryptography import x509
from service_identity.hazmat import DNS_ID

from cloudconnect.errors import UsageError


def parse_host(text: str) -> str:
    """A host name or IP address as certificates are compared with it; a final dot is dropped.

    :param text: as somebody typed it
    :raises UsageError: neither
    """
    host = text.strip().removesuffix(".")
    try:
        return str(ipaddress.ip_address(host.strip("[]").partition("%")[0]))
    except ValueError:
        pass
    wrong: ValueError | None = None
    if all(host.split(".")):
        try:
            return DNS_ID(host).hostname.decode("ascii")
        except ValueError as error:  # idna's errors are of this class
            wrong = error
    raise UsageError(f"{text!r} is neither a host name nor an IP address") from wrong


def split_host_port(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; an IPv6 address stands in square brackets.

    :param text: as somebody typed it
    :raises UsageError: not of this form
    """
    host, mark, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not mark or not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise UsageError(f"{text!r} is not HOST:PORT")
    return host, int(port)


def join_host_port(host: str, port: int) -> str:
    """``HOST:PORT`` of ``host`` and ``port``, as :func:`split_host_port` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(host: str) -> bool:
    """Whether ``host``, from :func:`parse_host`, is an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def names_in(certificate: x509.Certificate) -> str:
    """The host names and addresses in ``certificate``, for a message: cut at 200 characters."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name at all"
    texts = [*names.get_values_for_type(x509.DNSName)]
    texts += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    text = ", ".join(texts)
    if not text.isprintable():
        text = ascii(text)
    return text[:200] or "no name at all"
