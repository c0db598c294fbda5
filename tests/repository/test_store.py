"""Tests for cloudconnect.repository.store."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cloudconnect.content.atrest import EncryptionMode, describe
from cloudconnect.errors import (
    NoSpace,
    NotFound,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository import packs
from cloudconnect.repository.descriptions import DESCRIPTION
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.store import Repository
from cloudconnect.wire.frames import StoredBlob
from tests.repository.repositories import (
    DESCRIBED,
    REPOSITORY,
    RepositoryCase,
    blob,
    failing,
    flip,
    keys,
    name_of,
    record,
)

#: What a child says when its point was acknowledged: as long as an id.
PUBLISHED = b"published".ljust(32)


def in_child(work: Callable[[Callable[[bytes], None]], None]) -> tuple[bytes, int]:
    """Run ``work`` in a process of its own; what it said, and its wait status.

    ``work`` gets a function that says something to this process.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            work(lambda octets: os.write(writing, octets) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    return said, os.waitpid(child, 0)[1]


def kill_before_step(kill_at: int, repository: Repository) -> None:
    """Let this process die by SIGKILL before its step of that number, from here on.

    A step is a call that changes the disk, or says something, or the moment after a commit.
    """
    done = [0]

    def step() -> None:
        if done[0] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        done[0] += 1

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            step()
            return real(*arguments, **options)

        return stepped

    for name in ("fsync", "link", "unlink", "write"):
        setattr(os, name, stepping(getattr(os, name)))
    dialect = repository.catalogue.engine.dialect
    commit = stepping(dialect.do_commit)

    def committed(connection: Any) -> None:
        commit(connection)
        step()

    dialect.do_commit = committed  # type: ignore[method-assign]


def numbers(said: bytes) -> set[bytes]:
    """The ids that a child said were durable."""
    return {said[at : at + 32] for at in range(0, len(said), 32)}


class OpeningTests(RepositoryCase):
    """Repositories are made once, and opened where they are."""

    def test_create_and_open(self) -> None:
        """What was described at its making is known at its opening."""
        self.created().close()
        repository = self.opened()
        self.assertEqual(repository.description, DESCRIBED)
        self.assertEqual(repository.points(), [])
        self.assertEqual(set(repository.statistics().values()), {0})

    def test_create_twice(self) -> None:
        """A repository is not made over another, the same one neither."""
        repository = self.created()
        repository.add(blob(1))
        repository.flush()
        self.assertRaises(Refused, self.created)
        other = describe(MasterKey(b"x" * 32), b"o" * 16, EncryptionMode.TENANT, ())
        self.assertRaises(Refused, Repository.create, self.directory, other)
        self.assertEqual(self.opened().have([name_of(1)]), [True])

    def test_create_after_crash(self) -> None:
        """Making goes on where it was killed between the description and the catalogue."""
        self.created().close()
        for name in os.listdir(self.directory):
            if name.startswith(CATALOGUE):
                (self.directory / name).unlink()
        self.assertEqual(self.created().description, DESCRIBED)

    def test_nothing_there(self) -> None:
        """What is not there is not found, and not made by looking."""
        self.assertRaises(NotFound, Repository.open, self.directory)
        self.assertFalse(self.directory.exists())
        self.directory.mkdir()
        self.assertRaises(NotFound, Repository.open, self.directory)

    def test_symbolic_link(self) -> None:
        """A link to a repository is not one."""
        self.created().close()
        link = Path(self.mktemp())
        link.symlink_to(self.directory.absolute())
        self.assertRaises(NotFound, Repository.open, link)

    def test_newer_format(self) -> None:
        """A repository of a newer release is refused."""
        repository = self.created()
        with repository.catalogue.writing() as connection:
            connection.exec_driver_sql("UPDATE repository SET format_version = 2")
        self.assertRaises(UsageError, self.opened)

    def test_bad_description(self) -> None:
        """A description that cannot be read is an error, not a default."""
        repository = self.created()
        with repository.catalogue.writing() as connection:
            connection.exec_driver_sql("UPDATE repository SET description = x'a0'")
        self.assertRaises(StoredDataDamaged, self.opened)

    def test_catalogue_missing(self) -> None:
        """A repository without its catalogue is damaged, never empty."""
        self.created().close()
        (self.directory / CATALOGUE).unlink()
        error = self.assertRaises(StoredDataDamaged, self.opened)
        self.assertIn("recover", str(error))

    def test_catalogue_in_place_of_another(self) -> None:
        """An empty catalogue in its place is damaged too."""
        self.created().close()
        (self.directory / CATALOGUE).write_bytes(b"")
        self.assertRaises(StoredDataDamaged, self.opened)

    def test_read_only(self) -> None:
        """A repository can be read where nothing can be written, and then is not."""
        repository = self.created()
        repository.add(blob(1))
        repository.flush()
        self.published(repository, b"p" * 16, 0)
        repository.close()
        before = {path: path.stat().st_mtime_ns for path in self.directory.rglob("*")}
        repository = self.opened(read_only=True)
        self.assertEqual(list(repository.read([name_of(1)])), [blob(1)])
        self.assertEqual(repository.point(b"p" * 16).arrival, 1)
        self.assertEqual([], repository.flush())  # there is nothing, and a session asks so
        self.assertRaises(Refused, repository.add, blob(2))
        repository.close()
        after = {path: path.stat().st_mtime_ns for path in self.directory.rglob("*")}
        changed = {path.name for path in before if before[path] != after.get(path)}
        self.assertLessEqual(changed, {f"{CATALOGUE}-shm", f"{CATALOGUE}-wal"})

    def test_context(self) -> None:
        """As a context, it is closed at the end; closed, it stores nothing."""
        with self.created() as repository:
            repository.add(blob(1))
        self.assertRaises(Refused, repository.add, blob(2))
        self.assertEqual(self.files("temporary"), [])
        self.assertEqual(self.opened().have([name_of(1)]), [False])


class StoringTests(RepositoryCase):
    """Blobs become durable a pack at a time, in the order that was promised."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.repository = self.created()

    def test_durable_ids(self) -> None:
        """Ids are returned when their pack closes, each once."""
        got = [self.repository.add(blob(number)) for number in range(7)]
        ids = [name_of(number) for number in range(7)]
        self.assertEqual(got, [[], [], ids[:3], [], [], ids[3:6], []])
        self.assertEqual(self.repository.flush(), ids[6:])
        self.assertEqual(self.repository.flush(), [])
        self.assertEqual(len(self.files("packs")), 3)

    def test_have(self) -> None:
        """A blob need not be sent from when it was taken; for others, from when it is durable."""
        other = self.opened()
        ids = [name_of(1), name_of(2), name_of(1)]
        self.repository.add(blob(1))
        self.assertEqual(self.repository.have(ids), [True, False, True])
        self.assertEqual(other.have(ids), [False, False, False])
        self.repository.flush()
        self.assertEqual(other.have(ids), [True, False, True])
        self.assertEqual(self.repository.have([]), [])

    def test_kinds_apart(self) -> None:
        """Chunks of manifests lie in packs of their own."""
        for number in range(4):
            self.repository.add(blob(number), ("chunk", "manifest")[number % 2])
        self.repository.flush()
        places = self.repository.catalogue.locate(map(name_of, range(4)))
        names = [places[name_of(number)][0] for number in range(4)]
        kinds = [places[name_of(number)][1].kind for number in range(4)]
        self.assertEqual(kinds, [0, 1, 0, 1])
        self.assertEqual((names[0], names[1]), (names[2], names[3]))
        self.assertNotEqual(names[0], names[1])

    def test_twice(self) -> None:
        """A blob that comes again while its pack is open takes no room again."""
        self.repository.add(blob(1))
        self.repository.add(blob(1))
        self.assertEqual(self.repository.flush(), [name_of(1)])
        self.assertEqual(self.repository.statistics()["blobs"], 1)

    def test_not_read_before(self) -> None:
        """What is not durable is not read."""
        self.repository.add(blob(1))
        self.assertRaises(StoredDataDamaged, list, self.repository.read([name_of(1)]))
        self.repository.flush()
        self.assertEqual(list(self.repository.read([name_of(1)])), [blob(1)])

    def test_streamed(self) -> None:
        """A pack is not held in memory while it fills: its bytes are in the temporary file."""
        self.repository.add(blob(1, 2 << 20))
        (path,) = self.files("temporary")
        self.assertGreaterEqual(path.stat().st_size, 2 << 20)

    def test_index_after_pack(self) -> None:
        """When the index is written, the pack has its name already."""
        packs_then: list[int] = []
        real = self.repository.catalogue.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            packs_then.append(len(self.files("packs")))
            real(connection)

        self.patch(self.repository.catalogue.engine.dialect, "do_commit", commit)
        self.repository.add(blob(1))
        self.repository.flush()
        self.assertEqual(packs_then, [1])

    def test_fsync_error(self) -> None:
        """After EIO from fsync nothing is acknowledged, and nothing more is stored."""
        self.repository.add(blob(1))
        call, calls = failing(OSError(errno.EIO, "I/O error"), os.fsync)
        patch = self.patch(os, "fsync", call)
        self.assertRaises(OSError, self.repository.flush)
        patch.restore()
        self.assertEqual(len(calls), 1)
        for attempt in (
            self.repository.flush,
            lambda: self.repository.add(blob(2)),
            lambda: self.published(self.repository, b"p" * 16, 0),
        ):
            self.assertRaises(Refused, attempt)
        self.assertEqual(self.files("packs") if (self.directory / "packs").exists() else [], [])
        self.assertEqual(self.repository.have([name_of(1)]), [False])
        self.assertEqual(self.files("temporary"), [])

    def test_fsync_error_in_add(self) -> None:
        """So too where the pack was closed because it was full."""
        self.repository.add(blob(1))
        self.repository.add(blob(2), "manifest")
        self.repository.add(blob(3))
        patch = self.patch(os, "fsync", failing(OSError(errno.EIO, "I/O error"), os.fsync)[0])
        self.assertRaises(OSError, self.repository.add, blob(4))
        patch.restore()
        self.assertRaises(Refused, self.repository.flush)
        self.assertRaises(Refused, self.repository.begin_references)
        there = self.repository.have([name_of(number) for number in range(1, 5)])
        self.assertEqual(there, [False] * 4)
        self.assertEqual(self.files("temporary"), [])

    def test_catalogue_full(self) -> None:
        """A catalogue that cannot grow fails the store; the pack without an index does no harm."""
        with self.repository.catalogue.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        self.patch(packs, "PACK_ENTRIES_MAX", 1000)
        for number in range(900):
            self.repository.add(blob(number))
        self.assertRaises(NoSpace, self.repository.flush)
        self.assertEqual(len(self.files("packs")), 1)
        repository = self.opened()
        self.assertEqual(repository.have([name_of(5)]), [False])
        repository.add(blob(5))
        repository.flush()
        self.assertEqual(list(repository.read([name_of(5)])), [blob(5)])

    def test_disk_full(self) -> None:
        """A full disk is NoSpace, and what was durable before can still be read."""
        for number in range(3):
            self.repository.add(blob(number))
        self.patch(os, "write", failing(OSError(errno.ENOSPC, "full"), os.write)[0])
        self.repository.add(blob(5))
        self.assertRaises(NoSpace, self.repository.flush)
        self.assertEqual(list(self.repository.read([name_of(1)])), [blob(1)])

    def test_statistics(self) -> None:
        """Packs and blobs are counted, and their bytes."""
        for number in range(4):
            self.repository.add(blob(number, 1000))
        self.repository.flush()
        found = self.repository.statistics()
        sizes = [path.stat().st_size for path in self.files("packs")]
        self.assertEqual(
            found,
            {
                "packs": 2,
                "bytes_stored": sum(sizes),
                "bytes_counted": sum(sizes),
                "blobs": 4,
                "bytes_plain": 4000,
                "points": 0,
            },
        )


class KilledTests(RepositoryCase):
    """``kill -9`` at any moment: nothing that was acknowledged is lost, nothing half is there."""

    def test_every_step(self) -> None:
        """Killed before each step of storing, indexing and publishing, one after the other."""
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        # A killed process loses nothing that the system has: the test need not wait for the disk.
        self.patch(os, "fsync", lambda descriptor: None)
        self.created().close()
        whole = self.directory
        killed, kill_at, acknowledged = True, 0, set[bytes]()
        while killed:
            self.directory = Path(self.mktemp())
            shutil.copytree(whole, self.directory)
            said, status = in_child(partial(self.work, kill_at))
            killed = os.WIFSIGNALED(status)
            self.assertTrue(killed or status == 0, f"the child failed at step {kill_at}")
            acknowledged = numbers(said)
            self.check(acknowledged)
            kill_at += 1
        self.assertGreater(kill_at, 30)
        self.assertEqual(len(acknowledged), 6)

    def work(self, kill_at: int, say: Callable[[bytes], None]) -> None:
        """Store and publish, say what was acknowledged, and die at this step."""
        repository = Repository.open(self.directory)
        kill_before_step(kill_at, repository)
        for number in range(5):
            for name in repository.add(blob(number)):
                say(name)
        for name in repository.flush():
            say(name)
        self.published(repository, b"p" * 16, 5)
        say(PUBLISHED)

    def check(self, acknowledged: set[bytes]) -> None:
        """What was acknowledged is there; the rest can be done again; nothing is left over."""
        repository = self.opened()
        published = PUBLISHED in acknowledged
        durable = sorted(acknowledged - {PUBLISHED})
        expected = {blob(number).id: blob(number) for number in range(5)}
        self.assertEqual(list(repository.read(durable)), [expected[name] for name in durable])
        self.assertEqual(self.files("temporary"), [])
        points = repository.points()
        if published:
            self.assertEqual(len(points), 1)
        for row in points:
            point = repository.point(row.point)
            for batch in repository.references(point):
                self.assertEqual(list(repository.read(batch)), [expected[name] for name in batch])
        for number in range(5):
            if not repository.have([name_of(number)])[0]:
                repository.add(blob(number))
        repository.flush()
        self.published(repository, b"q" * 16, 5)
        self.assertEqual(list(repository.read(list(expected))), list(expected.values()))
        self.assertEqual(repository.rebuild_index().damaged, ())
        self.assertEqual(list(repository.read(list(expected))), list(expected.values()))
        repository.close()


class TogetherTests(RepositoryCase):
    """Several sessions of one tenant store in one repository at once."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 7)
        self.created().close()

    def store(self, worker: int, say: Callable[[bytes], None]) -> None:
        """Store 60 blobs, 40 of which another worker stores too, and publish a point of them."""
        repository = Repository.open(self.directory)
        mine = [worker * 20 + number for number in range(60)]
        for number in mine:
            if not repository.have([name_of(number)])[0]:
                for name in repository.add(blob(number)):
                    say(name)
        for name in repository.flush():
            say(name)
        made = record(bytes((worker,)) * 16)
        encoded = made.encode()
        references = [name_of(number) for number in mine]
        repository.publish(made, encoded, keys().sign(encoded), references)
        repository.close()

    def check(self, said: bytes) -> None:
        repository = self.opened()
        wanted = [blob(number) for number in range(80)]
        self.assertEqual(numbers(said), {each.id for each in wanted})
        self.assertEqual(list(repository.read([each.id for each in wanted])), wanted)
        self.assertEqual({row.arrival for row in repository.points()}, {1, 2})
        self.assertEqual(self.files("temporary"), [])
        self.assertEqual(repository.rebuild_index().damaged, ())
        self.assertEqual(list(repository.read([each.id for each in wanted])), wanted)

    def test_processes(self) -> None:
        """Two processes at once."""

        # Both must live at the same time: the first one starts the second.
        def both(say: Callable[[bytes], None]) -> None:
            child = os.fork()
            status = 1
            try:
                self.store(1 if child else 0, say)
                status = 0
            finally:
                if not child:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0

        octets, status = in_child(both)
        self.assertEqual(status, 0)
        self.check(octets)

    def test_threads(self) -> None:
        """Two threads at once, each with a repository object of its own."""
        said: list[bytes] = []
        threads = [
            threading.Thread(target=self.store, args=(worker, said.append)) for worker in (0, 1)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.check(b"".join(said))


class RepositoryMachine(RuleBasedStateMachine):
    """Two sessions, crashes, damage and rebuilding, in any order, against a simple model."""

    directory: Path
    numbers = st.integers(0, 11)

    def __init__(self) -> None:
        super().__init__()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        first = Repository.create(self.directory, DESCRIBED)
        self.sessions = [first, Repository.open(self.directory)]
        self.pending: list[set[int]] = [set(), set()]
        self.durable: set[int] = set()

    @rule(who=st.integers(0, 1), number=numbers)
    def add(self, who: int, number: int) -> None:
        if self.sessions[who].have([name_of(number)]) == [True]:
            assert number in self.durable | self.pending[who]
            return
        self.pending[who].add(number)
        self.acknowledged(who, self.sessions[who].add(blob(number)))

    @rule(who=st.integers(0, 1))
    def flush(self, who: int) -> None:
        self.acknowledged(who, self.sessions[who].flush())
        assert not self.pending[who]

    def acknowledged(self, who: int, ids: list[bytes]) -> None:
        told = {number for number in self.pending[who] if name_of(number) in ids}
        assert len(told) == len(ids)
        self.pending[who] -= told
        self.durable |= told

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        self.sessions[who].close()
        self.pending[who].clear()
        self.sessions[who] = Repository.open(self.directory)

    @rule(number=numbers)
    def damage(self, number: int) -> None:
        """Change a stored byte, and see that reading finds it."""
        if number in self.durable:
            name, entry = self.sessions[0].catalogue.locate([name_of(number)])[name_of(number)]
            flip(self.directory / name, entry.offset)
            (got,) = self.sessions[0].read_each([name_of(number)])
            assert isinstance(got, StoredDataDamaged)
            self.durable.discard(number)

    @rule()
    def rebuild(self) -> None:
        """All that was durable still is; a good copy of what was damaged may come to light."""
        self.sessions[0].rebuild_index()
        with Repository.open(self.directory) as repository:
            there = repository.have([name_of(number) for number in range(12)])
        found = {number for number, stored in enumerate(there) if stored}
        assert self.durable <= found
        self.durable = found

    @rule(who=st.integers(0, 1), number=numbers)
    def publish(self, who: int, number: int) -> None:
        """A point is published exactly when all that it needs is durable."""
        made = record(os.urandom(16))
        encoded = made.encode()
        references = [name_of(each) for each in range(number)]
        try:
            self.sessions[who].publish(made, encoded, keys().sign(encoded), references)
        except Refused:
            assert not set(range(number)) <= self.durable
        else:
            assert set(range(number)) <= self.durable

    @invariant()
    def readable(self) -> None:
        """What was acknowledged can be read, exactly."""
        wanted = sorted(self.durable)
        got: list[StoredBlob] = list(self.sessions[1].read([name_of(number) for number in wanted]))
        assert got == [blob(number) for number in wanted]

    def teardown(self) -> None:
        for session in self.sessions:
            session.close()


class ModelTests(RepositoryCase):
    """The repository against a model."""

    def test_model(self) -> None:
        """Whatever happens in whatever order, the repository keeps its word."""
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.patch(os, "fsync", lambda descriptor: None)

        class Machine(RepositoryMachine):
            directory = self.directory

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=10, stateful_step_count=25, deadline=None)
        )


class DescriptionTests(RepositoryCase):
    """The description stands beside the catalogue too."""

    def test_both(self) -> None:
        """The blob has what the catalogue has."""
        repository = self.created()
        encoded = repository.store.read(DESCRIPTION, 0, repository.store.size(DESCRIPTION))
        self.assertEqual(encoded, DESCRIBED.encode())
        self.assertEqual(DESCRIBED.repository, REPOSITORY)
