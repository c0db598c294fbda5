"""Layer 4: the Cloud Connect service: knows tenants, starts sessions, makes Key A.

It holds the TLS key, the accounts and each Key A until it is delivered; never Key B, never
an at-rest key. One :class:`~cloudconnect.provider.control.ControlProtocol` serves each tenant's
connection and calls in here; gateways and movers are reached through their LAN links
(``docs/protocol.rst``, sections 2, 3 and 10).
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
from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.commands.control import TENANT_ROLES, Role, SessionKind
from cloudconnect.commands.lan import (
    CollectGarbage,
    DeleteRepositoryPoints,
    DescribeRepository,
    EndSession,
    GetRepositoryRetention,
    ListRepositoryPoints,
    LockRepositoryPoints,
    MakeRepository,
    MeasureRepository,
    OfferKeyA,
    PreviewRepositoryRetention,
    PublishRoute,
    ReplaceRepositoryDescription,
    RetireRoute,
    ScrubRepository,
    SeedCache,
    SetRepositoryRetention,
    SetRules,
    UndeleteRepositoryPoints,
)
from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ContextMismatch,
    NoAccelerator,
    NoSpace,
    NotFound,
    NotReachable,
    Refused,
    SecurityError,
    Tampered,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import KeyA
from cloudconnect.provider.accounts import Accounts, Tenant
from cloudconnect.provider.attempts import LoginAttempts
from cloudconnect.provider.planning import HERE, Ask, GatewayPlace, Part, packages, plan_of
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.settings import (
    KEY_A_SECONDS,
    ORPHAN_SECONDS,
    PASSWORD_ITERATIONS_MIN,
    TOKEN_ITERATIONS_MIN,
)

#: Outcomes that a tenant may report of a session.
OUTCOMES = ("done", "incomplete", "failed", "interrupted", "security_warning")
#: Those of them that leave a restore point.
GOOD_OUTCOMES = ("done", "incomplete")
#: What the mover is told of a session whose tenant did not report: it may know of its points.
UNREPORTED = "unreported"
#: Findings in its repository that a tenant is told at one log-in.
UNTOLD_MAX = 5
#: A route outlives Key A by the time that Key B may still open connections, in seconds.
ROUTE_SECONDS = 2 * KEY_A_SECONDS
#: A gateway takes a route, and an accelerator a session, within so many seconds, or is taken for
#: lost: less than a tenant waits.
PUBLISH_SECONDS = 5.0


@attrs.define(eq=False, kw_only=True)
class LiveSession:
    """A session between its Start and its end.

    :ivar failed: a role of the provider saw that something was changed
    """

    session: bytes
    tenant: str
    kind: SessionKind
    parts: list[Part]
    notify: Callable[[SecurityWarning], None]
    orphaned: IDelayedCall | None = None
    ending: bool = False
    failed: bool = False
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
    :param mover_backend: ``HOST:PORT`` where accelerators of their own process find the mover
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
    ) -> None:
        self.reactor = reactor
        self.provider = provider
        self.decoy_key = decoy_key
        self.attempts = LoginAttempts(reactor)
        self._accounts = accounts
        self._run = in_accounts_thread
        self._advertise = list(advertise)
        self._today = today
        self._mover_backend = mover_backend
        self._gateways: dict[BoundedAMP, GatewayPlace] = {}
        self._mover: BoundedAMP | None = None
        self._accelerators: dict[BoundedAMP, str] = {}
        self._sessions: dict[bytes, LiveSession] = {}
        self._creating: set[str] = set()
        self._unwritten: dict[str, bool] = {}  # who is frozen, or not, while nothing can be written

    # --- LAN -------------------------------------------------------------------------------------

    def add_gateway(self, link: BoundedAMP, place: GatewayPlace) -> None:
        """A gateway is there: routes are published to it from now on."""
        self._gateways[link] = place

    def lose_gateway(self, link: BoundedAMP) -> None:
        """A gateway's link is gone."""
        self._gateways.pop(link, None)

    def set_mover(self, link: BoundedAMP) -> None:
        """The target data mover is there."""
        self._mover = link

    def add_accelerator(self, link: BoundedAMP, backend: str = HERE) -> None:
        """A target WAN accelerator is there: sessions may go through it from now on.

        :param backend: ``HOST:PORT`` where gateways find it, or ``here`` for our own process
        """
        self._accelerators[link] = backend

    def lose_accelerator(self, link: BoundedAMP) -> None:
        """A target WAN accelerator is gone."""
        self._accelerators.pop(link, None)

    def taking_part(self, link: BoundedAMP, session: str) -> LiveSession:
        """The running session that the role at the end of ``link`` takes part in.

        :param session: as hexadecimal digits
        :raises ContextMismatch: there is no such one
        """
        for live in self._sessions.values():
            if live.identifier == session and any(part.link is link for part in live.parts):
                return live
        raise ContextMismatch("this role takes part in no such session")

    @property
    def accelerates(self) -> bool:
        """Whether there is a target WAN accelerator."""
        return bool(self._accelerators)

    def _accelerator(self) -> tuple[BoundedAMP, str]:
        """The accelerator with the fewest sessions.

        :raises Refused: there is none
        """
        if not self._accelerators:
            raise NoAccelerator(
                "the provider has no WAN accelerator running; use --wan auto or off, or try later"
            )
        busy = Counter(part.link for live in self._sessions.values() for part in live.parts)
        link = min(self._accelerators, key=busy.__getitem__)
        return link, self._accelerators[link]

    @property
    def mover(self) -> BoundedAMP:
        """The link to the target data mover.

        :raises Refused: there is none
        """
        if self._mover is None:
            raise Refused("the provider has no data mover running; try again later")
        return self._mover

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
            live.notify(warning)
        return self._keep(self._accounts.keep_warning, warning, warning.role)

    def happened(self, event: SessionEvent, reported_by: str) -> Deferred[None]:
        """A role saw one step of a session: keep it."""
        live = self._sessions.get(bytes.fromhex(event.session)) if event.session else None
        tenant = live.tenant if live is not None else str(event.fields.get("tenant", ""))
        return self._keep(self._accounts.keep_event, event, tenant, reported_by)

    def _keep(self, call: Callable[..., None], *arguments: Any, **values: Any) -> Deferred[None]:
        """Write something down that nobody waits for: where the disk is full or read-only it is
        only logged, and a restore goes on."""

        def unwritten(failure: Failure) -> None:
            failure.trap(NoSpace)
            self._log.warn("not written down: {why}", why=failure.getErrorMessage())

        return self._run(call, *arguments, **values).addErrback(unwritten)

    def _note(self, name: str, session: str, text: str, **fields: Any) -> Deferred[None]:
        event = SessionEvent(time=time.time(), name=name, session=session, text=text, fields=fields)
        return self.happened(event, "service")

    # --- tenants ---------------------------------------------------------------------------------

    def verifier(self, tenant: str) -> Deferred[Any]:
        """Fires with what proves the tenant's password, or None."""
        return self._run(self._accounts.verifier, tenant)

    def decoy_iterations(self, tenant: str) -> int:
        """How many iterations a tenant that does not exist is told: those of a token or of a
        password, always the same for one name, so that the number betrays nobody."""
        coin = hmac.digest(self.decoy_key, b"iterations " + tenant.encode(), "sha256")[0] & 1
        return TOKEN_ITERATIONS_MIN if coin else PASSWORD_ITERATIONS_MIN

    async def _tenant(self, name: str) -> Tenant:
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
        record = await self._tenant(found.name)
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
        record = await self._tenant(tenant)
        kept = await self._write_frozen(tenant, frozen)
        if record.repository is not None:
            kept = await self._tell_rules(await self._tenant(tenant), record.repository) and kept
        word = "frozen" if frozen else "thawed"
        await self._note(f"tenant_{word}", "", f"tenant {tenant} is {word}", tenant=tenant)
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

    def untold(self, tenant: str) -> Deferred[Any]:
        """Fires with the first warnings that a tenant was not told yet, each with its number."""
        return self._run(self._accounts.untold, tenant, UNTOLD_MAX)

    def told(self, tenant: str, number: int) -> Deferred[Any]:
        """A tenant was told of everything up to this number."""
        return self._keep(self._accounts.tell, tenant, number)

    async def account(self, tenant: str) -> tuple[Tenant, bytes]:
        """The tenant's record, and its encoded repository description or ``b""``."""
        record = await self._tenant(tenant)
        if record.repository is None:
            return record, b""
        answer = await self.mover.call(DescribeRepository, repository=record.repository)
        return record, answer["description"]

    async def create_repository(self, tenant: str, encoded: bytes) -> None:
        """Make the tenant's one repository.

        :raises Refused: it has one, or the mode is not allowed
        """
        record = await self._tenant(tenant)
        record.check_active(self._today())
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
            await self.mover.call(MakeRepository, description=encoded)
            await self._tell_rules(record, description.repository)
            await self._run(
                self._accounts.set_repository,
                tenant,
                description.repository,
                description.mode.value,
            )
        finally:
            self._creating.discard(tenant)
        await self._note(
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
        record = await self._tenant(tenant)
        if record.disabled:
            record.check_active(self._today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        await self.mover.call(
            ReplaceRepositoryDescription,
            repository=record.repository,
            description=description,
            head=head,
            head_signature=head_signature,
        )
        await self._note(
            "description_replaced", "", f"tenant {tenant} changed its keys", tenant=tenant
        )

    async def points(self, tenant: str, **query: Any) -> dict[str, Any]:
        """One page of the tenant's restore points."""
        record = await self._tenant(tenant)
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        return await self.mover.call(ListRepositoryPoints, repository=record.repository, **query)

    # --- how points are kept ---------------------------------------------------------------------

    async def delete_points(self, tenant: str, points: Any) -> dict[str, Any]:
        """Put restore points into the bin.

        :raises LeaseEnded: the tenant is not active
        :raises Refused: it is frozen, or a point is locked
        """
        record, repository = await self._acting(tenant, "nothing can be deleted")
        if record.frozen:
            raise Refused(
                f"the provider has frozen tenant {tenant}: for now nothing is deleted, expires or "
                "is removed; ask the provider"
            )
        answer = await self.mover.call(
            DeleteRepositoryPoints, repository=repository, points=points, by="tenant"
        )
        await self._note_points("points_deleted", "put into the bin", tenant, answer["points"])
        return answer

    async def undelete_points(self, tenant: str, points: Any) -> dict[str, Any]:
        """Take restore points out of the bin; also after the end of the lease."""
        _, repository = await self._acting(tenant, None)
        answer = await self.mover.call(
            UndeleteRepositoryPoints, repository=repository, points=points
        )
        await self._note_points("points_undeleted", "taken from the bin", tenant, answer["points"])
        return answer

    async def lock_points(self, tenant: str, points: Any, until: int) -> dict[str, Any]:
        """Lock restore points."""
        _, repository = await self._acting(tenant, "nothing can be locked")
        answer = await self.mover.call(
            LockRepositoryPoints, repository=repository, points=points, until=until
        )
        await self._note_points("points_locked", "locked", tenant, answer["points"])
        return answer

    async def retention(self, tenant: str, after: int, limit: int) -> dict[str, Any]:
        """One page of the retention policies."""
        _, repository = await self._acting(tenant, None)
        return await self.mover.call(
            GetRepositoryRetention, repository=repository, after=after, limit=limit
        )

    async def set_retention(self, tenant: str, host: str, job: str, policy: Any) -> dict[str, Any]:
        """Set what is kept of a host and a job."""
        _, repository = await self._acting(tenant, "retention cannot be changed")
        answer = await self.mover.call(
            SetRepositoryRetention, repository=repository, host=host, job=job, policy=policy
        )
        await self._note(
            "retention_set",
            "",
            f"tenant {tenant} set what is kept of {host or 'every host'}, {job or 'every job'}",
            tenant=tenant,
            **answer["policy"],
        )
        return answer

    async def preview_retention(self, tenant: str, **query: Any) -> dict[str, Any]:
        """One page of what retention would do."""
        _, repository = await self._acting(tenant, None)
        return await self.mover.call(PreviewRepositoryRetention, repository=repository, **query)

    async def rules_changed(self, tenant: str) -> None:
        """An admin has changed what is agreed with a tenant, in the accounts: the mover hears it.

        :raises Refused: there is no mover; it hears it before the next act
        """
        record = await self._tenant(tenant)
        if record.repository is not None:
            await self._tell_rules(record, record.repository)

    async def measure(self, tenant: str) -> dict[str, Any]:
        """What the tenant's repository holds, as numbers, for its admin."""
        answer = await self._at_mover(tenant, MeasureRepository)
        measured: dict[str, Any] = answer["measured"]
        return measured

    async def collect(self, tenant: str) -> dict[str, Any]:
        """Collect the garbage of a tenant's repository, for its admin; the counts.

        :raises Refused: the tenant is frozen, also where its repository could not be told
        """
        if (await self._tenant(tenant)).frozen:
            raise Refused(f"tenant {tenant} is frozen: nothing is removed until it is thawed")
        answer = await self._at_mover(tenant, CollectGarbage, tenant=tenant)
        result: dict[str, Any] = answer["result"]
        return result

    async def scrub(self, tenant: str, limit: int) -> dict[str, Any]:
        """Scrub a tenant's repository, for its admin; counts and findings.

        :param limit: bytes to read, 0 for all
        """
        answer = await self._at_mover(tenant, ScrubRepository, tenant=tenant, limit=limit)
        result: dict[str, Any] = answer["result"]
        return result

    async def seed(self, tenant: str, host: str, job: str, limit: int) -> dict[str, Any]:
        """Seed the WAN cache in the mover's process from a tenant's repository; the counts.

        :param host: only points of this host, where it is not empty; ``job`` likewise
        :param limit: bytes, 0 for what suits the cache
        """
        answer = await self._at_mover(
            tenant, SeedCache, tenant=tenant, host=host, job=job, limit=limit
        )
        result: dict[str, Any] = answer["result"]
        return result

    async def _at_mover(
        self, name: str, command: type[BoundedCommand], **values: Any
    ) -> dict[str, Any]:
        """What the mover answers after however long it takes."""
        record = await self._tenant(name)
        if record.repository is None:
            raise NotFound(f"tenant {name} has no repository yet")
        await self._tell_rules(record, record.repository)
        return await self.mover.call(command, timeout=None, repository=record.repository, **values)

    async def _acting(self, tenant: str, forbidden: str | None) -> tuple[Tenant, bytes]:
        """The tenant and its repository, once the mover has the newest rules.

        :param forbidden: what an ended lease does not allow; None: a lease that has ended allows it
        """
        record = await self._tenant(tenant)
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        if forbidden is not None or record.disabled:
            record.check_active(self._today(), forbidden or "")
        await self._tell_rules(record, record.repository)
        return record, record.repository

    async def _tell_rules(self, record: Tenant, repository: bytes) -> bool:
        rules = record.repository_rules
        answer = await self.mover.call(
            SetRules, repository=repository, rules=rules, frozen=record.frozen
        )
        kept: bool = answer["kept"]
        return kept

    def _note_points(
        self, name: str, done: str, tenant: str, points: list[dict[str, Any]]
    ) -> Deferred[None]:
        text = f"tenant {tenant}: {len(points)} restore point(s) {done}"
        ids = [row["point"] for row in points]
        return self._note(name, "", text, tenant=tenant, points=ids)

    # --- sessions --------------------------------------------------------------------------------

    async def start(
        self,
        tenant: str,
        ask: Ask,
        exporter: Callable[[bytes, str], bytes],
        peer: str,
        notify: Callable[[SecurityWarning], None],
    ) -> tuple[bytes, list[dict[str, Any]], list[KeyA]]:
        """Begin a session: Key A to its roles, routes to the gateways, then the answer.

        :param exporter: the TLS exporter for the Key A of a session and a role, 32 bytes
        :param notify: tells the tenant of a warning
        :return: the session, the plan, and the Key A of each of its entries
        """
        record = await self._tenant(tenant)
        if ask.kind is SessionKind.BACKUP or record.disabled:
            record.check_active(self._today())
        if record.repository is None:
            raise NotFound(f"tenant {tenant} has no repository yet: run cloudconnect connect")
        if ask.repository != record.repository:
            raise NotFound("that is not this tenant's repository")
        running = sum(1 for live in self._sessions.values() if live.tenant == tenant)
        if running >= record.max_tasks:
            raise Busy(
                f"tenant {tenant} runs {running} tasks already, which is its limit; "
                "wait for one to end, or ask the provider for more"
            )
        session = os.urandom(16)
        parts = [Part(Role.TARGET_MOVER, self.mover, HERE)]
        if ask.wan:
            parts.append(Part(Role.TARGET_WAN, *self._accelerator()))
        live = LiveSession(
            session=session, tenant=tenant, kind=ask.kind, parts=parts, notify=notify
        )
        self._sessions[session] = live  # counted from here, so that two Starts cannot race
        try:
            places = await self._publish(record, parts)
            plan = plan_of(parts, ask, self._addresses(places))
            told = packages(parts, plan, ask, session, record, exporter, self._mover_backend)
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
            for part in parts:
                await self._note(
                    "key_a_made",
                    live.identifier,
                    f"Key A {part.key_a.identifier} made for the {part.role.value}",
                    role=part.role.value,
                    key=part.key_a.identifier,
                )
            await self._offer(parts, told)
        except BaseException:
            for part in parts:
                part.key_a.forget()
            await self._end(live, "failed", {})
            raise
        return session, plan, [part.key_a for part in parts]

    async def _offer(self, parts: list[Part], told: list[KeyAPackage]) -> None:
        """Hand each part its package and Key A; all have it before the tenant is answered."""
        for part, package in zip(parts, told, strict=True):
            call: dict[str, Any] = {"package": package.as_map(), "key_a": part.key_a}
            if part.role is Role.TARGET_WAN:
                call["timeout"] = PUBLISH_SECONDS
            try:
                await part.link.call(OfferKeyA, **call)
            except NotReachable as error:
                self._lose_if_gone(part, error)
                raise

    def _lose_if_gone(self, part: Part, error: CloudConnectError) -> None:
        """An accelerator that does not answer is lost until it registers again."""
        if part.role is Role.TARGET_WAN and isinstance(error, NotReachable):
            self.lose_accelerator(part.link)
            _cut(part.link)

    def _addresses(self, places: Iterable[GatewayPlace]) -> list[str]:
        known = [place.advertise for place in places if place.advertise]
        return [*self._advertise, *(a for a in known if a not in self._advertise)]

    async def _publish(self, record: Tenant, parts: list[Part]) -> list[GatewayPlace]:
        """Publish the parts' routes to every gateway, and return those that have taken them.

        One that does not answer is lost, until it registers again.

        :raises Refused: no gateway has taken it
        """
        taken = []
        links = list(self._gateways.items())
        calls = [
            gatherResults(
                [
                    link.call(
                        PublishRoute,
                        timeout=PUBLISH_SECONDS,
                        route=part.route,
                        backend=part.backend_for(place),
                        group=record.group,
                        rate=0,
                        lifetime=int(ROUTE_SECONDS * 1000),
                    )
                    for part in parts
                ],
                consumeErrors=True,
            ).addErrback(_first_error)
            for link, place in links
        ]
        answers: Any = await DeferredList(calls, consumeErrors=True)
        for (link, place), (accepted, answer) in zip(links, answers, strict=True):
            if accepted:
                taken.append(place)
                continue
            self._log.warn(
                "gateway {where} did not take a route: {why}",
                where=place.advertise or place.backend,
                why=answer.getErrorMessage(),
            )
            if answer.check(NotReachable):
                self.lose_gateway(link)
                _cut(link)
        if not taken:
            raise Refused("the provider has no gateway that takes connections; try again later")
        return taken

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
                self._lose_if_gone(part, error)
                continue
            found += self._warnings_of(live, part.role, answer["warnings"])
            if answer["failed"]:
                live.failed, outcome = True, "security_warning"
                state = outcome if state in GOOD_OUTCOMES else state
        for link in list(self._gateways):
            for part in live.parts:
                call = link.call(RetireRoute, route=part.route)
                call.addErrback(
                    lambda f: self._log.warn("gateway did not retire a route: {f}", f=f)
                )
        try:
            await self._keep(self._accounts.session_ended, live.identifier, state, summary)
        finally:
            self._sessions.pop(live.session, None)  # whatever happens, the task is free again
            live.ended.callback(None)
        return found

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

    def orphan(self, sessions: Iterable[bytes]) -> None:
        """The control channel of these sessions is gone: they may finish for a while."""
        for session in sessions:
            live = self._sessions.get(session)
            if live is not None and live.orphaned is None:
                live.orphaned = self.reactor.callLater(ORPHAN_SECONDS, self._orphan_over, live)

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


def _cut(link: BoundedAMP) -> None:
    """The role at the end of ``link`` does not answer: it has to register again."""
    line: Any = link.transport
    if line is not None:
        line.abortConnection()


def _first_error(failure: Failure) -> Failure:
    """What went wrong with the first of several calls that failed."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure


def _error_of(warnings: list[SecurityWarning]) -> SecurityError:
    """What a session that a role saw fail is answered with, in that role's words."""
    classes = {cls.kind: cls for cls in SecurityError.__subclasses__()}
    seen = next((warning for warning in warnings if warning.kind in classes), None)
    if seen is None:
        return Tampered("the session failed at the provider, and left no restore point")
    return classes[seen.kind](f"seen by the provider's {seen.role}: {seen.text}")
