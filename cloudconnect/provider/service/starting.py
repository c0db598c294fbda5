"""Layer 4: the Start of a session: who may, which roles take part, and Key A for each of them.

The roles have their Key A, and the gateways their routes, before the tenant is answered
(``docs/protocol.rst``, sections 2 and 3).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.commands.lan import OfferKeyA
from cloudconnect.errors import Busy, NotFound, NotReachable
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.provider.nodes.known import ANSWER_SECONDS, Nodes
from cloudconnect.provider.service.access import Login
from cloudconnect.provider.service.earlier import EarlierWarnings
from cloudconnect.provider.service.ending import Endings
from cloudconnect.provider.service.live import LiveSession, LiveSessions
from cloudconnect.provider.service.planning import HERE, Ask, Part, packages, plan_of
from cloudconnect.provider.service.reports import Reports
from cloudconnect.provider.service.tenants import Tenants
from cloudconnect.provider.watching import Watchers
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.wire.login import DEFAULT_LABEL

#: A backup waits so long, in seconds, for others of its repository to leave a mover that stops.
HANDOVER_SECONDS = 10.0


class Starts:
    """Begins sessions.

    :param reactor: clock
    :param accounts: the accounts data base; used only in the accounts thread
    :param tenants: what is agreed with them
    :param nodes: the other roles
    :param sessions: those that run
    :param endings: ends those that a new one takes over
    :param earlier: what was seen of a job's sessions before
    :param reports: keeps what happened
    :param watchers: who is told what happens
    :param mover_backend: ``HOST:PORT`` where accelerators of their own process find the mover
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        accounts: Accounts,
        tenants: Tenants,
        nodes: Nodes,
        sessions: LiveSessions,
        endings: Endings,
        earlier: EarlierWarnings,
        reports: Reports,
        watchers: Watchers,
        mover_backend: str = HERE,
    ) -> None:
        self._reactor = reactor
        self._accounts = accounts
        self._tenants = tenants
        self._nodes = nodes
        self._sessions = sessions
        self._endings = endings
        self._earlier = earlier
        self._reports = reports
        self._watchers = watchers
        self._mover_backend = mover_backend

    async def start(
        self,
        tenant: str,
        ask: Ask,
        exporter: Callable[[bytes, str], bytes],
        peer: str,
        notify: Callable[[SecurityWarning], Deferred[bool]],
        move_on: Callable[[bytes, bool, str], None] = lambda session, lost, text: None,
        login: Login | None = None,
    ) -> tuple[bytes, list[dict[str, Any]], list[KeyA]]:
        """Begin a session: Key A to its roles, routes to the gateways, then the answer.

        :param exporter: the TLS exporter for the Key A of a session and a role, 32 bytes
        :param notify: tells the tenant of a warning; fires with whether it has it
        :param move_on: asks it to go on in a new session
        :param login: who asks; None: who may do everything
        :return: the session, the plan, and the Key A of each of its entries
        """
        record = await self._tenants.record(tenant)
        if ask.kind is SessionKind.BACKUP or record.disabled:
            record.check_active(self._tenants.today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        if ask.repository != record.repository:
            raise NotFound("that is not this tenant's repository")
        label = DEFAULT_LABEL if login is None else login.label
        await self._take_over(tenant, ask.job, label)
        await self._earlier.tell(tenant, label, ask.job, notify)
        await self._nodes.settled(ask.wan)
        movers = await self._nodes.movers.of(ask.repository)
        if ask.kind is SessionKind.BACKUP:
            await self._handed_over(ask.repository)
        running = sum(1 for live in self._sessions if live.tenant == tenant)
        if running >= record.max_tasks:
            raise Busy(
                f"tenant {tenant} runs {running} tasks already, which is its limit; "
                "wait for one to end, or ask the provider for more"
            )
        session = os.urandom(16)
        mover = self._mover_for(ask, movers)
        parts = [Part(Role.TARGET_MOVER, mover, self._nodes.movers.place(mover).backend)]
        if ask.wan:
            parts.append(Part(Role.TARGET_WAN, *self._nodes.accelerator(self._sessions.busy())))
        live = LiveSession(
            session=session,
            tenant=tenant,
            kind=ask.kind,
            job=ask.job,
            labels=(ask.host, ask.name),
            repository=ask.repository,
            parts=parts,
            notify=notify,
            move_on=move_on,
            label=label,
            credential=None if login is None else login.number,
        )
        self._sessions.add(live)  # counted from here, so that two Starts cannot race
        try:
            places = await self._nodes.publish(record.group, parts, record.bandwidth, record.pool)
            plan = plan_of(parts, ask, self._nodes.addresses(places))
            at = self._mover_backend if parts[0].backend == HERE else parts[0].backend
            allowed = CAPABILITIES if login is None else login.capabilities
            told = packages(parts, plan, ask, session, record, exporter, at, allowed)
            await self._write_down(live, ask, peer)
            await self._offer(parts, told)
            if live.ending:  # the same job was started again meanwhile
                raise NotReachable("this job goes on in another session")
        except BaseException:
            for part in parts:
                part.key_a.forget()
            await self._endings.end(live, "failed", {})
            raise
        return session, plan, [part.key_a for part in parts]

    async def _write_down(self, live: LiveSession, ask: Ask, peer: str) -> None:
        """The session was asked for, and has its keys."""
        await self._reports.keep(
            self._accounts.session_started,
            session=live.identifier,
            tenant=live.tenant,
            kind=ask.kind.value,
            job_id=ask.job.hex(),
            host=ask.host,
            job=ask.name,
            peer=peer,
            started=time.time(),
            key_a=live.parts[0].key_a.identifier,
            key_b="",
            summary="{}",
        )
        self._watchers.tell(
            lambda watcher: watcher.session_started(live.identifier, live.tenant, ask.kind.value)
        )
        for part in live.parts:
            noted = self._reports.note(
                "key_a_made",
                live.identifier,
                f"Key A {part.key_a.identifier} made for the {part.role.value}",
                role=part.role.value,
                key=part.key_a.identifier,
            )
            # Each is a write to the disk, in order behind that one: no tenant waits for it.
            noted.addErrback(lambda f: self._log.failure("a step was not written down", f))

    async def _take_over(self, tenant: str, job: bytes, label: str) -> None:
        """A tenant goes on with a job in a new session: those before it are over, also those whose
        control channel only the tenant has lost. What is left of them, and was seen, is known then.

        Not those of another credential of the tenant's: that one may have learned the job's id.
        """
        before = [live for live in self._sessions if live.is_of(tenant, job, label)]
        for live in before:
            live.succeeded = True
        await self._endings.good.judge(tenant, job, label)
        for live in before:
            if live.ending:
                await DeferredList([live.ended])
            else:
                await self._endings.end(live, "interrupted", {})

    async def _handed_over(self, repository: bytes) -> None:
        """Where the mover that writes to a repository is leaving, wait a while for its sessions:
        they were asked to move on."""
        ending = [
            live
            for live in self._sessions.writing_to(repository)
            if not self._nodes.movers.takes(live.parts[0].link)
        ]
        if ending:
            waited = DeferredList([_follow(live.ended) for live in ending], consumeErrors=True)
            waited.addTimeout(HANDOVER_SECONDS, self._reactor, lambda *_: None)
            await waited

    def _mover_for(self, ask: Ask, movers: list[BoundedAMP]) -> BoundedAMP:
        """The mover of a new session: for a backup the one that writes to the repository already
        (``docs/protocol.rst``, section 10), or else the one with the fewest sessions."""
        if ask.kind is SessionKind.BACKUP:
            for live in self._sessions.writing_to(ask.repository):
                if live.parts[0].link in self._nodes.movers:
                    return live.parts[0].link
        return self._nodes.movers.best(movers, self._sessions.busy())

    async def _offer(self, parts: list[Part], told: list[KeyAPackage]) -> None:
        """Hand each part its package and Key A; all have it before the tenant is answered."""
        for part, package in zip(parts, told, strict=True):
            call: dict[str, Any] = {"package": package.as_map(), "key_a": part.key_a}
            if part.role is Role.TARGET_WAN or part.backend != HERE:
                call["timeout"] = ANSWER_SECONDS
            try:
                await part.link.call(OfferKeyA, **call)
            except NotReachable as error:
                self._nodes.lose_if_gone(part, error)
                raise


def _follow(ended: Deferred[None]) -> Deferred[None]:
    """Fires when ``ended`` does, and may be given up without it."""
    follower: Deferred[None] = Deferred()

    def over(result: None) -> None:
        if not follower.called:
            follower.callback(None)

    ended.addCallback(over)
    return follower
