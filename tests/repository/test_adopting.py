"""Tests of :mod:`cloudconnect.repository.adopting`: with sessions that are killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import sqlalchemy as sa

from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import packs_table, reservations_table
from tests.repository.killing import in_child, kill_before_step
from tests.repository.repositories import RepositoryCase, blob, name_of

JOB, OTHER_JOB = b"j" * 16, b"k" * 16
NUMBERS = range(3)


class AdoptingCase(RepositoryCase):
    """A repository, and sessions of it that die."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "fsync", lambda descriptor: None)
        self.repository = self.created()

    def killed(self, prepare: Callable[[Repository], None], quota: int | None = None) -> int:
        """Kill a session that stores, as ``prepare`` has made it; its status."""
        directory, clock = self.directory, self.clock

        def work(say: Callable[[bytes], None]) -> None:
            session = Repository.open(directory, clock=clock)
            session.begin_job(JOB, quota)
            prepare(session)
            for number in NUMBERS:
                session.reserve(100 + ENTRY_SIZE)
                session.add(blob(number, 100))
            session.flush()
            session.close()

        return in_child(work)[1]

    def killed_before_index(self) -> None:
        """Kill a session when its pack is durable and not in the index."""

        def prepare(session: Repository) -> None:
            def die(*_: object) -> None:
                os.kill(os.getpid(), signal.SIGKILL)

            type(session.catalogue).add_pack = die  # type: ignore[method-assign, assignment]

        self.assertEqual(signal.SIGKILL, self.killed(prepare))
        self.assertEqual([False] * 3, self.have())

    def session(self, quota: int | None = None) -> Repository:
        """Another session, of another job."""
        opened = self.opened()
        opened.begin_job(OTHER_JOB, quota)
        return opened

    def have(self) -> list[bool]:
        return self.repository.have([name_of(number) for number in NUMBERS])

    def rows(self) -> int:
        """How many sessions have a row."""
        with self.repository.catalogue.reading() as connection:
            query = sa.select(sa.func.count()).select_from(reservations_table)
            return connection.execute(query).scalar_one()

    def check_sizes(self) -> None:
        """The catalogue knows the packs that there are."""
        with self.repository.catalogue.reading() as connection:
            known = {
                row.name: row.size
                for row in connection.execute(sa.select(packs_table.c.name, packs_table.c.size))
            }
        found = {f"packs/{path.name}": path.stat().st_size for path in self.files("packs")}
        self.assertEqual(found, known)


class DeadTests(AdoptingCase):
    """What sessions that died have left."""

    def anywhere(self, quota: int | None) -> None:
        (self.directory / "packs").mkdir()
        step, status, adopted = 0, signal.SIGKILL.value, 0
        while status == signal.SIGKILL:
            before = len(self.files("packs"))
            status = self.killed(lambda session, at=step: kill_before_step(at, session), quota)  # type: ignore[misc]
            step += 1
            there = len(self.files("packs")) > before
            indexed = all(self.have())
            adopted += there and not indexed
            self.session(quota).close()
            self.assertEqual([there] * 3, self.have())
            self.assertEqual(0, self.rows())
            self.check_sizes()
            if there:
                wanted = [blob(number, 100) for number in NUMBERS]
                self.assertEqual(wanted, list(self.repository.read([each.id for each in wanted])))
            for name in self.files("packs"):  # begin anew
                name.unlink()
            with self.repository.catalogue.writing() as connection:
                connection.execute(sa.text("DELETE FROM blobs"))
                connection.execute(sa.text("DELETE FROM packs"))
        self.assertEqual(0, status)
        self.assertGreater(adopted, 1)

    def test_anywhere(self) -> None:
        """Wherever a session dies: a pack that has its name is in the index when the next session
        begins, is what it was, and nothing is left of the dead session."""
        self.anywhere(None)

    def test_quota(self) -> None:
        """So it is under a quota."""
        self.anywhere(1 << 20)

    def test_once(self) -> None:
        """Two sessions that begin at once take it over once."""
        self.killed_before_index()
        for _ in range(2):
            self.session()
        self.assertEqual([True] * 3, self.have())
        self.check_sizes()

    def test_collected(self) -> None:
        """What a collection has found meanwhile is not taken over again."""
        self.killed_before_index()
        self.repository.collect()
        self.assertEqual([True] * 3, self.have())
        self.session()
        self.check_sizes()
        self.assertEqual(0, self.rows())

    def test_collected_later(self) -> None:
        """A collection that had noted it finds nothing to complain of afterwards."""
        self.killed_before_index()
        held = self.opened()  # so the collection notes it, and leaves it
        self.repository.collect()
        self.session().close()
        held.close()
        self.assertEqual((0, ()), self.left_by_collection())
        self.assertEqual([True] * 3, self.have())

    def left_by_collection(self) -> tuple[int, tuple[str, ...]]:
        result = self.repository.collect()
        return result.packs_found, result.notes

    def test_damaged(self) -> None:
        """Of a pack in which a blob is damaged the others are taken over."""
        self.killed_before_index()
        self.flip(blob(1, 100).data)
        self.session()
        self.assertEqual([True, False, True], self.have())

    def test_unusable(self) -> None:
        """A pack in which nothing is whole is left to the next collection, which says so."""
        self.killed_before_index()
        for number in NUMBERS:
            self.flip(blob(number, 100).data)
        self.session().close()
        self.assertEqual([False] * 3, self.have())
        self.assertEqual(1, self.rows())
        found, notes = self.left_by_collection()
        self.assertEqual(0, found)
        self.assertIn("cannot be used", "".join(notes))

    def flip(self, data: bytes | memoryview) -> None:
        """Change a bit of these bytes in the one pack."""
        (path,) = self.files("packs")
        octets = bytearray(path.read_bytes())
        octets[octets.index(bytes(data)) + 5] ^= 1
        path.chmod(0o600)
        path.write_bytes(octets)


class LivingTests(AdoptingCase):
    """Sessions that live."""

    def test_living(self) -> None:
        """A pack of a session that lives is its own: it may still take it back."""
        lives = self.session()
        self.patch(lives._commits, "take", lambda leave: [])  # durable, and not indexed yet
        for number in NUMBERS:
            lives.add(blob(number, 100))
        lives.flush()
        self.assertEqual(1, len(self.files("packs")))
        self.session()
        self.assertEqual([False] * 3, self.have())
        lives.close()
        self.assertEqual([], self.files("packs"))
        self.session()
        self.assertEqual(([False] * 3, 0), (self.have(), self.rows()))
