"""Tests for cloudconnect.repository.store."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cloudconnect.errors import (
    Refused,
    StoredDataDamaged,
)
from cloudconnect.repository import packs
from cloudconnect.repository.descriptions import DESCRIPTION
from cloudconnect.repository.store import Repository
from cloudconnect.wire.frames import StoredBlob
from tests.repository.killing import in_child, kill_before_step
from tests.repository.repositories import (
    DESCRIBED,
    REPOSITORY,
    RepositoryCase,
    blob,
    flip,
    keys,
    name_of,
    record,
)

#: What a child says when its point was acknowledged: as long as an id.
PUBLISHED = b"published".ljust(32)


def numbers(said: bytes) -> set[bytes]:
    """The ids that a child said were durable."""
    return {said[at : at + 32] for at in range(0, len(said), 32)}


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
