"""Layer 4: the end of a session: what its roles say, what its tenant is told, and lost channels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.commands.lan import EndSession
from cloudconnect.commands.repositories import WithdrawSession
from cloudconnect.errors import CloudConnectError, NotReachable, Refused, SecurityError, Tampered
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.nodes.known import Nodes
from cloudconnect.provider.service.amending import GoodEnds
from cloudconnect.provider.service.earlier import EarlierWarnings
from cloudconnect.provider.service.live import LiveSession, LiveSessions
from cloudconnect.provider.service.reports import BROKEN_SECONDS, Reports
from cloudconnect.provider.watching import SessionEnd, Watchers
from cloudconnect.settings import ORPHAN_SECONDS

#: Outcomes that a tenant may report of a session.
OUTCOMES = ("done", "incomplete", "failed", "interrupted", "security_warning")
#: Those of them that leave a restore point.
GOOD_OUTCOMES = ("done", "incomplete")
#: What target roles are told of a session whose tenant did not report: it may know of its points.
UNREPORTED = "unreported"


class Endings:
    """Ends sessions.

    :param reactor: clock
    :param accounts: the accounts data base; used only in the accounts thread
    :param nodes: the other roles
    :param sessions: those that run
    :param earlier: what was seen of a job's sessions before
    :param reports: keeps what happened
    :param watchers: who is told what happens
    :ivar good: the good ends that may be taken back
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        accounts: Accounts,
        nodes: Nodes,
        sessions: LiveSessions,
        earlier: EarlierWarnings,
        reports: Reports,
        watchers: Watchers,
    ) -> None:
        self._reactor = reactor
        self._accounts = accounts
        self._nodes = nodes
        self._sessions = sessions
        self._earlier = earlier
        self._reports = reports
        self._watchers = watchers
        self.good = GoodEnds(reactor)

    async def finish(
        self,
        live: LiveSession,
        outcome: str,
        summary: dict[str, Any],
        warnings: list[SecurityWarning],
    ) -> list[SecurityWarning]:
        """The tenant reports the end; returns what the provider's side saw.

        :raises Refused: an outcome that is none
        :raises SecurityError: the tenant saw nothing wrong, but a role here did: no point is left
        """
        if outcome not in OUTCOMES:
            raise Refused("that is not an outcome of a session")
        for warning in warnings:
            await self._reports.warned_by_tenant(live, warning)
        found = await self.end(live, outcome, summary, outcome)
        if live.failed and outcome in GOOD_OUTCOMES:
            raise _error_of(found)
        if live.mover_lost and live.kind is SessionKind.BACKUP and outcome in GOOD_OUTCOMES:
            raise NotReachable(
                "the data mover was lost before it had said that all is well with the restore point"
            )
        if outcome in GOOD_OUTCOMES:
            self.good.add(live)
        return found

    async def amend(self, live: LiveSession, outcome: str, warnings: list[SecurityWarning]) -> None:
        """A tenant that had reported a good end takes that back: what it waited for beside its
        report did not end well. No point of the session is left.

        :param outcome: one of those that leave none
        :raises CloudConnectError: the point could not be withdrawn
        """
        with self.good.taking_back(live):
            await self._amend(live, outcome, warnings)

    async def _amend(
        self, live: LiveSession, outcome: str, warnings: list[SecurityWarning]
    ) -> None:
        for warning in warnings:
            await self._reports.warned_by_tenant(live, warning)
        await self._reports.keep(self._accounts.session_amended, live.identifier, outcome)
        self._tell_ended(live, outcome, {})
        if live.kind is SessionKind.BACKUP:
            try:
                await self._withdraw(live)
            except CloudConnectError as error:
                self._not_withdrawn(live, error)
                raise

    async def end(
        self, live: LiveSession, state: str, summary: dict[str, Any], outcome: str = UNREPORTED
    ) -> list[SecurityWarning]:
        """End a session at its roles, and write down how; what the provider's side saw.

        Nothing happens where it is ending already.

        :param state: how it is kept
        :param summary: counts that the tenant reported, by name
        :param outcome: what its roles are told; one of :data:`OUTCOMES`, or :data:`UNREPORTED`
        """
        if live.ending:
            return []
        live.ending = True
        if live.orphaned is not None and live.orphaned.active():
            live.orphaned.cancel()
        found: list[SecurityWarning] = []
        # The mover last: what an accelerator saw may mean that its points must go.
        for part in reversed(live.parts):
            try:
                answer = await part.link.call(EndSession, session=live.session, outcome=outcome)
            except CloudConnectError as error:
                self._log.warn(
                    "{role} cannot end session {session}: {error}",
                    role=part.role.value,
                    session=live.identifier,
                    error=str(error),
                )
                self._nodes.lose_if_gone(part, error)
                if part.role is Role.TARGET_MOVER:
                    live.mover_lost = True
                    if "security_warning" in (outcome, state):
                        self._withdraw_later(live)
                continue
            found += self._warnings_of(live, part.role, answer["warnings"])
            if answer["failed"]:
                live.failed, outcome = True, "security_warning"
                state = outcome if state in GOOD_OUTCOMES else state
        self._nodes.retire(live.parts)
        try:
            await self._keep_for_next(live, found, outcome)
            await self._reports.keep(self._accounts.session_ended, live.identifier, state, summary)
        finally:
            self._sessions.remove(live)  # whatever happens, the task is free again
            self._tell_ended(live, state, summary)
            live.ended.callback(None)
        return found

    def _tell_ended(self, live: LiveSession, state: str, summary: dict[str, Any]) -> None:
        host, job = live.labels
        end = SessionEnd(
            session=live.identifier,
            tenant=live.tenant,
            kind=live.kind.value,
            host=host,
            job=job,
            state=state,
            summary=summary,
        )
        self._watchers.tell(lambda watcher: watcher.session_ended(end))

    async def _keep_for_next(
        self, live: LiveSession, found: list[SecurityWarning], outcome: str
    ) -> None:
        """What the tenant has not said that it has is told with the next session of its job."""
        known = {warning.subject for warning in live.told}
        await self._earlier.keep(
            live.tenant, live.label, live.job, [w for w in found if w.subject not in known]
        )
        if outcome != UNREPORTED and (found or live.seen):
            await self._earlier.reported(live.tenant, live.identifier)

    def _withdraw_later(self, live: LiveSession) -> None:
        """The mover of a session is lost that has left nothing good: another one withdraws it."""
        done = Deferred.fromCoroutine(self._withdraw(live))
        done.addErrback(lambda f: self._not_withdrawn(live, f.value))

    async def _withdraw(self, live: LiveSession) -> None:
        await self._nodes.movers.call(
            WithdrawSession, repository=live.repository, session=live.session
        )

    def _not_withdrawn(self, live: LiveSession, error: BaseException | None) -> None:
        self._log.error(
            "what session {session} has published is not withdrawn: {why}",
            session=live.identifier,
            why=str(error),
        )

    def _warnings_of(self, live: LiveSession, role: Role, values: Any) -> list[SecurityWarning]:
        """What a role has warned of: as its own and of this session, whatever it wrote."""
        try:
            told = [SecurityWarning.from_dict(value) for value in values]
        except (ValueError, KeyError, TypeError):
            self._log.warn("the warnings of a {role} cannot be read", role=role.value)
            return []
        return [
            attrs.evolve(w, session=live.identifier, tenant=live.tenant, role=role.value)
            for w in told
        ]

    async def abandon(self, session: bytes) -> None:
        """End a session that has just begun: whoever began it has gone, or had to."""
        live = self._sessions.get(session)
        if live is not None:
            await self.end(live, "interrupted", {}, "interrupted")

    def orphan(self, sessions: Iterable[bytes]) -> None:
        """The control channel of these sessions is gone: they may finish for a while."""
        for session in sessions:
            live = self._sessions.get(session)
            if live is not None and live.orphaned is None:
                seconds = BROKEN_SECONDS if live.broken else ORPHAN_SECONDS
                live.orphaned = self._reactor.callLater(seconds, self._orphan_over, live)

    def _orphan_over(self, live: LiveSession) -> None:
        self._end_later(live, "interrupted", UNREPORTED)

    def spoil(self, sessions: Iterable[bytes]) -> None:
        """The control channel of these sessions was changed: they end, and leave no point."""
        for session in sessions:
            live = self._sessions.get(session)
            if live is not None:
                self._end_later(live, "security_warning", "security_warning")

    def _end_later(self, live: LiveSession, state: str, outcome: str) -> None:
        done = Deferred.fromCoroutine(self.end(live, state, {}, outcome))
        done.addErrback(lambda f: self._log.failure("a lost session did not end", f))

    # --- many at once ----------------------------------------------------------------------------

    async def interrupt(
        self, tenant: str, label: str | None = None, number: int | None = None
    ) -> None:
        """End what a tenant has running; what was acknowledged as stored stays.

        :param label: only what was begun with the credential of this name
        :param number: and of this number
        """
        # All at once: a role that does not answer for one keeps no other one alive.
        ends: list[Deferred[Any]] = [
            Deferred.fromCoroutine(self.over(live))
            for live in self._sessions
            if live.tenant == tenant
            and label in (None, live.label)
            and number in (None, live.credential)
        ]
        for well, result in await DeferredList(ends, consumeErrors=True):
            if not well:
                result.raiseException()

    async def over(self, live: LiveSession) -> None:
        """End a session, or wait until it has come to its end."""
        if live.ending:
            await DeferredList([live.ended])
        else:
            await self.end(live, "interrupted", {})

    def role_lost(self, link: BoundedAMP) -> None:
        """A mover or accelerator is gone: its sessions are over, and their tenants are told so.

        They stay known for a while: a tenant may have come to its end, and say so.
        """
        for live in self._sessions.at(link):
            lost = next(part for part in live.parts if part.link is link)
            if not live.ending:
                live.move_on(
                    live.session, True, f"the provider's {lost.role.value} of this session is lost"
                )
                self.orphan([live.session])

    def all(self) -> Deferred[Any]:
        """End every session; fires when that is done."""
        ends: list[Deferred[Any]] = [
            live.ended if live.ending else Deferred.fromCoroutine(self.end(live, "interrupted", {}))
            for live in self._sessions
        ]
        return gatherResults(ends, consumeErrors=True)


def _error_of(warnings: list[SecurityWarning]) -> SecurityError:
    """What a session that a role saw fail is answered with, in that role's words."""
    classes = {cls.kind: cls for cls in SecurityError.__subclasses__()}
    seen = next((warning for warning in warnings if warning.kind in classes), None)
    if seen is None:
        return Tampered("the session failed at the provider, and left no restore point")
    return classes[seen.kind](f"seen by the provider's {seen.role}: {seen.text}")
