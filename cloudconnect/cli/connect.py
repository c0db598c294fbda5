"""Layer 6: ``connect``: check the provider, log in, make or open the repository, save a profile."""

from __future__ import annotations

import functools
import os
from typing import Any, Final

import attrs
import click

from cloudconnect.cli.line import Line, on_line
from cloudconnect.cli.tenant import TenantSettings, address_text, tenant_command
from cloudconnect.config.profile import (
    config_folder,
    load,
    profile_path,
    save,
    write_private,
)
from cloudconnect.content.atrest import (
    EncryptionMode,
    RepositoryDescription,
    SlotKind,
    describe,
    make_open_slot,
    make_slot,
    unlock,
)
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


@click.command()
@click.argument("host", metavar="HOST[:PORT]")
@functools.partial(tenant_command, fresh=True)
def connect(settings: TenantSettings, host: str) -> None:
    """Connect to a provider once, and remember how in a profile.

    The first time, this makes the tenant's repository and its encryption key. --encryption says who
    can read what is stored, and is chosen only now, as far as the provider allows it:

    \b
    tenant    only you. The key is wrapped by your encryption passphrase and nobody else has it:
              without the passphrase nothing that was stored can ever be read. The default.
    provider  you and the provider, which keeps the key. There is no passphrase.
    none      everybody who gets at the provider's disks or at your login: nothing is encrypted
              where it is stored. There is no passphrase.
    """
    mode = settings.mode
    profile = attrs.evolve(settings.profile, provider=address_text(host), encryption=mode.value)
    settings = attrs.evolve(settings, profile=profile)
    _keep_others(settings)
    TrustPolicy(  # says what is wrong with it before anybody is asked for a secret
        profile.address[0], ca_file=profile.ca or None, fingerprints=profile.fingerprints
    )
    if mode is not EncryptionMode.TENANT and (profile.passphrase_file or profile.key_file):
        raise UsageError(
            f"with --encryption {mode.value} there is no passphrase and no key file: nothing would "
            "be encrypted under it"
        )
    login = settings.login_password()
    typed = None if profile.password_file else login.reveal()
    # Asked for before the line is up, and twice, since it may be a new one.
    passphrase = settings.passphrase(new=True) if mode is EncryptionMode.TENANT else None
    connected = on_line(
        settings,
        lambda line, _: _connect(line, settings, passphrase),
        passphrase=False,
        login=login,
    )
    saved = attrs.evolve(profile, **connected["profile"])
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
    settings.console.record(
        "summary",
        fields,
        ""
        if settings.console.quiet
        else f"Connected to {saved.provider} as {saved.tenant}. {made} "
        f"({saved.repository[:8]}, encryption {saved.encryption}) is ready; saved in {path}.\n"
        f"{_READERS[mode]}\n"
        + (
            "Next: cloudconnect backup FOLDER"
            if connected["created"]
            else "Next: cloudconnect points"
        ),
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
    created = not account.repository
    if created:
        if mode.value not in account.modes:
            raise Refused(
                f"the provider allows this tenant only --encryption {' or '.join(account.modes)}"
            )
        description = await _create(line, settings, passphrase)
    else:
        description = RepositoryDescription.decode(account.repository)
        if description.mode is not mode:
            raise ContextMismatch(
                f"the provider says that this repository's encryption is {description.mode.value}, "
                f"not {mode.value}: if you chose that yourself when it was made, say so with "
                f"--encryption {description.mode.value}; if not, somebody may want to read along"
            )
        unlock(description, mode, passphrase)
    profile = {
        "provider_id": account.provider.hex(),
        "repository": description.repository.hex(),
        "encryption": description.mode.value,
    }
    return {"created": created, "profile": profile}


async def _create(
    line: Line, settings: TenantSettings, passphrase: Password | None
) -> RepositoryDescription:
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
    master.forget()
    await line.manager.create_repository(description.encode())
    return description
