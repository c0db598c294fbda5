"""Layer 6: ``connect``: check the provider, log in, make or open the repository, save a profile."""

from __future__ import annotations

import functools
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import attrs
import click

from cloudconnect.cli.completion import FILE
from cloudconnect.cli.invited import (
    OwnCertificate,
    OwnLogin,
    accept,
    login_file,
    own_password,
    read_invitation,
    with_invitation,
)
from cloudconnect.cli.kit import kit_of, kit_page, save_kit
from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.opening import remember_slot
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.secret_files import readable_by_all
from cloudconnect.cli.sections import SectionedCommand
from cloudconnect.cli.tenant import TenantSettings, address_text, tenant_command
from cloudconnect.config.client_certificates import own_certificate
from cloudconnect.config.profile import (
    config_folder,
    load,
    profile_path,
    save,
    state_folder,
    write_private,
)
from cloudconnect.content.atrest import (
    EncryptionMode,
    RepositoryDescription,
    RepositoryKeys,
    SlotKind,
    describe,
    make_open_slot,
    make_slot,
)
from cloudconnect.content.description import unlock_slot
from cloudconnect.content.kit import Kit
from cloudconnect.errors import ContextMismatch, Refused, UsageError
from cloudconnect.keys import MasterKey, Password
from cloudconnect.transports.trust import TrustPolicy

#: Who can read, as a person is told it after connecting.
_READERS: Final = {
    EncryptionMode.TENANT: "Only you can read what is stored. Keep the encryption passphrase "
    "somewhere else too: without it no backup can be read.",
    EncryptionMode.PROVIDER: "The PROVIDER CAN READ everything that you store, and so can whoever "
    "has your login: it keeps the key, and there is no passphrase.",
    EncryptionMode.NONE: "NOTHING IS ENCRYPTED where it is stored: everybody who gets at the "
    "provider's disks, or has your login, can read it. There is no passphrase.",
}


@click.command(cls=SectionedCommand)
@click.argument("host", metavar="HOST[:PORT]", required=False)
@click.option(
    "--invite",
    type=FILE,
    help="File with the provider's invitation; - reads stdin.",
)
@click.option("--kit-output", type=FILE, help="Write a new repository's recovery kit there.")
@functools.partial(tenant_command, fresh=True)
def connect(
    settings: TenantSettings, host: str | None, invite: str | None, kit_output: str | None
) -> None:
    """Connect to a provider once, and remember how in a profile.

    The first time, this makes the tenant's repository and its encryption key. --encryption says who
    can read what is stored, and is chosen only now, as far as the provider allows it:

    \b
    tenant    only you. The key is wrapped by your encryption passphrase and nobody else has it:
              without the passphrase nothing that was stored can ever be read. The default.
    provider  you and the provider, which keeps the key. There is no passphrase.
    none      everybody who gets at the provider's disks or at your login: nothing is encrypted
              where it is stored. There is no passphrase.

    A new repository's recovery kit is printed on a terminal, or written where --kit-output says. It
    is all that an empty machine needs: with --kit its text makes a profile again, without HOST.

    With --invite the provider's invitation says where it is and who you are, and is good once: this
    machine makes a login password of its own, which is kept beside the profile. With --certificate
    and --key too it logs in with that certificate from then on; where there are no such files, it
    makes them, and the key never leaves it.
    """
    mode = settings.mode
    invitation, given = None, ""
    if invite is not None:
        who = settings.profile.tenant if settings.kit is None else ""
        if who or settings.profile.password_file:
            raise UsageError("an invitation says who logs in: leave out tenant and password")
        invitation = read_invitation(invite)
        given = settings.profile.provider
        settings = with_invitation(settings, invitation)
    elif host is None and settings.kit is None:
        raise UsageError("name the provider: cloudconnect connect HOST[:PORT] --tenant NAME")
    address = settings.profile.provider if host is None else address_text(host)
    profile = attrs.evolve(settings.profile, provider=address, encryption=mode.value)
    settings = attrs.evolve(settings, profile=profile)
    _keep_others(settings)
    TrustPolicy(  # says what is wrong with it before anybody is asked for a secret
        profile.address[0], ca_file=profile.ca or None, fingerprints=profile.fingerprints
    )
    named = (
        profile.passphrase_file
        or profile.key_file
        or os.environ.get("CLOUDCONNECT_PASSPHRASE_COMMAND")
    )
    if mode is not EncryptionMode.TENANT and named:
        raise UsageError(
            f"with --encryption {mode.value} there is no passphrase and no key file: nothing would "
            "be encrypted under it"
        )
    login = None if invitation is not None else settings.login_password()
    typed = None if profile.password_file or login is None else login.reveal()
    # Asked for before the line is up, and twice, since it may be a new one.
    asked = mode is EncryptionMode.TENANT and settings.kit is None
    passphrase = settings.passphrase(new=True) if asked else None
    first = None
    if invitation is not None:
        ways = (address,) if host is not None or given else invitation.providers
        own: OwnLogin
        if profile.certificate:
            files = (profile.certificate, profile.certificate_key)
            own = OwnCertificate(own_certificate(invitation.login, *files))
        else:
            own = own_password(settings)
            login = own.password
            profile = attrs.evolve(profile, password_file=str(login_file(settings)))
        settings = attrs.evolve(settings, profile=profile)

        async def first(reactor: Any, interrupt: Interrupt) -> TenantSettings:
            return await accept(reactor, interrupt, settings, invitation, ways, own)

    _warn_of_open_files(settings)
    connected = on_line(
        settings,
        lambda line, _: _connect(line, settings, passphrase),
        passphrase=False,
        login=login,
        first=first,
    )
    saved = attrs.evolve(profile, **connected["profile"])
    kit: Kit | None = connected["kit"]
    if typed is not None and not os.environ.get("CLOUDCONNECT_PASSWORD_COMMAND"):
        path = config_folder(os.environ) / f"{settings.profile_name}.login"
        write_private(path, typed + b"\n")
        saved = attrs.evolve(saved, password_file=str(path))
    path = save(os.environ, settings.profile_name, saved)
    fields = {
        "provider": saved.provider,
        "tenant": saved.tenant,
        "repository": saved.repository,
        "encryption": saved.encryption,
        "created": connected["created"],
        "profile": str(path),
    }
    made = "A new repository" if connected["created"] else "The repository"
    hint = _show_kit(settings, kit, kit_output)
    if kit_output and kit is not None:
        fields["kit"] = str(Path(kit_output).absolute())
    settings.console.record(
        "summary",
        fields,
        ""
        if settings.console.quiet
        else f"Connected to {saved.provider} as {saved.tenant}. {made} "
        f"({saved.repository[:8]}, encryption {saved.encryption}) is ready; saved in {path}.\n"
        f"{_READERS[mode]}\n{hint}" + _next(settings, connected["created"]),
    )


def _next(settings: TenantSettings, created: bool) -> str:
    """What to type next, for a person."""
    if created:
        return "Next: cloudconnect backup FOLDER"
    if settings.kit is not None and settings.mode is EncryptionMode.TENANT:
        return "Next: cloudconnect points, and cloudconnect key add --kit F before new backups"
    return "Next: cloudconnect points"


def _show_kit(settings: TenantSettings, kit: Kit | None, output: str | None) -> str:
    """Print a new repository's recovery kit, or write it; what else is to be said of it."""
    console = settings.console
    if kit is None:
        return ""
    page = kit_page(kit, time.time())
    if output:
        save_kit(Path(output), page, console)
        return ""
    if sys.stdout.isatty() and not (console.as_json or console.quiet):
        console.say(page)
        return "Above stands the RECOVERY KIT: print it, and keep it safe.\n"
    return "Make the recovery kit, and keep it safe: cloudconnect key kit --output F\n"


def _warn_of_open_files(settings: TenantSettings) -> None:
    """Say once, when the profile is made, which files with a secret everybody can read."""
    profile = settings.profile
    for name in (profile.password_file, profile.passphrase_file, profile.key_file):
        if name and readable_by_all(Path(name)):
            settings.console.note(
                f"note: every user of this machine can read {name}, which holds a secret of yours: "
                "chmod 600 it"
            )


def _keep_others(settings: TenantSettings) -> None:
    """A profile of another provider or tenant is not written over.

    :raises UsageError: the name is taken by one
    """
    saved = load(os.environ, settings.profile_name)
    wanted = (settings.address, settings.tenant)
    if saved is not None and saved.provider and (saved.address, saved.tenant) != wanted:
        raise UsageError(
            f"profile {settings.profile_name} is of tenant {saved.tenant} at {saved.provider}: "
            "give this one another name with --profile NAME, or remove "
            f"{profile_path(os.environ, settings.profile_name)}"
        )


async def _connect(
    line: Line, settings: TenantSettings, passphrase: Password | None
) -> dict[str, Any]:
    account, mode = line.account, settings.mode
    created, kit = not account.repository, None
    if settings.kit is not None:
        description, keys = line.keys()  # NotFound where the provider has nothing
        await line.look(description, keys)
    elif created:
        if mode.value not in account.modes:
            raise Refused(
                f"the provider allows this tenant only --encryption {' or '.join(account.modes)}"
            )
        description, kit = await _create(line, settings, passphrase)
    else:
        description = RepositoryDescription.decode(account.repository)
        if description.mode is not mode:
            raise ContextMismatch(
                f"the provider says that this repository's encryption is {description.mode.value}, "
                f"not {mode.value}: if you chose that yourself when it was made, say so with "
                f"--encryption {description.mode.value}; if not, somebody may want to read along"
            )
        _, slot = unlock_slot(description, mode, passphrase)
        remember_slot(state_folder(os.environ, account.provider, description.repository), slot)
    profile = {
        "provider": line.settings.profile.provider,
        "provider_id": account.provider.hex(),
        "repository": description.repository.hex(),
        "encryption": description.mode.value,
    }
    return {"created": created, "profile": profile, "kit": kit}


async def _create(
    line: Line, settings: TenantSettings, passphrase: Password | None
) -> tuple[RepositoryDescription, Kit]:
    """Make the master key here, and store it at the provider: wrapped, where only the tenant reads.

    In the other modes it names and signs what is stored, and whoever may log in is handed it.
    """
    repository = os.urandom(16)
    master = MasterKey.generate()
    if settings.mode is EncryptionMode.TENANT:
        assert passphrase is not None
        kind = SlotKind.KEY_FILE if settings.profile.key_file else SlotKind.PASSPHRASE
        slot = make_slot(master, repository, passphrase, kind)
    else:
        slot = make_open_slot(master)
    description = describe(master, repository, settings.mode, (slot,))
    keys = RepositoryKeys(master, repository, settings.mode)
    await line.manager.create_repository(description.encode())
    remember_slot(state_folder(os.environ, line.account.provider, repository), slot)
    heads = line.heads(description, keys)
    heads.begin()
    return description, kit_of(line, description, master, heads.chain)
