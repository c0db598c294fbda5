"""Layer 6: ``provider``: what an admin does with one provider's directory.

While the provider runs, commands go through its admin socket and act at once; where none runs they
work on the directory themselves, under its lock.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError

from cloudconnect.cli.console import Console, local_time, printable, size
from cloudconnect.cli.points import point_line
from cloudconnect.cli.running import Interrupt, run, run_at_once
from cloudconnect.cli.tenant import SECRET_MAX, as_password, read_bounded
from cloudconnect.cli.values import parse_size
from cloudconnect.commands.admin import AddTenant, List
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.config.gateway import enroll
from cloudconnect.config.provider import ProviderSettings, initialize, load, running
from cloudconnect.errors import Busy, NotReachable
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.administration import Administration
from cloudconnect.settings import PAGE_ROWS_MAX

_T = TypeVar("_T")

#: A login password of fewer characters is warned of.
SHORT_PASSWORD = 12

_directory = click.option(
    "--directory",
    required=True,
    envvar="CLOUDCONNECT_DIRECTORY",
    type=click.Path(path_type=Path),
    help="The provider's directory.",
)
_json = click.option("--json", "as_json", is_flag=True, help="JSON lines on standard output.")
_debug = click.option("--debug", is_flag=True, help="The log and tracebacks on standard error.")


@click.group()
def provider() -> None:
    """Be a service provider."""


# --- the directory -------------------------------------------------------------------------------


@provider.command()
@_directory
@click.option("--host", "hosts", multiple=True, help="Name or address that tenants connect to.")
@click.option("--advertise", multiple=True, metavar="HOST:PORT", help="A gateway tenants are told.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM file to use.")
@click.option("--key", type=click.Path(path_type=Path), help="PEM file of its key.")
@click.option("--listen", default="tcp:6180", show_default=True, help="Endpoint string.")
@_json
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

    names = hosts or (socket.getfqdn(),)
    settings = initialize(directory, names, advertise, certificate, key, listen)
    console = Console(as_json)
    console.say(f"A provider for {', '.join(names)} is in {settings.directory}.")
    _print_fingerprints(settings, console)
    console.say(
        f"Next: cloudconnect provider tenant add NAME --directory {settings.directory}\n"
        f"      cloudconnect provider serve --directory {settings.directory}"
    )


@provider.command()
@_directory
@_json
def fingerprint(directory: Path, as_json: bool) -> None:
    """Print the fingerprints to hand to tenants; the first one survives a renewal."""
    _print_fingerprints(load(directory), Console(as_json))


def _print_fingerprints(settings: ProviderSettings, console: Console) -> None:
    spki, certificate = settings.identity.fingerprints()
    console.record("fingerprint", {"spki": spki, "certificate": certificate}, spki)
    if not console.as_json:
        console.say(certificate)


@provider.command()
@_directory
@click.option("--listen", metavar="ENDPOINT", help="In place of provider.toml's.")
def serve(directory: Path, listen: str | None) -> None:
    """Run the provider: the same as twist cloudconnect-provider --directory DIR."""
    from twisted.application.twist._twist import Twist

    settings = load(directory)
    try:
        with running(settings):
            pass
    except Busy:
        raise Busy(f"a provider runs on {settings.directory} already; stop it first") from None
    words = ["twist", "--log-format=text", "cloudconnect-provider", "--directory", str(directory)]
    Twist.main(words + (["--listen", listen] if listen else []))


# --- through the admin socket, or on the directory ------------------------------------------------


class _Here:
    """The acts on a directory on which no provider runs."""

    def __init__(self, administration: Administration) -> None:
        self._administration = administration

    async def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        return self._administration.add_tenant(name, password, settings)

    async def page(
        self, what: str, filters: dict[str, str], after: int
    ) -> tuple[list[dict[str, Any]], bool]:
        return self._administration.page(what, filters, after, PAGE_ROWS_MAX)


class _There:
    """The acts at a running provider, through its admin socket."""

    def __init__(self, link: BoundedAMP) -> None:
        self._link = link

    async def add_tenant(
        self, name: str, password: Password | None, settings: dict[str, Any]
    ) -> Password | None:
        answer = await self._link.call(AddTenant, name=name, password=password, settings=settings)
        token: Password | None = answer["token"]
        return token

    async def page(
        self, what: str, filters: dict[str, str], after: int
    ) -> tuple[list[dict[str, Any]], bool]:
        answer = await self._link.call(
            List, what=what, filters=filters, after=after, limit=PAGE_ROWS_MAX
        )
        return answer["rows"], answer["more"]


async def _rows(acts: _Here | _There, what: str, filters: dict[str, str]) -> list[dict[str, Any]]:
    """All pages of a listing."""
    rows: list[dict[str, Any]] = []
    more = True
    while more:
        page, more = await acts.page(what, filters, rows[-1]["cursor"] if rows else 0)
        rows.extend(page)
        more = more and bool(page)
    return rows


def _administrate(
    directory: Path, work: Callable[[_Here | _There], Coroutine[Any, Any, _T]], debug: bool
) -> _T:
    """Do ``work`` at the running provider, or on its directory where none runs."""
    settings = load(directory)

    async def remotely(reactor: Any, interrupt: Interrupt) -> _T:
        endpoint = UNIXClientEndpoint(reactor, str(settings.admin_socket), timeout=5)
        link: BoundedAMP = await connectProtocol(endpoint, BoundedAMP(reactor))
        try:
            return await work(_There(link))
        finally:
            if link.transport is not None:
                link.transport.loseConnection()

    try:
        with running(settings):
            accounts = Accounts(settings.accounts_url)
            try:
                acts = _Here(Administration(accounts, settings.repositories))
                return run_at_once(work(acts))
            finally:
                accounts.close()
    except Busy:
        try:
            return run(remotely, debug)
        except ConnectError as error:
            raise NotReachable(
                f"a provider runs on {settings.directory} but its admin socket does not answer: "
                f"{error}"
            ) from None


def _listed(
    directory: Path, what: str, filters: dict[str, str], debug: bool
) -> list[dict[str, Any]]:
    return _administrate(directory, lambda acts: _rows(acts, what, filters), debug)


@provider.group()
def tenant() -> None:
    """The provider's tenants."""


@tenant.command("add")
@click.argument("name")
@_directory
@click.option("--password-file", type=click.Path(path_type=Path), help="The login password.")
@click.option("--quota", metavar="SIZE", help="Such as 50GB; no limit where it is left out.")
@click.option("--lease", metavar="YYYY-MM-DD", help="Last day of the lease.")
@click.option("--max-tasks", type=click.IntRange(1), help="Tasks at the same time; 4 by default.")
@click.option("--encryption", default="tenant", show_default=True, help="At-rest modes allowed.")
@_json
@_debug
def tenant_add(
    name: str,
    directory: Path,
    password_file: Path | None,
    quota: str | None,
    lease: str | None,
    max_tasks: int | None,
    encryption: str,
    as_json: bool,
    debug: bool,
) -> None:
    """Make a tenant. Without --password-file a token of 256 bits is made and printed once."""
    what = f"login password of {name}"
    password = None
    if password_file is not None:
        password = as_password(read_bounded(password_file, what, SECRET_MAX), what)
    settings: dict[str, Any] = {
        "quota": None if quota is None else parse_size(quota),
        "lease_end": lease,
        "max_tasks": max_tasks,
        "modes": [mode.strip() for mode in encryption.split(",")],
    }
    token = _administrate(directory, lambda acts: acts.add_tenant(name, password, settings), debug)
    console = Console(as_json)
    console.say(f"Tenant {name} is there.")
    if password is not None and len(password.reveal()) < SHORT_PASSWORD:
        console.note(
            f"The password has fewer than {SHORT_PASSWORD} characters: who gets the tenant to "
            "connect to a false server can guess it. Without --password-file a token is made."
        )
    if lease is not None and lease < datetime.date.today().isoformat():
        console.note(f"The lease has ended already ({lease}): this tenant cannot back up.")
    if token is not None:
        shown = token.reveal().decode()
        console.say("Its login token, shown only now; hand it over on a safe way:")
        console.record("tenant", {"name": name, "token": shown}, shown)
    else:
        console.record("tenant", {"name": name}, "")


@tenant.command("list")
@_directory
@_json
@_debug
def tenant_list(directory: Path, as_json: bool, debug: bool) -> None:
    """List the tenants."""
    console = Console(as_json)
    for row in _listed(directory, "tenant", {}, debug):
        quota = "no quota" if row["quota"] is None else size(row["quota"])
        lease = f"lease until {row['lease_end']}" if row["lease_end"] else "no lease end"
        state = "disabled" if row["disabled"] else "enabled"
        text = f"{row['name']}  {state}  {quota}  {lease}  {row['max_tasks']} tasks"
        console.record("tenant", row, text)


@provider.command()
@_directory
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@_json
@_debug
def points(directory: Path, tenant_name: str, as_json: bool, debug: bool) -> None:
    """List restore points."""

    async def work(acts: _Here | _There) -> list[dict[str, Any]]:
        names = [tenant_name]
        if not tenant_name:
            tenants = await _rows(acts, "tenant", {})
            names = [row["name"] for row in tenants if row["repository"]]
        return [row for name in names for row in await _rows(acts, "point", {"tenant": name})]

    console = Console(as_json)
    for row in _administrate(directory, work, debug):
        console.record("point", row, f"{row['tenant']}  {point_line(row)}")


@provider.command()
@_directory
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@click.option("--warnings", is_flag=True, help="Only security warnings.")
@_json
@_debug
def events(directory: Path, tenant_name: str, warnings: bool, as_json: bool, debug: bool) -> None:
    """List what happened, security warnings among it."""
    filters = {"tenant": tenant_name, "type": "warning" if warnings else ""}
    console = Console(as_json)
    for row in _listed(directory, "event", filters, debug):
        mark = "SECURITY WARNING " if row["type"] == "warning" else ""
        text = (
            f"{local_time(row['time'])}  {row['tenant'] or '-'}  {mark}{row['name']}: {row['text']}"
        )
        console.record("event", row, printable(text))


@provider.command()
@_directory
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@_json
@_debug
def sessions(directory: Path, tenant_name: str, as_json: bool, debug: bool) -> None:
    """List sessions: who, what, how they ended, and the identifiers of their keys."""
    console = Console(as_json)
    for row in _listed(directory, "session", {"tenant": tenant_name}, debug):
        text = (
            f"{row['session'][:8]}  {local_time(row['started'])}  {row['tenant']}  {row['kind']}  "
            f"{row['host']}/{row['job']}  {row['state']}  key A {row['key_a']}  "
            f"key B {row['key_b'] or '-'}"
        )
        console.record("session", row, printable(text))


@provider.group()
def gateway() -> None:
    """Gateways in processes of their own."""


@gateway.command("enroll")
@click.argument("name")
@_directory
@click.option("--output", required=True, type=click.Path(path_type=Path), help="New directory.")
@click.option("--service", required=True, metavar="HOST:PORT", help="The provider's LAN port.")
@click.option("--advertise", default="", metavar="HOST:PORT", help="What tenants are told.")
@click.option("--listen", default="tcp:6180", show_default=True, help="Endpoint string.")
def gateway_enroll(
    name: str, directory: Path, output: Path, service: str, advertise: str, listen: str
) -> None:
    """Make the directory of a gateway; carry it to the gateway's host on a safe way."""
    settings = load(directory)
    made = enroll(settings, name, output, service, listen, advertise)
    click.echo(
        f"Gateway {name} is in {made.directory}: it holds the gateway's key.\n"
        f"There: twist cloudconnect-gateway --directory {made.directory}"
    )
    if not (settings.lan_listen and settings.backend_listen and settings.backend_address):
        click.echo(
            f"Set lan_listen, backend_listen and backend_address in {settings.directory}/"
            "provider.toml and restart the provider, so that the gateway can register.",
            err=True,
        )
