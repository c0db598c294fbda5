"""Layer 6: ``restore``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cloudconnect.backup.options import Overwrite, Progress, RestoreOptions, RestoreResult
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.walk import absolute
from cloudconnect.cli import beside, wan
from cloudconnect.cli.completion import FOLDER
from cloudconnect.cli.console import Console, counted, json_path, printable, shown_path, size
from cloudconnect.cli.expired import accepts_expired
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import Shown
from cloudconnect.cli.points import LATEST, believe_latest, entry_line, entry_map, find_point
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.cli.values import parse_rate, parse_time
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.entries import Entry
from cloudconnect.errors import ExitCode, UsageError
from cloudconnect.tap.allocator import keep_freed_memory
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.tenant.mover import Rates
from cloudconnect.tenant.retrying import Journey
from cloudconnect.wire.channel import FrameChannel


@click.command(cls=SectionedCommand)
@click.argument("point")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--target", required=True, type=FOLDER, help="Restore below this folder.")
@click.option(
    "--strip-components",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Leave out the first N names of each path.",
)
@click.option(
    "--include", multiple=True, metavar="PATTERN", help="Only what matches; may be repeated."
)
@click.option(
    "--exclude", multiple=True, metavar="PATTERN", help="But not what matches; may be repeated."
)
@click.option(
    "--overwrite",
    type=click.Choice([choice.value for choice in Overwrite]),
    default=Overwrite.ALWAYS.value,
    show_default=True,
    help="What happens to files that are there already.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Write nothing; with -v list the paths.")
@click.option("--at", metavar="TIME", help="With latest: the newest point not after TIME.")
@click.option("--limit-upload", metavar="RATE", help="At most so much a second, such as 5MB.")
@click.option("--limit-download", metavar="RATE", help="At most so much a second.")
@click.option("--verify", is_flag=True, help="Read everything back and compare.")
@click.option("--host", default="", metavar="NAME", help="With latest: of this machine.")
@click.option("--job", default="", metavar="NAME", help="With latest: of this job.")
@wan.option
@tenant_command
@accepts_expired
def restore(
    settings: TenantSettings,
    point: str,
    paths: tuple[str, ...],
    target: str,
    strip_components: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overwrite: str,
    dry_run: bool,
    verify: bool,
    at: str | None,
    limit_upload: str | None,
    limit_download: str | None,
    host: str,
    job: str,
    **choices: Any,
) -> int:
    """Restore a point, or some paths of it, below a folder.

    The absolute source paths are made again below --target. POINT is the beginning of an id, or
    latest. Nothing is ever written outside the folder. Run again after an interruption, it fetches
    only what is missing or wrong.
    """
    options = RestoreOptions(
        target=absolute(os.fsencode(target)),
        strip_components=strip_components,
        paths=tuple(absolute(os.fsencode(path)).rstrip(b"/") or b"/" for path in paths),
        include=PathPatterns([os.fsencode(p) for p in include]),
        exclude=PathPatterns([os.fsencode(p) for p in exclude]),
        overwrite=Overwrite(overwrite),
        dry_run=dry_run,
        verify=verify,
    )
    if at is not None and point != LATEST:
        raise UsageError(f"--at goes with latest: the point {point} is named already")
    if Path(target).exists() and not Path(target).is_dir():
        raise UsageError(f"--target {target} is not a folder")
    console = settings.console
    until = None if at is None else parse_time(at)
    rates = Rates(parse_rate(limit_upload), parse_rate(limit_download))

    shown, journey = Shown(), Journey()

    def listed(entry: Entry) -> None:
        if dry_run and console.verbose and shown.new():
            console.record("entry", entry_map(entry), entry_line(entry))

    def show(progress: Progress) -> None:
        journey.came_to(progress.bytes_done)
        _show(console, progress, journey.bytes_received)

    async def work(
        line: Line, interrupt: Interrupt
    ) -> tuple[RestoreResult, str, tuple[wan.WAN, dict[str, Any]]]:
        from cloudconnect.backup.restore import RestoreRun

        description, keys = line.keys()
        row = await find_point(line, point, host, job, until)
        identifier = ""

        def dialogue(channel: FrameChannel, session: bytes) -> RestoreResult:
            nonlocal identifier
            identifier = session.hex()
            shown.begin()
            heads = line.heads(description, keys)
            believe_latest(heads, point, row, until)
            return RestoreRun(
                channel,
                keys,
                description,
                bytes.fromhex(row["point"]),
                options,
                show,
                lambda: interrupt.happened,
                listed=listed,
                heads=heads,
            ).run()

        async with wan.accelerated(line, description, choices["wan"]) as way:
            result = await line.session(
                SessionKind.RESTORE,
                new_job_id(),
                row["host"],
                row["job"],
                dialogue,
                rates=rates,
                journey=journey,
                wan=way,
            )
        result.bytes_sent, result.bytes_received = journey.bytes_sent, journey.bytes_received
        return result, identifier, (way, line.manager.saved)

    keep_freed_memory()
    wanted = (*beside.RESTORE, *wan.wanted_beside(settings.mode, choices["wan"]))
    result, session, saved = on_line(settings, work, wanted=wanted)
    _report(console, result, session, target, dry_run, saved)
    if result.damaged:
        return int(ExitCode.SECURITY_WARNING)
    if result.missing:
        return int(ExitCode.NOT_FOUND)
    if result.empty and (paths or include or exclude or strip_components):
        console.note(
            "nothing of this restore point is left by the paths, --include, --exclude and "
            "--strip-components: cloudconnect ls shows what is in it"
        )
        return int(ExitCode.NOT_FOUND)
    return int(ExitCode.FAILED if result.problems else ExitCode.DONE)


def _things(result: RestoreResult) -> str:
    """How much of what was restored."""
    parts = [counted(result.files, "file"), counted(result.directories, "folder")]
    if result.other:
        parts.append(counted(result.other, "other thing"))
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def _show(console: Console, progress: Progress, received_before: int) -> None:
    console.progress(
        progress.files,
        progress.bytes_done,
        received_before + progress.bytes_received,
        progress.path,
        progress.bytes_total,
    )


def _report(
    console: Console,
    result: RestoreResult,
    session: str,
    target: str,
    dry_run: bool,
    accelerated: tuple[wan.WAN, dict[str, Any]],
) -> None:
    (way, saved), record = accelerated, result.record
    for problem in result.damaged.listed:
        console.note(
            f"SECURITY WARNING stored_data_damaged: {shown_path(problem.path)}: {problem.reason}"
        )
    for problem in result.problems.listed:
        console.note(f"not fully restored: {shown_path(problem.path)}: {problem.reason}")
    for path in result.missing:
        console.note(f"not in this restore point: {shown_path(path)}")
    for note in result.notes:
        console.note(note)
    fields: dict[str, Any] = {
        "point": result.record.point.hex(),
        "session": session,
        "target": target,
        "files": result.files,
        "directories": result.directories,
        "other": result.other,
        "kept": result.kept,
        "unchanged": result.unchanged,
        "bytes_restored": result.bytes_restored,
        "bytes_there": result.bytes_there,
        "bytes_sent": saved.get("line_sent", result.bytes_sent),
        "bytes_received": saved.get("line_received", result.bytes_received),
        "wan": way.summary(saved),
        "problems": result.problems.count,
        "damaged": [json_path(problem.path) for problem in result.damaged.listed],
        "missing": [json_path(path) for path in result.missing],
        "seconds": round(result.seconds, 3),
    }
    if (console.quiet or result.empty) and not console.as_json:
        return
    verb = "Would restore" if dry_run else "Restored"
    text = (
        f"{verb} {_things(result)}, "
        f"{size(result.bytes_restored)}, of restore point {record.point.hex()[:8]} "
        f"({printable(f'{record.host}/{record.job}')}) below {target} in {result.seconds:.1f} s"
    )
    if result.bytes_there:
        text += f"; {size(result.bytes_there)} of it were there already"
    if result.unchanged:
        text += f", with {counted(result.unchanged, 'file')} that needed nothing"
    if result.kept:
        left = "was left as it is" if result.kept == 1 else "were left as they are"
        text += f"; {counted(result.kept, 'file')} {left}"
    text += way.text(saved)
    console.record("summary", fields, text)
