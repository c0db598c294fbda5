"""Layer 6: ``provider``: what an admin does with one provider's directory.

The other commands are imported when they are called. Acts go through
:mod:`cloudconnect.cli.administering`; those on tenants are in :mod:`cloudconnect.cli.tenants`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from cloudconnect.cli.console import Console
from cloudconnect.cli.directories import directory_option, json_option
from cloudconnect.cli.importing import LazyGroup, Listed
from cloudconnect.config.provider import ProviderSettings, check_roles, initialize, load, running
from cloudconnect.errors import Busy

#: Commands that are imported when they are called.
_COMMANDS: Final[dict[str, Listed]] = {
    "audit": Listed(
        "cloudconnect.cli.audit",
        "audit",
        "List the audit log: every act of an admin, and every step of a key exchange.",
    ),
    "catalogue": Listed(
        "cloudconnect.cli.catalogue",
        "catalogue",
        "What the provider knows (tenants, catalogues, keys, settings), without what is stored.",
    ),
    "certificate": Listed(
        "cloudconnect.cli.certificate",
        "certificate",
        "The certificate that tenants see: look, renew, replace, announce the next key.",
    ),
    "drill": Listed(
        "cloudconnect.cli.drill", "drill", "Attack this running provider, and show that it is seen."
    ),
    "events": Listed(
        "cloudconnect.cli.provider_listings",
        "events",
        "List what happened, security warnings among it.",
    ),
    "gateway": Listed(
        "cloudconnect.cli.provider_gateways", "gateway", "Gateways in processes of their own."
    ),
    "gc": Listed(
        "cloudconnect.cli.provider_care",
        "gc",
        "Collect garbage now: give back the room of what no restore point needs.",
    ),
    "node": Listed(
        "cloudconnect.cli.provider_nodes",
        "node",
        "Gateways, data movers and WAN accelerators in processes of their own.",
    ),
    "points": Listed("cloudconnect.cli.provider_listings", "points", "List restore points."),
    "reload": Listed(
        "cloudconnect.cli.certificate",
        "reload",
        "Have the running provider read its certificates and provider.toml again.",
    ),
    "scrub": Listed(
        "cloudconnect.cli.provider_care",
        "scrub",
        "Read what is stored and compare it with its digests; no key is needed for that.",
    ),
    "sessions": Listed(
        "cloudconnect.cli.provider_listings",
        "sessions",
        "List sessions: who, what, how they ended, and the identifiers of their keys.",
    ),
    "status": Listed(
        "cloudconnect.cli.provider_status",
        "status",
        "Show how the provider is: roles, nodes, certificates, what is stored, what went wrong.",
    ),
    "tenant": Listed("cloudconnect.cli.tenant_access", "tenant", "The provider's tenants."),
    "usage": Listed(
        "cloudconnect.cli.usage", "usage", "Report what each tenant has stored and sent."
    ),
    "wan": Listed(
        "cloudconnect.cli.provider_wan", "wan", "WAN acceleration, the provider's end of it."
    ),
}


@click.group(cls=LazyGroup, places=_COMMANDS)
def provider() -> None:
    """Be a service provider."""


@provider.command()
@directory_option
@click.option("--host", "hosts", multiple=True, help="Name or address that tenants connect to.")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="A gateway tenants are told.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file to use.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option("--listen", default="tcp:6180", show_default=True, help="Endpoint string.")
@json_option
def init(
    directory: Path,
    hosts: tuple[str, ...],
    advertise: tuple[str, ...],
    certificate: Path | None,
    key: Path | None,
    listen: str,
    as_json: bool,
) -> None:
    """Make a provider in a new directory and print its fingerprints."""
    import socket

    from cloudconnect.cli.audit import write_down

    names = hosts or (socket.getfqdn(),)
    settings = initialize(directory, names, advertise, certificate, key, listen)
    write_down(settings, "init", hosts=names, spki=settings.identity.fingerprints()[0])
    console = Console(as_json)
    console.say(f"A provider for {', '.join(names)} is in {settings.directory}.")
    _print_fingerprints(settings, console)
    console.say(
        f"Next: cloudconnect provider tenant add NAME --directory {settings.directory}\n"
        f"      cloudconnect provider serve --directory {settings.directory}"
    )


@provider.command()
@directory_option
@json_option
def fingerprint(directory: Path, as_json: bool) -> None:
    """Print the fingerprints to hand to tenants; the first one survives a renewal."""
    _print_fingerprints(load(directory), Console(as_json))


def _print_fingerprints(settings: ProviderSettings, console: Console) -> None:
    spki, certificate = settings.identity.fingerprints()
    console.record("fingerprint", {"spki": spki, "certificate": certificate}, spki)
    if not console.as_json:
        console.say(certificate)


@provider.command()
@directory_option
@click.option("--listen", metavar="ENDPOINT", help="In place of provider.toml's.")
@click.option("--roles", metavar="ROLE,...", help="Likewise: of service,gateway,mover,wan.")
def serve(directory: Path, listen: str | None, roles: str | None) -> None:
    """Run the provider: the same as twist cloudconnect-provider --directory DIR."""
    from twisted.application.twist._twist import Twist

    settings = load(directory)
    if roles is not None:
        check_roles(roles.split(","))
    try:
        with running(settings):
            pass
    except Busy:
        raise Busy(f"a provider runs on {settings.directory} already; stop it first") from None
    words = ["twist", "--log-format=text", "cloudconnect-provider", "--directory", str(directory)]
    words += ["--listen", listen] if listen else []
    words += ["--roles", roles] if roles is not None else []
    Twist.main(words)
