"""Layer 4: the Cloud Connect service: knows tenants, starts sessions, makes Key A.

It holds the TLS key, the accounts and each Key A until it is delivered; never Key B, never
an at-rest key. One :class:`~cloudconnect.provider.control.ControlProtocol` serves each tenant's
connection and calls in here; gateways, mover and accelerators are reached through their LAN links,
which :mod:`cloudconnect.provider.nodes` knows (``docs/protocol.rst``, sections 2, 3 and 10).
"""

from __future__ import annotations

import datetime
import hmac
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import TENANT_ROLES, Role, SessionKind
from cloudconnect.commands.lan import (
    DescribeRepository,
    EndSession,
    ListRepositoryPoints,
    MakeRepository,
    OfferKeyA,
    ReplaceRepositoryDescription,
    WithdrawSession,
)
from cloudconnect.commands.notice import Notice
from cloudconnect.commands.paging import fit_page
from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ContextMismatch,
    LoginRefused,
    MovedOn,
    NoSpace,
    NotAllowed,
    NotFound,
    NotReachable,
    Refused,
    SecurityError,
    Tampered,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import KeyA
from cloudconnect.provider.access import GRACE_DAYS, Act, Login, check_access
from cloudconnect.provider.accounts import Accounts, Tenant
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.provider.attempts import LoginAttempts
from cloudconnect.provider.connections import Connections
from cloudconnect.provider.earlier import EarlierWarnings
from cloudconnect.provider.followers import keep_known
from cloudconnect.provider.keeping import PointKeeper
from cloudconnect.provider.node_renewal import NodeEndings
from cloudconnect.provider.nodes import ANSWER_SECONDS, Nodes
from cloudconnect.provider.planning import HERE, Ask, Part, packages, plan_of
from cloudconnect.provider.watching import SessionEnd, Watchers
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import TUNNEL_LOST
from cloudconnect.settings import (
    ORPHAN_SECONDS,
    PASSWORD_ITERATIONS_MIN,
    TOKEN_ITERATIONS_MIN,
)
from cloudconnect.transports.nodes import GATEWAY
from cloudconnect.wire.scram import DEFAULT_LABEL, Verifier

#: Outcomes that a tenant may report of a session.
OUTCOMES = ("done", "incomplete", "failed", "interrupted", "security_warning")
#: Those of them that leave a restore point.
GOOD_OUTCOMES = ("done", "incomplete")
#: What target roles are told of a session whose tenant did not report: it may know of its points.
UNREPORTED = "unreported"
#: A backup waits so long, in seconds, for others of its repository to leave a mover that stops.
HANDOVER_SECONDS = 10.0
#: A session that has lost its tunnel, and then its control channel, is over so many seconds later.
BROKEN_SECONDS = 0.0
#: Findings in its repository that a tenant is told at one log-in.
UNTOLD_MAX = 5


@attrs.define(eq=False, kw_only=True)
class LiveSession:
    """A session between its Start and its end.

    :ivar labels: host and job that its restore points belong to
    :ivar notify: tells the tenant of a warning
    :ivar move_on: asks the tenant to go on in a new session; takes the session, whether a role
        of it is lost, and why
    :ivar seen: what the provider's roles have warned of
    :ivar label: the credential with which it was started
    :ivar failed: a role of the provider saw that something was changed
    :ivar broken: a role has lost the tenant's tunnel
    :ivar mover_lost: the mover could not be asked at the end
    """

    session: bytes
    tenant: str
    kind: SessionKind
    job: bytes
    labels: tuple[str, str]
    repository: bytes
    parts: list[Part]
    notify: Callable[[SecurityWarning], None]
    move_on: Callable[[bytes, bool, str], None] = lambda session, lost, text: None
    seen: list[SecurityWarning] = attrs.field(factory=list)
    label: str = DEFAULT_LABEL
    orphaned: IDelayedCall | None = None
    ending: bool = False
    failed: bool = False
    mover_lost: bool = False
    broken: bool = False
    ended: Deferred[None] = attrs.field(factory=Deferred, repr=False)

    @property
    def identifier(self) -> str:
        """The session as hexadecimal digits."""
        return self.session.hex()


class CloudConnectService(Service):
    """The provider's service behind the gateway.

    :param reactor: clock
    :param accounts: the accounts data base; used only in the accounts thread
    :param in_accounts_thread: runs a blocking call there and fires with its result
    :param advertise: ``HOST:PORT`` of the gateways where the admin set them; empty: the tenant goes
        on using the address that it connected to
    :param today: the current date, for leases
    :param grace_days: days after the end of a lease in which its tenant may list and restore
    :param mover_backend: ``HOST:PORT`` where accelerators of their own process find the mover
    :ivar nodes: the other roles
    :ivar keeping: what is done to restore points
    :ivar watchers: who is told what happens
    :ivar notice: what tenants are told that will hold from some day on
    :ivar reload: reads certificates and settings again, where this process can
    :ivar connections: the control channels that are up
    :ivar node_endings: when the certificates of nodes end
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        accounts: Accounts,
        in_accounts_thread: Callable[..., Deferred[Any]],
        *,
        provider: bytes,
        decoy_key: bytes,
        advertise: Iterable[str] = (),
        today: Callable[[], datetime.date] = datetime.date.today,
        mover_backend: str = HERE,
        grace_days: int = GRACE_DAYS,
    ) -> None:
        self.reactor = reactor
        self.provider = provider
        self.decoy_key = decoy_key
        self.attempts = LoginAttempts(reactor)
        self.nodes = Nodes(advertise, reactor)
        self.keeping = PointKeeper(self)
        self.watchers = Watchers()
        self.notice = Notice()
        self.reload: Callable[[], None] | None = None
        self.connections = Connections()
        self.node_endings = NodeEndings()
        self._accounts = accounts
        self._run = in_accounts_thread
        self.today = today
        self._mover_backend = mover_backend
        self._grace_days = grace_days
        self._sessions: dict[bytes, LiveSession] = {}
        self._creating: set[str] = set()
        self._earlier = EarlierWarnings()
        self._unwritten: dict[str, bool] = {}  # who is frozen, or not, while nothing can be written

    # --- reports ---------------------------------------------------------------------------------

    def taking_part(self, link: BoundedAMP, session: str) -> LiveSession:
        """The running session that the role at the end of ``link`` takes part in.

        :param session: as hexadecimal digits
        :raises ContextMismatch: there is no such one
        """
        for live in self._sessions.values():
            if live.identifier == session and any(part.link is link for part in live.parts):
                return live
        raise ContextMismatch("this role takes part in no such session")

    def warned(self, warning: SecurityWarning) -> Deferred[None]:
        """A role or a tenant raised a warning: keep it, log it, tell the session's tenant."""
        self._log.warn(
            "security warning {kind} from {reporter}: {text}",
            kind=warning.kind.value,
            reporter=warning.role,
            session=warning.session,
            tenant=warning.tenant,
            hop=warning.hop,
            peer=warning.peer,
            text=warning.text,
        )
        live = self._sessions.get(bytes.fromhex(warning.session)) if warning.session else None
        if live is not None and warning.role not in TENANT_ROLES:
            warning.add_to(live.seen)
            live.notify(warning)
        self.watchers.tell(lambda watcher: watcher.warned(warning))
        return self._keep(self._accounts.keep_warning, warning, warning.role)

    def happened(self, event: SessionEvent, reported_by: str) -> Deferred[None]:
        """A role saw one step of a session: keep it."""
        live = self._sessions.get(bytes.fromhex(event.session)) if event.session else None
        if live is not None and event.name == TUNNEL_LOST and reported_by != "service":
            live.broken = True
            if live.orphaned is not None:  # nobody is left who could end it
                self._orphan_over(live)
        tenant = live.tenant if live is not None else str(event.fields.get("tenant", ""))
        self.watchers.tell(lambda watcher: watcher.happened(event, tenant, reported_by))
        return self._keep(self._accounts.keep_event, event, tenant, reported_by)

    def _keep(self, call: Callable[..., None], *arguments: Any, **values: Any) -> Deferred[None]:
        """Write something down that nobody waits for: where the disk is full or read-only it is
        only logged, and a restore goes on."""

        def unwritten(failure: Failure) -> None:
            failure.trap(NoSpace)
            self._log.warn("not written down: {why}", why=failure.getErrorMessage())

        return self._run(call, *arguments, **values).addErrback(unwritten)

    def note(self, name: str, session: str, text: str, **fields: Any) -> Deferred[None]:
        """The service itself took one step: keep it."""
        event = SessionEvent(time=time.time(), name=name, session=session, text=text, fields=fields)
        return self.happened(event, "service")

    # --- tenants ---------------------------------------------------------------------------------

    def credential(self, login: str) -> Deferred[Any]:
        """Fires with the :class:`~cloudconnect.provider.accounts.credentials.Credential` of a
        log-in name, or None."""
        return self._run(self._accounts.credential, login)

    async def admit(self, login: Login, act: Act) -> Tenant:
        """The tenant's record, where it may do this now with the credential that it logged in with.

        :raises LeaseEnded: it is disabled, or its lease has ended
        :raises NotAllowed: the credential does not allow it
        :raises LoginRefused: at a log-in: the credential is not valid any more
        """
        if act is Act.LOG_IN and not await self._run(self._accounts.valid_credential, login.number):
            raise LoginRefused("the provider does not accept this tenant name and login password")
        record = await self.tenant(login.tenant)
        check_access(record, login, act, self.today(), self._grace_days)
        return record

    async def accept_invitation(self, login: Login, verifier: Verifier) -> Login:
        """The machine's own credential in the place of its invitation; the log-in with it.

        :raises Refused: this is not a log-in with an invitation
        :raises LoginRefused: the invitation is spent, revoked or over
        """
        if not login.invitation:
            raise NotAllowed("this log-in is not one with an invitation")
        await self.admit(login, Act.LOG_IN)
        made = await self._run(self._accounts.accept_invitation, login.number, verifier)
        await self.note(
            "invitation_accepted",
            "",
            f"tenant {login.tenant}: invitation accepted, credential {made.label} made",
            tenant=login.tenant,
            credential=made.label,
        )
        return Login.by(made)

    async def cut(self, tenant: str, label: str | None = None) -> None:
        """End at once what a tenant has running: its control channels and its sessions.

        What was acknowledged as stored stays.

        :param label: only what was begun with the credential of this name
        """
        self.connections.cut(tenant, label)
        running = [
            live
            for live in list(self._sessions.values())
            if live.tenant == tenant and (label is None or live.label == label)
        ]
        for live in running:
            if live.ending:
                await DeferredList([live.ended])
            else:
                await self._end(live, "interrupted", {})

    def decoy_iterations(self, tenant: str) -> int:
        """How many iterations a log-in name that does not exist is told: those of a token or of a
        password, always the same for one name, so that the number betrays nobody."""
        coin = hmac.digest(self.decoy_key, b"iterations " + tenant.encode(), "sha256")[0] & 1
        return TOKEN_ITERATIONS_MIN if coin else PASSWORD_ITERATIONS_MIN

    async def tenant(self, name: str) -> Tenant:
        """What is agreed with a tenant, and what could not be written down of it."""
        record: Tenant = await self._run(self._accounts.tenant, name)
        frozen = self._unwritten.get(name)
        return record if frozen is None else attrs.evolve(record, frozen=frozen)

    async def owner(self, repository: bytes) -> dict[str, Any]:
        """Whose a repository is, as AskOwner answers it."""
        found: Tenant | None = await self._run(self._accounts.owner, repository)
        if found is None:
            return {"tenant": "", "rules": {}, "frozen": False}
        if found.name in self._unwritten:
            await self._write_frozen(found.name, self._unwritten[found.name])
        record = await self.tenant(found.name)
        return {
            "tenant": record.name,
            "rules": record.repository_rules,
            "frozen": record.frozen,
        }

    async def freeze(self, tenant: str, frozen: bool) -> bool:
        """Freeze a tenant, or thaw it; whether it could be written down.

        Where it could not, because the disk is full or read-only, it holds for as long as service
        and mover run, and is written down when it can be.
        """
        record = await self.tenant(tenant)
        kept = await self._write_frozen(tenant, frozen)
        if record.repository is not None:
            kept = (
                await self.keeping.tell_rules(await self.tenant(tenant), record.repository) and kept
            )
        word = "frozen" if frozen else "thawed"
        await self.note(f"tenant_{word}", "", f"tenant {tenant} is {word}", tenant=tenant)
        return kept

    async def _write_frozen(self, tenant: str, frozen: bool) -> bool:
        try:
            await self._run(self._accounts.change_tenant, tenant, {"frozen": frozen})
        except NoSpace as error:
            self._unwritten[tenant] = frozen
            self._log.warn("freezing {tenant} is not written down: {e}", tenant=tenant, e=error)
            return False
        self._unwritten.pop(tenant, None)
        return True

    def soft_quota_passed(self, tenant: str, over: bool) -> Deferred[Any]:
        """Note whether a tenant is over its soft quota; fires with whether that is news."""
        return self._run(self._accounts.warn_soft, tenant, over)

    async def history(
        self, tenant: str, what: str, session: str, after: int, limit: int
    ) -> dict[str, Any]:
        """One page of what is kept of a tenant's sessions; of nobody else's.

        :param what: ``event`` or ``session``
        :param session: only this one, or ""
        """
        if what == "session":
            rows = await self._run(self._accounts.sessions, tenant, after, limit + 1, session)
        else:
            filters = {"tenant": tenant, "session": session}
            rows = await self._run(self._accounts.events, filters, after, limit + 1)
        fitting, more = fit_page(rows, limit)
        return {"rows": fitting, "more": more}

    async def notice_taken(self, tenant: str, machine: str, pins: tuple[str, ...]) -> None:
        """A machine of a tenant knows the next pins; which ones are not ours is left out."""
        ours = [pin for pin in pins if pin in self.notice.pins]
        if ours and await self._run(keep_known, self._accounts, tenant, machine, ours):
            text = f"{machine} of tenant {tenant} has noted the next key's pin"
            await self.note("notice_taken", "", text, tenant=tenant, machine=machine, pins=ours)

    def untold(self, tenant: str) -> Deferred[Any]:
        """Fires with the first warnings that a tenant was not told yet, each with its number."""
        return self._run(self._accounts.untold, tenant, UNTOLD_MAX)

    def told(self, tenant: str, number: int) -> Deferred[Any]:
        """A tenant was told of everything up to this number."""
        return self._keep(self._accounts.tell, tenant, number)

    async def account(self, tenant: str) -> tuple[Tenant, bytes]:
        """The tenant's record, and its encoded repository description or ``b""``."""
        record = await self.tenant(tenant)
        if record.repository is None:
            return record, b""
        answer = await self.nodes.movers.call(DescribeRepository, repository=record.repository)
        return record, answer["description"]

    async def create_repository(self, tenant: str, encoded: bytes) -> None:
        """Make the tenant's one repository.

        :raises Refused: it has one, or the mode is not allowed
        """
        record = await self.tenant(tenant)
        record.check_active(self.today())
        if record.repository is not None:
            raise Refused(
                f"tenant {tenant} has a repository already; connect again with its passphrase"
            )
        description = RepositoryDescription.decode(encoded)
        if description.mode.value not in record.modes:
            raise Refused(
                f"the provider does not allow encryption mode {description.mode.value} for "
                f"tenant {tenant}, only {', '.join(record.modes)}"
            )
        if tenant in self._creating:
            raise Busy(f"the repository of tenant {tenant} is being made")
        self._creating.add(tenant)
        try:
            movers = self.nodes.movers
            mover = movers.some(self._busy())
            await mover.call(MakeRepository, description=encoded)
            if mover in movers:
                movers.remember(description.repository, movers.place(mover).storage)
            await self.keeping.tell_rules(record, description.repository)
            await self._run(
                self._accounts.set_repository,
                tenant,
                description.repository,
                description.mode.value,
            )
        finally:
            self._creating.discard(tenant)
        await self.note(
            "repository_made",
            "",
            f"tenant {tenant} made its repository, encryption {description.mode.value}",
            tenant=tenant,
            mode=description.mode.value,
        )

    async def replace_description(
        self, tenant: str, description: bytes, head: bytes, head_signature: bytes
    ) -> None:
        """Take a new description of the tenant's repository; the mover judges who has signed it.

        Also after the end of the lease: who must lock somebody out must not wait for that.
        """
        record = await self.tenant(tenant)
        if record.disabled:
            record.check_active(self.today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        await self.nodes.movers.call(
            ReplaceRepositoryDescription,
            repository=record.repository,
            description=description,
            head=head,
            head_signature=head_signature,
        )
        await self.note(
            "description_replaced", "", f"tenant {tenant} changed its keys", tenant=tenant
        )

    async def points(self, tenant: str, **query: Any) -> dict[str, Any]:
        """One page of the tenant's restore points."""
        record = await self.tenant(tenant)
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        return await self.nodes.movers.call(
            ListRepositoryPoints, repository=record.repository, **query
        )

    # --- sessions --------------------------------------------------------------------------------

    async def start(
        self,
        tenant: str,
        ask: Ask,
        exporter: Callable[[bytes, str], bytes],
        peer: str,
        notify: Callable[[SecurityWarning], None],
        move_on: Callable[[bytes, bool, str], None] = lambda session, lost, text: None,
        login: Login | None = None,
    ) -> tuple[bytes, list[dict[str, Any]], list[KeyA]]:
        """Begin a session: Key A to its roles, routes to the gateways, then the answer.

        :param exporter: the TLS exporter for the Key A of a session and a role, 32 bytes
        :param notify: tells the tenant of a warning
        :param move_on: asks it to go on in a new session
        :param login: who asks; None: who may do everything
        :return: the session, the plan, and the Key A of each of its entries
        """
        record = await self.tenant(tenant)
        if ask.kind is SessionKind.BACKUP or record.disabled:
            record.check_active(self.today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        if ask.repository != record.repository:
            raise NotFound("that is not this tenant's repository")
        label = DEFAULT_LABEL if login is None else login.label
        await self._take_over(tenant, ask.job, label)
        for warning in self._earlier.of(tenant, ask.job):
            notify(warning)
        await self.nodes.settled(ask.wan)
        movers = await self.nodes.movers.of(ask.repository)
        if ask.kind is SessionKind.BACKUP:
            await self._handed_over(ask.repository)
        running = sum(1 for live in self._sessions.values() if live.tenant == tenant)
        if running >= record.max_tasks:
            raise Busy(
                f"tenant {tenant} runs {running} tasks already, which is its limit; "
                "wait for one to end, or ask the provider for more"
            )
        session = os.urandom(16)
        mover = self._mover_for(ask, movers)
        parts = [Part(Role.TARGET_MOVER, mover, self.nodes.movers.place(mover).backend)]
        if ask.wan:
            parts.append(Part(Role.TARGET_WAN, *self.nodes.accelerator(self._busy())))
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
        )
        self._sessions[session] = live  # counted from here, so that two Starts cannot race
        try:
            places = await self.nodes.publish(record.group, parts, record.bandwidth, record.pool)
            plan = plan_of(parts, ask, self.nodes.addresses(places))
            at = self._mover_backend if parts[0].backend == HERE else parts[0].backend
            allowed = CAPABILITIES if login is None else login.capabilities
            told = packages(parts, plan, ask, session, record, exporter, at, allowed)
            await self._keep(
                self._accounts.session_started,
                session=live.identifier,
                tenant=tenant,
                kind=ask.kind.value,
                job_id=ask.job.hex(),
                host=ask.host,
                job=ask.name,
                peer=peer,
                started=time.time(),
                key_a=parts[0].key_a.identifier,
                key_b="",
                summary="{}",
            )
            self.watchers.tell(
                lambda watcher: watcher.session_started(live.identifier, tenant, ask.kind.value)
            )
            for part in parts:
                await self.note(
                    "key_a_made",
                    live.identifier,
                    f"Key A {part.key_a.identifier} made for the {part.role.value}",
                    role=part.role.value,
                    key=part.key_a.identifier,
                )
            await self._offer(parts, told)
            if live.ending:  # the same job was started again meanwhile
                raise NotReachable("this job goes on in another session")
        except BaseException:
            for part in parts:
                part.key_a.forget()
            await self._end(live, "failed", {})
            raise
        return session, plan, [part.key_a for part in parts]

    async def _take_over(self, tenant: str, job: bytes, label: str) -> None:
        """A tenant goes on with a job in a new session: those before it are over, also those whose
        control channel only the tenant has lost. What is left of them, and was seen, is known then.

        Not those of another credential of the tenant's: that one may have learned the job's id.
        """
        for live in list(self._sessions.values()):
            if (live.tenant, live.job) != (tenant, job):
                continue
            if live.ending:
                await DeferredList([live.ended])
            elif live.orphaned is not None or live.label == label:
                await self._end(live, "interrupted", {})

    def _backing_up(self, repository: bytes) -> list[LiveSession]:
        """The sessions that write to a repository."""
        return [
            live
            for live in self._sessions.values()
            if live.repository == repository and live.kind is SessionKind.BACKUP
        ]

    async def _handed_over(self, repository: bytes) -> None:
        """Where the mover that writes to a repository is leaving, wait a while for its sessions:
        they were asked to move on."""
        ending = [
            live
            for live in self._backing_up(repository)
            if not self.nodes.movers.takes(live.parts[0].link)
        ]
        if ending:
            waited = DeferredList([_follow(live.ended) for live in ending], consumeErrors=True)
            waited.addTimeout(HANDOVER_SECONDS, self.reactor, lambda *_: None)
            await waited

    def _mover_for(self, ask: Ask, movers: list[BoundedAMP]) -> BoundedAMP:
        """The mover of a new session: for a backup the one that writes to the repository already,
        because the tenant's quota is counted there, or else the one with the fewest sessions."""
        if ask.kind is SessionKind.BACKUP:
            for live in self._backing_up(ask.repository):
                if live.parts[0].link in self.nodes.movers:
                    return live.parts[0].link
        return self.nodes.movers.best(movers, self._busy())

    async def _offer(self, parts: list[Part], told: list[KeyAPackage]) -> None:
        """Hand each part its package and Key A; all have it before the tenant is answered."""
        for part, package in zip(parts, told, strict=True):
            call: dict[str, Any] = {"package": package.as_map(), "key_a": part.key_a}
            if part.role is Role.TARGET_WAN or part.backend != HERE:
                call["timeout"] = ANSWER_SECONDS
            try:
                await part.link.call(OfferKeyA, **call)
            except NotReachable as error:
                self.nodes.lose_if_gone(part, error)
                raise
            except Busy as error:  # one that we have lost takes backups still; soon it will not
                raise MovedOn(str(error)) from None

    def _busy(self) -> Counter[BoundedAMP]:
        """How many sessions each role has."""
        return Counter(part.link for live in self._sessions.values() for part in live.parts)

    def live(self, tenant: str, session: bytes) -> LiveSession:
        """The running session of this tenant.

        :raises ContextMismatch: it is not this tenant's, or not running
        """
        live = self._sessions.get(session)
        if live is None or live.tenant != tenant:
            raise ContextMismatch("no such session is running for this tenant")
        return live

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
            await self.warned_by_tenant(live, warning)
        found = await self._end(live, outcome, summary, outcome)
        if live.failed and outcome in GOOD_OUTCOMES:
            raise _error_of(found)
        if live.mover_lost and live.kind is SessionKind.BACKUP and outcome in GOOD_OUTCOMES:
            raise NotReachable(
                "the data mover was lost before it had said that all is well with the restore point"
            )
        return found

    def warned_by_tenant(self, live: LiveSession, warning: SecurityWarning) -> Deferred[None]:
        """A tenant reports a warning: of its own session only, whatever it wrote."""
        told = attrs.evolve(
            warning,
            session=live.identifier,
            tenant=live.tenant,
            role=warning.role if warning.role in TENANT_ROLES else Role.SOURCE_MOVER.value,
        )
        return self.warned(told)

    async def _end(
        self, live: LiveSession, state: str, summary: dict[str, Any], outcome: str = UNREPORTED
    ) -> list[SecurityWarning]:
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
                self.nodes.lose_if_gone(part, error)
                if part.role is Role.TARGET_MOVER:
                    live.mover_lost = True
                    if "security_warning" in (outcome, state):
                        self._withdraw_later(live)
                continue
            found += self._warnings_of(live, part.role, answer["warnings"])
            if answer["failed"]:
                live.failed, outcome = True, "security_warning"
                state = outcome if state in GOOD_OUTCOMES else state
        self.nodes.retire(live.parts)
        self._earlier.keep(live.tenant, live.job, [*live.seen, *found], outcome == UNREPORTED)
        try:
            await self._keep(self._accounts.session_ended, live.identifier, state, summary)
        finally:
            self._sessions.pop(live.session, None)  # whatever happens, the task is free again
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
            self.watchers.tell(lambda watcher: watcher.session_ended(end))
            live.ended.callback(None)
        return found

    def _withdraw_later(self, live: LiveSession) -> None:
        """The mover of a session is lost that has left nothing good: another one withdraws it."""
        asking = self.nodes.movers.call(
            WithdrawSession, repository=live.repository, session=live.session
        )
        done = Deferred.fromCoroutine(asking)
        done.addErrback(
            lambda f: self._log.error(
                "what session {session} has published is not withdrawn: {why}",
                session=live.identifier,
                why=f.getErrorMessage(),
            )
        )

    # --- nodes -----------------------------------------------------------------------------------

    async def admit_node(
        self, link: BoundedAMP, role: str, name: str, spki: str, ends: float
    ) -> None:
        """Judge a node that has proved its certificate; from now on it is known by its name.

        :param spki: fingerprint of the key that it has proved
        :param ends: when its certificate ends, in seconds since 1970
        :raises Refused: its certificate was taken back
        """
        known = await self._run(self._accounts.admit_node, role, name, spki, ends or None)
        self.node_endings.saw(role, name, ends)
        self.nodes.set_leaving(role, name, known.leaving)
        self.nodes.join(link, role, name)

    def joined(self, role: str, name: str) -> None:
        """A new node got its certificate."""
        self.note("node_enrolled", "", f"{role} {name} got its certificate", node=name)

    def renewed(self, role: str, name: str) -> None:
        """A node got its next certificate."""
        self.note("node_renewed", "", f"{role} {name} got its next certificate", node=name)

    def expel(self, role: str, name: str) -> None:
        """A node's certificate was taken back: cut its lines, and with them its sessions."""
        self.node_endings.forget(role, name)
        for link in self.nodes.named(role, name):
            line: Any = link.transport
            if line is not None:
                line.abortConnection()

    # --- roles that go ---------------------------------------------------------------------------

    def role_lost(self, link: BoundedAMP) -> None:
        """A mover or accelerator is gone: its sessions are over, and their tenants are told so.

        They stay known for a while: a tenant may have come to its end, and say so.
        """
        for live in list(self._sessions.values()):
            lost = next((part for part in live.parts if part.link is link), None)
            if lost is not None and not live.ending:
                live.move_on(
                    live.session, True, f"the provider's {lost.role.value} of this session is lost"
                )
                self.orphan([live.session])

    def leave(self, role: str, name: str, leaving: bool) -> int:
        """A node gets no new sessions, or does again; how many it has, or connections of a gateway.

        :param role: as its certificate says it
        """
        self.nodes.set_leaving(role, name, leaving)
        if role == GATEWAY:
            return sum(self.nodes.connections_at(link) for link in self.nodes.named(role, name))
        count = 0
        for link in self.nodes.named(role, name):
            for live in list(self._sessions.values()):
                if any(part.link is link for part in live.parts):
                    count += 1
                    if leaving:
                        live.move_on(
                            live.session, False, f"the provider's {role} {name} is about to stop"
                        )
        return count

    def sessions_at(self, link: BoundedAMP) -> int:
        """How many sessions a role takes part in."""
        return self._busy()[link]

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
            await self._end(live, "interrupted", {}, "interrupted")

    def orphan(self, sessions: Iterable[bytes]) -> None:
        """The control channel of these sessions is gone: they may finish for a while."""
        for session in sessions:
            live = self._sessions.get(session)
            if live is not None and live.orphaned is None:
                seconds = BROKEN_SECONDS if live.broken else ORPHAN_SECONDS
                live.orphaned = self.reactor.callLater(seconds, self._orphan_over, live)

    def _orphan_over(self, live: LiveSession) -> None:
        self._end_later(live, "interrupted", UNREPORTED)

    def spoil(self, sessions: Iterable[bytes]) -> None:
        """The control channel of these sessions was changed: they end, and leave no point."""
        for session in sessions:
            live = self._sessions.get(session)
            if live is not None:
                self._end_later(live, "security_warning", "security_warning")

    def _end_later(self, live: LiveSession, state: str, outcome: str) -> None:
        done = Deferred.fromCoroutine(self._end(live, state, {}, outcome))
        done.addErrback(lambda f: self._log.failure("a lost session did not end", f))

    def stopService(self) -> Deferred[Any]:
        """End every session."""
        Service.stopService(self)
        ends: list[Deferred[Any]] = [
            live.ended
            if live.ending
            else Deferred.fromCoroutine(self._end(live, "interrupted", {}))
            for live in list(self._sessions.values())
        ]
        return gatherResults(ends, consumeErrors=True)


def _follow(ended: Deferred[None]) -> Deferred[None]:
    """Fires when ``ended`` does, and may be given up without it."""
    follower: Deferred[None] = Deferred()

    def over(result: None) -> None:
        if not follower.called:
            follower.callback(None)

    ended.addCallback(over)
    return follower


def _error_of(warnings: list[SecurityWarning]) -> SecurityError:
    """What a session that a role saw fail is answered with, in that role's words."""
    classes = {cls.kind: cls for cls in SecurityError.__subclasses__()}
    seen = next((warning for warning in warnings if warning.kind in classes), None)
    if seen is None:
        return Tampered("the session failed at the provider, and left no restore point")
    return classes[seen.kind](f"seen by the provider's {seen.role}: {seen.text}")
