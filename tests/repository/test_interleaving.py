"""Sessions, collections, scrubs and crashes in any order, against a simple model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cloudconnect.repository import packs
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from tests.repository.repositories import DESCRIBED, RepositoryCase, blob, keys, name_of, record
from tests.repository.test_collect import DAY

BLOBS = 12


class Stopped(BaseException):
    """The process that collects dies here."""


class Session:
    """An open repository, and what it was told."""

    def __init__(self, directory: Path, clock: Any) -> None:
        self.repository = Repository.open(directory, clock=clock)
        self.told: set[int] = set()

    def close(self) -> None:
        self.repository.close()


class InterleavingMachine(RuleBasedStateMachine):
    """Two sessions that store and publish, and somebody who collects, and dies now and then."""

    directory: Path
    who = st.integers(0, 1)
    some = st.sets(st.integers(0, BLOBS - 1), min_size=1, max_size=5)

    def __init__(self) -> None:
        super().__init__()
        if self.directory.exists():
            shutil.rmtree(self.directory)
        self.time = 1e9
        Repository.create(self.directory, DESCRIBED, clock=self.clock).close()
        self.sessions = [self.session(), self.session()]
        self.keeper = Repository.open(self.directory, clock=self.clock, lease=False)
        self.keeper.set_rules(Rules(bin_days=0))
        self.points: dict[bytes, tuple[str, set[int]]] = {}

    def clock(self) -> float:
        return self.time

    def session(self) -> Session:
        return Session(self.directory, self.clock)

    @rule(who=who, numbers=some)
    def store(self, who: int, numbers: set[int]) -> None:
        """Ask what is there, send the rest, and count on all of it from then on."""
        session = self.sessions[who]
        ordered = sorted(numbers)
        there = session.repository.have([name_of(number) for number in ordered])
        for number, stored in zip(ordered, there, strict=True):
            if not stored:
                session.repository.add(blob(number))
        session.told |= numbers

    @rule(who=who)
    def flush(self, who: int) -> None:
        self.sessions[who].repository.flush()

    @rule(who=who, numbers=some, in_manifest=st.booleans())
    def publish(self, who: int, numbers: set[int], in_manifest: bool) -> None:
        """Whatever a session was told of can be published, however long ago that was."""
        session = self.sessions[who]
        wanted = numbers & session.told
        session.repository.flush()
        names = [name_of(number) for number in sorted(wanted)]
        manifest = tuple(names[:1]) if in_manifest else ()
        made = record(os.urandom(16), manifest=manifest)
        encoded = made.encode()
        references = names[len(manifest) :]
        session.repository.publish(made, encoded, keys().sign(encoded), references)
        self.points[made.point] = ("published", wanted)

    @rule(who=who)
    def end(self, who: int) -> None:
        """A session ends, or dies: what it did not flush is forgotten."""
        self.sessions[who].close()
        self.sessions[who] = self.session()

    @rule(choice=st.integers(0, 20))
    def delete(self, choice: int) -> None:
        self.change(choice, "published", "deleted", self.keeper.delete)

    @rule(choice=st.integers(0, 20))
    def undelete(self, choice: int) -> None:
        self.change(choice, "deleted", "published", self.keeper.undelete)

    def change(self, choice: int, old: str, new: str, act: Callable[[list[bytes]], Any]) -> None:
        found = sorted(point for point, (state, _) in self.points.items() if state == old)
        if found:
            point = found[choice % len(found)]
            act([point])
            self.points[point] = (new, self.points[point][1])

    @rule()
    def expire(self) -> None:
        """What is in the bin leaves for good, if its time is over."""
        for row in self.keeper.expire().removed:
            state, numbers = self.points[row.point]
            assert state == "deleted"
            self.points[row.point] = ("removed", numbers)

    @rule(days=st.sampled_from((0.4, 1.1, 3.0, -1.0)))
    def wait(self, days: float) -> None:
        self.time += days * DAY

    @rule()
    def collect(self) -> None:
        self.keeper.collect()

    @rule(step=st.integers(0, 25), where=st.sampled_from(("check", "before", "after")))
    def die(self, step: int, where: str) -> None:
        """A collection that dies at some step, before or behind a commit or anywhere else."""
        dying = Repository.open(self.directory, clock=self.clock, lease=False)
        left = [step]

        def count() -> bool:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return False

        real = dying.catalogue.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            if where == "before":
                count()
            real(connection)
            if where == "after":
                count()

        dying.catalogue.engine.dialect.do_commit = commit  # type: ignore[method-assign]
        try:
            dying.collect(cancelled=count if where == "check" else None)
        except Stopped:
            pass
        finally:
            dying.close()

    @rule()
    def scrub(self) -> None:
        assert self.keeper.scrub().findings == ()

    @rule()
    def rebuild(self) -> None:
        """While nobody else is here."""
        for session in self.sessions:
            session.close()
        assert self.keeper.rebuild_index().damaged == ()
        self.sessions = [self.session(), self.session()]

    @invariant()
    def whole(self) -> None:
        """Every point, published or in the bin, has all that it needs."""
        needed: set[int] = set()
        for state, numbers in self.points.values():
            if state != "removed":
                needed |= numbers
        wanted = sorted(needed)
        got = list(self.keeper.read_each([name_of(number) for number in wanted]))
        assert got == [blob(number) for number in wanted]
        published = {point for point, (state, _) in self.points.items() if state == "published"}
        assert {row.point for row in self.keeper.points()} == published

    def teardown(self) -> None:
        """When all points are gone and everybody has left, so has everything that was stored."""
        for session in self.sessions:
            session.close()
        published = [point for point, (state, _) in self.points.items() if state == "published"]
        if published:
            self.keeper.delete(published)
        self.time += 10 * DAY
        self.keeper.expire()
        for _ in range(4):
            self.keeper.collect()
            self.time += 3 * DAY
        assert list(self.keeper.store.names("packs/")) == []
        assert self.keeper.statistics()["packs"] == 0
        self.keeper.close()


class InterleavingTests(RepositoryCase):
    """Whatever happens in whatever order."""

    def test_model(self) -> None:
        """Nothing that a point needs is lost, and what nobody needs goes."""
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.patch(os, "fsync", lambda descriptor: None)

        class Machine(InterleavingMachine):
            directory = self.directory

        run_state_machine_as_test(
            Machine, settings=settings(max_examples=8, stateful_step_count=25, deadline=None)
        )
