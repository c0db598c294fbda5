"""Layer 6: the options that say what is agreed with a tenant, and as the acts take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from cloudconnect.cli.values import parse_duration, parse_rate, parse_size

_F = TypeVar("_F", bound=Callable[..., Any])

#: Of a new tenant; what is left out is as the provider has it.
_OPTIONS: Final = (
    click.option("--quota", metavar="SIZE", help="Such as 50GB; no limit where it is left out."),
    click.option("--soft-quota", metavar="SIZE", help="Warn when more than this is stored."),
    click.option("--lease", metavar="YYYY-MM-DD", help="Last day of the lease."),
    click.option("--max-tasks", type=click.IntRange(1), help="At the same time; 4 by default."),
    click.option("--bandwidth", metavar="RATE", help="Such as 20MB/s, over all its sessions."),
    click.option("--expect-every", metavar="TIME", help="Such as 26h: when a backup is due."),
    click.option("--encryption", metavar="MODES", help="At-rest modes allowed; tenant by default."),
    click.option("--pool", metavar="NAME", help="The pool of gateways that it uses."),
)
#: Option -> the setting, and what makes its value.
READERS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "quota": ("quota", parse_size),
    "soft_quota": ("soft_quota", parse_size),
    "lease": ("lease_end", str),
    "max_tasks": ("max_tasks", int),
    "bandwidth": ("bandwidth", parse_rate),
    "expect_every": ("expect_every", lambda text: int(parse_duration(text))),
    "encryption": ("modes", lambda text: [mode.strip() for mode in text.split(",")]),
    "pool": ("pool", str),
}


def agreement_options(command: _F) -> _F:
    """Give a command the options that say what is agreed with a new tenant."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def new_settings(choices: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of a new tenant, as the acts take it.

    :param choices: the options of :func:`agreement_options`
    :raises UsageError: one cannot be used
    """
    given = {option: value for option, value in choices.items() if value is not None}
    return {READERS[option][0]: READERS[option][1](value) for option, value in given.items()}
