"""Layer 6: ``points`` (also called ``snapshots``) and ``ls``."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from cloudconnect.backup.walk import absolute
from cloudconnect.cli import beside
from cloudconnect.cli.completion import FILE
from cloudconnect.cli.console import (
    aligned,
    counted,
    json_path,
    local_time,
    printable,
    shown_path,
    size,
)
from cloudconnect.cli.expired import accepts_expired
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.once import Shown
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, host_label, tenant_command
from cloudconnect.commands.control import SessionKind
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.wire.channel import FrameChannel

if TYPE_CHECKING:
    from cloudconnect.backup.heads import KnownHeads

#: The word for the newest point of this host and job.
LATEST = "latest"
#: The states of points that can be restored: as they are published, and in the bin.
PUBLISHED, DELETED = "published", "deleted"


@click.command(cls=SectionedCommand)
@click.option("--host", default="", metavar="NAME", help="Only points of this machine.")
@click.option("--job", default="", metavar="NAME", help="Only points of this job.")
@click.option("--tag", default="", help="Only points with this tag.")
@click.option("--path", type=FILE, help="Only points made of FILE, or of a folder that it is in.")
@click.option("--deleted", is_flag=True, help="What is in the bin, and until when.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the newest N of these.")
@tenant_command
@accepts_expired
def points(
    settings: TenantSettings,
    host: str,
    job: str,
    tag: str,
    path: str | None,
    deleted: bool,
    last: int | None,
) -> None:
    """List the restore points, oldest first.

    What was deleted stays in the bin for a time: it can be listed with --deleted, restored, and
    taken back with cloudconnect undelete.

    The provider does not know the paths of your files: with --path they are looked up with your
    encryption passphrase.
    """
    wanted = None if path is None else absolute(os.fsencode(path)).rstrip(b"/") or b"/"

    async def work(line: Line, interrupt: object) -> list[dict[str, Any]]:
        rows = await line.points(host, job, tag, (DELETED if deleted else PUBLISHED,))
        return rows if wanted is None or not rows else await _made_of(line, rows, wanted)

    rows = on_line(settings, work, passphrase=wanted is not None)
    rows = rows[-last:] if last else rows
    console = settings.console
    if not rows:
        console.say(
            "There are no such restore points in the bin."
            if deleted
            else "There are no such restore points."
        )
    for row, line in zip(rows, point_lines(rows), strict=True):
        console.record("point", row, line)


async def _made_of(line: Line, rows: list[dict[str, Any]], wanted: bytes) -> list[dict[str, Any]]:
    """Those of ``rows`` that were made of ``wanted``, or of a folder that it is in."""
    from cloudconnect.backup.records import read_paths

    description, keys = line.keys()
    points = [bytes.fromhex(row["point"]) for row in rows]

    def dialogue(channel: FrameChannel, session: bytes) -> set[bytes]:
        heads = line.heads(description, keys)
        return {
            point
            for point, paths in read_paths(channel, keys, description, points, heads)
            if any(is_below(wanted, source.rstrip(b"/")) for source in paths)
        }

    found = await line.session(SessionKind.READ, new_job_id(), host_label(), "points", dialogue)
    return [row for row in rows if bytes.fromhex(row["point"]) in found]


def point_line(row: dict[str, Any]) -> str:
    """One restore point for a person."""
    return point_lines([row])[0]


def point_lines(rows: Sequence[dict[str, Any]], tenants: Sequence[str] | None = None) -> list[str]:
    """Restore points for a person, what belongs together below each other.

    :param tenants: whose each of them is, where that is to be shown
    """
    cells = [_cells(row) for row in rows]
    right = {3, 4, 5}
    if tenants is not None:
        cells = [(name, *row) for name, row in zip(tenants, cells, strict=True)]
        right = {4, 5, 6}
    return [printable(line) for line in aligned(cells, right)]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    statistics = row["statistics"]
    return (
        row["point"][:8],
        local_time(row["time"]),
        f"{row['host']}/{row['job']}",
        counted(statistics.get("files", 0), "file") + ",",
        f"{size(statistics.get('bytes_source', 0))},",
        f"{size(statistics.get('bytes_new', 0))} new",
        f"[{', '.join(row['tags'])}]" if row["tags"] else "",
        point_state(row).strip(),
    )


def point_state(row: dict[str, Any]) -> str:
    """Whether a restore point is in the bin, locked or gone, for a person."""
    text = ""
    if row.get("state") == DELETED and row.get("bin_until"):
        text += f"  in the bin until {local_time(row['bin_until'])}"
        if row.get("deleted_by"):
            text += f", put there by {row['deleted_by']}"
    elif row.get("state", PUBLISHED) not in (PUBLISHED, DELETED):
        text += f"  {row['state']}"
    if row.get("locked_until"):
        text += f"  locked until {local_time(row['locked_until'])}"
    return text


async def find_point(
    line: Line, wanted: str, host: str = "", job: str = "", until: float | None = None
) -> dict[str, Any]:
    """The restore point that a person means.

    :param wanted: ``latest`` (of this host and the one job, or of ``job`` where given) or the
        first digits of an id, in the bin or not
    :param until: with latest: the newest one that arrived not after this moment, in seconds since
        1970
    :raises NotFound: there is none
    :raises UsageError: there are several, or points of several jobs
    """
    if wanted == LATEST:
        rows = await line.points(host or host_label(), job)
        if not rows and not host:
            others = await line.points("", job)
            hosts = sorted({row["host"] for row in others})
            if hosts:
                raise NotFound(
                    f"{host_label()} has no restore points; there are some of {', '.join(hosts)}: "
                    "give --host, or the id of a point"
                )
        if not rows:
            of_job = f" and job {job}" if job else ""
            raise NotFound(
                f"there is no restore point of host {host or host_label()}{of_job}: cloudconnect "
                "points lists what there is"
            )
        jobs = sorted({row["job"] for row in rows})
        if len(jobs) > 1:
            names = ", ".join(repr(name) for name in jobs)
            raise UsageError(f"there are points of several jobs: give --job with one of {names}")
        if until is not None:
            rows = [row for row in rows if row["time"] <= until]
            if not rows:
                raise NotFound(f"there is no restore point from before {local_time(until)}")
        return rows[-1]
    return match_point(await line.points(states=(PUBLISHED, DELETED)), wanted)


def believe_latest(
    heads: KnownHeads, wanted: str, row: dict[str, Any], until: float | None = None
) -> None:
    """Where the provider chose what is ``latest``, let the session find out if that is so.

    :param row: what :func:`find_point` returned for ``wanted`` and ``until``
    """
    if wanted == LATEST and until is None:
        heads.expect_latest(row["host"], row["job"], bytes.fromhex(row["point"]))


def match_point(rows: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """The one of ``rows`` whose id begins with the digits ``wanted``.

    :raises NotFound: none does
    :raises UsageError: several do
    """
    found = [row for row in rows if row["point"].startswith(wanted.lower())]
    if not found or not wanted:
        raise NotFound(
            f"there is no restore point {wanted}: list them with cloudconnect points, and those in "
            "the bin with cloudconnect points --deleted"
        )
    if len(found) > 1:
        raise UsageError(f"{wanted} is the beginning of {len(found)} ids: give more digits")
    return found[0]


@click.command(cls=SectionedCommand)
@click.argument("point")
@click.argument("path", required=False)
@click.option("--host", default="", metavar="NAME", help="With latest: of this machine.")
@click.option("--job", default="", metavar="NAME", help="With latest: of this job.")
@click.option("--human/--bytes", default=False, help="Sizes in kB, MB and so on.")
@tenant_command
@accepts_expired
def ls(
    settings: TenantSettings, point: str, path: str | None, host: str, job: str, human: bool
) -> None:
    """List what is in a restore point: everything, or PATH and what is below it."""
    console = settings.console
    wanted = None if path is None else absolute(os.fsencode(path)).rstrip(b"/")
    files = others = total = 0
    shown = Shown()

    async def work(line: Line, interrupt: object) -> None:
        from cloudconnect.backup.reading import PointReader

        description, keys = line.keys()
        row = await find_point(line, point, host, job)

        def dialogue(channel: FrameChannel, session: bytes) -> None:
            nonlocal files, others, total
            files = others = total = 0
            shown.begin()
            heads = line.heads(description, keys)
            believe_latest(heads, point, row)
            with PointReader(channel, keys, description, heads=heads) as reader:
                reader.open(bytes.fromhex(row["point"]))
                for entry in reader.entries():
                    if wanted is None or is_below(entry.path, wanted):
                        files += entry.type is EntryType.FILE
                        others += entry.type is not EntryType.FILE
                        total += 0 if entry.link is not None else entry.size
                        if shown.new():
                            console.record("entry", entry_map(entry), entry_line(entry, human))

        await line.session(SessionKind.READ, new_job_id(), row["host"], row["job"], dialogue)

    on_line(settings, work, wanted=beside.READ)
    if files + others == 0 and wanted is not None:
        raise NotFound(
            f"{path} is not in this restore point: cloudconnect find looks through all of them"
        )
    console.say(f"{counted(files, 'file')}, {size(total)}; {others} folders and other things")


def is_below(path: bytes, top: bytes) -> bool:
    """Whether ``path`` is ``top`` or below it."""
    return path == top or path.startswith(top + b"/")


_LETTERS = {
    EntryType.FILE: stat.S_IFREG,
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.FIFO: stat.S_IFIFO,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.SOCKET: stat.S_IFSOCK,
}


def entry_line(entry: Entry, human: bool = False) -> str:
    """One entry for a person, as ``ls -l`` shows it.

    :param human: its size in kB, MB and so on, not in bytes
    """
    mode = stat.filemode(_LETTERS[entry.type] | entry.mode)
    owner = f"{entry.user or entry.uid}/{entry.group or entry.gid}"
    arrow = f" -> {shown_path(entry.target)}" if entry.target is not None else ""
    if entry.link is not None:
        arrow = f" (another name of {shown_path(entry.link)})"
    when = local_time(entry.mtime_ns / 1e9)
    shown = f"{size(entry.size):>9}" if human else f"{entry.size:>14}"
    return f"{mode} {printable(owner):>17} {shown} {when} {shown_path(entry.path)}{arrow}"


def entry_map(entry: Entry) -> dict[str, Any]:
    """One entry for a program."""
    return {
        "path": json_path(entry.path),
        "type": entry.type.value,
        "mode": entry.mode,
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user,
        "group": entry.group,
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "target": None if entry.target is None else json_path(entry.target),
        "link": None if entry.link is None else json_path(entry.link),
    }
