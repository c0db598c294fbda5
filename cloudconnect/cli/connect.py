"""Layer 6: ``connect``: check the provider, log in, make or open the repository, save a profile."""

from __future__ import annotations

import functools
import os
from typing import Any

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
    make_slot,
    unlock,
)
from cloudconnect.errors import Refused, UsageError
from cloudconnect.keys import MasterKey, Password
from cloudconnect.transports.trust import TrustPolicy


@click.command()
@click.argument("host", metavar="HOST[:PORT]")
@click.option(
    "--encryption",
    type=click.Choice([mode.value for mode in EncryptionMode]),
    default=EncryptionMode.TENANT.value,
    show_default=True,
    help="Who can read what is stored; chosen once, when the repository is made.",
)
@functools.partial(tenant_command, fresh=True)
def connect(settings: TenantSettings, host: str, encryption: str) -> None:
    """Connect to a provider once, and remember how in a profile.

    The first time, this makes the tenant's repository and its encryption key. The key is wrapped by
    your encryption passphrase and nobody else has it: without the passphrase nothing that was
    stored can ever be read.
    """
    if encryption != EncryptionMode.TENANT.value:
        raise UsageError("this version stores only with --encryption tenant")
    profile = attrs.evolve(settings.profile, provider=address_text(host), encryption=encryption)
    settings = attrs.evolve(settings, profile=profile)
    _keep_others(settings)
    TrustPolicy(  # says what is wrong with it before anybody is asked for a secret
        profile.address[0], ca_file=profile.ca or None, fingerprints=profile.fingerprints
    )
    login = settings.login_password()
    typed = None if profile.password_file else login.reveal()
    # Asked for before the line is up, and twice, since it may be a new one.
    passphrase = settings.passphrase(new=True)
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
        "Keep the encryption passphrase somewhere else too: without it no backup can be read.\n"
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


async def _connect(line: Line, settings: TenantSettings, passphrase: Password) -> dict[str, Any]:
    account = line.account
    created = not account.repository
    if created:
        if settings.profile.encryption not in account.modes:
            raise Refused(
                f"the provider allows this tenant only --encryption {' or '.join(account.modes)}"
            )
        description = await _create(line, settings, passphrase)
    else:
        description = RepositoryDescription.decode(account.repository)
        mode = EncryptionMode(settings.profile.encryption)
        unlock(description, mode, passphrase)
    profile = {
        "provider_id": account.provider.hex(),
        "repository": description.repository.hex(),
        "encryption": description.mode.value,
    }
    return {"created": created, "profile": profile}


async def _create(
    line: Line, settings: TenantSettings, passphrase: Password
) -> RepositoryDescription:
    """Make the master key here, wrap it, and store only the wrapped one at the provider."""
    repository = os.urandom(16)
    master = MasterKey.generate()
    kind = SlotKind.KEY_FILE if settings.profile.key_file else SlotKind.PASSPHRASE
    slot = make_slot(master, repository, passphrase, kind)
    description = describe(master, repository, EncryptionMode.TENANT, (slot,))
    master.forget()
    await line.manager.create_repository(description.encode())
    return description
