"""Layer 6: ``dump``: a file of a restore point, or a tar archive of a part of it, as it comes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from cloudconnect.backup.walk import absolute
from cloudconnect.cli import beside
from cloudconnect.cli.console import shown_path
from cloudconnect.cli.expired import accepts_expired
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import Shown
from cloudconnect.cli.points import believe_latest, find_point
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.tenant.retrying import Journey
from cloudconnect.wire.channel import FrameChannel

if TYPE_CHECKING:
    from cloudconnect.backup.reading import PointReader


@click.command(cls=SectionedCommand)
@click.argument("point")
@click.argument("path")
@click.option("--tar", "as_tar", is_flag=True, help="PATH, and what is below it, as a tar archive.")
@click.option(
    "--strip-components",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="With --tar: leave out the first N names of each path.",
)
@click.option("--host", default="", metavar="NAME", help="With latest: of this machine.")
@click.option("--job", default="", metavar="NAME", help="With latest: of this job.")
@tenant_command
@accepts_expired
def dump(
    settings: TenantSettings,
    point: str,
    path: str,
    as_tar: bool,
    strip_components: int,
    host: str,
    job: str,
) -> None:
    """Write one file of a restore point, or a tar archive, to standard output.

    With --tar PATH may be a folder, or / for all: dump --tar latest /etc | tar -tv
    """
    if strip_components and not as_tar:
        raise UsageError("--strip-components goes with --tar")
    if as_tar and sys.stdout.isatty():
        raise UsageError("an archive is nothing for a terminal: send it to a file, or to tar -tv")
    wanted = os.fsencode(path)
    written, noted, journey = Shown(), Shown(), Journey()

    def skipped(name: bytes) -> None:
        if noted.new():
            settings.console.note(f"a tar archive has no sockets: {shown_path(name)}")

    async def work(line: Line, interrupt: Interrupt) -> None:
        from cloudconnect.backup.archive import TarArchive
        from cloudconnect.backup.reading import PointReader

        description, keys = line.keys()
        row = await find_point(line, point, host, job)

        def dialogue(channel: FrameChannel, session: bytes) -> None:
            written.begin()
            noted.begin()
            done = 0
            heads = line.heads(description, keys)
            believe_latest(heads, point, row)
            with PointReader(channel, keys, description, heads=heads) as reader:
                reader.open(bytes.fromhex(row["point"]))
                if as_tar:
                    top = absolute(wanted).rstrip(b"/") or b"/"
                    pieces = TarArchive(reader, top, strip_components, skipped).pieces()
                else:
                    pieces = reader.read(_file(reader, wanted))
                for piece in pieces:
                    new = written.new(len(piece))
                    sys.stdout.buffer.write(piece[len(piece) - new :])
                    done += len(piece)
                    journey.came_to(done)
                sys.stdout.buffer.flush()

        labels = (row["host"], row["job"])
        await line.session(SessionKind.READ, new_job_id(), *labels, dialogue, journey=journey)

    on_line(settings, work, wanted=beside.READ)


def _file(reader: PointReader, wanted: bytes) -> Entry:
    """The file at a path; standard input's name may be given without the slash in front."""
    entry = _find(reader, wanted)
    if entry.type is EntryType.DIRECTORY:
        raise UsageError(f"{shown_path(entry.path)} is a folder: --tar makes an archive of it")
    return entry


def _find(reader: PointReader, wanted: bytes) -> Entry:
    """The entry of a path; standard input's name may be given without the slash in front."""
    try:
        return reader.find(absolute(wanted))
    except NotFound:
        if wanted.startswith(b"/"):
            raise
        return reader.find(b"/" + wanted)
