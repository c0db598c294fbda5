"""Layer 6: ``provider tenant credential``: what each machine of a tenant logs in with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cloudconnect.cli.administering import Acts, administrate, listed
from cloudconnect.cli.console import Console, local_time
from cloudconnect.cli.directories import debug_option, directory_option, json_option
from cloudconnect.cli.secret_files import SECRET_MAX, as_password, read_bounded
from cloudconnect.cli.sections import CommandGroup
from cloudconnect.commands.admin import AddCredential, RevokeCredential
from cloudconnect.config.client_certificates import certificate_pin, check_certificate
from cloudconnect.errors import UsageError
from cloudconnect.transports.trust import parse_fingerprint

label_option = click.option("--label", metavar="LABEL", help="What the machine is called here.")
can_option = click.option(
    "--can",
    default="write,read,delete,admin",
    show_default=True,
    help="What it may do: back up, restore, delete and lock, change keys.",
)


def capabilities_of(text: str) -> list[str]:
    """The words of a list with commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _certificate_option(text: str) -> Callable[[Any], Any]:
    return click.option("--certificate", type=click.Path(path_type=Path), help=text)


@click.group("credential", cls=CommandGroup)
def credential() -> None:
    """A tenant's credentials: one for each of its machines."""


@credential.command("add")
@click.argument("name")
@directory_option
@label_option
@can_option
@click.option("--password-file", type=click.Path(path_type=Path), help="Its login password.")
@_certificate_option("It logs in with this certificate, PEM, and no password.")
@json_option
@debug_option
def credential_add(
    name: str,
    directory: Path,
    label: str | None,
    can: str,
    password_file: Path | None,
    certificate: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Give a machine a credential of its own. Without --password-file a token is made.

    The machine logs in as NAME/LABEL: cloudconnect connect HOST --tenant NAME/LABEL. With
    --certificate it logs in with that certificate, whose key it keeps (connect --certificate F
    --key F). A label may have two certificates, so that the next one is there before the first is
    revoked.
    """
    if certificate is not None and password_file is not None:
        raise UsageError("give --password-file or --certificate, not both")
    pin = None
    if certificate is not None:
        check_certificate(certificate)
        pin = certificate_pin(certificate)
    what = f"login password of {name}"
    password = None
    if password_file is not None:
        password = as_password(read_bounded(password_file, what, SECRET_MAX), what)

    async def work(acts: Acts) -> dict[str, Any]:
        return await acts.call(
            AddCredential,
            name=name,
            label=label or "",
            password=password,
            capabilities=capabilities_of(can),
            certificate=pin,
        )

    made = administrate(directory, work, debug)
    console = Console(as_json)
    login = f"{name}/{made['label']}"
    console.say(f"Credential {made['label']} of tenant {name} is there; it logs in as {login}.")
    fields = {"tenant": name, "credential": made["label"], "login": login}
    if pin is not None:
        fields["spki"] = spki = f"SPKI-SHA256:{pin.hex()}"
        console.record("credential", fields, f"It logs in with the certificate of key {spki}.")
        return
    if made["token"] is None:
        console.record("credential", fields, "")
        return
    shown = made["token"].reveal().decode()
    console.say("Its login token, shown only now; hand it over on a safe way:")
    console.record("credential", {**fields, "token": shown}, shown)


@credential.command("list")
@click.argument("name")
@directory_option
@click.option("--all", "with_ended", is_flag=True, help="Those too that have ended.")
@json_option
@debug_option
def credential_list(
    name: str, directory: Path, with_ended: bool, as_json: bool, debug: bool
) -> None:
    """List a tenant's credentials and invitations."""
    console = Console(as_json)
    for row in listed(directory, "credential", {"tenant": name}, debug):
        if row["revoked"] is not None and not with_ended:
            continue
        kind = "invitation" if row["invitation"] else row["spki"] or "password"
        text = f"{name}/{row['label']}  can {', '.join(row['capabilities'])}  {kind}"
        if row["expires"] is not None:
            text += f"  until {local_time(row['expires'])}"
        if row["revoked"] is not None:
            text += f"  ended {local_time(row['revoked'])}"
        console.record("credential", row, text)


@credential.command("revoke")
@click.argument("name")
@click.argument("label")
@directory_option
@_certificate_option("Of two certificates of this label only this one.")
@click.option("--spki", metavar="PIN", help="The same, by its pin as credential list has it.")
@json_option
@debug_option
def credential_revoke(
    name: str,
    label: str,
    directory: Path,
    certificate: Path | None,
    spki: str | None,
    as_json: bool,
    debug: bool,
) -> None:
    """End a credential or an invitation at once, with what runs with it."""
    if certificate is not None and spki is not None:
        raise UsageError("give --certificate or --spki, not both")
    pin = None if certificate is None else certificate_pin(certificate)
    if spki is not None:
        kind, _, digits = parse_fingerprint(spki).partition(":")
        if kind != "SPKI-SHA256":
            raise UsageError("--spki takes a pin that begins with SPKI-SHA256:")
        pin = bytes.fromhex(digits)

    async def work(acts: Acts) -> None:
        await acts.call(RevokeCredential, name=name, label=label, certificate=pin)

    administrate(directory, work, debug)
    text = f"Credential {label} of tenant {name} has ended, and what ran with it."
    Console(as_json).record("credential", {"tenant": name, "credential": label}, text)
