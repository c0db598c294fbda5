"""Layer 6: ``provider tenant``: who may log in: invitations, disabling, removing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate
from cloudconnect.cli.console import Console, local_time
from cloudconnect.cli.credentials import can_option, capabilities_of, credential, label_option
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.tenants import tenant
from cloudconnect.cli.values import parse_duration, parse_rate, parse_size
from cloudconnect.commands.admin import Invite, SwitchTenant
from cloudconnect.config.invitation import InvitationText
from cloudconnect.config.profile import write_private
from cloudconnect.config.provider import ProviderSettings, load
from cloudconnect.settings import PUBLIC_PORT

# --- invitations ---------------------------------------------------------------------------------


@click.command("invite")
@click.argument("name")
@directory_option
@label_option
@can_option
@click.option("--for", "good_for", default="7d", show_default=True, help="How long it is good.")
@click.option("--output", type=click.Path(path_type=Path), help="Write it there, mode 0600.")
@click.option("--quota", metavar="SIZE", help="Of a new tenant, as the next ones: tenant add.")
@click.option("--soft-quota", metavar="SIZE", help="Warn when more than this is stored.")
@click.option("--lease", metavar="YYYY-MM-DD", help="Last day of the lease.")
@click.option("--max-tasks", type=click.IntRange(1), help="Tasks at the same time; 4 by default.")
@click.option("--bandwidth", metavar="RATE", help="Such as 20MB/s, over all its sessions.")
@click.option("--expect-every", metavar="TIME", help="Such as 26h: when a backup is due.")
@click.option("--encryption", metavar="MODES", help="At-rest modes allowed; tenant by default.")
@click.option("--pool", metavar="NAME", help="The pool of gateways that it uses.")
@json_option
@debug_option
def tenant_invite(
    name: str,
    directory: Path,
    label: str | None,
    can: str,
    good_for: str,
    output: Path | None,
    as_json: bool,
    debug: bool,
    **choices: Any,
) -> None:
    """Invite a machine of a tenant; the tenant is made where there is none of this name.

    Prints one text with all that the machine needs: cloudconnect connect --invite FILE reads it. It
    is good once, and the machine then has a login password of its own, which nobody else knows.
    """
    settings = _new_settings(choices)
    provider = load(directory)
    seconds = int(parse_duration(good_for))

    async def work(acts: Acts) -> dict[str, Any]:
        return await acts.call(
            Invite,
            name=name,
            label=label or "",
            capabilities=capabilities_of(can),
            seconds=seconds,
            settings=settings,
        )

    made = administrate(directory, work, debug)
    spki, _ = provider.identity.fingerprints()
    text = InvitationText(
        providers=addresses(provider),
        tenant=name,
        credential=made["label"],
        fingerprints=(spki,),
        token=made["token"],
        expires=made["expires"],
    ).encode()
    console = Console(as_json)
    new = f"Tenant {name} is there. " if made["made"] else ""
    until = local_time(made["expires"])
    fields = {
        "tenant": name,
        "credential": made["label"],
        "expires": made["expires"],
        "made": made["made"],
    }
    if output is not None:
        write_private(output.absolute(), text.encode())
        said = f"{new}The invitation is in {output}, good once, until {until}; it is a secret."
        console.record("invitation", {**fields, "file": str(output.absolute())}, said)
        return
    console.say(f"{new}The invitation, good once, until {until}; hand it over on a safe way:")
    console.record("invitation", {**fields, "text": text}, text.rstrip())


def _new_settings(choices: dict[str, Any]) -> dict[str, Any]:
    """What was said of a new tenant."""
    readers: dict[str, tuple[str, Any]] = {
        "quota": ("quota", parse_size),
        "soft_quota": ("soft_quota", parse_size),
        "lease": ("lease_end", str),
        "max_tasks": ("max_tasks", int),
        "bandwidth": ("bandwidth", parse_rate),
        "expect_every": ("expect_every", lambda text: int(parse_duration(text))),
        "encryption": ("modes", capabilities_of),
        "pool": ("pool", str),
    }
    given = {option: value for option, value in choices.items() if value is not None}
    return {readers[option][0]: readers[option][1](value) for option, value in given.items()}


def addresses(provider: ProviderSettings) -> tuple[str, ...]:
    """Where tenants are told to connect to: what is advertised, or else the certificate's hosts."""
    if provider.advertise:
        return provider.advertise
    words = provider.listen.split(":")
    port = words[1] if words[0] in ("tcp", "tcp6") and words[1:] and words[1].isdigit() else ""
    if port in ("", "0"):
        port = str(PUBLIC_PORT)
    return tuple(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host in provider.hosts)


# --- disabling and removing ----------------------------------------------------------------------


def _switch(name: str, state: str, directory: Path, text: str, as_json: bool, debug: bool) -> None:
    async def work(acts: Acts) -> bool:
        switched: bool = (await acts.call(SwitchTenant, name=name, state=state))["changed"]
        return switched

    changed = administrate(directory, work, debug)
    fields = {"name": name, "state": state, "changed": changed}
    shown = text if changed else f"Tenant {name} was {state} already."
    Console(as_json).record("tenant", fields, shown)


@click.command("disable")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_disable(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Let a tenant do nothing any more, and cut what it has running; what is stored stays."""
    text = f"Tenant {name} is disabled: it can neither back up nor restore. What it stored stays."
    _switch(name, "disabled", directory, text, as_json, debug)


@click.command("enable")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_enable(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Let a tenant in again that was disabled, or removed and is still in the bin."""
    _switch(name, "enabled", directory, f"Tenant {name} is enabled.", as_json, debug)


@click.command("restore")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_restore(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Take a removed tenant out of the bin, with all that it stored: the same as enable."""
    _switch(name, "enabled", directory, f"Tenant {name} is back.", as_json, debug)


@click.command("remove")
@click.argument("name")
@directory_option
@json_option
@debug_option
def tenant_remove(name: str, directory: Path, as_json: bool, debug: bool) -> None:
    """Put a tenant into the bin: it can do nothing, and later all that it stored is deleted.

    Until then tenant restore takes it back. Locked points and a freeze hold the deletion up.
    """
    days = load(directory).removed_days
    text = (
        f"Tenant {name} is in the bin: in {days} days all that it stored is deleted. Until then: "
        f"cloudconnect provider tenant restore {name}"
    )
    _switch(name, "removed", directory, text, as_json, debug)


for _command in (
    tenant_invite,
    credential,
    tenant_disable,
    tenant_enable,
    tenant_restore,
    tenant_remove,
):
    tenant.add_command(_command)
