"""Layer 6: ``check``: whether restore points are whole, and what is damaged."""

from __future__ import annotations

import re
from typing import Any

import click

from cloudconnect.backup.findings import CheckOptions, CheckResult, Damage
from cloudconnect.backup.options import Progress
from cloudconnect.cli import beside
from cloudconnect.cli.console import Console, counted, json_path, shown_path, size
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.points import DELETED, PUBLISHED, find_point
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.cli.values import parse_rate
from cloudconnect.commands.control import SessionKind
from cloudconnect.errors import ExitCode, UsageError
from cloudconnect.tap.allocator import keep_freed_memory
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.tenant.mover import Rates
from cloudconnect.tenant.retrying import Journey
from cloudconnect.wire.channel import FrameChannel


@click.command(cls=SectionedCommand)
@click.argument("points", nargs=-1, metavar="[POINT]...")
@click.option("--read-data", is_flag=True, help="Also fetch, open and compare every chunk.")
@click.option("--read-data-subset", metavar="N/T", help="Every chunk of part N of T, as 1/7.")
@click.option(
    "--at-provider",
    is_flag=True,
    help="Have the provider read and compare the data, fetching none: its word, not a proof.",
)
@click.option("--host", default="", metavar="NAME", help="Only points of this machine.")
@click.option("--job", default="", metavar="NAME", help="Only points of this job.")
@click.option("--deleted", is_flag=True, help="Also what is in the bin.")
@click.option("--limit-download", metavar="RATE", help="At most so much a second, such as 5MB.")
@tenant_command
def check(
    settings: TenantSettings,
    points: tuple[str, ...],
    read_data: bool,
    read_data_subset: str | None,
    at_provider: bool,
    host: str,
    job: str,
    deleted: bool,
    limit_download: str | None,
) -> int:
    """Check that restore points can be restored: all of them, or each POINT.

    Signatures and manifests are verified with your keys, and the provider must have every chunk
    that a file needs. With --read-data every chunk is fetched once and compared. With --at-provider
    as well, the provider reads the data where it lies and says what is damaged: far faster, and it
    finds a failing disk, but not a provider that lies. What is damaged is named with its points and
    files, and the exit status is 20; back up again, and what the source still has is stored anew.
    """
    if read_data and read_data_subset is not None:
        raise UsageError("give --read-data or --read-data-subset, not both")
    part = parse_part(read_data_subset)
    options = CheckOptions(
        read_data=read_data or read_data_subset is not None, at_provider=at_provider, part=part
    )
    if at_provider and not options.read_data:
        raise UsageError("--at-provider is about --read-data or --read-data-subset: add one")
    rates = Rates(0, parse_rate(limit_download))
    console = settings.console
    if options.read_data and not at_provider:
        keep_freed_memory()

    async def work(line: Line, interrupt: Interrupt) -> tuple[CheckResult, str] | None:
        from cloudconnect.backup.check import CheckRun

        description, keys = line.keys()
        wanted = [row["point"] for row in await chosen_points(line, points, host, job, deleted)]
        identifier = ""
        if not wanted:
            await line.look(description, keys)  # that there are none may be what is wrong
            return None
        journey = Journey()

        def show(progress: Progress) -> None:
            journey.came_to(progress.bytes_done)
            _show(console, progress, journey.bytes_received)

        def dialogue(channel: FrameChannel, session: bytes) -> CheckResult:
            nonlocal identifier
            identifier = session.hex()
            return CheckRun(
                channel,
                keys,
                description,
                [bytes.fromhex(point) for point in wanted],
                options,
                show,
                lambda: interrupt.happened,
                line.heads(description, keys),
            ).run()

        label = host or host_label()
        result = await line.session(
            SessionKind.CHECK,
            new_job_id(),
            label,
            job or "check",
            dialogue,
            rates=rates,
            journey=journey,
        )
        result.bytes_sent, result.bytes_received = journey.bytes_sent, journey.bytes_received
        return result, identifier

    done = on_line(settings, work, wanted=beside.CHECK)
    if done is None:
        console.say("There are no such restore points.")
        return int(ExitCode.DONE)
    _report(console, *done)
    return int(ExitCode.SECURITY_WARNING if done[0].damaged else ExitCode.DONE)


async def chosen_points(
    line: Line, wanted: tuple[str, ...], host: str, job: str, deleted: bool = False
) -> list[dict[str, Any]]:
    """The points that were named, each once; all of this host and job where none was.

    :param deleted: where none was, also those in the bin
    :raises NotFound: one that was named is not there
    :raises UsageError: a name is of several points
    """
    if not wanted:
        states = (PUBLISHED, DELETED) if deleted else (PUBLISHED,)
        return await line.points(host, job, states=states)
    rows = [await find_point(line, one, host, job) for one in wanted]
    return list({row["point"]: row for row in rows}.values())


def parse_part(text: str | None) -> tuple[int, int]:
    """``2/7`` as (2, 7); None is everything.

    :raises UsageError: not a part
    """
    if text is None:
        return (1, 1)
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(f"{text!r} is not a part: write 1/7, and 2/7 next time")
    return int(match[1]), int(match[2])


def _show(console: Console, progress: Progress, received_before: int) -> None:
    received = received_before + progress.bytes_received
    console.progress(progress.files, progress.bytes_done, received, progress.path)


def damage_line(damage: Damage) -> str:
    """One thing that is damaged, for a person."""
    where = f"restore point {damage.point.hex()[:8]}"
    if damage.path is not None:
        where += f": {shown_path(damage.path)}"
    return f"SECURITY WARNING stored_data_damaged: {where}: {shown_path(damage.reason.encode())}"


def _report(console: Console, result: CheckResult, session: str) -> None:
    for damage in result.damage:
        fields = {
            "point": damage.point.hex(),
            "path": None if damage.path is None else json_path(damage.path),
            "reason": damage.reason,
        }
        if console.as_json:
            console.record("damage", fields, "")
        else:
            console.note(damage_line(damage))
    unlisted = result.files_damaged + result.points_damaged - len(result.damage)
    if unlisted:
        console.note(f"and {unlisted} more")
    for point in result.gone:
        console.note(f"restore point {point.hex()[:8]} was removed while the check ran")
    summary = {
        "session": session,
        "points": result.points,
        "points_damaged": result.points_damaged,
        "points_gone": [point.hex() for point in result.gone],
        "entries": result.entries,
        "chunks": result.chunks,
        "chunks_missing": result.chunks_missing,
        "chunks_damaged": result.chunks_damaged,
        "chunks_read": result.chunks_read,
        "bytes_read": result.bytes_read,
        "chunks_vouched": result.chunks_vouched,
        "bytes_vouched": result.bytes_vouched,
        "files_damaged": result.files_damaged,
        "bytes_sent": result.bytes_sent,
        "bytes_received": result.bytes_received,
        "seconds": round(result.seconds, 3),
    }
    if not console.quiet or console.as_json:
        console.record("summary", summary, _sentence(result))


def _sentence(result: CheckResult) -> str:
    text = f"Checked {counted(result.points, 'restore point')}, {counted(result.chunks, 'chunk')}"
    if result.chunks_read:
        text += f", read {result.chunks_read} of them ({size(result.bytes_read)})"
    if result.chunks_vouched:
        text += (
            f", of which the provider says that it has read {result.chunks_vouched} "
            f"({size(result.bytes_vouched)} as stored) and found them unchanged,"
        )
    text += f" in {result.seconds:.1f} s"
    if not result.damaged:
        return f"{text}: nothing is damaged"
    lost = result.chunks_missing + result.chunks_damaged
    return (
        f"{text}: {lost} chunks are missing or damaged, which hits {result.files_damaged} files; "
        f"{result.points_damaged} restore points are damaged as a whole. Back up again: what the "
        "source still has is stored anew"
    )
