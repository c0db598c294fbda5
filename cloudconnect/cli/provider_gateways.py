"""Layer 6: ``provider gateway``: gateways in processes of their own, and what they have to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate
from cloudconnect.cli.audit import write_down
from cloudconnect.cli.console import Console, printable, size
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.provider_nodes import all_nodes, note, note_ports, state_of
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.commands.admin import ChangeNode
from cloudconnect.config.gateway import enroll
from cloudconnect.config.provider import load
from cloudconnect.provider.admin.node_acts import check_name
from cloudconnect.settings import DEFAULT_POOL
from cloudconnect.transports.nodes import GATEWAY


@click.group(cls=CommandGroup)
def gateway() -> None:
    """Gateways in processes of their own."""


@gateway.command("enroll")
@click.argument("name")
@directory_option
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New directory.")
@click.option("--service", required=True, metavar="HOST:PORT", help="The provider's LAN port.")
@click.option("--advertise", default="", metavar="HOST:PORT", help="What tenants are told.")
@click.option("--listen", default="tcp:6180", show_default=True, help="Endpoint string.")
@click.option("--pool", default=DEFAULT_POOL, show_default=True, help="For the tenants of which.")
@json_option
def gateway_enroll(
    name: str,
    directory: Path,
    output: Path,
    service: str,
    advertise: str,
    listen: str,
    pool: str,
    as_json: bool,
) -> None:
    """Make the directory of a gateway; carry it to the gateway's host on a safe way."""
    settings = load(directory)
    check_name(GATEWAY, name)
    made = enroll(settings, name, output, service, listen, advertise, pool)
    note(directory, GATEWAY, name, made.directory)
    write_down(settings, "gateway_enroll", name=name, service=service, advertise=advertise)
    console = Console(as_json)
    fields = {"name": name, "directory": str(made.directory), "service": service, "pool": pool}
    console.record(
        "gateway",
        {**fields, "advertise": advertise, "state": "enrolled"},
        f"Gateway {name} is in {made.directory}: it holds the gateway's key.\n"
        f"There: twist cloudconnect-gateway --directory {made.directory}",
    )
    note_ports(console, settings, "the gateway can register")


@gateway.command("list")
@directory_option
@json_option
@debug_option
def gateway_list(directory: Path, as_json: bool, debug: bool) -> None:
    """List the gateways: where tenants reach them, and what they have to do now."""

    async def work(acts: Acts) -> list[dict[str, Any]]:
        return [row for row in await all_nodes(acts) if row["role"] == GATEWAY]

    console = Console(as_json)
    for row in administrate(directory, work, debug):
        state = gateway_state(row)
        text = f"{row['name']:<16} {state}"
        if row.get("connected"):
            text += (
                f"  pool {row['pool']}  {row['advertise'] or '-'}  {row['connections']} connections"
                f"  {size(row['bytes_per_second_up'])}/s up  "
                f"{size(row['bytes_per_second_down'])}/s down"
            )
        console.record("gateway", {**row, "state": state}, printable(text))


def gateway_state(row: dict[str, Any]) -> str:
    """What a gateway does now: one that is leaving is drained once its last connection is over."""
    state = state_of(row)
    if state == "drained" and row.get("connections"):
        return "draining"
    return state


def _act(act: str, done: str, text: str) -> None:
    def command(name: str, directory: Path, as_json: bool, debug: bool) -> None:
        async def work(acts: Acts) -> int:
            changed = await acts.call(ChangeNode, role=GATEWAY, name=name, act=act)
            connections: int = changed["sessions"]
            return connections

        connections = administrate(directory, work, debug)
        said = f"gateway {name} {done}"
        if act == "drain":
            said += f"; {connections} connections are left"
        fields = {"name": name, "act": act, "connections": connections}
        Console(as_json).record("gateway", fields, said)

    command.__doc__ = text
    made: Any = command
    for option in (debug_option, json_option, directory_option, click.argument("name")):
        made = option(made)
    gateway.command(act)(made)


_act(
    "drain",
    "takes no new connections, and the jobs that run through it move on",
    """Let the gateway NAME take no new connections.

    Running jobs go on through other gateways, each in a new session. When gateway list shows it as
    drained it can be stopped.
    """,
)
_act("undrain", "takes connections again", "Let the gateway NAME take connections again.")
_act(
    "remove",
    "is removed, and its certificate is worth nothing any more",
    "Take the certificate of the gateway NAME back, for good.",
)
