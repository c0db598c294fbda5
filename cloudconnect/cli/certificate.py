"""Layer 6: ``provider certificate``: the certificate that tenants see, over the years."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, rows
from cloudconnect.cli.audit import write_down
from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.commands.admin import Reload
from cloudconnect.config.certificates import SERVER_DAYS
from cloudconnect.config.provider import ProviderSettings, load
from cloudconnect.config.renewal import (
    Shown,
    import_certificate,
    next_pin,
    next_request,
    prepare_next,
    renew,
    shown,
)
from cloudconnect.errors import ExitCode, Refused
from cloudconnect.provider.alarms.expiry import due


@click.group(cls=CommandGroup)
def certificate() -> None:
    """The certificate that tenants see: look, renew, replace, announce the next key."""


@certificate.command("show")
@directory_option
@json_option
def show(directory: Path, as_json: bool) -> None:
    """Show the certificate, when it ends, and the next key where one is announced."""
    settings = load(directory)
    _print(settings, Console(as_json))


def _print(settings: ProviderSettings, console: Console) -> None:
    found = shown(settings.identity.certificates()[0])
    announced = next_pin(settings)
    fields = {
        "spki": found.spki,
        "certificate": found.fingerprint,
        "names": found.names,
        "begins": found.begins,
        "ends": found.ends,
        "self_signed": found.self_signed,
        "next_spki": announced,
    }
    console.record("certificate", fields, certificate_text(found, announced, time.time()))


def certificate_text(found: Shown, announced: str | None, now: float) -> str:
    """A certificate for a person."""
    left = int((found.ends - now) // 86400)
    warned = due(found.ends, now) is not None
    lines = [
        found.spki,
        found.fingerprint,
        f"for {found.names}, {'self-signed' if found.self_signed else 'signed by an authority'}",
        f"valid from {local_time(found.begins)} to {local_time(found.ends)}"
        + (f": {left} DAYS LEFT" if warned else f" ({left} days left)"),
    ]
    if announced:
        lines.append(f"next key, announced to tenants: {announced}")
    return "\n".join(map(printable, lines))


@certificate.command("next")
@directory_option
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of the key to use next.")
@click.option("--csr", type=click.Path(path_type=Path), help="Write a request for an authority.")
@json_option
@debug_option
def next_key(
    directory: Path, key: Path | None, csr: Path | None, as_json: bool, debug: bool
) -> int:
    """Make the next key and announce its pin; list the machines of tenants that do not know it yet.

    A tenant's machine hears of it at its next log-in, and notes it in its profile by itself. When
    all know it, use it: provider certificate renew --next, or import with a certificate for it.
    """
    settings = load(directory)
    known = next_pin(settings)
    pin = prepare_next(settings, key)
    if csr is not None:
        csr.write_bytes(next_request(settings))
    if pin != known:
        write_down(settings, "certificate_next", spki=pin)

    async def work(acts: Acts) -> list[dict[str, Any]]:
        await acts.call(Reload)
        return await _unaware(acts, pin)

    waiting = administrate(directory, work, debug)
    console = Console(as_json)
    console.record("next_key", {"spki": pin, "unaware": len(waiting)}, pin)
    for row in waiting:
        who = f"{row['tenant']}  {row['machine'] or '(no machine of it was seen yet)'}"
        console.record("follower", row, printable(f"does not know it yet: {who}"))
    if not waiting:
        console.say("All tenants know it.")
    return int(ExitCode.DONE)


async def _unaware(acts: Acts, pin: str) -> list[dict[str, Any]]:
    """The machines that do not know a pin yet."""
    return [row for row in await rows(acts, "follower", {"pin": pin}) if not row["knows"]]


@certificate.command("renew")
@directory_option
@click.option("--days", default=SERVER_DAYS, show_default=True, help="Valid for so long.")
@click.option("--next", "use_next", is_flag=True, help="For the next key, which becomes the key.")
@click.option("--force", is_flag=True, help="Also where tenants do not know the next key yet.")
@json_option
@debug_option
def renew_certificate(
    directory: Path, days: int, use_next: bool, force: bool, as_json: bool, debug: bool
) -> None:
    """Make the self-signed certificate again, for the hosts in provider.toml.

    Without --next its key stays, and so does the fingerprint that tenants check.
    """
    settings = load(directory)

    async def work(acts: Acts) -> None:
        if use_next and not force:
            await _check_unaware(acts, next_pin(settings))
        made = renew(settings, days, use_next)
        write_down(settings, "certificate_renew", spki=made.spki, ends=made.ends)
        await acts.call(Reload)

    administrate(directory, work, debug)
    _print(settings, Console(as_json))


@certificate.command("import")
@directory_option
@click.option("--certificate", "path", required=True, type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="Its key; the present or next one.")
@click.option("--force", is_flag=True, help="Also where tenants do not know its key yet.")
@json_option
@debug_option
def import_files(
    directory: Path, path: Path, key: Path | None, force: bool, as_json: bool, debug: bool
) -> None:
    """Use another certificate, PEM, with its chain behind it; running sessions go on."""
    settings = load(directory)

    async def work(acts: Acts) -> None:
        announced = next_pin(settings)
        if announced and not force and shown(_first(path)).spki == announced:
            await _check_unaware(acts, announced)
        made = import_certificate(settings, path, key, force)
        fields = {"spki": made.spki, "ends": made.ends, "names": made.names}
        write_down(settings, "certificate_import", **fields)
        await acts.call(Reload)

    administrate(directory, work, debug)
    _print(settings, Console(as_json))


def _first(path: Path) -> Any:
    from cloudconnect.transports.identity import ServerIdentity

    return ServerIdentity(str(path), str(path)).certificates()[0]


async def _check_unaware(acts: Acts, pin: str | None) -> None:
    """Whether all tenants know the next key.

    :raises Refused: some do not
    """
    unaware = await _unaware(acts, pin) if pin is not None else []
    if unaware:
        names = ", ".join(sorted({row["tenant"] for row in unaware})[:10])
        raise Refused(
            f"{len(unaware)} machine(s) do not know the next key yet and would be shut out where "
            f"they check the fingerprint: {names}. See cloudconnect provider certificate next; "
            "--force does it all the same"
        )


@click.command("reload")
@directory_option
@debug_option
def reload(directory: Path, debug: bool) -> None:
    """Have the running provider read its certificates and provider.toml again.

    It notices changed files by itself; sessions that run are not touched.
    """

    async def work(acts: Acts) -> bool:
        done: bool = (await acts.call(Reload))["done"]
        return done

    if not administrate(directory, work, debug):
        raise Refused("no provider runs here: it reads them when it starts")
    click.echo("The provider reads its certificates and settings again: its log says what changed.")
