"""Layer 6: makes the directories of WAN accelerators that run in processes of their own.

``provider wan enroll`` for the provider's side; for a tenant's ``wan init``, and ``wan client`` and
``wan remove`` for each machine.
"""

from __future__ import annotations

from pathlib import Path

import click

from cloudconnect.cli.audit import write_down
from cloudconnect.cli.console import Console
from cloudconnect.cli.directories import directory_option, json_option
from cloudconnect.cli.provider_nodes import note, note_ports
from cloudconnect.cli.wan_cache import wan
from cloudconnect.config import provider as provider_directory
from cloudconnect.config import wan as accelerator_directory
from cloudconnect.errors import UsageError
from cloudconnect.transports.nodes import ACCELERATOR, JOB_MANAGER, NodeName


@click.command("enroll")
@click.argument("name")
@directory_option
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New directory.")
@click.option("--service", required=True, metavar="HOST:PORT", help="The provider's LAN port.")
@click.option("--backend", required=True, metavar="HOST:PORT", help="Where gateways reach it.")
@click.option(
    "--listen",
    default=f"tcp:{accelerator_directory.WAN_PORT}",
    show_default=True,
    help="Endpoint string; only gateways may reach it.",
)
@json_option
def enroll(
    name: str,
    directory: Path,
    output: Path,
    service: str,
    backend: str,
    listen: str,
    as_json: bool,
) -> None:
    """Make the directory of a WAN accelerator; carry it to its host on a safe way."""
    settings = provider_directory.load(directory)
    made = accelerator_directory.enroll(settings, name, output, service, listen, backend)
    note(directory, ACCELERATOR, name, made.directory)
    write_down(settings, "wan_enroll", name=name, service=service, backend=backend)
    console = Console(as_json)
    console.record(
        "accelerator",
        {"name": name, "directory": str(made.directory), "service": service, "backend": backend},
        f"WAN accelerator {name} is in {made.directory}: it holds the accelerator's key.\n"
        f"There: twist cloudconnect-wan --directory {made.directory}",
    )
    note_ports(console, settings, "the accelerator can register")


_own_directory = click.option(
    "--directory",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The accelerator's directory.",
)


@wan.command()
@_own_directory
@click.option(
    "--listen",
    default=f"tcp:{accelerator_directory.WAN_PORT}",
    show_default=True,
    help="Endpoint string; only your machines need to reach it.",
)
@json_option
def init(directory: Path, listen: str, as_json: bool) -> None:
    """Make a WAN accelerator that several of your machines share."""
    made = accelerator_directory.initialize(directory, listen)
    Console(as_json).record(
        "accelerator",
        {"directory": str(made.directory), "listen": made.listen},
        f"A WAN accelerator is in {made.directory}.\n"
        f"For each machine: cloudconnect wan client NAME --directory {made.directory} --output F\n"
        f"Here: twist cloudconnect-wan --directory {made.directory}",
    )


@wan.command()
@click.argument("name")
@_own_directory
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New folder.")
@json_option
def client(name: str, directory: Path, output: Path, as_json: bool) -> None:
    """Make what the machine NAME needs to use it; carry it there on a safe way."""
    settings = accelerator_directory.load(directory)
    made = accelerator_directory.add_client(settings, name, output)
    Console(as_json).record(
        "client",
        {"name": name, "directory": str(made)},
        f"{made} is for machine {name}: it holds a key. There, with this accelerator's address:\n"
        f"  export CLOUDCONNECT_WAN_ACCELERATOR=HOST:PORT CLOUDCONNECT_WAN_NODE={made}",
    )


@wan.command()
@click.argument("name")
@_own_directory
@json_option
def remove(name: str, directory: Path, as_json: bool) -> None:
    """Take the certificate of the machine NAME back: from the next session on it is not let in.

    The accelerator may run. To let the machine in again make another folder with wan client.
    """
    settings = accelerator_directory.load(directory)
    if settings.side is not accelerator_directory.Side.SOURCE:
        raise UsageError(f"{settings.directory} has the provider's accelerator: it has no clients")
    node = NodeName(JOB_MANAGER, name)
    settings.machines.remove(node.name)
    text = f"Machine {name} is not let in any more."
    Console(as_json).record("client", {"name": name, "removed": True}, text)
