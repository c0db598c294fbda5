"""Layer 6: ``events`` and ``session show``: what the provider has kept of the tenant's sessions."""

from __future__ import annotations

from typing import Any

import click

from cloudconnect.cli.console import local_time, printable
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.sections import CommandGroup, SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.errors import NotFound, UsageError


@click.command(cls=SectionedCommand)
@click.option("--warnings", is_flag=True, help="Only security warnings.")
@click.option("--last", default=0, metavar="N", help="Only the newest N.")
@tenant_command
def events(settings: TenantSettings, warnings: bool, last: int) -> None:
    """List what the provider has kept of your sessions, security warnings among it."""

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        return await line.manager.history("event")

    rows = on_line(settings, work, passphrase=False)
    rows = [row for row in rows if not warnings or row["type"] == "warning"]
    for row in rows[-last:] if last > 0 else rows:
        settings.console.record("event", row, printable(event_line(row)))
    if not rows:
        settings.console.say("There are none.")


def event_line(row: dict[str, Any]) -> str:
    """One event for a person."""
    mark = "SECURITY WARNING " if row["type"] == "warning" else ""
    session = row["session"][:8] or "-"
    return f"{local_time(row['time'])}  {session}  {mark}{row['name']}: {row['text']}"


@click.group(cls=CommandGroup)
def session() -> None:
    """The sessions that jobs have had."""


@session.command("list")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N.")
@tenant_command
def list_sessions(settings: TenantSettings, last: int | None) -> None:
    """List your sessions: what for, how they ended, and the identifiers of their keys."""

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        return await line.manager.history("session")

    for row in on_line(settings, work, passphrase=False)[-(last or 0) :]:  # -0 is the beginning
        settings.console.record("session", row, printable(session_line(row)))


def session_line(row: dict[str, Any]) -> str:
    """One session for a person."""
    return (
        f"{row['session'][:8]}  {local_time(row['started'])}  {row['kind']}  "
        f"{row['host']}/{row['job']}  {row['state']}  key A {row['key_a']}  "
        f"key B {row['key_b'] or '-'}"
    )


@session.command("show")
@click.argument("identifier", metavar="ID")
@tenant_command
def show(settings: TenantSettings, identifier: str) -> None:
    """Show a session step by step, as the provider has kept it: who held which key, and when.

    ID is the session's, or its first digits, as they stand in a backup's summary.
    """
    wanted = identifier.lower()
    if len(wanted) < 4 or set(wanted) - set("0123456789abcdef"):
        raise UsageError(f"{identifier!r} is not a session: at least four hexadecimal digits of it")

    async def work(line: Line, interrupt: object) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        found = [
            row
            for row in await line.manager.history("session")
            if row["session"].startswith(wanted)
        ]
        if not found:
            raise NotFound(f"there is no session {identifier}: see cloudconnect session list")
        if len(found) > 1:
            raise UsageError(f"{len(found)} sessions begin with {identifier}: give more digits")
        return found[0], await line.manager.history("event", found[0]["session"])

    row, steps = on_line(settings, work, passphrase=False)
    console = settings.console
    console.record("session", row, printable(session_line(row)))
    for step in steps:
        console.record("event", step, printable(event_line(step)))
