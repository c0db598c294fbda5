"""Layer 6: ``wan``: the block cache of this machine's own WAN accelerator.

It is used by ``backup`` and ``restore`` with ``--wan`` (:mod:`cloudconnect.cli.wan`). Nothing in it
is needed: whoever clears it pays with bytes on the line.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import click
from twisted.internet.threads import deferToThread

from cloudconnect.backup.options import BackupOptions
from cloudconnect.backup.seeding import SEALED_TEXT, SeedResult, seed_from_files
from cloudconnect.cache.measuring import measure
from cloudconnect.cache.opening import hold
from cloudconnect.cli.console import Console, cache_text, json_path, shown_path, size
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.own_cache import OwnCache
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.selecting import rules_of, selecting_options, sources_of
from cloudconnect.cli.tenant import TenantSettings, tenant_command
from cloudconnect.cli.values import parse_size
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.dedup.seeding import SHARE
from cloudconnect.errors import ExitCode, UsageError


@click.group(cls=CommandGroup)
def wan() -> None:
    """WAN acceleration on your side: its cache, and accelerators that machines share."""


@wan.command()
@click.argument("paths", nargs=-1, metavar="PATH...")
@selecting_options
@click.option("--limit", metavar="SIZE", help="At most so much; 3/4 of the cache by default.")
@tenant_command
def seed(
    settings: TenantSettings,
    paths: tuple[str, ...],
    limit: str | None,
    **choices: Any,
) -> int:
    """Put files into the cache, so that a first backup of something like them sends little.

    Name an EARLIER state of what will be backed up, that the provider's cache has too: a copy, a
    snapshot, what another machine has backed up (the provider seeds its cache from that). What is
    sent just as it was seeded gains nothing by it: the far end does not have it. Before a restore,
    name what is left of the files.
    """
    if settings.mode is EncryptionMode.TENANT:
        raise UsageError(f"{SEALED_TEXT}. Only modes provider and none can be seeded")
    if settings.profile.wan_accelerator:
        raise UsageError(
            f"this machine uses the accelerator at {settings.profile.wan_accelerator}, and not a "
            "cache of its own: there is nothing to seed here"
        )
    sources = sources_of(paths, choices["files_from"])
    if not sources:
        raise UsageError("name what to seed the cache from: one or more paths")
    options = BackupOptions(
        paths=sources, rules=rules_of(choices), one_file_system=choices["one_file_system"]
    )
    most = None if limit is None else max(1, parse_size(limit))
    console = settings.console

    async def work(line: Line, interrupt: Interrupt) -> tuple[SeedResult, OwnCache, int, int]:
        description, keys = line.keys()
        own = OwnCache.of(line.account.provider, description.repository)
        if most is not None and most > own.limit:
            raise UsageError(
                f"--limit is more than the cache may take, {size(own.limit)}: seed less, or set "
                "CLOUDCONNECT_WAN_CACHE_GB"
            )
        bound = int(own.limit * SHARE) if most is None else most

        def fill() -> tuple[SeedResult, int]:
            with closing(own.open()) as cache:
                result = seed_from_files(
                    cache,
                    keys,
                    description,
                    options,
                    bound,
                    lambda so_far: _show(console, so_far),
                    lambda: interrupt.happened,
                )
                return result, cache.size

        result, taken = await deferToThread(fill)
        return result, own, bound, taken

    return _report(console, *on_line(settings, work))


def _show(console: Console, so_far: SeedResult) -> None:
    console.progress(so_far.files, so_far.bytes_source, 0, so_far.path)


def _report(console: Console, result: SeedResult, own: OwnCache, bound: int, taken: int) -> int:
    for problem in result.unreadable.listed:
        console.note(f"not seeded: {shown_path(problem.path)}: {problem.reason}")
    if not result.complete:
        console.note(f"The cache, or the limit of {size(bound)}, was full before all was in it.")
    fields: dict[str, Any] = {
        "files": result.files,
        "bytes_source": result.bytes_source,
        "chunks": result.chunks,
        "bytes_added": result.bytes_added,
        "complete": result.complete,
        "limit": bound,
        "cache": str(own.folder),
        "bytes_cache": taken,
        "warnings": [
            {"path": json_path(p.path), "reason": p.reason} for p in result.unreadable.listed
        ],
        "unreadable": result.unreadable.count,
        "seconds": round(result.seconds, 3),
    }
    if not console.quiet or console.as_json:
        text = (
            f"{result.files} files, {size(result.bytes_source)}: {size(result.bytes_added)} were "
            f"new to the cache, which has {size(taken)} now ({result.seconds:.1f} s)"
        )
        console.record("summary", fields, text)
    return int(ExitCode.SOURCES_UNREADABLE if result.unreadable else ExitCode.DONE)


@wan.command()
@tenant_command
def show(settings: TenantSettings) -> None:
    """Show where the cache is, and how much it holds."""
    own = _known(settings)
    found = measure(own.folder)
    fields = {
        "cache": str(own.folder),
        "bytes": 0 if found is None else found.size,
        "blocks": 0 if found is None else found.blocks,
        "limit": own.limit,
    }
    held = "nothing yet" if found is None else cache_text(found.size, found.blocks)
    text = f"{own.folder}: {held}; at most {size(own.limit)}"
    settings.console.record("cache", fields, text)


@wan.command()
@tenant_command
def clear(settings: TenantSettings) -> None:
    """Remove the cache, and give back its room; the next sessions send more."""
    own = _known(settings)
    found = measure(own.folder)
    if found is not None:
        _remove(own.folder)
    given = 0 if found is None else found.size
    text = f"{size(given)} given back" if found else "There is no cache."
    settings.console.record("summary", {"cache": str(own.folder), "bytes_removed": given}, text)


def _remove(folder: Path) -> None:
    """Remove a cache that nobody uses.

    :raises UsageError: another process uses it
    """
    held = hold(folder / "lock")
    try:
        shutil.rmtree(folder)
    finally:
        os.close(held)


def _known(settings: TenantSettings) -> OwnCache:
    """The cache of the profile's repository: nobody has to be asked for that.

    :raises UsageError: the profile does not know it
    """
    profile = settings.profile
    try:
        ids = bytes.fromhex(profile.provider_id), bytes.fromhex(profile.repository)
    except ValueError:
        ids = b"", b""
    if not all(len(one) == 16 for one in ids):
        raise UsageError(
            f"profile {settings.profile_name} knows no repository: run cloudconnect connect first"
        )
    return OwnCache.of(*ids)
