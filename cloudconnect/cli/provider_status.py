"""Layer 6: ``provider status``: how the provider is, at a glance, for a person or a monitor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate
from cloudconnect.cli.console import Console, local_time, printable, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.provider_nodes import state_of
from cloudconnect.cli.status import age_text
from cloudconnect.cli.values import parse_duration
from cloudconnect.commands.admin import ShowStatus
from cloudconnect.config.endings import endings
from cloudconnect.config.provider import load
from cloudconnect.errors import ExitCode
from cloudconnect.provider.admin.health import certificate_rows
from cloudconnect.provider.admin.needs import needs
from cloudconnect.provider.nodes.renewal import NodeCertificates


@click.command()
@directory_option
@click.option("--since", default="24h", show_default=True, help="Warnings of so long.")
@json_option
@debug_option
def status(directory: Path, since: str, as_json: bool, debug: bool) -> int:
    """Show how the provider is: roles, nodes, certificates, what is stored, what went wrong.

    Exit status 1 says that something needs attention: it is named in the last lines. For a monitor
    on the same machine; others ask /readyz and /metrics.
    """
    seconds = int(parse_duration(since))

    async def work(acts: Acts) -> dict[str, Any]:
        found: dict[str, Any] = (await acts.call(ShowStatus, seconds=seconds))["status"]
        return found

    found, now = administrate(directory, work, debug), time.time()
    if not found["running"]:
        known = (*endings(load(directory)), *NodeCertificates(found["nodes"]))
        found["certificates"] = certificate_rows(known, now)
    wanted = needs(found, now)
    console = Console(as_json)
    if as_json:
        console.record("provider_status", {**found, "needs": wanted, "ok": not wanted}, "")
    else:
        for line in status_lines(found, now):
            console.say(printable(line))
        for sentence in wanted:
            console.say(printable(f"ATTENTION  {sentence}"))
        if not wanted:
            console.say("OK: nothing needs attention.")
    return int(ExitCode.FAILED if wanted else ExitCode.DONE)


def status_lines(status: dict[str, Any], now: float) -> Iterator[str]:
    """The status for a person."""
    if status["running"]:
        yield f"runs with the roles {', '.join(status['roles'])}"
        for row in status["listening"]:
            yield f"  {row['name']} on {row['where']}"
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(status["sessions"].items()))
        yield f"sessions: {kinds or 'none'}; {status['connections']} tenants' machines connected"
    tenants = status["tenants"]
    odd = [f"{tenants[n]} {n}" for n in ("disabled", "frozen", "removed") if tenants[n]]
    yield f"tenants: {tenants['all']}" + (f" ({', '.join(odd)})" if odd else "")
    yield from _storage(status, now)
    for row in status["nodes"]:
        line = f"{row['role']} {row['name']}: {state_of(row)}"
        if row.get("connected"):
            line += f", {row['sessions']} sessions"
        if "connections" in row:
            line += f", {row['connections']} connections"
        yield line
    if status["node_count"] > len(status["nodes"]):
        yield f"{status['node_count']} nodes in all: see provider node list"
    for row in status["certificates"]:
        yield f"{row['name']}: until {local_time(row['ends'])}"


def _storage(status: dict[str, Any], now: float) -> Iterator[str]:
    storage = status["storage"]
    if "bytes_stored" in storage:
        line = f"repositories: {status['tenants']['repositories']}"
        if storage["measured"]:
            line += f", {size(storage['bytes_stored'])} stored"
            line += f" (measured {age_text(max(0.0, now - storage['measured_at']))} ago)"
        yield line
    if "disk_bytes" in storage:
        yield f"disk: {size(storage['free_bytes'])} of {size(storage['disk_bytes'])} free"
    tended = status["tended"]
    if "garbage_collected" in tended:
        yield f"garbage collected last: {local_time(tended['garbage_collected'])}"
    if storage.get("read_since"):
        yield f"all that is stored was read and compared since {local_time(storage['read_since'])}"
