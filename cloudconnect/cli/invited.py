"""Layer 6: ``connect --invite``: spend an invitation for a login password of this machine's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs

from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.secret_files import SECRET_MAX, as_password, read_bounded
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.config.invitation import INVITATION_MAX, InvitationText, parse_invitation
from cloudconnect.config.profile import config_folder, write_private
from cloudconnect.errors import LoginRefused, NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.settings import TOKEN_ITERATIONS_MIN
from cloudconnect.tenant.jobmanager import JobManager
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.login import is_token, make_token
from cloudconnect.wire.scram import make_verifier


def read_invitation(name: str) -> InvitationText:
    """The invitation in a file, or on standard input for ``-``.

    :raises UsageError: it cannot be read, or is none
    """
    if name == "-":
        octets = sys.stdin.buffer.read(INVITATION_MAX + 1)
        if len(octets) > INVITATION_MAX:
            raise UsageError(f"the invitation has more than {INVITATION_MAX} bytes")
    else:
        octets = read_bounded(Path(name), "invitation", INVITATION_MAX)
    return parse_invitation(octets)


def login_file(settings: TenantSettings) -> Path:
    """Where a profile's own login password lies."""
    return config_folder(os.environ) / f"{settings.profile_name}.login"


def with_invitation(settings: TenantSettings, invitation: InvitationText) -> TenantSettings:
    """The settings with what an invitation says; what was said beside it stands above it."""
    profile = settings.profile
    return attrs.evolve(
        settings,
        profile=attrs.evolve(
            profile,
            provider=profile.provider or invitation.providers[0],
            tenant=invitation.login,
            fingerprints=profile.fingerprints or invitation.fingerprints,
        ),
    )


@attrs.frozen
class OwnPassword:
    """This machine's login password, which an invitation is spent for.

    :ivar known: an earlier run has left it
    :ivar made: the file that this run has written it to, or None
    """

    password: Password = attrs.field(repr=False)
    known: bool
    made: Path | None = None
    identity: ServerIdentity | None = None

    async def accept(self, manager: JobManager) -> None:
        """Spend the invitation that was logged in with."""
        await manager.accept_invitation(make_verifier(self.password, TOKEN_ITERATIONS_MIN))


@attrs.frozen
class OwnCertificate:
    """This machine's certificate, which an invitation is spent for.

    Whether it was spent for it before cannot be told from its files: the log-in says so.
    """

    identity: ServerIdentity
    known: bool = True
    made: Path | None = None

    async def accept(self, manager: JobManager) -> None:
        """Spend the invitation that was logged in with."""
        await manager.accept_with_certificate()


#: What a machine logs in with once its invitation is spent.
OwnLogin = OwnPassword | OwnCertificate


def own_password(settings: TenantSettings) -> OwnPassword:
    """This machine's login password.

    It is on the disk before anything is spent, so that a command that was killed can be run again:
    it then logs in with what it has.
    """
    path = login_file(settings)
    known = _known(path)
    if known is not None:
        return OwnPassword(known, True)
    made = make_token()
    write_private(path, made.reveal() + b"\n")
    return OwnPassword(made, False, path)


async def accept(
    reactor: Any,
    interrupt: Interrupt,
    settings: TenantSettings,
    invitation: InvitationText,
    addresses: Sequence[str],
    own: OwnLogin,
) -> TenantSettings:
    """Spend the invitation; the settings with the way that led to the provider.

    :param addresses: the ways to the provider, one after the other
    :param own: what it is spent for
    :raises LoginRefused: the invitation is spent, revoked or over
    :raises NotReachable: on none of the ways
    """
    for number, address in enumerate(addresses, 1):
        found = attrs.evolve(settings, profile=attrs.evolve(settings.profile, provider=address))
        profile, (host, port) = found.profile, found.address
        trust = TrustPolicy(host, ca_file=profile.ca or None, fingerprints=profile.fingerprints)
        manager = JobManager(reactor, host, port, trust, identity=own.identity)
        interrupt.call = manager.cancel
        try:
            await manager.log_in(invitation.login, Password(invitation.token.reveal()))
            await own.accept(manager)
        except NotReachable as error:
            if number == len(addresses):
                raise
            settings.console.note(f"note: {error}; trying the next address")
            continue
        except LoginRefused as error:
            if not own.known:
                if own.made is not None:
                    own.made.unlink(missing_ok=True)
                raise LoginRefused(
                    "the provider does not accept the invitation: it is spent, revoked or over; "
                    "ask the provider for another one"
                ) from error
        finally:
            await manager.close()
        return found
    raise NotReachable("the invitation names no way to the provider")


def _known(path: Path) -> Password | None:
    """What an earlier run has left there for this profile."""
    try:
        octets = read_bounded(path, "login password", SECRET_MAX)
    except UsageError:
        return None
    password = as_password(octets, "login password")
    return password if is_token(password) else None
