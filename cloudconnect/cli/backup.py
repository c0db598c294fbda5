"""Layer 6: ``backup``."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import attrs
import click

from cloudconnect.backup.options import (
    BackupOptions,
    BackupResult,
    Labels,
    Progress,
    StandardInput,
)
from cloudconnect.backup.walk import Found
from cloudconnect.cli import beside, wan
from cloudconnect.cli.completion import FILE
from cloudconnect.cli.console import Console, counted, json_path, shown_path, size
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import ReadOnce
from cloudconnect.cli.published import Offers
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.selecting import rules_of, selecting_options, sources_of
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.cli.values import parse_rate
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.profile import cache_folder
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import ExitCode, SourceCommandFailed, Truncated, UsageError
from cloudconnect.keys import MasterKey
from cloudconnect.tap.allocator import few_arenas
from cloudconnect.tenant.early import Foreseen
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.tenant.mover import Rates
from cloudconnect.tenant.retrying import Journey
from cloudconnect.wire.channel import FrameChannel

#: Heaps of a backup's process: with one its threads wait for each other, with one for each of them
#: some 10 MiB more are kept.
ARENAS: Final = 2


@click.command(cls=SectionedCommand)
@click.argument("paths", nargs=-1, type=FILE, metavar="PATH...")
@click.option(
    "--job", default="default", show_default=True, metavar="NAME", help="Label of this job."
)
@click.option(
    "--host", default="", metavar="NAME", help="Label of this machine; its name by default."
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="WORD",
    help="A word to find the point by; may be repeated.",
)
@click.option("--stdin", "stdin_name", metavar="NAME", help="Back up standard input as NAME.")
@click.option(
    "--stdin-from-command",
    "command_name",
    metavar="NAME",
    help="Back up the output of the command after -- as NAME; nothing if it fails.",
)
@click.option(
    "-n", "--dry-run", is_flag=True, help="Look and count, send nothing; with -v list the paths."
)
@selecting_options
@click.option(
    "--compression",
    default="auto",
    show_default=True,
    metavar="auto|0..19",
    help="Level of zstd; 0: none, auto: as the line allows.",
)
@click.option("--limit-upload", metavar="RATE", help="At most so much a second, such as 5MB.")
@click.option("--limit-download", metavar="RATE", help="At most so much a second.")
@wan.option
@tenant_command
def backup(
    settings: TenantSettings,
    paths: tuple[str, ...],
    job: str,
    host: str,
    tags: tuple[str, ...],
    stdin_name: str | None,
    command_name: str | None,
    **choices: Any,
) -> int:
    """Back up files, folders, or standard input, as one restore point.

    Points belong to this machine's name and the job's.
    """
    if click.get_current_context().find_root().obj is not None:  # a process of its own
        few_arenas(ARENAS)
    words: tuple[str, ...] = ()
    if command_name is not None:
        if not paths or stdin_name is not None:
            raise UsageError("--stdin-from-command NAME wants its command after --, and no --stdin")
        words, paths = paths, ()
    sources = sources_of(paths, choices["files_from"])
    if bool(sources) is (stdin_name is not None or command_name is not None):
        raise UsageError("name what to back up: one or more paths, or --stdin NAME")
    for what, label in (("--job", job), ("--host", host or host_label())):
        _check_label(what, label)
    console = settings.console
    rules, level = rules_of(choices), _level(choices["compression"])
    rates = Rates(parse_rate(choices["limit_upload"]), parse_rate(choices["limit_download"]))

    def options(
        stdin: StandardInput | None,
        cache: Path | None,
        round_trip: float | None = None,
        compression: int | None = level,
    ) -> BackupOptions:
        return BackupOptions(
            paths=sources,
            rules=rules,
            one_file_system=choices["one_file_system"],
            stdin=stdin,
            dry_run=choices["dry_run"],
            compression=compression,
            cache=cache,
            round_trip=round_trip,
        )

    if choices["dry_run"]:
        result, session, saved = _dry_run(options(None, None), console), "", None
        notes: list[str] = []
    else:
        label, job_id = host or host_label(), new_job_id()
        result, session, saved, notes = on_line(
            settings,
            lambda line, interrupt: _back_up(
                line,
                interrupt,
                options,
                (rates, choices["wan"]),
                (stdin_name, command_name, words),
                Labels(host=label, job=job, tags=tags, job_id=job_id),
            ),
            wanted=(*beside.BACKUP, *wan.wanted_beside(settings.mode, choices["wan"])),
            foresee=lambda manager: _foreseen(
                settings, manager, choices["wan"], (job_id, label, job)
            ),
        )
    _report(console, result, session, saved, notes)
    unread = result.unreadable.count
    return int(ExitCode.SOURCES_UNREADABLE if unread else ExitCode.DONE)


async def _back_up(
    line: Line,
    interrupt: Interrupt,
    options: Callable[..., BackupOptions],
    way: tuple[Rates, str],
    standard: tuple[str | None, str | None, tuple[str, ...]],
    labels: Labels,
) -> tuple[BackupResult, str, tuple[wan.WAN, dict[str, Any]], list[str]]:
    """One job; the command behind standard input is started only once the keys are open."""
    from cloudconnect.backup.upload import BackupRun

    description, keys = line.keys()
    cache = cache_folder(os.environ, line.account.provider, description.repository)
    console = line.settings.console
    (stdin_name, command_name, words), identifier = standard, ""
    host, job, job_id = labels.host, labels.job, labels.job_id
    command = None if command_name is None else _start(words)
    stdin, once = None, None
    if command is not None and command_name is not None:
        stdin = _output(command, command_name, words)
    elif stdin_name is not None:
        stdin = StandardInput(os.fsencode(stdin_name), sys.stdin.buffer)
    if stdin is not None:
        once = ReadOnce(stdin.stream)
        stdin = attrs.evolve(stdin, stream=cast(BinaryIO, once))
    journey, offers = Journey(), Offers(line, host, job, job_id)

    def show(progress: Progress) -> None:
        journey.came_to(progress.bytes_done)
        _show(console, progress, journey.bytes_sent)

    rates, choice = way
    way_taken = wan.WAN(why="not decided")

    def dialogue(channel: FrameChannel, session: bytes) -> BackupResult:
        nonlocal identifier
        identifier = session.hex()
        run = BackupRun(
            channel,
            keys,
            description,
            options(stdin, cache, line.manager.round_trip, *way_taken.compression),
            labels,
            session,
            show,
            lambda: interrupt.happened,
            heads=line.heads(description, keys),
        )
        offers.add(run)
        return run.run()

    def unrepeatable() -> str:
        if once is None or not once.touched or offers.open:
            return ""
        what = "standard input" if command is None else f"the output of {words[0]}"
        return f"{what} was read in part, and cannot be read again"

    async def published() -> BackupResult | None:
        result = await offers.published()
        if result is None and unrepeatable():
            raise Truncated("the line broke before the restore point was published")
        return result

    try:
        async with wan.accelerated(line, description, choice) as way_taken:
            result = await line.session(
                SessionKind.BACKUP,
                job_id,
                host,
                job,
                dialogue,
                _for_the_provider,
                rates,
                journey,
                unrepeatable,
                published,
                way_taken,
            )
        if result.record is not None:
            identifier = result.record.session.hex()
        result.bytes_sent, result.bytes_received = journey.bytes_sent, journey.bytes_received
        return result, identifier, (way_taken, line.manager.saved), line.manager.notes
    finally:
        if command is not None and command.poll() is None:
            command.kill()
            command.wait()


def _foreseen(
    settings: TenantSettings, manager: JobManager, choice: str, labelled: tuple[bytes, str, str]
) -> Foreseen | None:
    """The session of this command, where the profile names the repository."""
    streams = wan.foreseen_streams(settings, choice, manager.round_trip)
    repository = settings.repository
    if streams is None or repository is None:
        return None
    return Foreseen(SessionKind.BACKUP, repository, *labelled, streams)


def _dry_run(options: BackupOptions, console: Console) -> BackupResult:
    """Look and count, with keys that nobody will need."""
    from cloudconnect.backup.upload import BackupRun

    repository = bytes(16)
    master = MasterKey.generate()
    description = describe(master, repository, EncryptionMode.TENANT, ())
    labels = Labels(host="dry-run", job="dry-run", job_id=bytes(16))
    return BackupRun(
        None,
        RepositoryKeys(master, repository),
        description,
        options,
        labels,
        bytes(16),
        lambda progress: _show(console, progress),
        listed=lambda found: _list(console, found),
    ).run()


def _list(console: Console, found: Found) -> None:
    """What would be backed up, where that was asked for."""
    if not console.verbose:
        return
    status = found.status
    count = status.st_size if stat.S_ISREG(status.st_mode) else 0
    fields = {
        "path": json_path(found.path),
        "mode": stat.S_IMODE(status.st_mode),
        "size": count,
        "mtime_ns": status.st_mtime_ns,
    }
    text = f"{stat.filemode(status.st_mode)} {count:>14} {shown_path(found.path)}"
    console.record("entry", fields, text)


def _check_label(what: str, label: str) -> None:
    """Say what is wrong with a label before anything is sent."""
    if not 0 < len(label) <= LABEL_MAX or not label.isprintable():
        raise UsageError(f"{what} has 1 to {LABEL_MAX} printable characters")


def _level(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) > 19:
        raise UsageError("--compression is auto, or a level from 0 (none) to 19")
    return int(text)


def _start(words: tuple[str, ...]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603
    except OSError as error:
        raise UsageError(f"{words[0]} cannot be started: {error.strerror}") from None


def _output(command: subprocess.Popen[bytes], name: str, words: tuple[str, ...]) -> StandardInput:
    def check() -> None:
        status = command.wait()
        if status != 0:
            raise SourceCommandFailed(
                f"{words[0]} failed with status {status}: no restore point was made"
            )

    assert command.stdout is not None
    stream: BinaryIO = command.stdout  # type: ignore[assignment]
    return StandardInput(os.fsencode(name), stream, check)


def _show(console: Console, progress: Progress, sent_before: int = 0) -> None:
    console.progress(
        progress.files,
        progress.bytes_done,
        sent_before + progress.bytes_sent,
        progress.path,
        progress.bytes_total,
    )


def _for_the_provider(result: BackupResult) -> dict[str, Any]:
    """What the provider may keep of a backup's result: counts, no names."""
    return {
        "files": result.files,
        "bytes_source": result.bytes_source,
        "bytes_new": result.bytes_new,
        "bytes_sent": result.bytes_sent,
        "unreadable": result.unreadable.count,
    }


def _report(
    console: Console,
    result: BackupResult,
    session: str,
    accelerated: tuple[wan.WAN, dict[str, Any]] | None,
    notes: list[str],
) -> None:
    saved = {} if accelerated is None else accelerated[1]
    for problem in result.unreadable.listed:
        console.note(f"not backed up: {shown_path(problem.path)}: {problem.reason}")
    for problem in result.changed.listed:
        console.note(f"changed while it was read: {shown_path(problem.path)}")
    for note in notes:
        console.note(f"note from the provider: {note}")
    for path in result.devices:
        console.note(
            f"{shown_path(path)} is a block device: its content is in the restore point as a file; "
            "what was written to it meanwhile may be in there in part"
        )
    fields = {
        "point": result.point.hex(),
        "session": session,
        "files": result.files,
        "files_unchanged": result.files_unchanged,
        "directories": result.directories,
        "other": result.other,
        "bytes_source": result.bytes_source,
        "bytes_new": result.bytes_new,
        "bytes_stored": result.bytes_stored,
        "bytes_sent": saved.get("line_sent", result.bytes_sent),
        "bytes_received": saved.get("line_received", result.bytes_received),
        "wan": None if accelerated is None else accelerated[0].summary(saved),
        "warnings": [
            {"path": json_path(p.path), "reason": p.reason}
            for p in (*result.unreadable.listed, *result.changed.listed)
        ],
        "notes": notes,
        "devices": [json_path(path) for path in result.devices],
        "unreadable": result.unreadable.count,
        "changed": result.changed.count,
        "seconds": round(result.seconds, 3),
    }
    if console.quiet and not console.as_json:
        return
    counts = (
        f"{counted(result.files, 'file')} ({result.files_unchanged} unchanged), "
        f"{size(result.bytes_source)}, {size(result.bytes_new)} of it new, "
        f"{size(saved.get('line_sent', result.bytes_sent))} sent in {result.seconds:.1f} s"
    )
    text = f"Restore point {result.point.hex()[:8]}: {counts}"
    if accelerated is not None:
        text += accelerated[0].text(saved)
    if not result.point:
        counts = f"{counted(result.files, 'file')}, {size(result.bytes_source)}"
        text = f"Would back up {counts}; nothing was sent"
    if result.unreadable:
        unread = counted(result.unreadable.count, "source")
        text += f"\n{unread} could not be read"
        text += "; the rest is stored" if result.point else ""
    console.record("summary", fields, text)
