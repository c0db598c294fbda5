"""Tests of :mod:`cloudconnect.provider.data_mover.mover`: sessions against a real repository."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import DeferredList

from cloudconnect.commands.lan import OfferKeyA
from cloudconnect.commands.repositories import (
    DescribeRepository,
    ListRepositoryPoints,
    MakeRepository,
)
from cloudconnect.content.atrest import EncryptionMode, describe
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    NotFound,
    ProtocolViolation,
    QuotaUsed,
    Refused,
    Replayed,
)
from cloudconnect.keys import KeyA, MasterKey
from cloudconnect.repository.store import Repository
from cloudconnect.sessions.machine import SessionState
from cloudconnect.settings import CLOSE_SECONDS, KEY_A_SECONDS, KEY_B_SECONDS
from cloudconnect.wire.frames import FrameKind
from tests.provider.sessions import FRAMES, KEY_A, KEY_B, MoverCase, hello, publish
from tests.repository.repositories import DESCRIBED, REPOSITORY, blob, keys, name_of, record
from tests.sessions.test_machine import package

POINT = b"p" * 16
QUERY = {"host": "", "job": "", "tag": "", "after": 0, "limit": 100}


class OfferTests(MoverCase):
    """What sessions a mover takes part in."""

    def offered(self, values: Any) -> Any:
        return self.link.call(OfferKeyA, package=values, key_a=KeyA(KEY_A))

    def test_taken(self) -> None:
        """A package that fits is acknowledged, and its Key A kept."""
        session = self.offer()
        self.assertEqual(
            (SessionState.OFFERED, KeyA(KEY_A)), (session.core.state, session.core.key_a)
        )

    def test_unreadable(self) -> None:
        """What is no package is refused."""
        whole = package(repository=REPOSITORY).as_map()
        for wrong in (None, [], {}, {**whole, "more": 1}, {**whole, "hops": 1}):
            self.failure_of(self.offered(wrong), Refused)
        self.assertEqual({}, self.mover._by_session)

    def test_other_role_or_version(self) -> None:
        """A package for an accelerator, or of a version that we do not speak, is refused."""
        for change in ({"role": "target-wan"}, {"version": 2}):
            wrong = package(repository=REPOSITORY, **change).as_map()
            self.failure_of(self.offered(wrong), Refused)
        self.assertEqual({}, self.mover._by_session)

    def test_no_such_repository(self) -> None:
        """A session on a repository that this mover does not have is refused at once."""
        self.failure_of(self.offered(package(repository=b"x" * 16).as_map()), NotFound)

    def test_known_session_or_route(self) -> None:
        """A package for a session or a route that there is already takes the place of nothing."""
        session = self.offer()
        known = session.package
        for change in ({"route": b"another route..."}, {"session": b"another session."}):
            again = {**known.as_map(), **change}
            self.failure_of(self.offered(again), Refused)
        self.assertIs(session, self.mover.by_route(known.route))
        self.assertIs(SessionState.OFFERED, session.core.state)

    def test_never_used(self) -> None:
        """A session to which nobody comes leaves nothing behind."""
        session = self.offer()
        self.reactor.pass_time(KEY_A_SECONDS + 1)
        self.assertEqual(({}, {}), (self.mover._by_session, self.mover._by_route))
        self.assertIs(SessionState.ENDED, session.core.state)


class RepositoryTests(MoverCase):
    """Repositories over the LAN link."""

    def made(self, mode: EncryptionMode = EncryptionMode.TENANT) -> Any:
        return describe(MasterKey.generate(), os.urandom(16), mode, ())

    def test_make(self) -> None:
        """A repository is made as it was described, readable by nobody else on the machine."""
        wanted = self.made()
        self.result(self.link.call(MakeRepository, description=wanted.encode()))
        answer = self.result(self.link.call(DescribeRepository, repository=wanted.repository))
        self.assertEqual(wanted.encode(), answer["description"])
        folder = self.directory / wanted.repository.hex()
        self.assertEqual(0, (self.directory.stat().st_mode | folder.stat().st_mode) & 0o077)

    def test_not_twice(self) -> None:
        """No repository takes the place of one that is there; nor is the same one made again."""
        other = describe(MasterKey.generate(), REPOSITORY, EncryptionMode.TENANT, ())
        for wanted in (other, DESCRIBED):
            made = self.link.call(MakeRepository, description=wanted.encode())
            self.failure_of(made, Refused)
        answer = self.result(self.link.call(DescribeRepository, repository=REPOSITORY))
        self.assertEqual(DESCRIBED.encode(), answer["description"])

    def test_no_description(self) -> None:
        """What is no description makes no repository."""
        before = sorted(self.directory.iterdir())
        for wrong in (b"", b"\xa0", b"x" * 20_000):
            self.failure_of(self.link.call(MakeRepository, description=wrong), ProtocolViolation)
        self.assertEqual(before, sorted(self.directory.iterdir()))

    def test_unknown(self) -> None:
        """A repository that is not there is not found."""
        for command, values in ((DescribeRepository, {}), (ListRepositoryPoints, QUERY)):
            asked = self.link.call(command, repository=b"x" * 16, **values)
            self.failure_of(asked, NotFound)

    def test_pages(self) -> None:
        """Points are listed a page at a time, with the labels that were asked for."""
        with Repository.open(self.directory / REPOSITORY.hex()) as repository:
            for number in range(5):
                made = record(bytes([number]) * 16, host="odd" if number % 2 else "even")
                encoded = made.encode()
                repository.publish(made, encoded, keys().sign(encoded), [])
        found: list[str] = []
        after, more = 0, True
        while more:
            query = {**QUERY, "after": after, "limit": 2}
            page = self.result(self.link.call(ListRepositoryPoints, repository=REPOSITORY, **query))
            self.assertLessEqual(len(page["points"]), 2)
            found += [row["point"] for row in page["points"]]
            after, more = page["points"][-1]["arrival"], page["more"]
        self.assertEqual([(bytes([n]) * 16).hex() for n in range(5)], found)
        query = {**QUERY, "host": "odd"}
        page = self.result(self.link.call(ListRepositoryPoints, repository=REPOSITORY, **query))
        self.assertEqual(2, len(page["points"]))


class SessionCase(MoverCase):
    """A test with dialogues."""

    def streaming(self, **changes: Any) -> None:
        """A session whose stream is up."""
        self.opened = self.delivered(**changes)
        self.session = self.mover._by_session[self.package.session]
        self.pipe = self.result(self.stream())
        self.source = self.channel(self.pipe)

    def record(self, **changes: Any) -> Any:
        told = self.package
        fields = {
            "session": told.session,
            "job_id": told.job,
            "host": told.host,
            "job": told.name,
            **changes,
        }
        return record(POINT, **fields)

    def workers(self) -> None:
        """Wait for the session's threads."""
        self.result(DeferredList(self.session.workers))


class DialogueTests(SessionCase):
    """What a session does."""

    def back_up(self) -> None:
        hello(self.source)
        self.assertIs(FrameKind.POINTED, publish(self.source, self.record()).kind)
        self.source.finish()
        self.source.expect_end()

    def test_backup(self) -> None:
        """A point is published; the service hears of each step, and of the point at the end."""
        self.streaming()
        self.result(self.in_thread(self.back_up))
        answer = self.result(self.end())
        self.assertEqual({"warnings": [], "points": [POINT], "failed": False}, answer)
        self.assertEqual([POINT], self.points())
        self.assertEqual(["key_b_received", "stream_up", "stream_done"], self.told.events)
        self.assertEqual([], self.warned())
        self.assertEqual(({}, {}), (self.mover._by_session, self.mover._by_route))

    def test_no_key_is_left(self) -> None:
        """Nothing of the session's keys is left when it has ended, nor was any said or logged."""
        self.streaming()
        key = self.session.core.integrity_key
        self.result(self.in_thread(self.back_up))
        self.result(self.end())
        core = self.session.core
        self.assertEqual((None, None, None), (core.key_a, core.key_b, core.integrity_key))
        self.assertTrue(key is not None and key.forgotten)
        said = self.log_text() + repr(self.session) + repr(self.told.warnings)
        for octets in (KEY_A, KEY_B, FRAMES):
            self.assertNotIn(octets.hex(), said)
            self.assertNotIn(repr(octets)[2:-1], said)

    def test_restore_cannot_write(self) -> None:
        """A session that was started to restore cannot store or publish."""
        self.streaming(kind="restore", capabilities=("read",))

        def work() -> Any:
            hello(self.source, "restore")
            self.source.send_chunk(1, blob(1))
            self.source.receive()
            failed = self.source.receive()
            self.source.abort(Aborted("enough"))
            return failed

        try:
            self.result(self.in_thread(work))
        except CloudConnectError:
            self.pipe.abort(Aborted("enough"))
        self.workers()
        self.assertEqual(["context_mismatch"], self.warned())
        self.assertIsInstance(self.session.core.error, ContextMismatch)
        with Repository.open(self.directory / REPOSITORY.hex()) as repository:
            self.assertEqual([False], repository.have([name_of(1)]))

    def test_labels(self) -> None:
        """A point must be of the job and the host that Start named."""
        for change in ({"host": "other"}, {"job": "other"}, {"job_id": b"x" * 16}):
            session = os.urandom(16)
            self.streaming(session=session, route=session)

            def work(change: Any = change) -> None:
                hello(self.source)
                try:
                    publish(self.source, self.record(**change))
                finally:
                    self.source.abort(Aborted("enough"))

            self.result(self.in_thread(work))
            self.workers()
            self.assertIsInstance(self.session.core.error, ContextMismatch)
            self.result(self.end("failed"))
        self.assertEqual([], self.points())
        self.assertEqual(["context_mismatch"] * 3, self.warned())

    def test_quota(self) -> None:
        """What does not fit into the quota is not stored."""
        self.streaming(quota=50)

        def work() -> None:
            hello(self.source)
            self.source.send_chunk(1, blob(1, 1000))
            self.source.expect_end()

        self.failure_of(self.in_thread(work), QuotaUsed)
        self.pipe.abort(Aborted("enough"))
        self.workers()
        self.result(self.end("failed"))
        with Repository.open(self.directory / REPOSITORY.hex()) as repository:
            self.assertEqual(0, repository.statistics()["bytes_stored"])
        self.assertEqual([], self.warned())

    def test_two_sessions(self) -> None:
        """Two sessions of one repository run at the same time and do not know each other."""
        self.streaming()
        first = self.source, self.package, self.session
        self.streaming(session=b"2" * 16, route=b"2" * 16)
        self.result(self.in_thread(self.back_up))
        self.result(self.end())
        self.source, self.package, self.session = first
        self.assertIs(SessionState.STREAMING, self.session.core.state)

        def work() -> None:
            hello(self.source)
            self.source.finish()
            self.source.expect_end()

        self.result(self.in_thread(work))
        self.assertEqual([], self.result(self.end())["points"])


class EndTests(SessionCase):
    """How sessions end."""

    def published(self) -> None:
        hello(self.source)
        self.assertIs(FrameKind.POINTED, publish(self.source, self.record()).kind)

    def done(self) -> None:
        self.published()
        self.source.finish()
        self.source.expect_end()

    def test_unknown(self) -> None:
        """The end of a session that is not known is no error."""
        self.assertEqual(
            {"warnings": [], "points": [], "failed": False},
            self.result(self.end(session=b"x" * 16)),
        )

    def test_security_warning(self) -> None:
        """When the tenant saw something, the session's points are withdrawn."""
        self.streaming()
        self.result(self.in_thread(self.done))
        self.assertEqual([POINT], self.points())
        answer = self.result(self.end("security_warning"))
        self.assertEqual([], answer["points"])
        self.assertEqual([], self.points())
        self.assertIn("points_withdrawn", self.told.events)

    def test_point_of_another_session(self) -> None:
        """A session that names an older point, and then fails, does not take that back."""
        self.streaming()
        self.result(self.in_thread(self.done))
        self.result(self.end())
        self.streaming(session=b"2" * 16, route=b"2" * 16)

        def work() -> None:
            hello(self.source)
            self.assertIs(FrameKind.FAIL, publish(self.source, self.record()).kind)
            self.source.finish()
            self.source.expect_end()

        self.result(self.in_thread(work))
        self.result(self.end("failed"))
        self.assertEqual([POINT], self.points())

    def test_tampered_after_the_point(self) -> None:
        """What the mover saw takes back what was published before, at once and whatever the tenant
        says later."""
        self.streaming()

        def work() -> None:
            self.published()
            self.source = self.channel(self.pipe, b"another key of thirty-two bytes.")
            self.source.finish()

        self.result(self.in_thread(work))
        self.pipe.abort(Aborted("enough"))
        self.workers()
        self.assertEqual(["frame_mismatch"], self.warned())
        self.assertEqual([], self.points())
        answer = self.result(self.end("done"))
        self.assertEqual([], answer["points"])
        self.assertEqual(["frame_mismatch"], [w["kind"] for w in answer["warnings"]])

    def test_replay_after_the_point(self) -> None:
        """A security error on the tunnel takes back the points as well."""
        self.streaming()
        self.result(self.in_thread(self.done))
        self.workers()
        self.failure_of(self.deliver(self.opened), Replayed)
        self.reactor.settle()
        self.workers()
        self.assertEqual([], self.points())

    def test_cut(self) -> None:
        """A line that was cut is told; what the session has published before is not said to be
        tampered with."""
        self.streaming()
        self.result(self.in_thread(self.published))
        self.pipe.transport.abortConnection()
        self.workers()
        self.assertEqual(["truncated"], self.warned())
        self.assertIsNone(self.session.core.error)

    def test_failed(self) -> None:
        """A session that its tenant gives up is cut off, and the answer waits for that."""
        self.streaming()
        self.result(self.in_thread(lambda: hello(self.source)))
        self.result(self.end("failed"))
        self.assertIs(SessionState.ENDED, self.session.core.state)
        self.assertIsInstance(self.result(self.pipe.when_lost()), CloudConnectError)
        self.assertEqual({}, self.mover._by_session)

    def test_done_but_still_streaming(self) -> None:
        """A stream that goes on after its session was reported done is cut off after a while."""
        self.streaming()
        self.result(self.in_thread(lambda: hello(self.source)))
        ending = self.end("done")
        self.reactor.settle()
        self.assertNoResult(ending)
        self.reactor.advance(CLOSE_SECONDS)
        self.assertEqual([], self.result(ending)["points"])
        self.assertEqual(["truncated"], self.warned())

    def test_nobody_asks(self) -> None:
        """A session whose end nobody reports is forgotten after its tunnel has gone."""
        self.streaming()
        self.result(self.in_thread(self.done))
        self.opened.transport.loseConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        self.workers()
        self.assertEqual([self.package.session], list(self.mover._by_session))
        self.reactor.pass_time(CLOSE_SECONDS + KEY_B_SECONDS + 1)
        self.assertEqual({}, self.mover._by_session)
        self.assertEqual([POINT], self.points())

    def test_late_failure(self) -> None:
        """What a session has published is withdrawn also where the tenant tells of a failure some
        time after it has ended the tunnel properly: an accelerator may have taken its time."""
        self.streaming()
        self.result(self.in_thread(self.done))
        self.opened.transport.loseConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        self.workers()
        self.reactor.pass_time(CLOSE_SECONDS + 5)
        self.assertEqual([], self.result(self.end("failed"))["points"])
        self.assertEqual([], self.points())

    def test_stop(self) -> None:
        """A mover that stops ends every session, tells the other side, and waits for its
        threads."""
        self.streaming()
        self.result(self.in_thread(lambda: hello(self.source)))
        self.result(self.mover.stopService())
        self.assertIsInstance(self.result(self.pipe.when_lost()), Aborted)
        self.assertIs(SessionState.ENDED, self.session.core.state)

    def test_no_link(self) -> None:
        """A mover whose service has gone goes on without telling."""
        self.mover.link = None
        self.streaming()
        self.result(self.in_thread(self.done))
        self.workers()
        self.assertEqual([POINT], self.points())

    def test_warned_once(self) -> None:
        """The same thing seen twice is one warning."""
        session = self.offer()
        error = ContextMismatch("twice")
        self.assertIsNotNone(self.mover.warn(session, error, "hop", 0))
        self.assertIsNone(self.mover.warn(session, error, "hop", 0))
        self.assertIsNotNone(self.mover.warn(session, error, "hop", 1))
        self.assertEqual(["context_mismatch"] * 2, self.warned())
