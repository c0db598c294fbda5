"""Layer 4: what a mover does by itself, by the hour, in a thread of its own.

Each hour, for each repository that belongs to a tenant, one after the other: the expiry clock is
looked at, what had its time leaves the bin, and a slice is scrubbed, so that all of it has been
after some weeks; each day retention is applied, and garbage is collected where there can be any.
What a backup has stored that was refused for want of quota is collected as soon as nobody counts
on it. Collections and scrubs that an admin asks for have a second thread, so that the hours go on
while they do. What fails is logged and kept as an event; it ends neither the thread nor the work on
other repositories.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from cloudconnect.errors import Busy, Cancelled, CloudConnectError, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.data_mover.acts import RepositoryActs

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR
#: The first round begins so many seconds after the start: tenants that wait come first.
FIRST_SECONDS: Final = 300.0
#: A round scrubs at least so many bytes of each repository that has them.
SLICE_MIN: Final = 64 << 20
#: ... and, where a whole cycle does not need more, at most so many a second, so that sessions do
#: not wait for the disk.
RATE: Final = 20e6
#: Findings of one scrub that are kept as warnings of their own; the rest is counted.
FINDINGS_MAX: Final = 20
#: A finding that is still there is told again after so many seconds: a week.
AGAIN_SECONDS: Final = 7 * DAY
#: Collecting what refused backups have left may take one in so many seconds.
RELEASE_SHARE: Final = 10
#: Findings that are remembered for that.
TOLD_MAX: Final = 10_000


@attrs.frozen(kw_only=True)
class Intervals:
    """How often what is done.

    :ivar maintenance_hours: hours from one round to the next, 1 to 24
    :ivar gc_hours: hours from one collection of garbage, and of retention, to the next
    :ivar scrub_days: days in which everything is scrubbed once
    """

    maintenance_hours: int = 1
    gc_hours: int = 24
    scrub_days: int = 30


@attrs.frozen
class Owner:
    """Whose a repository is.

    :ivar tenant: the name
    :ivar rules: what holds for its points, as a map
    :ivar frozen: whether nothing may go
    """

    tenant: str
    rules: dict[str, Any]
    frozen: bool


class Maintenance(Service):
    """Tends the repositories of one mover.

    :param reactor: clock and threads
    :param acts: what can be done to repositories
    :param owner: asks the service whose a repository is; None: nobody's
    :param tell: takes an event or a warning; fires when the service has it
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        acts: RepositoryActs,
        owner: Callable[[bytes], Deferred[Owner | None]],
        tell: Callable[[SessionEvent | SecurityWarning], Deferred[Any]],
        intervals: Intervals | None = None,
    ) -> None:
        self._reactor = reactor
        self._acts = acts
        self._owner = owner
        self._tell = tell
        self._intervals = intervals or Intervals()
        self._pool = ThreadPool(0, 1, "maintenance")
        self._asked = ThreadPool(0, 1, "maintenance that was asked for")
        self._stopping = threading.Event()
        self._next: IDelayedCall | None = None
        self._running: set[Deferred[Any]] = set()
        self._round: Deferred[Any] | None = None
        self._collected: dict[bytes, float] = {}
        self._clean: dict[bytes, dict[str, Any]] = {}
        self._told: dict[tuple[str, str], float] = {}
        self._released: dict[bytes, str] = {}  # whose, of which something refused may be left
        self._releasing: set[bytes] = set()
        self._release_once_more: dict[bytes, tuple[str, bool]] = {}
        self._release_again: dict[bytes, float] = {}
        self._waiting: dict[bytes, IDelayedCall] = {}

    def change(self, intervals: Intervals) -> None:
        """Do what is done as often as ``intervals`` say from now on."""
        before, self._intervals = self._intervals, intervals
        rounds = intervals.maintenance_hours * HOUR
        if self._next is not None and self._next.active():
            left = self._next.getTime() - self._reactor.seconds()
            if rounds < left:
                self._next.reset(rounds)
        sooner = (before.gc_hours - intervals.gc_hours) * HOUR
        if sooner > 0:
            self._collected = {one: due - sooner for one, due in self._collected.items()}

    def startService(self) -> None:
        """Begin; the first round comes a little later."""
        super().startService()  # type: ignore[no-untyped-call]
        self._stopping.clear()
        self._pool.start()
        self._asked.start()
        self._next = self._reactor.callLater(FIRST_SECONDS, self._begin_round)

    def stopService(self) -> Deferred[Any]:
        """Let what runs give up where it can, then end the threads."""
        if not self.running:
            return succeed(None)
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping.set()
        for call in (self._next, *self._waiting.values()):
            if call is not None and call.active():
                call.cancel()
        self._waiting.clear()
        waiting = DeferredList([_quietly(running) for running in self._running])
        return waiting.addCallback(lambda _: self._stopped())

    def _stopped(self) -> None:
        for pool in (self._pool, self._asked):
            pool.stop()

    # --- by the hour -----------------------------------------------------------------------------

    def _begin_round(self) -> None:
        self._next = self._reactor.callLater(
            self._intervals.maintenance_hours * HOUR, self._begin_round
        )
        if self._round is None:  # else the last round goes on

            def over(_: Any) -> None:
                self._round = None

            self._round = self._keep(self.round())
            self._round.addErrback(lambda f: self._log.failure("a round of maintenance failed", f))
            self._round.addBoth(over)

    async def round(self) -> None:
        """Tend every repository once."""
        if self._acts.read_only:
            return
        await self._in_thread(self._acts.look_at_reserve)
        repositories = await self._in_thread(self._acts.repositories)
        self._forget_all_but(set(repositories))
        for repository in repositories:
            if self._stopping.is_set():
                return
            await self._attempt(repository, self._tend(repository))

    def _forget_all_but(self, there: set[bytes]) -> None:
        """Forget what was known of repositories that are not there any more."""
        tables: list[dict[bytes, Any]] = [self._collected, self._clean, self._release_again]
        for table in tables:
            for gone in table.keys() - there:
                del table[gone]

    async def _tend(self, repository: bytes) -> None:
        owner = await self._owner(repository)
        if owner is None:
            return  # nobody's: nothing of it is touched
        await self._attempt(repository, self._expire(repository, owner))
        if self._stopping.is_set():
            return
        # Above all where that failed: it may be because something is damaged.
        await self._attempt(repository, self._scrub_slice(repository, owner.tenant))

    async def _attempt(self, repository: bytes, work: Coroutine[Any, Any, None]) -> None:
        """Do one thing of a round; what fails is told."""
        try:
            await work
        except Cancelled:
            pass  # we are stopping
        except Busy as error:  # an admin has asked for the same
            self._log.info("repository {r}: {why}", r=repository.hex(), why=str(error))
        except Exception as error:
            if not self._acts.folder(repository).exists():  # whatever that looked like from inside
                self._log.info("repository {r} was removed meanwhile", r=repository.hex())
            elif isinstance(error, CloudConnectError):
                await self._failed(repository, str(error) or error.reason)
            else:
                self._log.failure("tending repository {r} failed", r=repository.hex())
                await self._failed(repository, "an internal error; see the provider's log")

    async def _expire(self, repository: bytes, owner: Owner) -> None:
        acts, tenant = self._acts, owner.tenant
        await self._in_thread(acts.set_rules, repository, owner.rules, owner.frozen)
        if owner.frozen:  # whatever could be written down of that
            return
        removed = await self._in_thread(acts.expire, repository)
        if removed:
            self._clean.pop(repository, None)
            text = f"{removed} restore point(s) have left the bin for good"
            await self._say("points_removed", repository, tenant, text)
        now = self._reactor.seconds()
        if now < self._collected.get(repository, 0.0):
            if await self._in_thread(acts.has_released, repository):
                await self._collect(repository, tenant, self._pool)
            return
        self._collected[repository] = now + self._intervals.gc_hours * HOUR
        # Where the disk is full this fails, and what follows makes room.
        await self._attempt(repository, self._apply_retention(repository, tenant))
        measured = await self._in_thread(acts.measure, repository)
        if measured == self._clean.get(repository):
            return  # nothing came or went since nothing was found
        self._clean.pop(repository, None)
        result = await self._collect(repository, tenant, self._pool)
        measured = await self._in_thread(acts.measure, repository)
        if not measured["bytes_garbage"] and not result.get("packs_waiting"):
            self._clean[repository] = measured

    async def _apply_retention(self, repository: bytes, tenant: str) -> None:
        deleted = await self._in_thread(self._acts.apply_retention, repository)
        if deleted:
            text = f"{deleted} restore point(s) put into the bin by retention"
            await self._say("retention_applied", repository, tenant, text)

    async def _scrub_slice(self, repository: bytes, tenant: str) -> None:
        stored = (await self._in_thread(self._acts.measure, repository))["bytes_stored"]
        rounds = self._intervals.scrub_days * 24 / self._intervals.maintenance_hours
        # Twice as much as would do: rounds are left out while a provider is down, and packs are
        # read as a whole.
        share = max(SLICE_MIN, int(2 * stored / rounds))
        seconds = self._intervals.maintenance_hours * HOUR / 4
        rate = max(RATE, share / seconds)
        await self._scrub(repository, tenant, share, rate, self._pool)

    # --- also when an admin asks -----------------------------------------------------------------

    def collect(self, repository: bytes, tenant: str) -> Deferred[dict[str, Any]]:
        """Let expire what is due and collect the garbage of one repository; fires with counts."""
        return self._keep(self._collect(repository, tenant, self._asked))

    def scrub(self, repository: bytes, tenant: str, limit: int) -> Deferred[dict[str, Any]]:
        """Scrub one repository; fires with counts and findings.

        :param limit: bytes to read, 0 for all
        """
        return self._keep(self._scrub(repository, tenant, limit or None, None, self._asked))

    def session_ended(self, repository: bytes, tenant: str, refused: bool = False) -> None:
        """A session of a repository has ended; where one was refused for want of quota, what it
        stored goes as soon as no session that may count on it is left.

        :param refused: whether this one was
        """
        if refused:
            self._released.setdefault(repository, tenant)
        if not self.running or repository not in self._released:
            return
        if repository in self._releasing:
            before = self._release_once_more.get(repository, ("", False))[1]
            self._release_once_more[repository] = (tenant, refused or before)
        else:
            self._releasing.add(repository)
            wait = max(0.0, self._release_again.get(repository, 0.0) - self._reactor.seconds())
            self._waiting[repository] = self._reactor.callLater(wait, self._release, repository)

    def _release(self, repository: bytes) -> None:
        self._waiting.pop(repository, None)
        done = self._keep(self._attempt(repository, self._collect_released(repository)))

        def over(result: Any) -> Any:
            self._releasing.discard(repository)
            once_more = self._release_once_more.pop(repository, None)
            if once_more is not None:
                self.session_ended(repository, *once_more)
            return result

        done.addBoth(over)
        done.addErrback(lambda f: self._log.failure("a refused backup was not collected", f))

    async def _collect_released(self, repository: bytes) -> None:
        tenant, began = self._released.pop(repository), self._reactor.seconds()
        if not await self._in(self._asked, self._acts.has_released, repository):
            return
        self._released[repository] = tenant  # until it is seen that nothing is left
        await self._collect(repository, tenant, self._asked)
        now = self._reactor.seconds()
        self._release_again[repository] = now + RELEASE_SHARE * (now - began)
        if not await self._in(self._asked, self._acts.has_released, repository):
            self._released.pop(repository, None)
            self._release_again.pop(repository, None)

    async def _collect(self, repository: bytes, tenant: str, pool: ThreadPool) -> dict[str, Any]:
        result: dict[str, Any] = await self._in(
            pool, self._acts.collect, repository, cancelled=self._stopping.is_set
        )
        text = f"garbage of tenant {tenant} collected: " + counts_text(result)
        await self._say("garbage_collected", repository, tenant, text, **result)
        return result

    async def _scrub(
        self,
        repository: bytes,
        tenant: str,
        limit: int | None,
        rate: float | None,
        pool: ThreadPool,
    ) -> dict[str, Any]:
        result: dict[str, Any] = await self._in(
            pool, self._acts.scrub, repository, limit, rate, cancelled=self._stopping.is_set
        )
        for warning in scrub_warnings(tenant, result):
            if self._is_news(tenant, warning.text, rate is None):
                await self._tell(warning)
        if rate is None:
            text = f"scrub of tenant {tenant}: {result['found']} finding(s), " + counts_text(result)
            await self._say("scrubbed", repository, tenant, text, found=result["found"])
        return result

    def _is_news(self, tenant: str, text: str, asked: bool) -> bool:
        """Whether a finding is to be told: what is found again each day is told once a week."""
        now = self._reactor.seconds()
        if not asked and now < self._told.get((tenant, text), 0.0):
            return False
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[tenant, text] = now + AGAIN_SECONDS
        return True

    # --- parts -----------------------------------------------------------------------------------

    def _in_thread(self, call: Callable[..., Any], *arguments: Any, **values: Any) -> Deferred[Any]:
        return self._in(self._pool, call, *arguments, **values)

    def _in(
        self, pool: ThreadPool, call: Callable[..., Any], *arguments: Any, **values: Any
    ) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, pool, call, *arguments, **values)

    def _keep(self, work: Coroutine[Any, Any, Any]) -> Deferred[Any]:
        """Run ``work`` so that a stop waits for it."""
        done = Deferred.fromCoroutine(work)
        self._running.add(done)

        def over(result: Any) -> Any:
            self._running.discard(done)
            return result

        return done.addBoth(over)

    def _say(
        self, name: str, repository: bytes, tenant: str, text: str, **fields: Any
    ) -> Deferred[Any]:
        event = SessionEvent(
            time=time.time(),
            name=name,
            session="",
            text=text,
            fields={**fields, "tenant": tenant, "repository": repository.hex()},
        )
        return self._tell(event)

    async def _failed(self, repository: bytes, why: str) -> None:
        self._log.warn("repository {r} could not be tended: {why}", r=repository.hex(), why=why)
        await self._say("maintenance_failed", repository, "", f"maintenance failed: {why}")


def scrub_warnings(tenant: str, result: dict[str, Any]) -> list[SecurityWarning]:
    """The warnings that are kept of a scrub: the first findings."""
    return [
        SecurityWarning(
            time=time.time(),
            kind=WarningKind.STORED_DATA_DAMAGED,
            tenant=tenant,
            role="target-mover",
            hop="repository",
            text=finding,
        )
        for finding in result["findings"][:FINDINGS_MAX]
    ]


def counts_text(result: dict[str, Any]) -> str:
    """The numbers of a result for a person: ``3 packs removed, 0 blobs moved``."""
    counts = {name: value for name, value in result.items() if type(value) is int}
    return ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in counts.items())


def _quietly(running: Deferred[Any]) -> Deferred[None]:
    """Fires when ``running`` has ended, however it did, and takes nothing from it."""
    ended: Deferred[None] = Deferred()

    def over(result: Any) -> Any:
        ended.callback(None)
        return result

    running.addBoth(over)
    return ended
