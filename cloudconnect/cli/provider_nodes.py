"""Layer 6: ``provider node``: the gateways, data movers and accelerators of their own process."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate
from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.cli.values import parse_duration
from cloudconnect.commands.admin import ChangeNode, InviteNode, ListNodes, NoteNode
from cloudconnect.commands.enrolling import NodeInvitation
from cloudconnect.config.joining import SPOKEN
from cloudconnect.config.provider import ProviderSettings, load
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.provider.alarms.expiry import due
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.nodes import NodeName

_SPOKEN_OF = {role: spoken for spoken, role in SPOKEN.items()}
role_option = click.option(
    "--role", type=click.Choice(list(SPOKEN)), help="Where nodes of two roles have the name."
)


@click.group(cls=CommandGroup)
def node() -> None:
    """Gateways, data movers and WAN accelerators in processes of their own."""


@node.command()
@click.argument("name")
@directory_option
@click.option("--role", required=True, type=click.Choice(list(SPOKEN)), help="What it does.")
@click.option("--service", required=True, metavar="HOST:PORT", help="The provider's LAN port.")
@click.option("--expires", default="24h", show_default=True, help="How long it may be used.")
@json_option
@debug_option
def enroll(
    name: str, directory: Path, role: str, service: str, expires: str, as_json: bool, debug: bool
) -> None:
    """Print a token with which one host can become the node NAME, once.

    Carry it there on a safe way: until it is used, whoever has it can be that node.
    """
    settings = load(directory)
    node_name = NodeName(SPOKEN[role], name)
    split_host_port(service)
    seconds = int(parse_duration(expires))
    if not 60 <= seconds <= 30 * 24 * 3600:
        raise UsageError("a token may be used for a minute to 30 days")

    async def work(acts: Acts) -> NodeInvitation:
        role, name = node_name.role, node_name.name
        made = await acts.call(InviteNode, role=role, name=name, seconds=seconds)
        return NodeInvitation(role, name, service, made["identifier"], made["secret"])

    text = administrate(directory, work, debug).to_text()
    console = Console(as_json)
    note_ports(console, settings, "the node can join")
    console.note(f"On its host: cloudconnect node join --directory {name} < the file with this:")
    console.record("node_token", {"role": role, "name": name, "token": text}, text)


@node.command("list")
@directory_option
@json_option
@debug_option
def list_nodes(directory: Path, as_json: bool, debug: bool) -> None:
    """List the nodes, and what they do now."""
    console = Console(as_json)
    for row in administrate(directory, all_nodes, debug):
        spoken = _SPOKEN_OF.get(row["role"], row["role"])
        fields = {**row, "role": spoken, "state": state_of(row)}
        text = f"{spoken:<8} {row['name']:<16} {state_of(row)}"
        if row.get("connected"):
            text += f", {row['sessions']} sessions"
        if row["spki"]:
            text += f"  {row['spki']}"
        if row["ends"] and row["revoked"] is None:
            text += f"  certificate until {local_time(row['ends'])}"
            if due(row["ends"], time.time()) is not None:
                text += ": NOT RENEWED"
        console.record("node", fields, printable(text))


def state_of(row: dict[str, Any]) -> str:
    """What a node does now."""
    if row["revoked"] is not None:
        return f"removed {local_time(row['revoked'])}"
    if row["enrolled"] is None:
        return "invited"
    if row["leaving"]:
        return "draining" if row.get("connected") and row["sessions"] else "drained"
    if "connected" not in row:
        return "enrolled"
    return "connected" if row["connected"] else "away"


def note_ports(console: Console, settings: ProviderSettings, what: str) -> None:
    """Say what a provider lacks before nodes can reach it.

    :param what: cannot be before
    """
    if not (settings.lan_listen and settings.backend_listen and settings.backend_address):
        console.note(
            f"Set lan_listen, backend_listen and backend_address in {settings.directory}/"
            f"provider.toml and restart the provider, so that {what}."
        )


def note(directory: Path, role: str, name: str, made: Path) -> None:
    """A node got a certificate by hand: let it in with that one.

    :param made: the node's directory
    """
    identity = ServerIdentity(str(made / "certificate.pem"), str(made / "key.pem"))
    spki = identity.fingerprints()[0]
    administrate(directory, lambda acts: acts.call(NoteNode, role=role, name=name, spki=spki))


async def all_nodes(acts: Acts) -> list[dict[str, Any]]:
    """Every node, where the provider runs with what it does now."""
    found: list[dict[str, Any]] = (await acts.call(ListNodes))["rows"]
    return found


def _act(act: str, done: str) -> click.Command:
    def command(name: str, directory: Path, role: str | None, as_json: bool, debug: bool) -> None:
        async def work(acts: Acts) -> tuple[str, int]:
            found = _role_of(name, SPOKEN.get(role or ""), await all_nodes(acts))
            changed = await acts.call(ChangeNode, role=found, name=name, act=act)
            return found, changed["sessions"]

        found, sessions = administrate(directory, work, debug)
        spoken = _SPOKEN_OF.get(found, found)
        text = f"{spoken} {name} {done}"
        if act == "drain":
            text += f"; it takes part in {sessions} sessions, which move on or end"
        fields = {"role": spoken, "name": name, "act": act, "sessions": sessions}
        Console(as_json).record("node", fields, text)

    command.__doc__ = _HELP[act]
    for option in (debug_option, json_option, role_option, directory_option):
        command = option(command)
    return node.command(act)(click.argument("name")(command))


_HELP = {
    "drain": "Give the node NAME no new sessions: those that run move on, or come to their end.",
    "undrain": "Give the node NAME sessions again.",
    "remove": "Take the certificate of the node NAME back, or its token, for good.",
}


def _role_of(name: str, role: str | None, rows: list[dict[str, Any]]) -> str:
    """The role of the one node of this name that was not removed.

    :raises NotFound: there is none
    :raises UsageError: there are several
    """
    found = [
        str(row["role"])
        for row in rows
        if row["name"] == name and row["revoked"] is None and role in (None, row["role"])
    ]
    if not found:
        raise NotFound(f"there is no node {name}: see cloudconnect provider node list")
    if len(found) > 1:
        raise UsageError(f"there are several nodes {name}: say which with --role")
    return found[0]


drain = _act("drain", "gets no new sessions")
undrain = _act("undrain", "gets sessions again")
remove = _act("remove", "is removed, and its certificate is worth nothing any more")
