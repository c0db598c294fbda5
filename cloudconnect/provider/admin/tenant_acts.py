"""Layer 4: what an admin does about who may log in: invitations, credentials, disabling, removing.

Every method blocks. What runs with what was ended here is cut by the service, where one runs
(:meth:`cloudconnect.provider.service.service.CloudConnectService.cut`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import attrs

from cloudconnect.errors import NotFound, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.accounts.credentials import CAPABILITIES, check_credential
from cloudconnect.settings import TOKEN_ITERATIONS_MIN
from cloudconnect.wire.login import Verifier, is_token, make_token
from cloudconnect.wire.scram import make_verifier

#: States that a tenant can be switched to.
ENABLED, DISABLED, REMOVED = "enabled", "disabled", "removed"
#: Days that a removed tenant stays in the bin where the provider set nothing.
REMOVED_DAYS: Final = 30
#: Seconds that an invitation is good for where its admin set nothing, and at most.
INVITATION_SECONDS: Final = 7 * 86400
INVITATION_SECONDS_MAX: Final = 90 * 86400
DAY_SECONDS: Final = 86400.0


@attrs.frozen(kw_only=True)
class Invitation:
    """What an invited machine needs, beside where the provider is.

    :ivar label: of the credential that it will have
    :ivar token: to log in with, once
    :ivar expires: in seconds since 1970
    :ivar made: whether the tenant is new
    """

    label: str
    token: Password
    expires: float
    made: bool


class TenantActs:
    """The acts on tenants' log-ins.

    :param accounts: the accounts data base
    :param removed_days: days that a removed tenant stays in the bin
    """

    def __init__(self, accounts: Accounts, removed_days: int = REMOVED_DAYS) -> None:
        self._accounts = accounts
        self.removed_days = removed_days

    def invite(
        self,
        name: str,
        label: str | None,
        capabilities: Sequence[str] = CAPABILITIES,
        seconds: float = INVITATION_SECONDS,
        settings: dict[str, Any] | None = None,
    ) -> Invitation:
        """Invite a machine of a tenant, which is made where there is none of that name.

        :param label: of its credential; None: what is free
        :param seconds: that the invitation is good for, up to 90 days
        :param settings: what is agreed with a new tenant: the words of ``Accounts.add_tenant``
        :raises UsageError: something that cannot be used; settings for a tenant that is there
        """
        if not 0 < seconds <= INVITATION_SECONDS_MAX:
            days = INVITATION_SECONDS_MAX // 86400
            raise UsageError(f"an invitation is good for some time, up to {days} days")
        check_credential(name, label, capabilities)  # before a tenant is made for it
        try:
            self._accounts.tenant(name)
            made = False
        except NotFound:
            self._accounts.add_tenant(name, None, **(settings or {}))
            made = True
        if settings and not made:
            raise UsageError(f"there is a tenant {name} already: change it with tenant set")
        token, expires = make_token(), time.time() + seconds
        label = self._accounts.add_credential(
            name, label, verifier_of(token), capabilities, invitation=True, expires=expires
        )
        return Invitation(label=label, token=token, expires=expires, made=made)

    def add_credential(
        self,
        name: str,
        label: str | None,
        password: Password | None,
        capabilities: Sequence[str] = CAPABILITIES,
        certificate: bytes | None = None,
    ) -> tuple[str, Password | None]:
        """Give a tenant another credential; its label, and the token that was made, if one was.

        :param password: of it; None: a token is made
        :param certificate: what it logs in with in the place of a password: SHA-256 of a
            certificate's SubjectPublicKeyInfo
        :raises NotFound: there is no such tenant
        :raises UsageError: a label, password or capability that cannot be used
        """
        if certificate is not None:
            if password is not None:
                raise UsageError("a credential has a password or a certificate, not both")
            return self._accounts.add_credential(name, label, certificate, capabilities), None
        token = make_token() if password is None else None
        secret = password if password is not None else token
        assert secret is not None
        label = self._accounts.add_credential(name, label, verifier_of(secret), capabilities)
        return label, token

    def revoke_credential(
        self, name: str, label: str, certificate: bytes | None = None
    ) -> list[int]:
        """End a credential; the numbers of what has ended.

        :param certificate: only the one with this certificate
        :raises NotFound: there is none of this name
        """
        self._accounts.tenant(name)
        return self._accounts.revoke_credential(name, label, certificate)

    def switch(self, name: str, state: str) -> bool:
        """Enable, disable or remove a tenant; whether anything changed.

        :raises NotFound: there is no such tenant
        :raises UsageError: no such state
        """
        if state == ENABLED:
            return self._accounts.enable(name)
        if state == DISABLED:
            return self._accounts.disable(name)
        if state == REMOVED:
            return self._accounts.remove(name, self.removed_days * DAY_SECONDS)
        raise UsageError(f"a tenant is {ENABLED}, {DISABLED} or {REMOVED}")


def verifier_of(secret: Password) -> Verifier:
    """What to store for a login password or token."""
    return (
        make_verifier(secret, TOKEN_ITERATIONS_MIN) if is_token(secret) else make_verifier(secret)
    )
