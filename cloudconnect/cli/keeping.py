"""Layer 6: ``delete``, ``undelete`` and ``lock``: what becomes of restore points."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import click

from cloudconnect.cli.console import local_time, printable
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.points import (
    DELETED,
    LATEST,
    PUBLISHED,
    find_point,
    match_point,
)
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.cli.values import parse_time
from cloudconnect.errors import Cancelled, UsageError

#: Asks the provider to do something with points, and returns what became of each.
_Act = Callable[[Line, Sequence[bytes]], Coroutine[Any, Any, list[dict[str, Any]]]]


@click.command(cls=SectionedCommand)
@click.argument("points", nargs=-1, required=True, metavar="POINT...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@tenant_command
def delete(settings: TenantSettings, points: tuple[str, ...], yes: bool) -> None:
    """Put restore points into the bin.

    They stay there for as long as the provider has set, can be restored and taken back with
    cloudconnect undelete, and leave for good after that. POINT is the beginning of an id.
    """
    if LATEST in points:
        raise UsageError("name what to delete by ids: cloudconnect points lists them")
    if not yes:
        _ask(f"Put {_named(points)} into the bin?")

    async def act(line: Line, ids: Sequence[bytes]) -> list[dict[str, Any]]:
        return await line.manager.delete_points(ids)

    rows = _on_points(settings, points, act)
    for row in rows:
        until = "" if row["bin_until"] is None else f" until {local_time(row['bin_until'])}"
        _say(settings, row, f"is in the bin{until}")
    _conclude(
        settings,
        rows,
        "Until then they can be restored, and taken back with: cloudconnect undelete "
        + " ".join(row["point"][:8] for row in rows),
    )


@click.command(cls=SectionedCommand)
@click.argument("points", nargs=-1, required=True, metavar="POINT...")
@tenant_command
def undelete(settings: TenantSettings, points: tuple[str, ...]) -> None:
    """Take restore points out of the bin: cloudconnect points --deleted lists them."""

    async def act(line: Line, ids: Sequence[bytes]) -> list[dict[str, Any]]:
        return await line.manager.undelete_points(ids)

    rows = _on_points(settings, points, act)
    for row in rows:
        _say(settings, row, "is not in the bin any more")
    _conclude(settings, rows, "")


@click.command(cls=SectionedCommand)
@click.argument("points", nargs=-1, required=True, metavar="POINT...")
@click.option("--until", required=True, metavar="DATE", help="Such as 2027-12-31: to its end.")
@click.option("--host", default="", metavar="NAME", help="With latest: of this machine.")
@click.option("--job", default="", metavar="NAME", help="With latest: of this job.")
@tenant_command
def lock(
    settings: TenantSettings, points: tuple[str, ...], until: str, host: str, job: str
) -> None:
    """Lock restore points: until DATE nobody can delete them, neither you nor the provider.

    A lock can be made longer, and never shorter. POINT is the beginning of an id, or latest.
    """
    ends = int(parse_time(until))
    if ends <= time.time():
        raise UsageError(f"--until {until} is over already")

    async def act(line: Line, ids: Sequence[bytes]) -> list[dict[str, Any]]:
        return await line.manager.lock_points(ids, ends)

    rows = _on_points(settings, points, act, host, job)
    for row in rows:
        longer = "" if row["locked_until"] == ends else ": the lock that it has ends later"
        _say(settings, row, f"cannot be deleted by anybody{longer}")
    _conclude(settings, rows, "")


def _ask(question: str) -> None:
    """Ask on the terminal whether to go on.

    :raises UsageError: there is none
    :raises Cancelled: the answer is no
    """
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on: give --yes if you mean it")
    if not click.confirm(printable(question), err=True):
        raise Cancelled("nothing was deleted")


def _named(points: tuple[str, ...]) -> str:
    shown = ", ".join(points[:8]) + (", ..." if len(points) > 8 else "")
    return f"restore point {shown}" if len(points) == 1 else f"{len(points)} restore points {shown}"


def _on_points(
    settings: TenantSettings, wanted: tuple[str, ...], act: _Act, host: str = "", job: str = ""
) -> list[dict[str, Any]]:
    """Find the points, do it, and return their rows as they are now.

    :param host: with latest: of this machine
    :param job: with latest: of this job
    """

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        known = await line.manager.points(states=(PUBLISHED, DELETED))
        found: dict[str, dict[str, Any]] = {}
        for text in wanted:
            if text == LATEST:
                row = await find_point(line, text, host, job)
            else:
                row = match_point(known, text)
            found[row["point"]] = row
        became = await act(line, [bytes.fromhex(point) for point in found])
        return [{**found[row["point"]], **row} for row in became]

    return on_line(settings, work, passphrase=False)


def _say(settings: TenantSettings, row: dict[str, Any], what: str) -> None:
    lock = (
        "" if row["locked_until"] is None else f"; locked until {local_time(row['locked_until'])}"
    )
    text = printable(
        f"{row['point'][:8]}  {local_time(row['time'])}  {row['host']}/{row['job']}  {what}{lock}"
    )
    settings.console.record("point", row, "" if settings.console.quiet else text)


def _conclude(settings: TenantSettings, rows: list[dict[str, Any]], text: str) -> None:
    shown = "" if settings.console.quiet else text
    settings.console.record("summary", {"points": len(rows)}, shown)
