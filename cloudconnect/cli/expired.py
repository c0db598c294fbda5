"""Layer 6: ``--accept-expired``: whoever only lists or restores is not kept out by a calendar.

A provider that forgot to renew its certificate, or is gone, must not stand between a tenant and its
data. Its key is the one of the fingerprint all the same, or nothing is accepted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import attrs
import click

from cloudconnect.cli.sections import SharedOption
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.errors import UsageError


def accepts_expired(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that stores nothing the option; stands below ``tenant_command``."""

    @click.option(
        "--accept-expired",
        cls=SharedOption,
        section="Provider and keys",
        is_flag=True,
        help="Also where the provider's certificate has expired, if its fingerprint matches.",
    )
    @functools.wraps(function)
    def command(settings: TenantSettings, accept_expired: bool, **values: Any) -> Any:
        if accept_expired:
            if not settings.profile.fingerprints:
                raise UsageError(
                    "--accept-expired needs the provider's fingerprint: an expired certificate "
                    "proves nothing else; it is in the recovery kit, and cloudconnect provider "
                    "fingerprint prints it"
                )
            settings = attrs.evolve(settings, accept_expired=True)
        return function(settings, **values)

    return command
