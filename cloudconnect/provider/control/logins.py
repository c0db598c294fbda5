"""Layer 4: who may log in at the service, with which credential, and what that allows now."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from cloudconnect.errors import NotAllowed
from cloudconnect.provider.accounts import Accounts, Tenant
from cloudconnect.provider.control.attempts import LoginAttempts
from cloudconnect.provider.service.access import Act, Login, check_access
from cloudconnect.provider.service.reports import Reports
from cloudconnect.provider.service.tenants import Tenants
from cloudconnect.settings import PASSWORD_ITERATIONS_MIN, TOKEN_ITERATIONS_MIN
from cloudconnect.wire.login import Verifier, wrong_credentials


class LogIns:
    """Judges log-ins and what is done with them.

    :param reactor: clock
    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    :param tenants: what is agreed with them
    :param reports: keeps what happened
    :param decoy_key: makes what a name that does not exist is answered, 32 bytes
    :ivar attempts: those that have failed
    """

    def __init__(
        self,
        reactor: IReactorTime,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        tenants: Tenants,
        reports: Reports,
        decoy_key: bytes,
    ) -> None:
        self._accounts = accounts
        self._run = in_accounts_thread
        self._tenants = tenants
        self._reports = reports
        self.decoy_key = decoy_key
        self.attempts = LoginAttempts(reactor)

    def credential(self, login: str) -> Deferred[Any]:
        """Fires with the :class:`~cloudconnect.provider.accounts.credentials.Credential` of a
        log-in name, or None."""
        return self._run(self._accounts.credential, login)

    def certified(self, login: str, certificate: bytes) -> Deferred[Any]:
        """Fires with the credential of a log-in name with this certificate, or None.

        :param certificate: SHA-256 of its SubjectPublicKeyInfo
        """
        return self._run(self._accounts.certified, login, certificate)

    def decoy_iterations(self, tenant: str) -> int:
        """How many iterations a log-in name that does not exist is told: those of a token or of a
        password, always the same for one name, so that the number betrays nobody."""
        coin = hmac.digest(self.decoy_key, b"iterations " + tenant.encode(), "sha256")[0] & 1
        return TOKEN_ITERATIONS_MIN if coin else PASSWORD_ITERATIONS_MIN

    async def admit(self, login: Login, act: Act) -> Tenant:
        """The tenant's record, where it may do this now with the credential that it logged in with.

        :raises LeaseEnded: it is disabled, or its lease has ended
        :raises NotAllowed: the credential does not allow it
        :raises LoginRefused: at a log-in: the credential is not valid any more
        """
        if act is Act.LOG_IN and not await self._run(self._accounts.valid_credential, login.number):
            raise wrong_credentials()
        record = await self._tenants.record(login.tenant)
        check_access(record, login, act, self._tenants.today(), self._tenants.grace_days)
        return record

    async def accept_invitation(self, login: Login, proof: Verifier | bytes) -> Login:
        """The machine's own credential in the place of its invitation; the log-in with it.

        :param proof: of its password, or SHA-256 of its certificate's SubjectPublicKeyInfo
        :raises NotAllowed: this is not a log-in with an invitation
        :raises LoginRefused: the invitation is spent, revoked or over
        """
        if not login.invitation:
            raise NotAllowed("this log-in is not one with an invitation")
        await self.admit(login, Act.LOG_IN)
        made = await self._run(self._accounts.accept_invitation, login.number, proof)
        await self._reports.note(
            "invitation_accepted",
            "",
            f"tenant {login.tenant}: invitation accepted, credential {made.label} made",
            tenant=login.tenant,
            credential=made.label,
        )
        return Login.by(made)
