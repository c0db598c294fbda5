"""Layer 6: ``diff``: what changed between two restore points."""

from __future__ import annotations

import os
from typing import Any, Final

import click

from cloudconnect.backup.changes import Change, ChangeKind, DiffResult, DiffRun
from cloudconnect.backup.walk import absolute
from cloudconnect.cli.console import Console, json_path, shown_path, size
from cloudconnect.cli.expired import accepts_expired
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import Shown
from cloudconnect.cli.points import believe_latest, entry_map, find_point
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.entries import EntryType
from cloudconnect.errors import ExitCode
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.wire.channel import FrameChannel

#: How a line begins.
_SIGNS: Final = {
    ChangeKind.ADDED: "+",
    ChangeKind.REMOVED: "-",
    ChangeKind.CONTENT: "M",
    ChangeKind.METADATA: "U",
    ChangeKind.TYPE: "T",
}
_WORDS: Final = {
    EntryType.FILE: "file",
    EntryType.DIRECTORY: "folder",
    EntryType.SYMLINK: "link",
    EntryType.FIFO: "FIFO",
    EntryType.CHARACTER: "character device",
    EntryType.BLOCK: "block device",
    EntryType.SOCKET: "socket",
}


@click.command(cls=SectionedCommand)
@click.argument("first")
@click.argument("second")
@click.argument("path", required=False)
@click.option("--metadata/--no-metadata", default=True, help="Show what only has other metadata.")
@click.option("--host", default="", metavar="NAME", help="With latest: of this machine.")
@click.option("--job", default="", metavar="NAME", help="With latest: of this job.")
@tenant_command
@accepts_expired
def diff(
    settings: TenantSettings,
    first: str,
    second: str,
    path: str | None,
    metadata: bool,
    host: str,
    job: str,
) -> int:
    """Show what changed from restore point FIRST to SECOND, everywhere or in PATH.

    + added, - removed, M other content, U other metadata only, T became something else.
    """
    console = settings.console
    top = None if path is None else absolute(os.fsencode(path))

    shown = Shown()

    def show(change: Change) -> None:
        if not shown.new():
            return
        if metadata or change.kind is not ChangeKind.METADATA:
            console.record("change", change_map(change), change_line(change))

    async def work(line: Line, interrupt: object) -> DiffResult:
        description, keys = line.keys()
        rows = [await find_point(line, one, host, job) for one in (first, second)]
        points = (bytes.fromhex(rows[0]["point"]), bytes.fromhex(rows[1]["point"]))

        def dialogue(channel: FrameChannel, session: bytes) -> DiffResult:
            shown.begin()
            heads = line.heads(description, keys)
            for one, row in zip((first, second), rows, strict=True):
                believe_latest(heads, one, row)
            return DiffRun(channel, keys, description, points, show, top, heads=heads).run()

        return await line.session(SessionKind.READ, new_job_id(), host_label(), "diff", dialogue)

    result = on_line(settings, work)
    _report(console, result)
    return int(ExitCode.SECURITY_WARNING if result.damaged else ExitCode.DONE)


def change_line(change: Change) -> str:
    """One change for a person."""
    entry = change.after or change.before
    assert entry is not None
    shown = size(entry.size) if entry.type is EntryType.FILE else ""
    return f"{_SIGNS[change.kind]} {shown:>9}  {shown_path(change.path)}{_detail(change)}"


def _detail(change: Change) -> str:
    before, after = change.before, change.after
    if before is None or after is None:
        return ""
    if change.kind is ChangeKind.TYPE:
        return f"  (was a {_WORDS[before.type]}, is a {_WORDS[after.type]})"
    if change.kind is ChangeKind.METADATA:
        return f"  ({', '.join(change.aspects)})"
    if before.target is not None and after.target is not None:
        return f"  ({shown_path(before.target)} -> {shown_path(after.target)})"
    return f"  (was {size(before.size)})" if before.size != after.size else ""


def change_map(change: Change) -> dict[str, Any]:
    """One change for a program."""
    return {
        "kind": change.kind.value,
        "path": json_path(change.path),
        "aspects": list(change.aspects),
        "before": None if change.before is None else entry_map(change.before),
        "after": None if change.after is None else entry_map(change.after),
    }


def _report(console: Console, result: DiffResult) -> None:
    for problem in result.damaged.listed:
        console.note(
            f"SECURITY WARNING stored_data_damaged: {shown_path(problem.path)}: {problem.reason}"
        )
    counts = {kind.value: result.counts[kind] for kind in ChangeKind}
    fields: dict[str, Any] = {
        **counts,
        "unchanged": result.unchanged,
        "bytes_added": result.bytes_added,
        "bytes_removed": result.bytes_removed,
        "damaged": result.damaged.count,
        "seconds": round(result.seconds, 3),
    }
    if console.quiet and not console.as_json:
        return
    console.record(
        "summary",
        fields,
        f"{counts['added']} added, {counts['removed']} removed, {counts['content']} with other "
        f"content, {counts['metadata']} with other metadata only, {counts['type']} of another "
        f"type, {result.unchanged} unchanged; {size(result.bytes_added)} more, "
        f"{size(result.bytes_removed)} less",
    )
