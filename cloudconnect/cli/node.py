"""Layer 6: ``node``: on the host of a provider's gateway, data mover or WAN accelerator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from twisted.internet.endpoints import HostnameEndpoint

from cloudconnect.cli.console import Console, local_time, printable
from cloudconnect.cli.directories import debug_option, json_option
from cloudconnect.cli.running import Interrupt, run
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.commands.enrolling import TEXT_MAX, NodeInvitation, enroll_node
from cloudconnect.config.joining import PROCESSES, NodePlace, service_of
from cloudconnect.config.joining import join as join_lan
from cloudconnect.config.node_renewal import adopt_next, node_in
from cloudconnect.errors import UsageError
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.tap.renewing import renew_over_lan
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.trust import spki_fingerprint


@click.group(cls=CommandGroup)
def node() -> None:
    """Nodes of a provider that run on hosts of their own."""


@node.command()
@click.option("--directory", required=True, type=click.Path(path_type=Path), help="New directory.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Standard input by default.")
@click.option("--backend", default="", metavar="HOST:PORT", help="Where gateways reach it.")
@click.option("--listen", default="", help="Endpoint string; the usual port of its role.")
@click.option(
    "--advertise", default="", metavar="HOST:PORT", help="Gateway: what tenants are told."
)
@click.option("--repositories", default="", help="Mover: their folder, where movers share it.")
@click.option("--keys", default="", help="Mover: the folder of the provider's keys of them.")
@json_option
@debug_option
def join(
    directory: Path, token_file: Path | None, as_json: bool, debug: bool, **place: str
) -> None:
    """Become the node that the token is for: make its directory, and get its certificate.

    The token is what cloudconnect provider node enroll has printed. It is read from a file or from
    standard input, and can be used once.
    """
    invitation = NodeInvitation.from_text(_read(token_file))
    host, port = split_host_port(invitation.service)

    async def work(reactor: Any, interrupt: Interrupt) -> None:
        endpoint = HostnameEndpoint(reactor, host, port, CONNECT_SECONDS)
        await join_lan(
            invitation,
            directory,
            NodePlace(**place),
            lambda request: enroll_node(reactor, endpoint, invitation, request),
        )

    try:
        run(work, debug)
    finally:
        invitation.secret.forget()
    role, name = invitation.role, invitation.name
    Console(as_json).record(
        "node",
        {"role": role, "name": name, "directory": str(directory.absolute())},
        f"This is {role} {name} now; {directory.absolute()} holds its key.\n"
        f"Next: twist {PROCESSES[role]} --directory {directory.absolute()}",
    )


@node.command()
@click.option("--directory", required=True, type=click.Path(path_type=Path), help="Of the node.")
@json_option
@debug_option
def renew(directory: Path, as_json: bool, debug: bool) -> None:
    """Get the node's next certificate from the provider now, for a new key.

    The node's process does this by itself when two thirds of a certificate's life are over, and its
    lines that are up go on. Where the certificate has ended already it needs a new token: remove
    the node, enroll it again, and have a new directory made by node join.
    """
    directory = directory.absolute()
    adopt_next(directory)
    name = node_in(directory)
    service = service_of(directory, name.role)

    async def work(reactor: Any, interrupt: Interrupt) -> Any:
        return await renew_over_lan(reactor, directory, service)

    made = run(work, debug)
    ends = made.not_valid_after_utc.timestamp()
    fields = {"role": name.role, "name": name.name, "spki": spki_fingerprint(made), "ends": ends}
    text = f"{name.role} {name.name} has another certificate, until {local_time(ends)}"
    Console(as_json).record("node", fields, printable(text))


def _read(path: Path | None) -> str:
    try:
        if path is None:
            return sys.stdin.read(TEXT_MAX + 2)
        with path.open(encoding="ascii") as file:
            return file.read(TEXT_MAX + 2)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token cannot be read: {error}") from None
