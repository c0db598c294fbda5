"""Tests of :mod:`cloudconnect.repository.reservations`: the quota, with real catalogues."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import sqlalchemy as sa

from cloudconnect.errors import NoSpace, QuotaUsed
from cloudconnect.repository import packs, reservations
from cloudconnect.repository.packs import ENTRY_SIZE, OVERHEAD
from cloudconnect.repository.store import Repository
from cloudconnect.repository.sweeping import Sweeper
from cloudconnect.repository.tables import packs_table, reservations_table
from cloudconnect.shown import size_text
from tests.repository.killing import in_child, kill_before_step
from tests.repository.repositories import RepositoryCase, blob, keys, name_of, record

JOB, OTHER_JOB = b"j" * 16, b"k" * 16
#: Jobs that race.
JOBS = 20


class ReservationCase(RepositoryCase):
    """A repository that sessions store in under a quota."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "fsync", lambda descriptor: None)
        self.repository = self.created()

    def session(self, quota: int | None, job: bytes = JOB) -> Repository:
        """A session of a job."""
        opened = self.opened()
        opened.begin_job(job, quota)
        return opened

    def counted(self) -> int:
        return self.repository.statistics()["bytes_counted"]

    def rows(self) -> list[int]:
        """What is reserved, by session."""
        with self.repository.catalogue.reading() as connection:
            return list(connection.execute(sa.select(reservations_table.c.bytes)).scalars())


def store(session: Repository, numbers: range, size: int = 100) -> None:
    """Store blobs as a dialogue does: reserved before they are added."""
    for number in numbers:
        session.reserve(size + ENTRY_SIZE)
        session.add(blob(number, size))
    session.flush()


def exactly(count: int, size: int = 100) -> int:
    """Bytes that a pack of so many blobs has."""
    return OVERHEAD + count * (size + ENTRY_SIZE)


class QuotaTests(ReservationCase):
    """What may be stored."""

    def test_to_the_last_byte(self) -> None:
        """What fills the quota exactly is stored; a byte less of it, and it is refused."""
        store(self.session(exactly(3)), range(3))
        self.assertEqual(exactly(3), self.counted())
        with self.assertRaises(QuotaUsed) as caught:
            store(self.session(2 * exactly(3) - 1), range(3, 6))
        self.assertIn(f"quota of {size_text(2 * exactly(3) - 1)},", str(caught.exception))
        self.assertLess(self.counted(), 2 * exactly(3))

    def test_none(self) -> None:
        """Without a quota nothing is reserved."""
        store(self.session(None), range(3))
        self.assertEqual([0], self.rows())

    def test_point(self) -> None:
        """A restore point's list and record count too, and are not counted twice."""
        made = record(b"p" * 16)
        encoded = made.encode()
        size = 3 * 32 + 2 * len(encoded)
        session = self.session(exactly(3) + size)
        store(session, range(3))
        session.reserve(size)
        session.publish(made, encoded, keys().sign(encoded), [name_of(n) for n in range(3)])
        self.assertEqual(exactly(3) + size, self.counted())
        self.assertRaises(QuotaUsed, session.reserve, 1)
        session.close()
        self.assertRaises(QuotaUsed, self.session(exactly(3) + size).reserve, 1)

    def test_given_back(self) -> None:
        """What a session has reserved and not used is free when it has ended."""
        session = self.session(1000)
        session.reserve(900)
        other = self.session(1000)
        self.assertRaises(QuotaUsed, other.reserve, 200)
        session.close()
        other.reserve(200)

    def test_grants(self) -> None:
        """Far from the quota more is reserved at once; near it hardly more than what is needed."""
        self.session(1 << 30).reserve(100)
        self.assertEqual([(1 << 30) // reservations.GRANT_SHARE], self.rows())
        near = self.session(self.rows()[0] + 200, OTHER_JOB)
        near.reserve(100)
        self.assertEqual(100, min(self.rows()))

    def test_full_disk(self) -> None:
        """Where there was no room for a lease, nothing can be stored under a quota."""
        opened = self.opened()
        assert opened._lease is not None
        opened._lease.name = None  # type: ignore[misc]
        self.assertRaises(NoSpace, opened.begin_job, JOB, 1000)


class RaceTests(ReservationCase):
    """Jobs that race for the last bytes."""

    def test_twenty(self) -> None:
        """Twenty jobs in threads of their own never pass the quota by a byte, and what is refused
        leaves nothing behind."""
        self.patch(packs, "PACK_ENTRIES_MAX", 3)  # several packs each
        fitting = 4
        quota = fitting * 2 * exactly(3) + exactly(3) + 5
        ready, ended = threading.Barrier(JOBS), threading.Barrier(JOBS)
        done: list[int] = []
        failed: list[object] = []

        def job(number: int) -> None:
            session = self.session(quota, bytes([number]) * 16)
            try:
                ready.wait(30)
                try:
                    store(session, range(10 * number, 10 * number + 6))
                    done.append(number)
                except QuotaUsed:
                    session.release_job()
                except BaseException as error:
                    failed.append(error)
                ended.wait(30)
            finally:
                session.close()

        threads = [threading.Thread(target=job, args=(number,)) for number in range(JOBS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([], failed)
        self.assertLessEqual(self.counted(), quota)
        self.assertEqual([], self.rows())
        self.assertLessEqual(len(done), fitting)
        self.repository.collect()
        with self.repository.catalogue.reading() as connection:
            jobs = set(connection.execute(sa.select(packs_table.c.job)).scalars())
        self.assertEqual({bytes([number]) * 16 for number in done}, jobs)
        self.assertEqual(len(done) * 2 * exactly(3), self.counted())
        self.assertEqual(2 * len(done), len(self.files("packs")))


class KilledTests(ReservationCase):
    """Sessions that die."""

    def killed(self, kill_at: int, quota: int) -> int:
        """Kill a session that stores before its step of this number; its status."""
        directory, clock = self.directory, self.clock

        def work(say: Callable[[bytes], None]) -> None:
            session = Repository.open(directory, clock=clock)
            session.begin_job(JOB, quota)
            kill_before_step(kill_at, session)
            store(session, range(3))
            session.close()

        return in_child(work)[1]

    def test_anywhere(self) -> None:
        """However a session dies, what is stored afterwards, with what it has left, fits."""
        quota = exactly(3) + 50
        step, status = 0, signal.SIGKILL.value
        while status == signal.SIGKILL:
            status = self.killed(step, quota)
            step += 1
            later = self.session(quota, OTHER_JOB)
            try:
                store(later, range(10, 13))
            except QuotaUsed:
                later.release_job()
            later.close()
            self.repository.collect()
            self.assertLessEqual(self.counted(), quota)
            for name in self.files("packs"):  # begin anew
                name.unlink()
            with self.repository.catalogue.writing() as connection:
                connection.execute(sa.text("DELETE FROM blobs"))
                connection.execute(sa.text("DELETE FROM packs"))
                connection.execute(sa.text("DELETE FROM orphans"))
        self.assertEqual(0, status)
        self.assertGreater(step, 5)

    def test_reservation_of_the_dead(self) -> None:
        """What a dead session had reserved is free."""
        directory, clock = self.directory, self.clock

        def work(say: Callable[[bytes], None]) -> None:
            session = Repository.open(directory, clock=clock)
            session.begin_job(JOB, 1000)
            session.reserve(990)
            os.kill(os.getpid(), signal.SIGKILL)

        in_child(work)
        self.assertEqual(1, len(self.rows()))
        self.session(1000).reserve(900)
        self.assertEqual(1, len(self.rows()))


class ReleaseTests(ReservationCase):
    """What a refused job has stored."""

    def refused(self, numbers: range, job: bytes = JOB) -> None:
        session = self.session(None, job)
        store(session, numbers)
        session.release_job()
        session.close()

    def test_over_sessions(self) -> None:
        """All sessions of a job run are meant, not those of others."""
        earlier = self.session(None)
        store(earlier, range(2))
        earlier.close()
        other = self.session(None, OTHER_JOB)
        store(other, range(5, 7))
        other.close()
        self.refused(range(2, 4))
        self.assertTrue(self.repository.has_released)
        self.repository.collect()
        self.assertEqual(
            [False] * 4 + [True] * 2,
            self.repository.have([name_of(number) for number in (0, 1, 2, 3, 5, 6)]),
        )
        self.assertFalse(self.repository.has_released)

    def test_needed(self) -> None:
        """What a restore point of somebody else needs stays, and can be read."""
        session = self.session(None)
        store(session, range(3))
        point = self.published(self.session(None, OTHER_JOB), b"p" * 16)
        session.release_job()
        session.close()
        self.repository.collect()
        wanted = [blob(number) for number in range(3)]
        self.assertEqual(wanted, list(self.repository.read([each.id for each in wanted])))
        self.assertEqual([point.hex()], [row.point.hex() for row in self.repository.points()])
        self.assertFalse(self.repository.has_released)

    def test_told_of(self) -> None:
        """A session that was told that a blob is there can still publish with it."""
        told = self.session(None, OTHER_JOB)
        store(self.session(None), range(3))
        self.assertEqual([True] * 3, told.have([name_of(number) for number in range(3)]))
        self.refused(range(0))
        self.repository.collect()
        self.assertTrue(self.repository.has_released)
        self.published(told, b"p" * 16)
        told.close()
        self.repository.collect()
        self.assertEqual(3, len(list(self.repository.read([name_of(n) for n in range(3)]))))

    def test_while_collected(self) -> None:
        """A job that is refused while a collection is at work is left for the next one."""
        session = self.session(None)
        store(session, range(3))
        real = Sweeper.sweep

        def late(sweeper: Sweeper) -> None:
            session.release_job()
            session.close()
            real(sweeper)

        self.patch(Sweeper, "sweep", late)
        self.repository.collect()
        self.patch(Sweeper, "sweep", real)
        self.assertTrue(self.repository.has_released)
        self.repository.collect()
        self.assertEqual([False] * 3, self.repository.have([name_of(n) for n in range(3)]))
        self.assertFalse(self.repository.has_released)

    def test_nothing_more(self) -> None:
        """A session whose job was released stores nothing more."""
        session = self.session(None)
        session.add(blob(1))
        session.release_job()
        self.assertRaises(Exception, session.add, blob(2))
        self.assertEqual([], self.files("packs") if (self.directory / "packs").exists() else [])
