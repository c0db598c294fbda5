"""Layer 6: ``provider catalogue``: what the provider knows, backed up, brought back, made again."""

from __future__ import annotations

from pathlib import Path

import click

from cloudconnect.cli.audit import write_down
from cloudconnect.cli.console import Console, printable
from cloudconnect.cli.directories import directory_option, json_option
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.config.catalogue import back_up
from cloudconnect.config.catalogue import restore as restore_directory
from cloudconnect.config.provider import CONFIGURATION, load, running
from cloudconnect.config.rebuilding import Rebuilt, rebuild_all
from cloudconnect.errors import ExitCode, UsageError
from cloudconnect.provider.accounts import Accounts

_read_data = click.option(
    "--read-data", is_flag=True, help="Compare all that is stored with its digests: takes long."
)


@click.group(cls=CommandGroup)
def catalogue() -> None:
    """What the provider knows (tenants, catalogues, keys, settings), without what is stored."""


@catalogue.command("backup")
@directory_option
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A new folder.")
@json_option
def backup(directory: Path, output: Path, as_json: bool) -> None:
    """Back it up into a new folder; the provider may run.

    WHO HAS THAT FOLDER CAN BE THE PROVIDER: it holds its keys. Keep it encrypted, and elsewhere.
    """
    settings = load(directory)
    manifest = back_up(settings, output)
    write_down(settings, "catalogue_backup", output=str(output))
    count = len(manifest["repositories"])
    fields = {"output": str(output.absolute()), "repositories": count}
    Console(as_json).record(
        "summary",
        {**fields, "files": len(manifest["files"])},
        printable(f"Accounts, keys and {count} catalogue(s) are in {output.absolute()}."),
    )


@catalogue.command("restore")
@click.argument("source", metavar="FOLDER", type=click.Path(path_type=Path))
@directory_option
@_read_data
@json_option
def restore(source: Path, directory: Path, read_data: bool, as_json: bool) -> int:
    """Bring back what FOLDER holds, into a new directory or over a damaged one.

    Put the tenants' repositories into DIRECTORY/repositories first. Catalogues are made again from
    them; what is replaced stays beside it.
    """
    directory = directory.absolute()
    if (directory / CONFIGURATION).exists():
        with running(load(directory)):  # Busy where one runs
            rebuilt = restore_directory(source, directory, read_data)
    else:
        rebuilt = restore_directory(source, directory, read_data)
    write_down(load(directory), "catalogue_restore", source=str(source))
    return _report(rebuilt, Console(as_json))


@catalogue.command("rebuild")
@directory_option
@click.option("--tenant", "tenant_name", default="", help="Only of this tenant.")
@_read_data
@json_option
def rebuild(directory: Path, tenant_name: str, read_data: bool, as_json: bool) -> int:
    """Make the catalogues again from the packs and restore points alone; no provider may run.

    Retention policies stay where the catalogue that is there can be read; else nothing is removed
    until the tenant sets them again.
    """
    settings = load(directory)
    only = None
    if tenant_name:
        accounts = Accounts(settings.accounts_url)
        try:
            repository = accounts.tenant(tenant_name).repository
        finally:
            accounts.close()
        if repository is None:
            raise UsageError(f"tenant {tenant_name} has no repository yet")
        only = repository.hex()
    with running(settings):
        rebuilt = rebuild_all(settings, lambda name: only in (None, name), read_data)
    write_down(settings, "catalogue_rebuild", tenant=tenant_name)
    return _report(rebuilt, Console(as_json))


@catalogue.command("attach")
@click.argument("name", metavar="TENANT")
@click.argument("repository", metavar="REPOSITORY")
@directory_option
@json_option
def attach(name: str, repository: str, directory: Path, as_json: bool) -> None:
    """Give REPOSITORY, which lies in the directory, to a TENANT that was made anew.

    For the day on which the accounts are lost and there is no backup of them.
    """
    from cloudconnect.repository.store import Repository

    settings = load(directory)
    if len(repository) != 32 or set(repository) - set("0123456789abcdef"):
        raise UsageError(f"{repository!r} is not a repository: 32 hexadecimal digits")
    with running(settings):
        with Repository.open(settings.repositories / repository, lease=False) as opened:
            mode = opened.description.mode.value
        accounts = Accounts(settings.accounts_url)
        try:
            accounts.tenant(name)
            accounts.set_repository(name, bytes.fromhex(repository), mode)
        finally:
            accounts.close()
    write_down(settings, "catalogue_attach", tenant=name, repository=repository)
    fields = {"tenant": name, "repository": repository, "encryption": mode}
    Console(as_json).record("summary", fields, f"Repository {repository[:8]} is {name}'s now.")


def _report(rebuilt: list[Rebuilt], console: Console) -> int:
    damaged = 0
    for one in rebuilt:
        damaged += len(one.damaged)
        for problem in one.damaged:
            console.note(printable(f"SECURITY WARNING {one.repository[:8]}: {problem}"))
        fields = {
            "repository": one.repository,
            "points": one.points,
            "policies": one.policies,
            "damaged": list(one.damaged),
        }
        text = f"{one.repository[:8]}  {one.points} restore point(s), {one.policies} policies"
        console.record("catalogue", fields, text)
    console.say(f"{len(rebuilt)} catalogue(s) were made again.")
    return int(ExitCode.SECURITY_WARNING if damaged else ExitCode.DONE)
