"""Layer 6: ``find``: which restore points have a file, of which size and from when."""

from __future__ import annotations

import os
from typing import Any

import click

from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.searching import SearchResult, search
from cloudconnect.cli.console import counted, local_time, printable
from cloudconnect.cli.expired import accepts_expired
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import Shown
from cloudconnect.cli.points import entry_line, entry_map
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.entries import Entry
from cloudconnect.errors import ExitCode, NotFound
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.wire.channel import FrameChannel


@click.command(cls=SectionedCommand)
@click.argument("pattern")
@click.option("--host", default="", metavar="NAME", help="Only points of this machine.")
@click.option("--job", default="", metavar="NAME", help="Only points of this job.")
@click.option("--newest-only", is_flag=True, help="Only the newest point of each host and job.")
@click.option("--human/--bytes", default=True, help="Sizes in kB, MB and so on, or in bytes.")
@tenant_command
@accepts_expired
def find(
    settings: TenantSettings, pattern: str, host: str, job: str, newest_only: bool, human: bool
) -> int:
    """Search all restore points, oldest first, for what PATTERN means.

    A pattern without / is compared with names in every folder (letter.odt, '*.odt'); one that
    begins with / with whole paths (/home/*/.bashrc).
    """
    console = settings.console
    patterns = PathPatterns([os.fsencode(pattern)])
    shown, told = b"", Shown()

    async def work(line: Line, interrupt: object) -> SearchResult:
        description, keys = line.keys()
        rows = await line.points(host, job)
        if newest_only:
            rows = newest(rows)
        if not rows:
            raise NotFound("there are no such restore points")
        by_point = {bytes.fromhex(row["point"]): row for row in rows}

        def found(point: bytes, entry: Entry) -> None:
            nonlocal shown
            if not told.new():
                return
            row = by_point[point]
            if shown != point and not console.as_json:
                shown = point
                console.record("", {}, heading(row))
            fields = {
                "point": row["point"],
                "time": row["time"],
                "host": row["host"],
                "job": row["job"],
                **entry_map(entry),
            }
            console.record("entry", fields, "  " + entry_line(entry, human))

        def dialogue(channel: FrameChannel, session: bytes) -> SearchResult:
            told.begin()
            heads = line.heads(description, keys)
            return search(channel, keys, description, list(by_point), patterns, found, heads=heads)

        return await line.session(SessionKind.READ, new_job_id(), host_label(), "find", dialogue)

    result = on_line(settings, work)
    for point, reason in result.damaged:
        text = f"SECURITY WARNING stored_data_damaged: restore point {point.hex()[:8]}: {reason}"
        console.note(printable(text))
    if not console.quiet or console.as_json:
        fields = {
            "points": result.points,
            "entries": result.entries,
            "found": result.found,
            "damaged": [point.hex() for point, _ in result.damaged],
        }
        text = f"{result.found} found in {counted(result.points, 'restore point')}"
        console.record("summary", fields, text)
    if result.damaged:
        return int(ExitCode.SECURITY_WARNING)
    return int(ExitCode.DONE if result.found else ExitCode.NOT_FOUND)


def newest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest point of each host and job, of rows that are oldest first."""
    return sorted(
        {(row["host"], row["job"]): row for row in rows}.values(), key=lambda row: row["arrival"]
    )


def heading(row: dict[str, Any]) -> str:
    """A restore point above what was found in it."""
    return printable(f"{row['point'][:8]}  {local_time(row['time'])}  {row['host']}/{row['job']}")
