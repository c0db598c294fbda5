"""Layer 5: the ways that ``provider.toml`` names for alarms to get to somebody."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509

from cloudconnect.config.provider import ProviderSettings
from cloudconnect.config.reading import read_bounded
from cloudconnect.errors import UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.alarms.delivery import Way
from cloudconnect.provider.alarms.mail import Mail
from cloudconnect.provider.alarms.webhook import Webhook
from cloudconnect.transports.hosts import split_host_port

#: Longest key or password file, in bytes ...
SECRET_MAX = 4096
#: ... and longest file of authorities.
AUTHORITIES_MAX = 1 << 20


def ways(reactor: Any, settings: ProviderSettings) -> list[Way]:
    """How alarms get to somebody; none where nobody is named.

    :raises UsageError: something about them cannot be used
    """
    found: list[Way] = []
    if settings.alarm_webhook:
        found.append(
            Webhook(
                reactor,
                settings.alarm_webhook,
                _authorities(settings, "alarm_webhook_ca"),
                _secret(settings, "alarm_webhook_key"),
            )
        )
    if settings.alarm_mail_to:
        if not settings.alarm_mail_from:
            raise UsageError("alarm_mail_from: the address that mail about alarms comes from")
        if bool(settings.alarm_mail_user) != bool(settings.alarm_mail_password):
            raise UsageError("alarm_mail_user and alarm_mail_password go together")
        found.append(
            Mail(
                reactor,
                split_host_port(settings.alarm_mail_server),
                settings.alarm_mail_from,
                settings.alarm_mail_to,
                settings.alarm_mail_user,
                _secret(settings, "alarm_mail_password"),
                _authorities(settings, "alarm_mail_ca"),
            )
        )
    return found


def _authorities(settings: ProviderSettings, name: str) -> bytes:
    """The certificates in the file that a setting names; empty where it names none."""
    octets = _file(settings, name, AUTHORITIES_MAX) or b""
    if octets:
        try:
            x509.load_pem_x509_certificates(octets)
        except ValueError:
            raise UsageError(f"{name}: the file does not hold certificates in PEM") from None
    return octets


def _secret(settings: ProviderSettings, name: str) -> Password | None:
    octets = _file(settings, name, SECRET_MAX)
    return None if octets is None else Password(octets.removesuffix(b"\n").removesuffix(b"\r"))


def _file(settings: ProviderSettings, name: str, limit: int) -> bytes | None:
    """The content of the file that a setting names, or None where it names none."""
    if not getattr(settings, name):
        return None
    return read_bounded(settings.directory / Path(getattr(settings, name)), name, limit)
