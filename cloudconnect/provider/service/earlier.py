"""Layer 4: what was seen of a job's earlier sessions, for the next one.

Who changes bytes on the way and cuts the control channel at the same moment would otherwise not be
noticed by the tenant, whose command goes on in a new session as behind any broken line. Warnings
are in the accounts data base from the moment at which a role raises them until the tenant has said
that it has them; where the disk takes nothing they are in memory.

A job is one of a credential: another machine of the tenant that has learned its id is not told in
its place.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.errors import NoSpace
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.accounts.untold import OF_JOB_MAX

#: Jobs that are remembered in memory; those that warned longest ago go first.
JOBS_MAX: Final = 10_000


class EarlierWarnings:
    """Warnings of the provider's roles, by tenant and job.

    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    """

    _log = Logger()

    def __init__(
        self, accounts: Accounts, in_accounts_thread: Callable[..., Deferred[Any]]
    ) -> None:
        self._accounts = accounts
        self._run = in_accounts_thread
        self._unwritten: OrderedDict[tuple[str, str], list[SecurityWarning]] = OrderedDict()

    def keep(
        self, tenant: str, label: str, job: bytes, warnings: Iterable[SecurityWarning]
    ) -> Deferred[Any]:
        """A role has warned of a session of a job.

        :param label: the name of the credential with which the session was begun
        :param job: 16 bytes
        """
        told = list(warnings)
        if not told:
            return succeed(None)
        name = name_of(label, job)
        done = self._run(self._accounts.keep_untold, tenant, name, told)
        return done.addErrback(self._not_kept, tenant, name, told)

    def _not_kept(
        self, failure: Failure, tenant: str, job: str, warnings: list[SecurityWarning]
    ) -> None:
        failure.trap(NoSpace)
        self._remember(tenant, job, warnings)

    def _remember(self, tenant: str, job: str, warnings: list[SecurityWarning]) -> None:
        """The disk takes nothing: then as long as this process lives."""
        kept = self._unwritten.pop((tenant, job), [])
        for warning in warnings:
            if len(kept) < OF_JOB_MAX:
                warning.add_to(kept)
        self._unwritten[tenant, job] = kept
        if len(self._unwritten) > JOBS_MAX:
            self._unwritten.popitem(last=False)

    def reported(self, tenant: str, session: str) -> Deferred[Any]:
        """A tenant has asked how a session ended, and is told: of what was seen, only what means
        that something was changed is kept, in case that the answer is lost.

        :param session: as hexadecimal digits
        """
        return self._write(self._accounts.spend_of_session, tenant, session)

    def has(self, tenant: str, warning: SecurityWarning) -> Deferred[Any]:
        """A tenant has a warning that it was told while its session ran."""
        return self._write(self._accounts.spend_of_session, tenant, warning.session, warning)

    async def tell(
        self,
        tenant: str,
        label: str,
        job: bytes,
        notify: Callable[[SecurityWarning], Deferred[bool]],
    ) -> None:
        """Tell a tenant what was seen of a job's sessions that are over; what it has then, is
        forgotten.

        :param label: the name of the credential that goes on with it
        :param job: 16 bytes
        :param notify: tells it one; fires with whether it has it
        """
        name = name_of(label, job)
        for warning in self._unwritten.pop((tenant, name), []):
            notify(warning).addCallback(self._or_again, tenant, name, warning)
        for warning in await self._run(self._accounts.untold_of, tenant, name):
            notify(warning).addCallback(self._told, tenant, name, warning)

    def _or_again(self, has: bool, tenant: str, job: str, warning: SecurityWarning) -> None:
        if not has:
            self._remember(tenant, job, [warning])

    def _told(self, has: bool, tenant: str, job: str, warning: SecurityWarning) -> None:
        if has:
            self._write(self._accounts.spend_untold, tenant, job, warning)

    def _write(self, call: Callable[..., None], *arguments: Any) -> Deferred[Any]:
        def unwritten(failure: Failure) -> None:
            failure.trap(NoSpace)  # then it is told once more
            self._log.warn("not written down: {why}", why=failure.getErrorMessage())

        return self._run(call, *arguments).addErrback(unwritten)


def name_of(label: str, job: bytes) -> str:
    """What stands for a job of a credential: 32 hexadecimal digits.

    :param label: the credential's name
    :param job: 16 bytes
    """
    return hashlib.sha256(job + label.encode()).hexdigest()[:32]
