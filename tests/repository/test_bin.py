"""Tests for cloudconnect.repository.bin."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from cloudconnect.errors import NoSpace, NotFound, Refused
from cloudconnect.repository import bin as bin_module
from cloudconnect.repository.freezing import FROZEN
from cloudconnect.repository.markers import deleted_name, lock_name, removed_name
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.points import record_name
from cloudconnect.repository.references import references_name
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import points_table, repository_table
from tests.repository.killing import in_child, kill_before_step
from tests.repository.repositories import RepositoryCase, blob, failing, name_of

DAY = 86400.0
YEAR = 365 * DAY
A, B, C, D = (bytes((letter,)) * 16 for letter in b"abcd")


def hurried(repository: Repository) -> Repository:
    """A repository that does not wait for the disk: processes are killed here, not machines."""
    pooled = repository.catalogue.engine.raw_connection()
    pooled.cursor().execute("PRAGMA synchronous=OFF")
    pooled.close()
    return repository


class BinCase(RepositoryCase):
    """A repository with points of three blobs each."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1.7e9
        self.repository = hurried(self.created())
        self.repository.observe_clock()
        for number in range(3):
            self.repository.add(blob(number))
        self.repository.flush()
        for point in (A, B, C):
            self.published(self.repository, point)

    def wait(self, days: float) -> None:
        """Let days pass on a machine that is always on."""
        for _ in range(int(days)):
            self.time += DAY
            self.repository.observe_clock()
        self.time += days % 1 * DAY
        self.repository.observe_clock()

    def states(self, repository: Repository | None = None) -> dict[bytes, str]:
        states = ("published", "deleted", "withdrawn", "removed")
        rows = (repository or self.repository).points(states=states)
        return {row.point: row.state for row in rows}

    def there(self, name: str) -> bool:
        return name in list(self.repository.store.names(name))

    def restorable(self, repository: Repository, point: bytes) -> None:
        """The point can be opened, and all that it needs be read."""
        stored = repository.point(point)
        self.assertTrue(stored.record)
        references = [name for batch in repository.references(stored) for name in batch]
        self.assertEqual(len(references), stored.reference_count)
        self.assertEqual([each.id for each in repository.read(references)], references)

    def rebuilt(self) -> Repository:
        """The repository after the loss of its catalogue."""
        self.repository.close()
        for path in self.directory.glob(f"{CATALOGUE}*"):
            path.unlink()
        self.repository = hurried(Repository.recover(self.directory, clock=self.clock))
        self.addCleanup(self.repository.close)
        self.assertEqual(self.repository.rebuild_index().damaged, ())
        return self.repository


class DeleteTests(BinCase):
    """What is deleted is out of the way, and can be had back."""

    def test_deleted(self) -> None:
        """A deleted point is not listed with the others, and still opened."""
        (row,) = self.repository.delete([B])
        self.assertEqual((row.point, row.state, row.deleted_by), (B, "deleted", "tenant"))
        self.assertEqual((row.deleted_time, row.bin_until), (self.time, self.time + 14 * DAY))
        self.assertEqual([row.point for row in self.repository.points()], [A, C])
        self.assertEqual(self.repository.points(states=["deleted"]), [row])
        for repository in (self.repository, self.opened()):
            self.restorable(repository, B)
        self.assertEqual(self.repository.statistics()["points"], 2)

    def test_who(self) -> None:
        """Who did it is kept; only known ones do."""
        for point, by in ((A, "provider"), (B, "retention")):
            self.assertEqual(self.repository.delete([point], by)[0].deleted_by, by)
        self.assertRaises(ValueError, self.repository.delete, [C], "mallory")

    def test_twice(self) -> None:
        """To delete again changes nothing, the date neither."""
        first = self.repository.delete([B, B])
        self.assertEqual(len(first), 1)
        self.wait(3)
        self.assertEqual(self.repository.delete([B], "provider"), first)

    def test_all_or_nothing(self) -> None:
        """Where one point is not there, none is deleted."""
        error = self.assertRaises(NotFound, self.repository.delete, [A, D, B])
        self.assertIn(D.hex(), str(error))
        self.assertEqual(set(self.states().values()), {"published"})
        self.assertFalse(self.there(deleted_name(A)))

    def test_many(self) -> None:
        """More points than one transaction takes."""
        self.patch(bin_module, "BATCH", 2)
        self.assertEqual(len(self.repository.delete([C, A, B])), 3)
        self.assertEqual(set(self.states().values()), {"deleted"})
        self.assertTrue(all(self.there(deleted_name(point)) for point in (A, B, C)))
        self.assertEqual([row.point for row in self.repository.undelete([C, A, B])], [C, A, B])
        self.assertEqual(set(self.states().values()), {"published"})
        self.repository.delete([A, B, C])
        self.wait(15)
        self.assertEqual(len(self.repository.expire().removed), 3)

    def test_undelete(self) -> None:
        """A point that was taken out of the bin is as it was before."""
        before = self.repository.points()
        self.repository.delete([A, B])
        self.assertEqual(self.repository.undelete([B, A, C]), [before[1], before[0], before[2]])
        self.assertEqual(self.repository.points(), before)
        self.assertFalse(self.there(deleted_name(A)))
        self.wait(20)
        self.assertEqual(self.repository.expire().removed, [])

    def test_undelete_unknown(self) -> None:
        """Only what is there comes back, and all of it or nothing."""
        self.repository.delete([A])
        self.repository.withdraw([B])
        for wrong in (D, B):
            self.assertRaises(NotFound, self.repository.undelete, [A, wrong])
            self.assertRaises(NotFound, self.repository.delete, [wrong])
        self.assertEqual(self.states()[A], "deleted")

    def test_disk_full(self) -> None:
        """With a full disk nothing is deleted, and nothing half."""
        self.patch(self.repository.store, "begin", failing(NoSpace("full"), len)[0])
        self.assertRaises(NoSpace, self.repository.delete, [A])
        self.assertEqual(self.states()[A], "published")

    def test_withdrawn_from_bin(self) -> None:
        """A session that failed takes its point back from the bin too, and a locked one."""
        self.repository.delete([A])
        self.repository.lock([B], self.time + DAY)
        self.repository.withdraw([A, B])
        self.assertEqual({self.states()[A], self.states()[B]}, {"withdrawn"})
        self.rebuilt()
        self.assertEqual({self.states()[A], self.states()[B]}, {"withdrawn"})


class ExpiryTests(BinCase):
    """A point leaves the bin when its time is over by both clocks, and never before."""

    def test_in_time(self) -> None:
        """After fourteen days, and not a minute before."""
        self.repository.delete([B])
        self.wait(13.99)
        self.assertEqual(self.repository.expire().removed, [])
        self.wait(0.02)
        (row,) = self.repository.expire().removed
        self.assertEqual((row.point, row.state, row.removed_time), (B, "removed", self.time))
        self.assertEqual(self.states(), {A: "published", B: "removed", C: "published"})
        self.assertEqual(self.repository.expire().removed, [])

    def test_removed(self) -> None:
        """Of a removed point a tombstone stays; its id is not used again."""
        self.repository.delete([B])
        self.wait(15)
        self.repository.expire()
        for name in (record_name(B), references_name(B), deleted_name(B)):
            self.assertFalse(self.there(name))
        self.assertTrue(self.there(removed_name(B)))
        self.assertRaises(NotFound, self.repository.point, B)
        for act in (self.repository.delete, self.repository.undelete):
            self.assertIn("removed", str(self.assertRaises(NotFound, act, [B])))
        self.assertRaises(NotFound, self.repository.lock, [B], self.time + DAY)
        self.assertRaises(Refused, self.published, self.repository, B)
        self.repository.withdraw([B])
        self.assertEqual(self.states()[B], "removed")
        for point in (A, C):
            self.restorable(self.repository, point)

    def test_year_ahead(self) -> None:
        """A clock that jumps ahead by a year removes nothing; fourteen days have to pass."""
        self.repository.delete([B])
        self.time += YEAR
        self.assertEqual(self.repository.expire().removed, [])
        self.wait(12)
        self.assertEqual(self.repository.expire().removed, [])
        self.wait(1)
        self.assertEqual(len(self.repository.expire().removed), 1)

    def test_clock_back(self) -> None:
        """A clock that is put back keeps it until the date that was shown."""
        self.repository.delete([B])
        self.time -= YEAR
        self.wait(20)
        self.assertEqual(self.repository.expire().removed, [])
        self.time += YEAR
        self.assertEqual(len(self.repository.expire().removed), 1)

    def test_frozen(self) -> None:
        """While the repository is frozen nothing leaves; after it, what was left of the time."""
        self.repository.delete([B])
        self.wait(4)
        self.repository.freeze()
        self.wait(100)
        self.assertEqual(self.repository.expire().removed, [])
        self.repository.thaw()
        self.assertEqual(self.repository.expire().removed, [])
        self.wait(10)
        self.assertEqual(len(self.repository.expire().removed), 1)

    def test_rules_change(self) -> None:
        """What is in the bin stays as long as it was told to, whatever the rules say later."""
        self.repository.delete([A])
        self.repository.set_rules(Rules(bin_days=1))
        self.repository.delete([B])
        self.wait(2)
        self.assertEqual([row.point for row in self.repository.expire().removed], [B])

    def test_left_over(self) -> None:
        """What a killed removal left in the store goes with the next one."""
        self.repository.delete([B])
        self.wait(15)
        self.patch(bin_module.Bin, "_clear", lambda _: None)
        self.repository.expire()
        self.assertTrue(self.there(record_name(B)))
        self.doCleanups()
        self.repository = Repository.open(self.directory, clock=self.clock)
        self.addCleanup(self.repository.close)
        self.assertEqual(self.repository.expire().removed, [])
        for name in (record_name(B), references_name(B), deleted_name(B)):
            self.assertFalse(self.there(name))

    def test_half_removed(self) -> None:
        """A removal that was killed before its row: the point still comes back, for good."""
        self.repository.delete([B])
        self.wait(15)
        self.patch(bin_module, "point_row", lambda _: 1 / 0)
        self.assertRaises(ZeroDivisionError, self.repository.expire)
        self.doCleanups()
        self.repository = Repository.open(self.directory, clock=self.clock)
        self.assertTrue(self.there(removed_name(B)))
        self.assertEqual(self.states()[B], "deleted")
        self.repository.undelete([B])
        self.assertFalse(self.there(removed_name(B)))
        self.rebuilt()
        self.assertEqual(self.states()[B], "published")
        self.restorable(self.repository, B)


class LockTests(BinCase):
    """Nobody deletes what is locked, and nobody shortens a lock."""

    def test_locked(self) -> None:
        """A locked point is deleted by nobody until its time is over."""
        (row,) = self.repository.lock([B], self.time + 5 * DAY)
        self.assertEqual((row.state, row.locked_until), ("published", self.time + 5 * DAY))
        for by in ("tenant", "provider", "retention"):
            error = self.assertRaises(Refused, self.repository.delete, [A, B], by)
            self.assertIn("locked until 2023-11-19 22:13 UTC", str(error))
        self.assertEqual(self.states()[A], "published")
        self.wait(5)
        self.repository.delete([A, B])

    def test_never_shorter(self) -> None:
        """A shorter lock changes nothing, a longer one does."""
        self.repository.lock([B], self.time + 5 * DAY)
        (row,) = self.repository.lock([B], self.time + DAY)
        self.assertEqual(row.locked_until, self.time + 5 * DAY)
        (row,) = self.repository.lock([B], self.time + 6 * DAY + 0.5)
        self.assertEqual(row.locked_until, self.time + 6 * DAY + 1)
        names = list(self.repository.store.names(f"points/{B.hex()}-lock"))
        self.assertEqual(names, [lock_name(B, self.time + 6 * DAY + 1)])

    def test_bounds(self) -> None:
        """A lock ends in the future, and within 100 years."""
        now = self.time
        for until in (now, now - 1, now + 101 * YEAR, float("inf"), float("nan"), 10**400):
            self.assertRaises(Refused, self.repository.lock, [B], until)
        self.repository.lock([B], now + 100 * YEAR)

    def test_not_in_bin(self) -> None:
        """What is in the bin is not locked: it has to be taken out first."""
        self.repository.delete([B])
        self.assertRaises(Refused, self.repository.lock, [A, B], self.time + DAY)
        self.assertIsNone(self.repository.point(A).locked_until)
        self.assertRaises(NotFound, self.repository.lock, [D], self.time + DAY)

    def test_year_ahead(self) -> None:
        """A clock that jumps ahead by a year does not open a lock."""
        self.repository.lock([B], self.time + 30 * DAY)
        self.time += YEAR
        self.repository.observe_clock()
        self.assertRaises(Refused, self.repository.delete, [B])
        self.wait(28)
        self.assertRaises(Refused, self.repository.delete, [B])
        self.wait(1)
        self.repository.delete([B])

    def test_by_rule(self) -> None:
        """Where the rules say so, every point is locked from its arrival."""
        self.repository.set_rules(Rules(lock_days=7))
        self.published(self.repository, D)
        self.assertEqual(self.repository.point(D).locked_until, self.time + 7 * DAY)
        self.repository.delete([A])
        self.assertRaises(Refused, self.repository.delete, [D])
        self.repository.set_rules(Rules(lock_days=0))
        self.wait(6)
        self.assertRaises(Refused, self.repository.delete, [D])
        self.rebuilt()
        self.assertRaises(Refused, self.repository.delete, [D])
        self.wait(7)
        self.repository.delete([D])

    def test_refused_point_leaves_no_lock(self) -> None:
        """A point that could not be published leaves nothing, the marker of its lock neither."""
        self.repository.set_rules(Rules(lock_days=7))
        before = list(self.repository.store.names("points/"))
        with self.repository.catalogue.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        large = {f"counter {number}" * 20: number for number in range(64)}
        self.assertRaises(
            NoSpace, self.published, self.repository, D, statistics=large, tags=("t" * 200,) * 60
        )
        self.assertEqual(list(self.repository.store.names("points/")), before)


class FreezeTests(BinCase):
    """What is frozen stays as it is."""

    def test_frozen(self) -> None:
        """Nothing is deleted; reading, locking and undeleting go on."""
        self.repository.delete([A])
        self.assertFalse(self.repository.frozen)
        self.repository.freeze()
        self.repository.freeze()
        other = self.opened()
        self.assertTrue(other.frozen)
        for by in ("tenant", "provider"):
            self.assertIn("frozen", str(self.assertRaises(Refused, other.delete, [B], by)))
        self.restorable(other, A)
        other.undelete([A])
        other.lock([A], self.time + DAY)
        self.published(other, D)
        other.thaw()
        self.assertFalse(self.repository.frozen)
        self.repository.delete([B])

    def test_lost_catalogue(self) -> None:
        """A repository stays frozen when its catalogue is lost."""
        self.repository.freeze()
        self.assertTrue(self.rebuilt().frozen)
        self.repository.thaw()
        self.assertFalse(self.rebuilt().frozen)

    def test_disk_full(self) -> None:
        """A full disk does not keep anybody from freezing."""
        self.patch(self.repository.store, "begin", failing(NoSpace("full"), len)[0])
        self.repository.freeze()
        self.assertTrue(self.repository.frozen)
        self.assertFalse(self.there(FROZEN))


class CapTests(BinCase):
    """A full bin takes nothing, and lets nothing go early."""

    def setUp(self) -> None:
        super().setUp()
        self.repository.set_rules(Rules(bin_bytes=1000))
        with self.repository.catalogue.writing() as connection:
            length = sa.select(sa.func.max(sa.func.length(points_table.c.record)))
            # Its list of three references, and its record, which lies there twice.
            self.around = 96 + 2 * connection.execute(length).scalar_one()
            connection.execute(sa.update(points_table).values(bytes_stored=600 - self.around))

    def measured(self, **values: float) -> None:
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(repository_table).values(measured=values))

    def test_full(self) -> None:
        """It takes points until it has its bytes; then nobody deletes, and nobody backs up."""
        self.repository.delete([A])
        self.repository.check_bin_room()
        self.assertEqual(self.repository.bin_usage(), (600, 1000))
        self.repository.delete([B])
        self.assertEqual(self.repository.bin_usage(), (1200, 1000))
        for by in ("tenant", "provider"):
            error = self.assertRaises(NoSpace, self.repository.delete, [C], by)
            self.assertIn("1200 of 1000", str(error))
        self.assertRaises(NoSpace, self.repository.check_bin_room)
        self.repository.delete([A])
        for point in (A, B):
            self.restorable(self.repository, point)

    def test_all_or_nothing(self) -> None:
        """Where there is no room for the last of several, none is deleted."""
        self.assertRaises(NoSpace, self.repository.delete, [A, B, C])
        self.assertEqual(set(self.states().values()), {"published"})

    def test_room_again(self) -> None:
        """There is room when something was taken out, or its time is over."""
        self.repository.delete([A, B])
        self.repository.undelete([A])
        self.repository.delete([A])
        self.wait(15)
        self.repository.expire()
        self.assertEqual(self.repository.bin_usage(), (0, 1000))
        self.repository.delete([C])

    def test_measured(self) -> None:
        """What was counted is believed, and what was deleted since is added."""
        self.repository.delete([A])
        self.wait(1)
        self.measured(bin=50, time=self.time)
        self.assertEqual(self.repository.bin_usage(), (50 + self.around, 1000))
        self.repository.delete([B])
        self.assertEqual(self.repository.bin_usage(), (650 + self.around, 1000))
        self.measured(bin=1000, time=self.time + 1)
        self.assertRaises(NoSpace, self.repository.delete, [C])
        self.repository.set_rules(Rules())
        self.repository.check_bin_room()
        self.repository.delete([C])


class RebuiltTests(BinCase):
    """What became of points is known from the store alone."""

    def test_everything(self) -> None:
        """Deleted, removed, locked: all as before, but for longer where time was to run."""
        self.repository.delete([A])
        self.repository.lock([C], self.time + 30 * DAY)
        self.wait(10)
        self.repository.delete([B], "retention")
        self.wait(5)
        self.repository.expire()
        rows = self.repository.points(states=("published", "deleted", "removed"))
        self.rebuilt()
        again = self.repository.points(states=("published", "deleted", "removed"))
        self.assertEqual([row.as_map() for row in again], [row.as_map() for row in rows])
        self.assertEqual(self.states(), {A: "removed", B: "deleted", C: "published"})
        self.restorable(self.repository, B)
        self.assertRaises(NotFound, self.repository.point, A)
        self.wait(13)
        self.assertEqual(self.repository.expire().removed, [])
        self.wait(1)
        self.assertEqual([row.point for row in self.repository.expire().removed], [B])
        self.assertRaises(Refused, self.repository.delete, [C])

    def test_lock_without_row(self) -> None:
        """A lock of which only the marker is there holds, once the index was rebuilt."""
        self.repository.lock([C], self.time + 30 * DAY)
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(points_table).values(locked_until=None, locked_clock=None))
        self.repository.rebuild_index(read_data=False)
        self.assertRaises(Refused, self.repository.delete, [C])

    def test_damaged_lock(self) -> None:
        """A marker of a lock that is damaged still locks, until the date in its name."""
        self.repository.lock([C], self.time + 30 * DAY)
        (path,) = self.directory.glob("points/*-lock-*")
        path.write_bytes(b"damaged")
        self.rebuilt()
        self.assertEqual(self.repository.point(C).locked_until, self.time + 30 * DAY)
        self.assertRaises(Refused, self.repository.delete, [C])

    def test_damaged_deletion(self) -> None:
        """A marker of a deletion that is damaged is named, and the point is published."""
        self.repository.delete([A])
        (self.directory / deleted_name(A)).write_bytes(b"damaged")
        self.repository.close()
        for path in self.directory.glob(f"{CATALOGUE}*"):
            path.unlink()
        self.repository = Repository.recover(self.directory, clock=self.clock)
        self.addCleanup(self.repository.close)
        (sentence,) = self.repository.rebuild_index().damaged
        self.assertIn(deleted_name(A), sentence)
        self.assertEqual(self.states()[A], "published")

    def test_removed_and_collected(self) -> None:
        """A point that was removed while its files stayed is not taken for one that is there."""
        self.repository.delete([A])
        self.wait(15)
        self.patch(bin_module.Bin, "_clear", lambda _: None)
        self.repository.expire()
        (pack,) = self.directory.glob("packs/*")
        pack.unlink()
        self.rebuilt()
        self.assertEqual(self.states()[A], "removed")


class KilledTests(BinCase):
    """``kill -9`` at any moment: a point is restorable, or was asked to be deleted, for long."""

    SAID = ("deleted B", "undeleted B", "locked C", "deleted A", "expired", "deleted B again")

    def test_every_step(self) -> None:
        """Killed before each step of each act, one after the other."""
        self.patch(os, "fsync", lambda descriptor: None)
        self.repository.set_rules(Rules(bin_days=1))
        self.repository.close()
        whole, start = self.directory, self.time
        killed, kill_at, said = True, 0, list[str]()
        seen: set[object] = set()
        while killed:
            self.directory, self.time = Path(self.mktemp()), start
            shutil.copytree(whole, self.directory)
            octets, status = in_child(partial(self.work, kill_at))
            killed = os.WIFSIGNALED(status)
            self.assertTrue(killed or status == 0, f"the child failed at step {kill_at}")
            said = octets.decode().split(",")[:-1]
            kill_at += 1
            left = self.left(said)
            if left in seen:  # what differs has no name yet
                continue
            seen.add(left)
            after = self.directory
            for lost in (False, True):
                self.directory, self.time = Path(self.mktemp()), start + 3 * DAY
                shutil.copytree(after, self.directory)
                self.check(said, lost)
        self.assertGreater(kill_at, 60)
        self.assertGreater(len(seen), 20)
        self.assertEqual(said, list(self.SAID))

    def left(self, said: list[str]) -> object:
        """What the child has left behind: names, rows, and what it said."""
        with contextlib.closing(sqlite3.connect(self.directory / CATALOGUE)) as connection:
            columns = "point, state, deleted_time, locked_until, removed_time, length(record)"
            rows = connection.execute(f"SELECT {columns} FROM points ORDER BY point").fetchall()
        names = sorted(path.name for path in (self.directory / "points").iterdir())
        return tuple(said), tuple(rows), tuple(names)

    def work(self, kill_at: int, say: Callable[[bytes], None]) -> None:
        """Do one act after the other, say which are acknowledged, and die at this step."""
        self.repository = repository = Repository.open(self.directory, clock=self.clock)
        hurried(repository)
        kill_before_step(kill_at, repository)
        acts: tuple[Callable[[], Any], ...] = (
            lambda: repository.delete([B]),
            lambda: repository.undelete([B]),
            lambda: repository.lock([C], self.time + 100 * DAY),
            lambda: repository.delete([A]),
            lambda: (self.wait(1), repository.expire()),
            lambda: repository.delete([B]),
        )
        for act, done in zip(acts, self.SAID, strict=True):
            act()
            say(done.encode() + b",")

    def check(self, said: list[str], lost: bool) -> None:
        """Whatever was acknowledged holds; the rest can be done again; nothing is left over."""
        if lost:
            self.rebuilt().set_rules(Rules(bin_days=1))
        else:
            self.repository = hurried(self.opened())
        states = self.states()
        for point in (A, B, C):
            if states[point] != "removed":
                self.restorable(self.repository, point)
        self.assertEqual(states[C], "published")
        if "locked C" in said:
            self.assertRaises(Refused, self.repository.delete, [C])
        if "deleted A" not in said:
            self.assertNotEqual(states[A], "removed")
        elif "expired" not in said:
            self.assertIn(states[A], ("deleted", "removed"))
        else:
            self.assertEqual(states[A], "removed")
        self.assertNotEqual(states[B], "removed")
        if "deleted B again" in said or said == ["deleted B"]:
            acts = {"deleted"} if "deleted B again" in said else {"deleted", "published"}
            self.assertIn(states[B], acts)
        elif said and "deleted A" not in said:
            self.assertEqual(states[B], "published")
        # All of it can be done again, and then nothing is left but what should be.
        if states[A] != "removed":
            self.repository.delete([A])
        self.repository.delete([B])
        self.repository.lock([C], self.time + 200 * DAY)
        self.repository.undelete([B])
        self.wait(2)
        self.repository.expire()
        self.assertEqual(self.states(), {A: "removed", B: "published", C: "published"})
        names = {removed_name(A), lock_name(C, self.time - 2 * DAY + 200 * DAY)}
        names |= {name(point) for point in (B, C) for name in (record_name, references_name)}
        left = set(self.repository.store.names("points/")) - names
        # A shorter lock than that which counts may have been left; it does no harm.
        self.assertLessEqual(left, {lock_name(C, self.time - 5 * DAY + 100 * DAY)})
        self.restorable(self.repository, B)
        self.assertEqual(self.repository.have([name_of(0)]), [True])
        self.repository.close()
