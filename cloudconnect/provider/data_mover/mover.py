"""Layer 4: the target data mover: Key A from the service, Key B from the tenant, then it stores.

What it is to the service and the tenant, with keys, tunnels and streams, is
:class:`~cloudconnect.sessions.role.TargetRole`. The dialogue of a stream runs in a worker thread
over a blocking pipe, so that the reactor does nothing but the cipher and the socket.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from cloudconnect.commands.control import Role
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    NoSpace,
    NotFound,
    QuotaUsed,
    Refused,
    SecurityError,
    Truncated,
)
from cloudconnect.keys import frame_key
from cloudconnect.provider.data_mover.acts import is_read_only
from cloudconnect.provider.data_mover.commands import RepositoryCommands
from cloudconnect.provider.data_mover.maintenance import Intervals
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.repository.serve import POINTS_MAX, ServeResult, serve_session
from cloudconnect.repository.store import Repository
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import RoleSession
from cloudconnect.transports.blocking import BlockingPipe
from cloudconnect.transports.line import tune
from cloudconnect.transports.switch import hand_over
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameReader, FrameWriter

#: Sessions at the same time, each in a thread of its own, which mostly waits for its tenant's line;
#: more wait their turn.
SESSIONS_MAX = 1024


class TargetDataMover(RepositoryCommands):
    """Serves sessions against the repositories below one directory, and does what else is to do.

    The parameters are those of :class:`RepositoryCommands`.
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
        super().__init__(reactor, directory, keys, reserve, intervals)
        self._serving = ThreadPool(0, SESSIONS_MAX, "session")

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

    # --- from the service ------------------------------------------------------------------------

    def look_at(self, package: KeyAPackage) -> None:
        """A session needs its repository here."""
        folder = self.acts.folder(package.repository)
        if not folder.is_dir():
            raise NotFound("this mover does not have that repository")

    def link_lost(self) -> None:
        """The service is not there any more: what this mover sees could not be told. All ends."""
        self.link = None
        self.end_all(Truncated("the data mover has lost its line to the service"))

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
