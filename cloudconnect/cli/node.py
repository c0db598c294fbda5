"""Layer 6: ``node``: on the host of a provider's gateway, data mover or WAN accelerator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from twisted.internet.endpoints import HostnameEndpoint

from cloudconnect.cli.running import Interrupt, run
from cloudconnect.cli.tenants import debug_option
from cloudconnect.commands.enrolling import TEXT_MAX, NodeInvitation, enroll_node
from cloudconnect.config.joining import PROCESSES, NodePlace
from cloudconnect.config.joining import join as join_lan
from cloudconnect.errors import UsageError
from cloudconnect.settings import CONNECT_SECONDS
from cloudconnect.transports.hosts import split_host_port


@click.group()
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
@debug_option
def join(directory: Path, token_file: Path | None, debug: bool, **place: str) -> None:
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
    click.echo(
        f"This is {invitation.role} {invitation.name} now; {directory.absolute()} holds its key.\n"
        f"Next: twist {PROCESSES[invitation.role]} --directory {directory.absolute()}"
    )


def _read(path: Path | None) -> str:
    try:
        if path is None:
            return sys.stdin.read(TEXT_MAX + 2)
        with path.open(encoding="ascii") as file:
            return file.read(TEXT_MAX + 2)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token cannot be read: {error}") from None
