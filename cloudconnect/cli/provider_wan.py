"""Layer 6: ``provider wan``: the block caches of the provider's WAN accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from cloudconnect.accelerator.room import cache_folder
from cloudconnect.cache.measuring import measure
from cloudconnect.cli.administering import Acts, administrate, listed
from cloudconnect.cli.console import Console, cache_text, printable, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.importing import LazyGroup, Listed
from cloudconnect.cli.values import parse_size
from cloudconnect.commands.admin import Seed
from cloudconnect.config.provider import load
from cloudconnect.errors import ExitCode

#: Commands that are imported when they are called.
_COMMANDS: Final = {
    "enroll": Listed(
        "cloudconnect.cli.wan_nodes",
        "enroll",
        "Make the directory of a WAN accelerator; carry it to its host on a safe way.",
    )
}


@click.group(cls=LazyGroup, places=_COMMANDS)
def wan() -> None:
    """WAN acceleration, the provider's end of it."""


@wan.command()
@click.argument("name", metavar="TENANT")
@directory_option
@click.option("--host", default="", metavar="NAME", help="Only points of this host.")
@click.option("--job", default="", metavar="NAME", help="Only points of this job.")
@click.option("--limit", metavar="SIZE", help="At most so much; 3/4 of the cache by default.")
@json_option
@debug_option
def seed(
    name: str,
    directory: Path,
    host: str,
    job: str,
    limit: str | None,
    as_json: bool,
    debug: bool,
) -> int:
    """Put what is stored for TENANT into the cache of the accelerator in the provider's process.

    The newest restore point of each job on each host, the newest first. It is of use for what the
    tenant's own accelerator has too: let the tenant seed that one with the same limit (cloudconnect
    wan seed). Not in encryption mode tenant, in which nobody here can read what is stored.
    """
    most = 0 if limit is None else max(1, parse_size(limit))

    async def work(acts: Acts) -> dict[str, Any]:
        made = await acts.call(Seed, name=name, host=host, job=job, limit=most)
        result: dict[str, Any] = made["result"]
        return result

    result = administrate(directory, work, debug)
    console = Console(as_json)
    if not result["complete"]:
        console.note(
            f"The cache, or the limit of {size(result['limit'])}, was full before all was in it."
        )
    if result["damaged"]:
        console.note(f"{result['damaged']} chunks are damaged: see cloudconnect provider scrub")
    console.record("summary", {"tenant": name, **result}, seed_text(name, result))
    return int(ExitCode.SECURITY_WARNING if result["damaged"] else ExitCode.DONE)


def seed_text(name: str, result: dict[str, Any]) -> str:
    """What came of it, for a person."""
    text = (
        f"WAN cache of tenant {name}: {result['points']} of {result['points_total']} restore "
        f"points gone through, {result['chunks']} chunks of {size(result['bytes_plain'])}, "
        f"{size(result['bytes_added'])} of it new to the cache; it has {size(result['cache'])} now "
        f"({result['seconds']:.1f} s)"
    )
    return printable(text)


@wan.command()
@directory_option
@json_option
@debug_option
def show(directory: Path, as_json: bool, debug: bool) -> None:
    """Show how much each tenant's cache holds, of the accelerator in the provider's process."""
    settings = load(directory)
    console = Console(as_json)
    if not settings.wan_cache_gb:
        console.note("wan_cache_gb is 0 in provider.toml: this process has no WAN accelerator.")
    for row in listed(directory, "tenant", {}, debug):
        found = measure(cache_folder(settings.directory / settings.wan_caches, row["name"]))
        if found is None:
            continue
        fields = {"tenant": row["name"], "bytes": found.size, "blocks": found.blocks}
        console.record(
            "cache", fields, printable(f"{row['name']}  {cache_text(found.size, found.blocks)}")
        )
