"""Layer 4: the target data mover: Key A from the service, Key B from the tenant, then it stores.

What it is to the service and the tenant, with keys, tunnels and streams, is
:class:`~cloudconnect.sessions.role.TargetRole`. The dialogue of a stream runs in a worker thread
over a blocking pipe, so that the reactor does nothing but the cipher and the socket.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from cloudconnect.commands.control import Role
from cloudconnect.commands.lan import (
    AskOwner,
    CollectGarbage,
    DeleteRepositoryPoints,
    DescribeRepository,
    GetRepositoryRetention,
    HasRepository,
    ListRepositoryPoints,
    LockRepositoryPoints,
    MakeRepository,
    MeasureRepository,
    PreviewRepositoryRetention,
    RemoveRepository,
    ReplaceRepositoryDescription,
    ReportEvent,
    ReportWarning,
    ScrubRepository,
    SeedCache,
    SetRepositoryRetention,
    SetRules,
    UndeleteRepositoryPoints,
    WithdrawSession,
)
from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription, RepositoryKeys
from cloudconnect.content.heads import SignedHead
from cloudconnect.content.manifest import PointRecord
from cloudconnect.errors import (
    Aborted,
    Busy,
    CloudConnectError,
    ContextMismatch,
    NoSpace,
    NotFound,
    QuotaUsed,
    Refused,
    SecurityError,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import frame_key
from cloudconnect.provider.acts import RepositoryActs, is_read_only
from cloudconnect.provider.key_folder import KeyFolder
from cloudconnect.provider.maintenance import Intervals, Maintenance, Owner
from cloudconnect.provider.reserve import Reserve, is_no_room
from cloudconnect.provider.seeding import FillCache, seed_cache
from cloudconnect.provider.storage import WriteLocks
from cloudconnect.repository.serve import POINTS_MAX, ServeResult, serve_session
from cloudconnect.repository.store import Repository
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import RoleSession, TargetRole
from cloudconnect.transports.blocking import BlockingPipe
from cloudconnect.transports.line import tune
from cloudconnect.transports.switch import hand_over
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameReader, FrameWriter

#: Sessions at the same time, each in a thread of its own, which mostly waits for its tenant's line;
#: more wait their turn.
SESSIONS_MAX = 1024
#: Acts on repositories at the same time. Their threads are others than the sessions', or as many
#: slow sessions as there are threads would keep everybody from logging in.
ACTS_MAX = 32


class TargetDataMover(TargetRole):
    """Serves sessions against the repositories below one directory, and does what else is to do.

    :param reactor: clock and threads
    :param directory: where repositories lie, each in a folder named by its id in hexadecimal
    :param keys: where the provider's own keys of repositories lie; ``keys`` beside ``directory`` by
        default
    :param reserve: what is let go of where the disk is full
    :param intervals: how often what is done by itself
    :ivar acts: what is done to repositories beside sessions
    :ivar maintenance: does some of that by itself
    :ivar fill: has the WAN accelerator of this process fill a cache; None where it has none
    """

    _log = Logger()
    role = Role.TARGET_MOVER.value
    holds_integrity_key = True

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        keys: Path | None = None,
        reserve: Reserve | None = None,
        intervals: Intervals | None = None,
    ) -> None:
        super().__init__(reactor)
        self._directory = directory
        self.acts = RepositoryActs(directory, reserve)
        self.maintenance = Maintenance(reactor, self.acts, self._owner, self._keep, intervals)
        self._keys = KeyFolder(directory.parent / "keys" if keys is None else keys)
        self._pool = ThreadPool(0, ACTS_MAX, "mover")
        self._serving = ThreadPool(0, SESSIONS_MAX, "session")
        self._write_locks = WriteLocks()
        self.fill: FillCache | None = None

    def startService(self) -> None:
        """Start the worker threads."""
        Service.startService(self)
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._pool.start()
        self._serving.start()
        self.maintenance.startService()

    def stopService(self) -> Deferred[Any]:
        """End every session, then the threads."""
        Service.stopService(self)
        waiting = [
            *self.end_all(Aborted("the provider is stopping")),
            self.maintenance.stopService(),
        ]
        return DeferredList(waiting).addCallback(lambda _: self._stopped())

    def _stopped(self) -> None:
        self.drop_all()
        self._serving.stop()
        self._pool.stop()

    def _in_thread(self, call: Any, *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self.reactor, self._pool, call, *arguments)

    # --- from the service ------------------------------------------------------------------------

    def look_at(self, package: KeyAPackage) -> None:
        """A session needs its repository here."""
        folder = self.acts.folder(package.repository)
        if not folder.is_dir():
            raise NotFound("this mover does not have that repository")
        if package.kind == "backup":
            self._write_locks.check(folder)

    def link_lost(self) -> None:
        """The service is not there any more: what this mover sees could not be told. All ends."""
        self.link = None
        self.end_all(Truncated("the data mover has lost its line to the service"))

    @HasRepository.responder
    def has_repository(self, repository: bytes) -> dict[str, Any]:
        """Whether it is here."""
        return {"there": self.acts.folder(repository).is_dir()}

    @WithdrawSession.responder
    def withdraw_session(self, repository: bytes, session: bytes) -> Deferred[dict[str, Any]]:
        """Withdraw what another mover's session has published."""
        done = self._in_thread(self.acts.withdraw_session, repository, session)
        return done.addCallback(lambda count: {"count": count})

    @MakeRepository.responder
    def make_repository(self, description: bytes) -> Deferred[dict[str, Any]]:
        """Make a repository."""
        wanted = RepositoryDescription.decode(description)
        made = self._in_thread(self._make, wanted)
        return made.addCallback(lambda _: {})

    def _make(self, description: RepositoryDescription) -> None:
        provided = description.mode is EncryptionMode.PROVIDER
        if provided:  # before anything could be stored that it must seal
            try:
                self._keys.make(description.repository)
            except OSError as error:
                if is_no_room(error):
                    raise NoSpace("the provider's disk is full") from error
                raise
        with Repository.create(self.acts.folder(description.repository), description) as made:
            if provided:
                self._keys.note(made)

    @RemoveRepository.responder
    def remove_repository(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """Delete a repository, then the provider's own key of it."""
        done = self._in_thread(self._remove, repository)
        return done.addCallback(lambda _: {})

    def _remove(self, repository: bytes) -> None:
        if any(live.package.repository == repository for live in self._by_session.values()):
            raise Busy("a session uses the repository")
        self.acts.remove(repository)
        self._keys.remove(repository)

    @DescribeRepository.responder
    def describe_repository(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """What the tenant stored at ``connect``."""
        described = self._in_thread(self._describe, repository)
        return described.addCallback(lambda encoded: {"description": encoded})

    def _describe(self, repository: bytes) -> bytes:
        opened = self.acts.open(repository)
        try:
            return opened.description.encode()
        finally:
            opened.close()

    @ReplaceRepositoryDescription.responder
    def replace_description(
        self, repository: bytes, description: bytes, head: bytes, head_signature: bytes
    ) -> Deferred[dict[str, Any]]:
        """Take a new description, signed for by the key before it."""
        signed = SignedHead(head, head_signature)
        done = self._in_thread(self._replace_description, repository, description, signed)
        return done.addCallback(lambda _: {})

    def _replace_description(self, repository: bytes, encoded: bytes, head: SignedHead) -> None:
        with self.acts.open(repository) as opened:
            opened.replace_description(encoded, head)

    @ListRepositoryPoints.responder
    def list_points(self, repository: bytes, **query: Any) -> Deferred[dict[str, Any]]:
        """One page of a repository's points."""
        listed = self._in_thread(self.acts.points, repository, query)
        return listed.addCallback(lambda found: {"points": found[0], "more": found[1]})

    # --- how points are kept; from the service too ----------------------------------------------

    @SetRules.responder
    def set_rules(self, repository: bytes, rules: Any, frozen: bool) -> Deferred[dict[str, Any]]:
        """What the provider demands and allows, from now on."""
        done = self._in_thread(self.acts.set_rules, repository, rules, frozen)
        return done.addCallback(lambda kept: {"kept": kept})

    @DeleteRepositoryPoints.responder
    def delete_points(self, repository: bytes, points: Any, by: str) -> Deferred[dict[str, Any]]:
        """Put points into the bin."""
        done = self._in_thread(self.acts.delete, repository, points, by)
        return done.addCallback(lambda rows: {"points": rows})

    @UndeleteRepositoryPoints.responder
    def undelete_points(self, repository: bytes, points: Any) -> Deferred[dict[str, Any]]:
        """Take points out of the bin."""
        done = self._in_thread(self.acts.undelete, repository, points)
        return done.addCallback(lambda rows: {"points": rows})

    @LockRepositoryPoints.responder
    def lock_points(self, repository: bytes, points: Any, until: int) -> Deferred[dict[str, Any]]:
        """Lock points."""
        done = self._in_thread(self.acts.lock, repository, points, until)
        return done.addCallback(lambda rows: {"points": rows})

    @GetRepositoryRetention.responder
    def get_retention(self, repository: bytes, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of the retention policies."""
        found = self._in_thread(self.acts.retention, repository, after, limit)
        return found.addCallback(lambda f: {"policies": f[0], "rules": f[1], "more": f[2]})

    @SetRepositoryRetention.responder
    def set_retention(
        self, repository: bytes, host: str, job: str, policy: Any
    ) -> Deferred[dict[str, Any]]:
        """Set a retention policy."""
        done = self._in_thread(self.acts.set_retention, repository, host, job, policy)
        return done.addCallback(lambda row: {"policy": row})

    @PreviewRepositoryRetention.responder
    def preview_retention(
        self,
        repository: bytes,
        proposed: bool,
        host: str,
        job: str,
        policy: Any,
        after: int,
        limit: int,
    ) -> Deferred[dict[str, Any]]:
        """One page of what retention would do."""
        as_if = (host, job, policy) if proposed else None
        found = self._in_thread(self.acts.preview_retention, repository, as_if, after, limit)
        return found.addCallback(lambda f: {"decisions": f[0], "more": f[1]})

    @MeasureRepository.responder
    def measure(self, repository: bytes) -> Deferred[dict[str, Any]]:
        """What a repository holds, and when it was tended."""
        done = self._in_thread(self.acts.report, repository)
        return done.addCallback(lambda numbers: {"measured": numbers})

    @CollectGarbage.responder
    def collect(self, repository: bytes, tenant: str) -> Deferred[dict[str, Any]]:
        """Collect garbage now; answered when done."""
        done = self.maintenance.collect(repository, tenant)
        return done.addCallback(lambda result: {"result": result})

    @ScrubRepository.responder
    def scrub(self, repository: bytes, tenant: str, limit: int) -> Deferred[dict[str, Any]]:
        """Scrub now; answered when done."""
        done = self.maintenance.scrub(repository, tenant, limit)
        return done.addCallback(lambda result: {"result": result})

    @SeedCache.responder
    def seed(
        self, repository: bytes, tenant: str, host: str, job: str, limit: int
    ) -> Deferred[dict[str, Any]]:
        """Seed the cache of the accelerator in this process; answered when done."""
        if self.fill is None:
            raise Refused(
                "there is no WAN accelerator in this provider's process (wan_cache_gb in "
                "provider.toml): only the cache of such a one can be seeded"
            )
        seeding = seed_cache(self.fill, self.acts, self._keys, repository, tenant, host, job, limit)
        return seeding.addCallback(self._seeded, repository, tenant)

    def _seeded(self, result: dict[str, Any], repository: bytes, tenant: str) -> dict[str, Any]:
        event = SessionEvent(
            time=time.time(),
            name="cache_seeded",
            session="",
            text=f"WAN cache of tenant {tenant} seeded: {result['points']} restore point(s), "
            f"{result['bytes_added']} bytes",
            fields={**result, "tenant": tenant, "repository": repository.hex()},
        )
        self._keep(event)
        return {"result": result}

    async def _ask_owner(self, repository: bytes) -> Owner | None:
        if self.link is None:
            return None
        answer = await self.link.call(AskOwner, repository=repository)
        found = Owner(answer["tenant"], answer["rules"], answer["frozen"])
        return found if found.tenant else None

    def _owner(self, repository: bytes) -> Deferred[Owner | None]:
        return Deferred.fromCoroutine(self._ask_owner(repository))

    def _keep(self, told: SessionEvent | SecurityWarning) -> Deferred[Any]:
        """Have the service keep something that belongs to no session."""
        if isinstance(told, SecurityWarning):
            return self.tell(ReportWarning, warning=told.as_dict())
        return self.tell(ReportEvent, event=attrs.asdict(told))

    async def take_back(self, session: RoleSession) -> None:
        """Withdraw what the session has published; its workers have ended."""
        points, session.core.points = session.core.points, []
        if points:
            count = await self._in_thread(self._withdraw, session.package, points)
            await self.report(
                session,
                "points_withdrawn",
                f"{count} restore point(s) of this session are withdrawn",
            )

    def _withdraw(self, package: KeyAPackage, points: list[bytes]) -> int:
        count = 0
        with self.acts.open(package.repository) as opened:
            for point in points:
                # Noted, but then not published: the id may even be that of another session's point.
                with contextlib.suppress(NotFound):
                    opened.withdraw([point], package.session)
                    count += 1
        return count

    # --- streams ---------------------------------------------------------------------------------

    def stream_up(self, session: RoleSession, stream: Any) -> None:
        """A stream has proved Key B: serve it in a thread."""
        pipe, connection = BlockingPipe(self.reactor), stream.connection
        hand_over(stream, pipe, b"")
        tune(stream, several=False)  # what a restore sends goes over the long line
        session.running.append(pipe)
        if len(session.running) >= session.package.streams:
            self.forget_key_b(session)
        worker: Deferred[Any] = deferToThreadPool(
            self.reactor, self._serving, self._serve, session, pipe, self._channel(session, pipe)
        )
        worker.addCallbacks(
            self._served,
            self._serving_failed,
            (session, pipe, connection),
            {},
            (session, connection),
        )
        session.workers.append(worker)

    @staticmethod
    def _channel(session: RoleSession, pipe: BlockingPipe) -> FrameChannel:
        """The dialogue's channel, made here and now: when its worker starts, the session may have
        ended and its keys be gone, and what the worker then hears from the pipe is why."""
        package, key = session.package, session.core.integrity_key
        assert key is not None, "a session that streams has its integrity key"
        return FrameChannel(
            pipe,
            FrameWriter(frame_key(key, package.session, 0, 1), 0),
            FrameReader(frame_key(key, package.session, 0, 0), 0),
        )

    def _serve(
        self, session: RoleSession, pipe: BlockingPipe, channel: FrameChannel
    ) -> ServeResult:
        package = session.package
        try:
            with self._opened(package, channel) as (repository, keys):
                return serve_session(
                    channel,
                    repository,
                    package.kind,
                    package.capabilities,
                    package.session,
                    lambda record: self._check_point(session, record),
                    repository.reserve,
                    keys,
                    package.wan,
                )
        except BaseException as error:
            pipe.abort(error if isinstance(error, Exception) else Aborted("the worker ended"))
            raise

    @contextlib.contextmanager
    def _opened(
        self, package: KeyAPackage, channel: FrameChannel
    ) -> Iterator[tuple[Repository, RepositoryKeys | None]]:
        """The session's repository and the provider's own keys of it; else the peer is told why."""
        with contextlib.ExitStack() as held:
            try:
                if package.kind == "backup":
                    folder = self.acts.folder(package.repository)
                    held.enter_context(self._write_locks.writing(folder))
                repository = held.enter_context(self.acts.open(package.repository))
                mode = repository.description.mode.value
                if mode != package.mode:
                    raise ContextMismatch(
                        f"the repository's encryption is {mode}, and the service says "
                        f"{package.mode}"
                    )
                if package.kind == "backup" and is_read_only(self.acts.folder(package.repository)):
                    raise NoSpace("the provider's disk is read-only: no backups, restores go on")
                if package.kind == "backup" and not self.acts.look_at_reserve():
                    raise NoSpace("the provider's disk is full: no backups, restores go on")
                if package.kind == "backup":
                    repository.begin_job(package.job, package.quota)
                keys = self._keys.keys(repository)
            except CloudConnectError as error:
                channel.give_up(error)
                raise
            yield repository, keys

    @staticmethod
    def _check_point(session: RoleSession, record: PointRecord) -> None:
        package = session.package
        told = (record.session, record.job_id, record.host, record.job, record.repository)
        if told != (package.session, package.job, package.host, package.name, package.repository):
            raise ContextMismatch("the restore point is not of this session, job and host")
        # Before it is published: whatever fails from here on, it can be taken back.
        noted = session.core.points
        if record.point not in noted:
            if len(noted) >= POINTS_MAX:
                raise Refused(f"a session offers at most {POINTS_MAX} restore points")
            noted.append(record.point)

    def _served(
        self, result: ServeResult, session: RoleSession, pipe: BlockingPipe, connection: int
    ) -> Deferred[None]:
        self.report(
            session,
            "stream_done",
            f"the stream ended: {result.bytes_received} bytes in, {result.bytes_sent} out",
            bytes_received=result.bytes_received,
            bytes_sent=result.bytes_sent,
            points=[point.hex() for point in result.points],
        )

        self.maintenance.session_ended(session.package.repository, session.package.tenant)

        def lost(error: BaseException | None) -> None:
            # The worker has gone before the connection: junk behind the ends is noticed here.
            if isinstance(error, SecurityError):
                self.failed(session, error, session.package.hops[0], connection)

        return pipe.when_lost().addCallback(lost)

    def _serving_failed(
        self, failure: Failure, session: RoleSession, connection: int
    ) -> Deferred[None] | None:
        error, package = failure.value, session.package
        self.maintenance.session_ended(
            package.repository, package.tenant, isinstance(error, QuotaUsed)
        )
        if isinstance(error, (SecurityError, Truncated)):
            self.warn(session, error, session.package.hops[0], connection)
            if isinstance(error, SecurityError):
                session.core.error = error
                self._abort(session, error)
                return self._taken_back(session)
        elif isinstance(error, CloudConnectError):
            self.report(session, "stream_failed", str(error), reason=error.reason)
        else:
            self._log.failure("serving session {s} failed", failure, s=session.core.identifier)
            self.report(session, "stream_failed", "an internal error; see the provider's log")
        return None
