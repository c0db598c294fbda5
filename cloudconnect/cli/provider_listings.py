"""Layer 6: ``provider points``, ``events`` and ``sessions``: listings of what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, listed, rows, tenants_meant
from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.points import DELETED, PUBLISHED, point_lines

_last_option = click.option(
    "--last", type=click.IntRange(1), metavar="N", help="Only the newest N of these."
)


def _newest(found: list[dict[str, Any]], last: int | None) -> list[dict[str, Any]]:
    """The last ones of a listing, or all."""
    return found if last is None else found[-last:]


@click.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--deleted", is_flag=True, help="What is in the bin, and until when.")
@json_option
@debug_option
def points(directory: Path, tenant_name: str, deleted: bool, as_json: bool, debug: bool) -> None:
    """List restore points."""
    state = DELETED if deleted else PUBLISHED

    async def work(acts: Acts) -> list[dict[str, Any]]:
        names = await tenants_meant(acts, tenant_name)
        filters = [{"tenant": name, "state": state} for name in names]
        return [row for wanted in filters for row in await rows(acts, "point", wanted)]

    console, found = Console(as_json), administrate(directory, work, debug)
    for row, line in zip(found, point_lines(found, [row["tenant"] for row in found]), strict=True):
        console.record("point", row, line)


@click.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--warnings", is_flag=True, help="Only security warnings.")
@_last_option
@json_option
@debug_option
def events(
    directory: Path,
    tenant_name: str,
    warnings: bool,
    last: int | None,
    as_json: bool,
    debug: bool,
) -> None:
    """List what happened, security warnings among it."""
    filters = {"tenant": tenant_name, "type": "warning" if warnings else ""}
    console = Console(as_json)
    for row in _newest(listed(directory, "event", filters, debug), last):
        mark = "SECURITY WARNING " if row["type"] == "warning" else ""
        text = (
            f"{local_time(row['time'])}  {row['tenant'] or '-'}  {mark}{row['name']}: {row['text']}"
        )
        console.record("event", row, printable(text))


@click.command()
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@_last_option
@json_option
@debug_option
def sessions(
    directory: Path, tenant_name: str, last: int | None, as_json: bool, debug: bool
) -> None:
    """List sessions: who, what, how they ended, and the identifiers of their keys."""
    console = Console(as_json)
    for row in _newest(listed(directory, "session", {"tenant": tenant_name}, debug), last):
        text = (
            f"{row['session'][:8]}  {local_time(row['started'])}  {row['tenant']}  {row['kind']}  "
            f"{row['host']}/{row['job']}  {row['state']}  key A {row['key_a']}  "
            f"key B {row['key_b'] or '-'}"
        )
        console.record("session", row, printable(text))
