"""Tests for cloudconnect.repository.collect."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloudconnect.errors import Busy, Cancelled, NoSpace, NotFound, Refused, StoredDataDamaged
from cloudconnect.repository import packs, points
from cloudconnect.repository.collect import CollectResult
from cloudconnect.repository.points import STATES
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import (
    blobs_table,
    point_tags_table,
    points_table,
    repository_table,
)
from tests.repository.killing import in_child, kill_before_step
from tests.repository.repositories import (
    RepositoryCase,
    blob,
    failing,
    flip,
    keys,
    name_of,
    record,
)

DAY = 86400.0


def set_state(repository: Repository, point: bytes, state: str) -> None:
    """Put a point into another state, as whoever deletes it does."""
    with repository.catalogue.writing() as connection:
        connection.execute(
            sa.update(points_table).where(points_table.c.point == point.hex()).values(state=state)
        )


class CollectCase(RepositoryCase):
    """A repository in which points and blobs are made and lost; packs have three blobs."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        # What a killed process had is there; the tests need not wait for the disk.
        self.patch(os, "fsync", lambda descriptor: None)
        self.repository = self.created()

    def store(self, numbers: Iterable[int], repository: Repository | None = None) -> None:
        """Store blobs that are not there."""
        repository = repository or self.repository
        for number in numbers:
            if not repository.have([name_of(number)])[0]:
                repository.add(blob(number))
        repository.flush()

    def publish(
        self, number: int, numbers: Iterable[int], repository: Repository | None = None, **more: Any
    ) -> bytes:
        """Publish the point of this number, which needs these blobs."""
        point = bytes((number,)) * 16
        made = record(point, **more)
        encoded = made.encode()
        names = [name_of(each) for each in numbers]
        (repository or self.repository).publish(made, encoded, keys().sign(encoded), names)
        return point

    def later(self, days: float = 2) -> None:
        self.time += days * DAY

    def collect(self, repository: Repository | None = None, **options: Any) -> CollectResult:
        return (repository or self.repository).collect(**options)

    def settle(self) -> CollectResult:
        """Collect until there is nothing left to do: what is young now is old then."""
        result = self.collect()
        for _ in range(2):
            self.later()
            result = self.collect()
        return result

    def rows(self) -> set[int]:
        """The numbers of the blobs that have a row."""
        with self.repository.catalogue.reading() as connection:
            names = set(connection.execute(sa.select(blobs_table.c.id)).scalars())
        return {number for number in range(200) if name_of(number) in names}

    def check_readable(self, numbers: Iterable[int], repository: Repository | None = None) -> None:
        wanted = [blob(number) for number in numbers]
        got = list((repository or self.repository).read([each.id for each in wanted]))
        self.assertEqual(got, wanted)

    def pack_files(self) -> set[str]:
        return {f"packs/{path.name}" for path in self.files("packs")}


class CollectTests(CollectCase):
    """What no point needs goes, and nothing else."""

    def test_nothing_to_do(self) -> None:
        """Of a repository in which everything is needed nothing goes."""
        self.store(range(7))
        self.publish(1, range(6), manifest=(name_of(6),))
        before = self.pack_files()
        result = self.settle()
        self.assertEqual((result.points, result.blobs), (1, 7))
        self.assertEqual((result.condemned, result.deleted, result.packs_removed), (0, 0, 0))
        self.assertEqual(self.pack_files(), before)
        self.check_readable(range(7))

    def test_empty(self) -> None:
        """An empty repository can be collected."""
        self.assertEqual(self.settle().blobs, 0)

    def test_space_comes_back(self) -> None:
        """Once its points are gone, nothing is left of them but their rows."""
        self.store(range(9))
        point = self.publish(1, range(9))
        self.collect()
        self.later()
        set_state(self.repository, point, "removed")
        result = self.collect()
        self.assertEqual((result.condemned, result.deleted, result.packs_removed), (9, 9, 3))
        self.assertEqual(self.pack_files(), set())
        self.assertEqual(self.repository.statistics()["bytes_stored"], 0)
        self.assertEqual(result.bytes_removed, 3 * (40 + 37 + 3 * (100 + packs.ENTRY_SIZE)))

    def test_bin_is_kept(self) -> None:
        """What a point in the bin needs stays, its manifest too; and so with a state of later."""
        self.store(range(9))
        one = self.publish(1, range(3), manifest=(name_of(3),))
        two = self.publish(2, [4, 5])
        set_state(self.repository, one, "deleted")
        set_state(self.repository, two, "something new")
        self.settle()
        self.assertEqual(self.rows(), set(range(6)))
        self.check_readable(range(6))

    def test_withdrawn_is_not_needed(self) -> None:
        """What only a withdrawn point needs goes."""
        self.store(range(3))
        self.repository.withdraw([self.publish(1, range(3))])
        self.settle()
        self.assertEqual(self.rows(), set())

    def test_grace(self) -> None:
        """What was stored a short time ago is kept for a backup that goes on; then it goes."""
        self.collect()
        self.store(range(3))
        self.later(0.9)
        self.collect()
        self.later(0.05)
        self.collect()
        self.assertEqual(self.repository.have([name_of(0)]), [True])
        self.later(0.1)
        self.collect()
        self.assertEqual(self.rows(), set())

    def test_grace_of_the_rules(self) -> None:
        """How long is what the provider's rules say."""
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(repository_table).values(rules={"grace_hours": 100}))
        self.store(range(3))
        self.settle()
        self.assertEqual(self.rows(), {0, 1, 2})

    def test_clock_that_jumps(self) -> None:
        """A clock that says a year later takes nothing away that came since the last time."""
        self.collect()
        self.store(range(3))
        self.later(400)
        self.collect()
        self.assertEqual(self.rows(), {0, 1, 2})
        self.time -= 800 * DAY
        self.collect()
        self.assertEqual(self.rows(), {0, 1, 2})

    def test_shared_blobs(self) -> None:
        """A blob that one of two points needs stays when the other goes."""
        self.store(range(6))
        one = self.publish(1, range(4))
        self.publish(2, range(3, 6))
        set_state(self.repository, one, "removed")
        self.settle()
        self.assertEqual(self.rows(), {3, 4, 5})
        self.check_readable({3, 4, 5})

    def test_measured(self) -> None:
        """What is live, only in the bin, and neither is counted; the bin is not charged for."""
        self.assertEqual(self.repository.measured.live, 0)
        self.store(range(9))
        self.publish(1, range(3))
        set_state(self.repository, self.publish(2, range(2, 5)), "deleted")
        result = self.collect()
        each = 100 + packs.ENTRY_SIZE
        self.assertEqual((result.live, result.bin), (3 * each, 2 * each))
        measured, stored = self.repository.measured, self.repository.statistics()
        self.assertEqual((measured.live, measured.bin), (result.live, result.bin))
        self.assertEqual(measured.live + measured.bin + measured.garbage, stored["bytes_stored"])
        lists = 2 * len(self.repository.point(bytes((1,)) * 16).record) + 3 * 32
        self.assertEqual(stored["bytes_counted"], stored["bytes_stored"] - 2 * each + lists)

    def test_frozen(self) -> None:
        """A frozen repository is not collected."""
        self.store(range(3))
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(repository_table).values(frozen=True))
        self.assertRaises(Refused, self.collect)
        self.assertEqual(self.rows(), {0, 1, 2})

    def test_frozen_meanwhile(self) -> None:
        """Frozen at any moment of a collection, nothing more goes from then on."""
        self.store(range(9))
        self.publish(1, range(3))
        self.collect()
        self.later()
        other = self.opened(lease=False)
        for stop in range(30):
            with other.catalogue.writing() as connection:
                connection.execute(sa.update(repository_table).values(frozen=False))
            there: list[Any] = []

            def cancelled(stop: int = stop, there: list[Any] = there) -> bool:
                there.append((self.rows(), self.pack_files()))
                if len(there) == stop + 1:
                    with other.catalogue.writing() as connection:
                        connection.execute(sa.update(repository_table).values(frozen=True))
                return False

            try:
                self.collect(cancelled=cancelled)
            except Refused:
                self.assertEqual((self.rows(), self.pack_files()), there[stop])
        self.assertEqual(self.rows(), {0, 1, 2})

    def test_stopped(self) -> None:
        """A collection that is stopped is taken up by the next one."""
        self.store(range(9))
        self.publish(1, range(2))
        self.collect()
        self.later()
        for stop in count():
            calls: list[int] = []

            def cancelled(stop: int = stop, calls: list[int] = calls) -> bool:
                calls.append(1)
                return len(calls) > stop

            try:
                self.collect(cancelled=cancelled)
            except Cancelled:
                self.check_readable(range(2))
            else:
                break
        self.assertGreater(stop, 5)
        self.assertEqual(self.rows(), {0, 1})

    def test_one_at_a_time(self) -> None:
        """A second collection of the same repository is told that there is one."""
        other = self.opened(lease=False)
        errors: list[Exception] = []

        def progress(step: str, done: int, total: int) -> None:
            errors.append(self.assertRaises(Busy, other.collect))
            errors.append(self.assertRaises(Busy, other.rebuild_index))

        self.collect(progress=progress)
        self.assertTrue(errors)

    def test_what_is_not_flushed(self) -> None:
        """Who has something to store does that first."""
        self.repository.add(blob(1))
        self.assertRaises(Refused, self.collect)
        self.assertEqual(self.repository.flush(), [name_of(1)])
        self.collect()

    def test_read_only(self) -> None:
        """What was opened to be read is not collected."""
        self.assertRaises(Refused, self.opened(read_only=True).collect)


class DamageTests(CollectCase):
    """Where it cannot be told what is needed, nothing goes."""

    def setUp(self) -> None:
        super().setUp()
        self.store(range(9))
        self.point = self.publish(1, range(3), manifest=(name_of(3),))
        self.collect()
        self.later()
        self.references = self.directory / "points" / f"{self.point.hex()}-references"

    def check_refused(self) -> None:
        error = self.assertRaises(StoredDataDamaged, self.collect)
        self.assertIn(self.point.hex(), str(error))
        self.assertEqual(self.rows(), set(range(9)))
        self.assertEqual(len(self.files("packs")), 3)

    def test_changed_references(self) -> None:
        """A reference list that was changed."""
        flip(self.references, 40)
        self.check_refused()

    def test_missing_references(self) -> None:
        """A reference list that is gone."""
        self.references.unlink()
        self.check_refused()

    def test_short_references(self) -> None:
        """A reference list that became shorter."""
        self.references.write_bytes(self.references.read_bytes()[:64])
        self.check_refused()

    def test_changed_record(self) -> None:
        """A record in the catalogue that is neither signed nor what its blob says."""
        with self.repository.catalogue.writing() as connection:
            made = record(self.point, manifest=(name_of(4),)).encode()
            connection.execute(sa.update(points_table).values(record=made))
        self.check_refused()

    def test_record_of_an_older_key(self) -> None:
        """A record with a signature that this key did not make counts when its blob agrees."""
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(points_table).values(signature=bytes(64)))
        self.collect()
        self.assertEqual(self.rows(), {0, 1, 2, 3})

    def test_removed_while_it_is_read(self) -> None:
        """A list that is gone because its point was removed just now stops nothing."""
        real = self.repository.store.read

        def read(name: str, offset: int, length: int) -> bytes:
            if name.endswith("-references"):
                set_state(self.opened(lease=False), self.point, "removed")
                raise NotFound(name)
            return real(name, offset, length)

        self.patch(self.repository.store, "read", read)
        self.collect()
        self.assertLessEqual(self.rows(), {3})  # the manifest had been marked by then
        self.settle()
        self.assertEqual(self.rows(), set())


class SessionTests(CollectCase):
    """Sessions that store and read while things go."""

    def condemned_for(self, session: Repository) -> None:
        """Condemn the blobs 0 to 2, which ``session`` was told of."""
        self.store(range(3))
        self.collect()
        self.later()
        self.assertEqual(session.have([name_of(number) for number in range(3)]), [True] * 3)
        result = self.collect()
        self.assertEqual((result.condemned, result.deleted), (3, 0))

    def test_told_before(self) -> None:
        """What a session was told of is there when it publishes, and stays from then on."""
        session = self.opened()
        self.condemned_for(session)
        self.collect()
        self.assertEqual(self.rows(), {0, 1, 2})
        self.check_readable(range(3), session)
        self.publish(1, range(3), session)
        session.close()
        self.settle()
        self.check_readable(range(3))

    def test_told_and_gone(self) -> None:
        """When that session ends without publishing, the blobs go."""
        session = self.opened()
        self.condemned_for(session)
        session.close()
        result = self.collect()
        self.assertEqual((result.deleted, result.packs_removed), (3, 1))

    def test_asked_after(self) -> None:
        """A session that comes later is told that they are not there; sent again, they stay."""
        session = self.opened()
        self.condemned_for(session)
        later = self.opened()
        self.assertEqual(later.have([name_of(0), name_of(1)]), [False, False])
        self.store([0], later)
        self.assertEqual(later.have([name_of(0), name_of(1)]), [True, False])
        session.close()
        later.close()
        self.collect()
        self.assertEqual(self.rows(), {0})
        self.check_readable([0])

    def test_published_without_asking(self) -> None:
        """A point that is published with condemned blobs keeps them, whoever publishes it."""
        session = self.opened()
        self.condemned_for(session)
        self.publish(1, [0, 1], self.opened())
        self.assertEqual(self.repository.have([name_of(0), name_of(2)]), [True, False])
        session.close()
        self.settle()
        self.assertEqual(self.rows(), {0, 1})

    def test_published_while_marking(self) -> None:
        """A point that comes behind the marking is marked before anything is condemned."""
        self.store(range(6))
        self.collect()
        self.later()
        other = self.opened()
        published: list[bytes] = []

        def progress(step: str, done: int, total: int) -> None:
            if step == "sweep" and not published:
                published.append(self.publish(1, range(4), other))

        result = self.collect(progress=progress)
        self.assertEqual(result.condemned, 2)
        other.close()
        self.settle()
        self.assertEqual(self.rows(), set(range(4)))

    def test_publishing_while_condemning(self) -> None:
        """Between a publisher's look at its blobs and its row nothing is condemned."""
        self.store(range(3))
        self.collect()
        self.later()
        collector, publisher = self.opened(lease=False), self.opened()
        waiting = threading.Event()
        results: list[CollectResult] = []
        real_put, real_exclusive = publisher.store.put, collector.store.exclusive

        def exclusive(name: str, wait: bool = False) -> Any:
            if name == "publish":
                waiting.set()
            return real_exclusive(name, wait)

        thread = threading.Thread(target=lambda: results.append(collector.collect()))

        def put(name: str, parts: Any) -> int:
            thread.start()
            self.assertTrue(waiting.wait(60))
            return real_put(name, parts)

        self.patch(collector.store, "exclusive", exclusive)
        self.patch(publisher.store, "put", put)
        self.publish(1, range(2), publisher)
        thread.join(60)
        self.assertEqual([result.condemned for result in results], [1])
        publisher.close()
        self.settle()
        self.assertEqual(self.rows(), {0, 1})

    def test_reader_of_a_repacked_pack(self) -> None:
        """What a session had looked up can be read though it moved: its pack waits for it."""
        self.store(range(3))
        self.publish(1, [0])
        reader = self.opened()
        places = reader.catalogue.locate([name_of(0)])
        old = places[name_of(0)][0]
        self.collect()
        self.later()
        self.collect()  # condemned, and not deleted: the reader is there
        self.assertEqual(self.repository.catalogue.locate([name_of(0)]), places)
        reader.close()
        reader = self.opened()
        self.assertEqual(reader.catalogue.locate([name_of(0)]), places)
        result = self.collect()
        self.assertEqual((result.packs_emptied, result.packs_waiting), (1, 1))
        self.assertNotEqual(self.repository.catalogue.locate([name_of(0)])[name_of(0)][0], old)
        self.assertIn(old, self.pack_files())
        self.patch(reader.catalogue.__class__, "locate", lambda *_: places)
        self.check_readable([0], reader)
        self.patch(reader.catalogue.__class__, "locate", type(reader.catalogue).locate)
        reader.close()
        self.assertEqual(self.collect().packs_removed, 1)
        self.assertNotIn(old, self.pack_files())

    def test_own_lease(self) -> None:
        """Who collects is not in its own way, and can store afterwards."""
        self.store(range(3))
        self.collect()
        self.later()
        self.assertEqual(self.collect().packs_removed, 1)
        self.store([1])
        self.check_readable([1])


class RepackTests(CollectCase):
    """Packs that are mostly unused are emptied."""

    def prepare(self, kept: Iterable[int], count: int = 12) -> None:
        """A repository in which of ``count`` blobs only some are needed, and the rest is old."""
        self.store(range(count))
        self.publish(1, kept)
        self.collect()
        self.later()

    def test_half_empty(self) -> None:
        """Of a pack with one of three blobs used, that one moves; fuller packs stay."""
        self.prepare([0, 1, 2, 3, 4, 6])
        before = self.pack_files()
        result = self.collect()
        self.assertEqual(
            (result.packs_emptied, result.blobs_moved, result.packs_removed), (1, 1, 2)
        )
        self.assertEqual(len(self.pack_files() & before), 2)
        self.check_readable([0, 1, 2, 3, 4, 6])
        self.assertEqual(self.repository.rebuild_index().damaged, ())
        self.check_readable([0, 1, 2, 3, 4, 6])

    def test_together(self) -> None:
        """The rests of several packs end in one; kinds stay apart."""
        for number in range(12):
            self.repository.add(blob(number), ("chunk", "manifest")[number % 2])
        self.repository.flush()
        self.publish(1, [0, 6, 1, 7])
        self.collect()
        self.later()
        result = self.collect()
        self.assertEqual((result.packs_emptied, result.blobs_moved), (4, 4))
        places = self.repository.catalogue.locate(map(name_of, (0, 6, 1, 7)))
        names = [places[name_of(number)][0] for number in (0, 6, 1, 7)]
        self.assertEqual((names[0], names[2]), (names[1], names[3]))
        self.assertEqual(self.pack_files(), set(names))
        self.assertEqual([places[name_of(n)][1].kind for n in (0, 6, 1, 7)], [0, 0, 1, 1])
        self.check_readable([0, 6, 1, 7])

    def test_once(self) -> None:
        """What was moved is not moved again the next time."""
        self.prepare([0, 3, 6, 9])
        self.assertEqual(self.collect().blobs_moved, 4)
        self.later()
        result = self.collect()
        self.assertEqual((result.blobs_moved, result.packs_removed), (0, 0))

    def test_damaged_blob(self) -> None:
        """A damaged blob is not copied: it is marked, said, and stays with its pack."""
        self.store(range(12))
        self.publish(1, [0, 3, 6])
        name, entry = self.repository.catalogue.locate([name_of(3)])[name_of(3)]
        flip(self.directory / name, entry.offset)
        self.collect()
        self.later()
        result = self.collect()
        self.assertIn(name_of(3).hex(), result.notes[0])
        self.assertEqual((result.blobs_moved, result.packs_emptied), (2, 3))
        self.check_readable([0, 6])
        self.assertIn(name, self.pack_files())
        self.assertEqual(self.repository.have([name_of(3)]), [False])
        flip(self.directory / name, entry.offset)
        self.repository.rebuild_index()
        self.check_readable([0, 3, 6])
        self.later()

    def test_healed(self) -> None:
        """Sent again, it is whole, and the damaged copy goes."""
        self.prepare([0, 3, 6])
        name, entry = self.repository.catalogue.locate([name_of(3)])[name_of(3)]
        flip(self.directory / name, entry.offset)
        self.collect()
        self.store([3])
        self.collect()
        self.assertNotIn(name, self.pack_files())
        self.check_readable([0, 3, 6])

    def test_pack_gone(self) -> None:
        """A pack that is not there any more costs its own blobs only."""
        self.prepare([0, 3, 6])
        name = self.repository.catalogue.locate([name_of(3)])[name_of(3)][0]
        (self.directory / name).unlink()
        result = self.collect()
        self.assertIn(name, result.notes[0])
        self.assertEqual(result.blobs_moved, 2)
        self.check_readable([0, 6])

    def test_unreadable_pack(self) -> None:
        """A pack that the system cannot read now stays as it is, and the others are emptied."""
        self.prepare([0, 3, 6])
        name = self.repository.catalogue.locate([name_of(3)])[name_of(3)][0]
        real = self.repository.store.read

        def read(wanted: str, offset: int, length: int) -> bytes:
            if wanted == name:
                raise OSError(errno.EIO, "I/O error")
            return real(wanted, offset, length)

        patch = self.patch(self.repository.store, "read", read)
        self.assertEqual(self.collect().blobs_moved, 2)
        patch.restore()
        self.check_readable([0, 3, 6])
        self.assertEqual(self.collect().blobs_moved, 1)
        self.check_readable([0, 3, 6])

    def test_write_error(self) -> None:
        """EIO while a new pack is made durable fails the collection, and loses nothing."""
        self.prepare([0, 3, 6, 9])
        patch = self.patch(os, "fsync", failing(OSError(errno.EIO, "I/O error"), os.fsync)[0])
        self.assertRaises(OSError, self.collect)
        patch.restore()
        self.check_readable([0, 3, 6, 9])
        self.collect()
        self.check_readable([0, 3, 6, 9])
        self.assertEqual(len(self.files("packs")), 2)

    def test_disk_full(self) -> None:
        """With no room to copy anything, what is wholly unused goes all the same."""
        self.prepare([0, 1, 2, 3, 9])
        patch = self.patch(self.repository.store, "_free_min", 1 << 62)
        result = self.collect()
        self.assertTrue(result.full)
        self.assertEqual((result.packs_removed, result.packs_emptied), (1, 0))
        self.check_readable([0, 1, 2, 3, 9])
        patch.restore()
        result = self.collect()
        self.assertFalse(result.full)
        self.assertEqual(result.blobs_moved, 2)
        self.check_readable([0, 1, 2, 3, 9])

    def test_little_room(self) -> None:
        """With room for one new pack at a time, room is made before the next one."""
        self.prepare([3 * number for number in range(12)], 36)
        free = [2]
        real = self.repository.store.begin

        def begin() -> Any:
            free[0] -= 1
            if free[0] < 0:
                free[0] = 2
                raise NoSpace("full")
            return real()

        self.patch(self.repository.store, "begin", begin)
        self.patch(self.repository.store, "_free_min", 0)
        result = self.collect()
        self.check_readable([3 * number for number in range(12)])
        self.assertGreaterEqual(result.packs_removed, 6)


class LeftoverTests(CollectCase):
    """What killed sessions left, and what a catalogue of yesterday does not know."""

    def test_pack_without_row(self) -> None:
        """A pack that was never indexed gets a row; nobody needs it, so it goes later."""
        self.collect()
        self.leave_pack([1, 2])
        session = self.opened()  # might be the one
        self.assertEqual(self.collect().packs_found, 0)
        session.close()
        self.assertEqual(self.collect().packs_found, 1)
        self.check_readable([1, 2])
        self.settle()
        self.assertEqual(self.files("packs"), [])

    def leave_pack(self, numbers: Iterable[int]) -> None:
        """Die between a pack's name and its rows."""

        def work(say: Callable[[bytes], None]) -> None:
            session = Repository.open(self.directory, clock=self.clock)
            type(session.catalogue).add_pack = lambda *_: os._exit(7)  # type: ignore[method-assign]
            self.store(numbers, session)

        self.assertEqual(os.WEXITSTATUS(in_child(work)[1]), 7)

    def test_pack_that_is_indexed_late(self) -> None:
        """A session that is slow to index its pack finds it, and its blobs, as it left them."""
        self.collect()
        slow = self.opened()
        real = packs.PackBuilder.commit

        def commit(builder: packs.PackBuilder) -> tuple[str, int]:
            made = real(builder)
            for _ in range(2):
                self.collect()
                self.later()
            return made

        patch = self.patch(packs.PackBuilder, "commit", commit)
        self.store([1, 2], slow)
        patch.restore()
        self.check_readable([1, 2])
        self.publish(1, [1, 2], slow)
        slow.close()
        self.settle()
        self.check_readable([1, 2])

    def test_point_without_row(self) -> None:
        """A point whose publisher was killed before its row becomes a point."""
        self.store(range(3))
        self.kill_publisher(1, range(3))
        self.assertEqual(self.repository.points(), [])
        result = self.collect()
        self.assertEqual(result.points_found, 1)
        self.assertEqual([row.point for row in self.repository.points()], [b"\x01" * 16])
        self.settle()
        self.check_readable(range(3))

    def kill_publisher(self, number: int, numbers: Iterable[int]) -> None:
        def work(say: Callable[[bytes], None]) -> None:
            session = Repository.open(self.directory, clock=self.clock)
            points.insert_point = lambda *_: os._exit(7)
            self.publish(number, numbers, session)

        _, status = in_child(work)
        self.assertEqual(os.WEXITSTATUS(status), 7)

    def test_point_that_lacks_something(self) -> None:
        """A record without a row, of which something is missing, keeps what is there."""
        self.store(range(3))
        self.kill_publisher(1, range(3))
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(blobs_table).where(blobs_table.c.id == name_of(1)))
        self.collect()
        self.later()
        result = self.collect()
        self.assertEqual((result.points_found, result.condemned), (0, 0))
        self.assertIn(name_of(1).hex(), result.notes[0])
        self.store([1])
        self.assertEqual(self.collect().points_found, 1)

    def test_damaged_point_without_row(self) -> None:
        """A record without a row that cannot be used stops the collection."""
        self.store(range(3))
        self.kill_publisher(1, range(3))
        flip(self.directory / "points" / ("01" * 16), 50)
        self.collect_is_refused()

    def collect_is_refused(self) -> None:
        self.later()
        error = self.assertRaises(StoredDataDamaged, self.collect)
        self.assertIn("01" * 16, str(error))

    def test_references_alone(self) -> None:
        """A list whose record was never written is removed."""
        self.repository.store.put("points/" + "0a" * 16 + "-references", [name_of(1)])
        self.assertEqual(self.collect().files_removed, 1)
        self.assertEqual(list(self.repository.store.names("points/")), [])

    def test_removed_point(self) -> None:
        """Of a point that was removed and has no row, it is said that it was removed."""
        self.store(range(3))
        point = self.publish(1, range(3))
        self.repository.delete([point])
        for _ in range(16):
            self.later(1)
            self.repository.expire()
        (tombstone,) = self.repository.store.names("points/")
        with self.repository.catalogue.writing() as connection:
            for table in (point_tags_table, points_table):
                connection.execute(sa.delete(table))
        self.assertEqual(self.collect().points_found, 1)
        (row,) = self.repository.points(states=["removed"])
        self.assertEqual((row.point, row.host), (point, "host"))
        self.assertEqual(list(self.repository.store.names("points/")), [tombstone])

    def test_markers(self) -> None:
        """What lies beside a record without a row counts: in the bin, locked, withdrawn."""
        self.store(range(3))
        one, two, three = (self.publish(number, range(3)) for number in (1, 2, 3))
        self.repository.lock([one], self.time + DAY)
        self.repository.delete([two])
        self.repository.withdraw([three])
        rows = self.repository.points(states=STATES)
        with self.repository.catalogue.writing() as connection:
            for table in (point_tags_table, points_table):
                connection.execute(sa.delete(table))
        self.assertEqual(self.collect().points_found, 3)
        found = self.repository.points(states=STATES)
        self.assertEqual(
            [(row.state, row.point) for row in found],
            [("published", one), ("deleted", two), ("withdrawn", three)],
        )
        self.assertEqual(found[0].locked_until, rows[0].locked_until)

    def test_old_catalogue(self) -> None:
        """With a catalogue of yesterday in its place, what it does not know is found again."""
        self.store(range(3))
        self.publish(1, range(3))
        self.repository.close()
        saved = self.directory / "catalogue.sqlite"
        octets = saved.read_bytes()
        self.repository = self.opened()
        self.store(range(3, 9))
        self.publish(2, range(1, 9))
        self.repository.close()
        saved.write_bytes(octets)
        for name in ("-wal", "-shm"):
            Path(f"{saved}{name}").unlink(missing_ok=True)
        self.repository = self.opened()
        self.settle()
        self.assertEqual([row.point[0] for row in self.repository.points()], [1, 2])
        self.check_readable(range(9))


class KilledTests(CollectCase):
    """``kill -9`` at every step of a collection."""

    def test_every_step(self) -> None:
        """Nothing that a point needs is lost, and the next collections bring the space back."""
        self.patch(os, "fsync", lambda descriptor: None)  # a kill loses nothing that was written
        self.store(range(24))
        kept = [0, 1, 2, 3, 6, 9]
        self.publish(1, kept)
        binned = self.publish(2, [9, 12, 13])
        gone = self.publish(3, range(24))
        set_state(self.repository, binned, "deleted")
        self.collect()
        self.later()
        set_state(self.repository, gone, "removed")
        self.repository.close()
        whole = self.directory
        killed, kill_at, finished = True, 0, set[str]()
        while killed:
            self.directory = Path(self.mktemp())
            shutil.copytree(whole, self.directory)
            _, status = in_child(partial(self.work, kill_at))
            killed = os.WIFSIGNALED(status)
            self.assertTrue(killed or status == 0, f"the child failed at step {kill_at}")
            self.check(kill_at)
            finished = self.pack_files()
            kill_at += 1
        self.assertGreater(kill_at, 40)
        self.assertEqual(len(finished), 3)

    def work(self, kill_at: int, say: Callable[[bytes], None]) -> None:
        repository = Repository.open(self.directory, clock=self.clock, lease=False)
        kill_before_step(kill_at, repository)
        repository.collect()

    def check(self, kill_at: int) -> None:
        time = self.time
        self.repository = Repository.open(self.directory, clock=self.clock)
        needed = {0, 1, 2, 3, 6, 9, 12, 13}
        self.check_readable(needed)
        self.collect()
        self.check_readable(needed)
        self.settle()
        self.check_readable(needed)
        self.assertEqual(self.rows(), needed, f"killed at step {kill_at}")
        self.assertEqual(len(self.files("packs")), 3, f"killed at step {kill_at}")
        self.assertEqual(self.files("temporary"), [])
        self.assertEqual(self.repository.rebuild_index().damaged, ())
        self.check_readable(needed)
        self.repository.close()
        self.time = time
