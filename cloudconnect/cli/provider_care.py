"""Layer 6: ``provider gc`` and ``scrub``: caring for what is stored, tenant by tenant."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, tenants_meant
from cloudconnect.cli.console import Console, printable, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.values import parse_size
from cloudconnect.commands.admin import Collect, Scrub
from cloudconnect.errors import CloudConnectError, ExitCode


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
        for name in await tenants_meant(acts, tenant_name):
            try:
                done.append((name, await act(acts, name)))
            except CloudConnectError as error:
                failed.append(error)
                if not tenant_name:
                    console.note(printable(f"{name}: {error}"))
        return done

    done = administrate(directory, work, debug)
    return done, failed[0] if failed else None


@click.command()
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


@click.command()
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
