"""Layer 6: ``provider``: what an admin does with one provider's directory.

Acts go through :mod:`cloudconnect.cli.administering`; those on tenants are in
:mod:`cloudconnect.cli.tenants`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, listed, rows
from cloudconnect.cli.audit import audit, write_down
from cloudconnect.cli.catalogue import catalogue
from cloudconnect.cli.certificate import certificate, reload
from cloudconnect.cli.console import Console, local_time, printable, size
from cloudconnect.cli.drill import drill
from cloudconnect.cli.points import DELETED, PUBLISHED, point_line
from cloudconnect.cli.provider_gateways import gateway
from cloudconnect.cli.provider_nodes import node
from cloudconnect.cli.provider_status import status
from cloudconnect.cli.provider_wan import wan
from cloudconnect.cli.tenant_access import COMMANDS
from cloudconnect.cli.tenants import debug_option, directory_option, json_option, tenant
from cloudconnect.cli.usage import usage
from cloudconnect.cli.values import parse_size
from cloudconnect.cli.wan_nodes import enroll as enroll_accelerator
from cloudconnect.commands.admin import Collect, Scrub
from cloudconnect.config.provider import ProviderSettings, initialize, load, running
from cloudconnect.errors import Busy, CloudConnectError, ExitCode


@click.group()
def provider() -> None:
    """Be a service provider."""


provider.add_command(tenant)
provider.add_command(gateway)
for _command in COMMANDS:
    tenant.add_command(_command)
provider.add_command(wan)
provider.add_command(node)
provider.add_command(audit)
provider.add_command(catalogue)
provider.add_command(certificate)
provider.add_command(reload)
provider.add_command(status)
provider.add_command(usage)
provider.add_command(drill)


# --- the directory -------------------------------------------------------------------------------


@provider.command()
@directory_option
@click.option("--host", "hosts", multiple=True, help="Name or address that tenants connect to.")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="A gateway tenants are told.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file to use.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option("--listen", default="tcp:6180", show_default=True, help="Endpoint string.")
@json_option
def init(
    directory: Path,
    hosts: tuple[str, ...],
    advertise: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    listen: str,
    as_json: bool,
) -> None:
    """Make a provider in a new directory and print its fingerprints."""
    import socket

    names = hosts or (socket.getfqdn(),)
    settings = initialize(directory, names, advertise, certificate, key, listen)
    write_down(settings, "init", hosts=names, spki=settings.identity.fingerprints()[0])
    console = Console(as_json)
    console.say(f"A provider for {', '.join(names)} is in {settings.directory}.")
    _print_fingerprints(settings, console)
    console.say(
        f"Next: cloudconnect provider tenant add NAME --directory {settings.directory}\n"
        f"      cloudconnect provider serve --directory {settings.directory}"
    )


@provider.command()
@directory_option
@json_option
def fingerprint(directory: Path, as_json: bool) -> None:
    """Print the fingerprints to hand to tenants; the first one survives a renewal."""
    _print_fingerprints(load(directory), Console(as_json))


def _print_fingerprints(settings: ProviderSettings, console: Console) -> None:
    spki, certificate = settings.identity.fingerprints()
    console.record("fingerprint", {"spki": spki, "certificate": certificate}, spki)
    if not console.as_json:
        console.say(certificate)


@provider.command()
@directory_option
@click.option("--listen", metavar="ENDPOINT", help="In place of provider.toml's.")
def serve(directory: Path, listen: str | None) -> None:
    """Run the provider: the same as twist cloudconnect-provider --directory DIR."""
    from twisted.application.twist._twist import Twist

    settings = load(directory)
    try:
        with running(settings):
            pass
    except Busy:
        raise Busy(f"a provider runs on {settings.directory} already; stop it first") from None
    words = ["twist", "--log-format=text", "cloudconnect-provider", "--directory", str(directory)]
    Twist.main(words + (["--listen", listen] if listen else []))


async def _names(acts: Acts, tenant_name: str) -> list[str]:
    """The tenant that was named, or each that has a repository."""
    if tenant_name:
        return [tenant_name]
    return [row["name"] for row in await rows(acts, "tenant", {}) if row["repository"]]


@provider.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--deleted", is_flag=True, help="What is in the bin, and until when.")
@json_option
@debug_option
def points(directory: Path, tenant_name: str, deleted: bool, as_json: bool, debug: bool) -> None:
    """List restore points."""
    state = DELETED if deleted else PUBLISHED

    async def work(acts: Acts) -> list[dict[str, Any]]:
        names = await _names(acts, tenant_name)
        filters = [{"tenant": name, "state": state} for name in names]
        return [row for wanted in filters for row in await rows(acts, "point", wanted)]

    console = Console(as_json)
    for row in administrate(directory, work, debug):
        console.record("point", row, f"{row['tenant']}  {point_line(row)}")


def _for_each(
    directory: Path,
    tenant_name: str,
    act: Callable[[Acts, str], Coroutine[Any, Any, dict[str, Any]]],
    console: Console,
    debug: bool,
) -> tuple[list[tuple[str, dict[str, Any]]], CloudConnectError | None]:
    """Do something for each tenant, also where it fails for another one; the first such error."""
    failed: list[CloudConnectError] = []

    async def work(acts: Acts) -> list[tuple[str, dict[str, Any]]]:
        done = []
        for name in await _names(acts, tenant_name):
            try:
                done.append((name, await act(acts, name)))
            except CloudConnectError as error:
                failed.append(error)
                if not tenant_name:
                    console.note(printable(f"{name}: {error}"))
        return done

    done = administrate(directory, work, debug)
    return done, failed[0] if failed else None


@provider.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@json_option
@debug_option
def gc(directory: Path, tenant_name: str, as_json: bool, debug: bool) -> None:
    """Collect garbage now: give back the room of what no restore point needs.

    What is in the bin, what is locked, and all of a frozen tenant stays. While the provider runs it
    does this by itself every day.
    """

    async def act(acts: Acts, name: str) -> dict[str, Any]:
        result: dict[str, Any] = (await acts.call(Collect, name=name))["result"]
        return result

    console = Console(as_json)
    done, failed = _for_each(directory, tenant_name, act, console, debug)
    for name, result in done:
        console.record("collection", {"tenant": name, **result}, collection_line(name, result))
    if failed is not None:
        raise failed


def collection_line(name: str, result: dict[str, Any]) -> str:
    """What a collection of one tenant's garbage did, for a person."""
    text = (
        f"{name}  {size(result['bytes_removed'])} given back; of what is left "
        f"{size(result['live'])} are needed, {size(result['bin'])} only by the bin, "
        f"{size(result['garbage'])} by nothing"
    )
    if result["packs_waiting"]:
        text += f"; {result['packs_waiting']} packs wait for the end of sessions"
    return text + "".join(f"\n  {printable(note)}" for note in result["notes"])


def scrub_line(name: str, result: dict[str, Any]) -> str:
    """What a scrub of one tenant's packs read and found, for a person."""
    found = f"{result['found']} damaged, {result['mended']} of them mended"
    return (
        f"{name}  {size(result['bytes'])} in {result['packs']} packs read: "
        f"{found if result['found'] else 'nothing is damaged'}"
    )


@provider.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--limit", metavar="SIZE", help="Read at most so much of each tenant's.")
@json_option
@debug_option
def scrub(directory: Path, tenant_name: str, limit: str | None, as_json: bool, debug: bool) -> int:
    """Read what is stored and compare it with its digests; no key is needed for that.

    What was not looked at for longest comes first. Exit status 20 says that something was found:
    it is named, with the restore points that it hits, and kept among the warnings of provider
    events. While the provider runs it does this by itself, over some weeks.
    """
    most = 0 if limit is None else max(1, parse_size(limit))

    async def act(acts: Acts, name: str) -> dict[str, Any]:
        result: dict[str, Any] = (await acts.call(Scrub, name=name, limit=most))["result"]
        return result

    console, found = Console(as_json), 0
    done, failed = _for_each(directory, tenant_name, act, console, debug)
    for name, result in done:
        found += result["found"]
        for finding in result["findings"]:
            if not console.as_json:
                console.note(printable(f"SECURITY WARNING stored_data_damaged: {name}: {finding}"))
        console.record("scrub", {"tenant": name, **result}, scrub_line(name, result))
    if failed is not None and not found:
        raise failed
    return int(ExitCode.SECURITY_WARNING if found else ExitCode.DONE)


@provider.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--warnings", is_flag=True, help="Only security warnings.")
@json_option
@debug_option
def events(directory: Path, tenant_name: str, warnings: bool, as_json: bool, debug: bool) -> None:
    """List what happened, security warnings among it."""
    filters = {"tenant": tenant_name, "type": "warning" if warnings else ""}
    console = Console(as_json)
    for row in listed(directory, "event", filters, debug):
        mark = "SECURITY WARNING " if row["type"] == "warning" else ""
        text = (
            f"{local_time(row['time'])}  {row['tenant'] or '-'}  {mark}{row['name']}: {row['text']}"
        )
        console.record("event", row, printable(text))


@provider.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@json_option
@debug_option
def sessions(directory: Path, tenant_name: str, as_json: bool, debug: bool) -> None:
    """List sessions: who, what, how they ended, and the identifiers of their keys."""
    console = Console(as_json)
    for row in listed(directory, "session", {"tenant": tenant_name}, debug):
        text = (
            f"{row['session'][:8]}  {local_time(row['started'])}  {row['tenant']}  {row['kind']}  "
            f"{row['host']}/{row['job']}  {row['state']}  key A {row['key_a']}  "
            f"key B {row['key_b'] or '-'}"
        )
        console.record("session", row, printable(text))


wan.add_command(enroll_accelerator)
