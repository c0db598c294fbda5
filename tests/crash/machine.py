"""A repository against a model, over a simulated year: what is kept, what goes, what is locked.

Two sessions store and publish side by side; points are deleted, come back, are locked; retention,
expiry, collecting and scrubbing run; the clock jumps; processes die between any two system calls
that change something. Three times are told apart: *passed*, which goes on as in the real world; the
time of day that the repository is shown, which jumps; and the repository's expiry clock.

After each step nothing that is published or in the bin lacks a blob, nothing that is locked is
gone, and nothing has left the bin before its time had passed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

import attrs
import hypothesis.strategies as st
import sqlalchemy as sa
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloudconnect.content.heads import SignedHead, first_chain
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NoSpace, NotFound, Refused
from cloudconnect.repository import packs
from cloudconnect.repository.clock import STEP_MAX
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.rules import DAY, Rules
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import points_table
from tests.repository.repositories import DESCRIBED, blob, keys, name_of, record

PUBLISHED, DELETED, REMOVED, WITHDRAWN = "published", "deleted", "removed", "withdrawn"
STATES: Final = (PUBLISHED, DELETED, REMOVED, WITHDRAWN)
_HOSTS: Final = ("web", "db")
_JOBS: Final = ("daily", "weekly")
#: Small, so that a few blobs make packs, some of which end up half empty.
_PACK_SIZE: Final = 2000
_START: Final = 1.8e9
_LOCK_DAYS: Final = 40
#: What a pack is worth beside the bytes that are needed: headers, directory, trailer.
_OVERHEAD: Final = 400


@attrs.define
class Point:
    """What must be true of a restore point.

    :ivar numbers: blobs that it needs
    :ivar state: one of :data:`STATES`
    :ivar deleted: *passed* when it was put into the bin
    :ivar jumps: of the clock, at that time
    :ivar bin_days: days for which it stays there at least
    :ivar locked: *passed* until which it is locked, at least; 0: it is not
    :ivar lock_jumps: jumps of the clock when it was locked
    :ivar doubtful: it is in the bin by an act that was never acknowledged: a catalogue that is made
        again may have it published
    """

    host: str
    job: str
    numbers: list[int]
    state: str = PUBLISHED
    deleted: float = 0.0
    jumps: int = 0
    bin_days: int = 0
    locked: float = 0.0
    lock_jumps: int = 0
    doubtful: bool = False


@attrs.define
class Session:
    """A backup that is going on.

    :ivar told: blobs that it may count on: it was told that they are stored, or it sent them
    """

    repository: Repository
    told: set[int] = attrs.field(factory=set)


class RepositoryMachine(RuleBasedStateMachine):
    """See the module.

    :cvar counts: what was done, over all runs
    """

    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        packs.PACK_SIZE = _PACK_SIZE  # type: ignore[misc]
        memory = Path("/dev/shm")  # no disk is cut here, and a step takes a tenth of the time
        where = memory if os.access(memory, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="cloudconnect-machine-", dir=where))
        self.directory = self.folder / "repository"
        self.passed = 0.0
        self.skew = 0.0
        self.jumps = 0
        self.points: dict[bytes, Point] = {}
        self.arrived: list[bytes] = []  # in the order of arrival
        self.policies: dict[tuple[str, str], float] = {}  # since when there is any, by passed
        self.next = 0
        self.here = Repository.create(self.directory, DESCRIBED, clock=self.clock)
        self.sessions: dict[int, Session] = {}
        self.rules = Rules()
        self.chain = first_chain(keys())
        # Points whose publishing died before their rows: by what they were made of. Who makes a
        # catalogue again, or collects, may find them whole.
        self.ghosts: dict[bytes, list[int]] = {}
        self.rebuilt = False

    @initialize(
        bin_days=st.integers(1, 30),
        shorten=st.integers(0, 20),
        lock_days=st.sampled_from((0, 0, 0, 5)),
        grace=st.integers(0, 48),
    )
    def begin(self, bin_days: int, shorten: int, lock_days: int, grace: int) -> None:
        self.rules = Rules(
            bin_days=bin_days, shorten_days=shorten, lock_days=lock_days, grace_hours=grace
        )
        self.here.set_rules(self.rules)
        for host in _HOSTS:
            self.backup(host, "daily", [3, 2, 1], 0)

    def clock(self) -> float:
        return _START + self.passed + self.skew

    def did(self, what: str) -> None:
        self.counts["steps"] += 1
        self.counts[what] += 1

    # --- backups -------------------------------------------------------------------------------

    def session(self, who: int) -> Session:
        if who not in self.sessions:
            opened = Repository.open(self.directory, clock=self.clock)
            self.sessions[who] = Session(opened)
        return self.sessions[who]

    def end(self, who: int) -> None:
        session = self.sessions.pop(who, None)
        if session is not None:
            session.repository.close()

    def end_all(self) -> None:
        for who in list(self.sessions):
            self.end(who)

    @rule(
        who=st.integers(0, 1), new=st.integers(0, 6), old=st.lists(st.integers(0, 60), max_size=6)
    )
    def store(self, who: int, new: int, old: list[int]) -> None:
        """A session stores blobs, some new ones and some of those that were stored once."""
        self.did("store")
        session = self.session(who)
        numbers = list(range(self.next, self.next + new))
        self.next += new
        numbers += [number for number in old if number < self.next]
        self.send(session, numbers)

    def send(self, session: Session, numbers: list[int]) -> None:
        there = session.repository.have([name_of(number) for number in numbers])
        for number, stored in zip(numbers, there, strict=True):
            if not stored:
                kind = "manifest" if number % 7 == 0 else "chunk"
                session.repository.add(blob(number, 50 + 37 * (number % 9)), kind)
        session.told.update(numbers)

    @rule(
        host=st.sampled_from(_HOSTS),
        job=st.sampled_from(_JOBS),
        news=st.lists(st.integers(1, 5), min_size=1, max_size=3),
        old=st.integers(0, 60),
    )
    def backup(self, host: str, job: str, news: list[int], old: int) -> None:
        """Backups of one job, one after the other, each of which changes some of it."""
        numbers = [number for number in range(old, old + 8) if number < self.next]
        with Repository.open(self.directory, clock=self.clock) as repository:
            session = Session(repository)
            for new in news:
                self.did("backup")
                numbers = numbers[new:] + list(range(self.next, self.next + new))
                self.next += new
                self.send(session, numbers)
                repository.flush()
                point = os.urandom(16)
                self.chain = self.chain.follow(self.put(repository, point, host, job, numbers))
                self.took(point, host, job, list(numbers))

    @rule(who=st.integers(0, 1))
    def flush(self, who: int) -> None:
        self.did("flush")
        self.session(who).repository.flush()

    @rule(
        who=st.integers(0, 1),
        host=st.sampled_from(_HOSTS),
        job=st.sampled_from(_JOBS),
        share=st.integers(1, 3),
    )
    def publish(self, who: int, host: str, job: str, share: int) -> None:
        """A session's point is taken: whatever it was told is there, is."""
        session = self.session(who)
        numbers = sorted(session.told)[::share]
        if not numbers:
            return
        self.did("publish")
        session.repository.flush()
        point = os.urandom(16)
        self.chain = self.chain.follow(self.put(session.repository, point, host, job, numbers))
        self.took(point, host, job, numbers)

    def put(
        self, repository: Repository, point: bytes, host: str, job: str, numbers: list[int]
    ) -> SignedHead:
        """Publish; returns its place in the tenant's chain."""
        made = record(point, host=host, job=job)
        encoded = made.encode()
        names = [name_of(number) for number in numbers]
        head = self.chain.next_point(keys(), point, encoded)
        repository.publish(made, encoded, keys().sign(encoded), names, head)
        return head

    def took(self, point: bytes, host: str, job: str, numbers: list[int]) -> None:
        locked = self.passed + self.rules.lock_days * DAY if self.rules.lock_days else 0.0
        self.points[point] = Point(host, job, numbers, locked=locked, lock_jumps=self.jumps)
        self.arrived.append(point)

    @rule(who=st.integers(0, 1))
    def stop(self, who: int) -> None:
        """A session ends, or is dropped with what it had not flushed."""
        self.did("end of a session")
        self.end(who)

    @rule(which=st.integers(0, 30))
    def withdraw(self, which: int) -> None:
        point = self.pick(which, PUBLISHED)
        if point is not None and not self.points[point].locked:
            self.did("withdraw")
            self.here.withdraw([point])
            self.points[point].state = WITHDRAWN

    # --- the bin, locks, retention ----------------------------------------------------------------

    def pick(self, which: int, *states: str) -> bytes | None:
        found = [point for point in self.arrived if self.points[point].state in states]
        return found[which % len(found)] if found else None

    def is_locked(self, point: bytes) -> bool:
        """Whether the lock holds by either of the repository's clocks."""
        t = points_table.c
        columns = sa.select(t.locked_until, t.locked_clock).where(t.point == point.hex())
        with self.here.catalogue.reading() as connection:
            until, clock = connection.execute(columns).one()
        if until is None:
            return False
        return bool(until > self.clock() or clock > self.expiry())

    def expiry(self) -> float:
        """What the expiry clock would show now."""
        query = sa.text("SELECT clock_seen, clock_passed, frozen FROM repository")
        with self.here.catalogue.reading() as connection:
            seen, passed, frozen = connection.execute(query).one()
        if frozen or not seen:
            return float(passed)
        return float(passed + min(max(self.clock() - seen, 0.0), STEP_MAX))

    @rule(which=st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def delete(self, which: list[int]) -> None:
        """All go into the bin, or none does and the error says why."""
        found = [self.pick(each, PUBLISHED, DELETED) for each in which]
        chosen = list(dict.fromkeys(point for point in found if point is not None))
        if not chosen:
            return
        self.did("delete")
        fresh = [point for point in chosen if self.points[point].state == PUBLISHED]
        forbidden = fresh and (self.here.frozen or any(map(self.is_locked, fresh)))
        try:
            self.here.delete(chosen)
        except Refused:
            assert forbidden
        else:
            assert not forbidden
            for point in fresh:
                self.went_to_bin(point)
            for point in chosen:
                self.points[point].doubtful = False

    def went_to_bin(self, point: bytes) -> None:
        known = self.points[point]
        self.check_unlocked(known)
        known.state = DELETED
        known.deleted, known.jumps = self.passed, self.jumps
        known.bin_days = self.rules.bin_days

    def check_unlocked(self, known: Point) -> None:
        """Its lock is over by the time that has really passed; a jump is worth 26 hours at most."""
        assert self.passed + (self.jumps - known.lock_jumps) * STEP_MAX >= known.locked

    @rule(which=st.lists(st.integers(0, 30), min_size=1, max_size=3))
    def undelete(self, which: list[int]) -> None:
        found = [self.pick(each, DELETED, PUBLISHED) for each in which]
        chosen = [point for point in found if point is not None]
        if chosen:
            self.did("undelete")
            self.here.undelete(chosen)
            for point in chosen:
                self.points[point].state = PUBLISHED
                self.points[point].doubtful = False

    @rule(which=st.integers(0, 30), days=st.integers(1, _LOCK_DAYS))
    def lock(self, which: int, days: int) -> None:
        point = self.pick(which, PUBLISHED)
        if point is not None:
            self.did("lock")
            self.here.lock([point], self.clock() + days * DAY)
            known = self.points[point]
            if self.passed + days * DAY > known.locked:
                # Where the clock was wrong in between, an older lock may count for longer.
                known.locked, known.lock_jumps = self.passed + days * DAY, self.jumps

    @rule(host=st.sampled_from(("", *_HOSTS)), job=st.sampled_from(("", *_JOBS)))
    def remove_policy(self, host: str, job: str) -> None:
        self.did("retention set")
        self.here.set_retention(host, job, None)

    @rule(
        host=st.sampled_from(("", *_HOSTS)),
        job=st.sampled_from(("", *_JOBS)),
        last=st.integers(1, 3),
        daily=st.integers(0, 3),
    )
    def set_policy(self, host: str, job: str, last: int, daily: int) -> None:
        self.did("retention set")
        policy = RetentionPolicy(keep_last=last, keep_daily=daily)
        self.here.set_retention(host, job, policy)
        self.policies.setdefault((host, job), self.passed + self.jumps * STEP_MAX)

    @rule(dry_run=st.booleans())
    def retain(self, dry_run: bool) -> None:
        """Retention drops nothing that is locked or newest, and nothing before its time."""
        self.did("retention applied")
        frozen = self.here.frozen
        decisions = self.here.apply_retention(dry_run)
        published = [p for p in self.arrived if self.points[p].state == PUBLISHED]
        told = {decision.row.point for decision in decisions}
        assert told == set(published) if dry_run else told <= set(published)
        dropped = [decision.row.point for decision in decisions if not decision.keep]
        assert not (frozen and dropped)
        newest = {(self.points[p].host, self.points[p].job): p for p in published}
        now = self.passed + self.jumps * STEP_MAX
        for point in dropped:
            known = self.points[point]
            assert newest[known.host, known.job] != point
            pairs = [(known.host, known.job), (known.host, ""), ("", known.job), ("", "")]
            since = min(self.policies[pair] for pair in pairs if pair in self.policies)
            assert now - since >= self.rules.shorten_days * DAY
            if dry_run:
                self.check_unlocked(known)
            else:
                self.went_to_bin(point)

    @rule()
    def freeze(self) -> None:
        self.did("freeze")
        self.here.freeze()

    @rule()
    def thaw(self) -> None:
        self.did("thaw")
        self.here.thaw()

    # --- time -------------------------------------------------------------------------------------

    @rule(days=st.floats(0.01, 30))
    def advance(self, days: float) -> None:
        """Time passes, and is looked at as a provider does that runs."""
        self.did("time passes")
        left = days * DAY
        while left > 0:
            step = min(left, DAY)
            self.passed += step
            self.here.observe_clock()
            left -= step
        self.counts["simulated days"] += int(days)

    @rule(days=st.floats(-400, 400))
    def jump(self, days: float) -> None:
        """Somebody sets the clock."""
        self.did("clock jumps")
        self.skew += days * DAY
        self.jumps += 1

    @rule()
    def set_right(self) -> None:
        """Somebody sets the clock right."""
        if self.skew:
            self.did("clock jumps")
            self.skew = 0.0
            self.jumps += 1

    @rule()
    def expire(self) -> None:
        """What leaves the bin has been there for its time."""
        self.did("expire")
        frozen = self.here.frozen
        removed = {row.point for row in self.here.expire().removed}
        assert not (frozen and removed)
        for point in removed:
            self.left(point)

    def left(self, point: bytes) -> None:
        """A point has left the bin for good."""
        known = self.points[point]
        assert known.state == DELETED
        self.check_unlocked(known)
        stayed = self.passed - known.deleted + (self.jumps - known.jumps) * STEP_MAX
        assert stayed >= known.bin_days * DAY, (stayed / DAY, known)
        known.state = REMOVED

    # --- the provider's work ----------------------------------------------------------------------

    @precondition(lambda self: hasattr(self.here, "collect"))
    @rule()
    def collect(self) -> None:
        """Nothing that is needed, or that a session was told of, goes."""
        self.did("collect")
        try:
            self.here.collect()
        except Refused:
            assert self.here.frozen
        self.haunted()
        self.check_all()
        for session in self.sessions.values():
            self.send(session, sorted(session.told))

    @precondition(lambda self: hasattr(self.here, "scrub"))
    @rule()
    def scrub(self) -> None:
        self.did("scrub")
        result = self.here.scrub()
        assert not result.findings, result

    @rule()
    def rebuild(self) -> None:
        """The catalogue is lost and made again: every point is what it was."""
        self.did("rebuild")
        if self.ghosts:
            # Of two heads with one number that counts which the longest chain leads to, and at the
            # chain's end the later by a clock, which may have been set back.
            self.backup("web", "daily", [1, 1], 0)
        frozen = self.here.frozen
        self.end_all()
        self.here.close()
        for name in (CATALOGUE, f"{CATALOGUE}-wal", f"{CATALOGUE}-shm"):
            (self.directory / name).unlink(missing_ok=True)
        self.here = Repository.recover(self.directory, clock=self.clock)
        self.rebuilt = True
        result = self.here.rebuild_index()
        assert not result.damaged, result
        assert self.here.frozen == frozen
        self.here.set_rules(self.rules)
        self.policies.clear()
        may: dict[bytes, set[str | None]] = {}
        for point, known in self.points.items():
            if known.state == REMOVED:
                may[point] = {REMOVED, None}
            elif known.state == DELETED and known.doubtful:
                may[point] = {DELETED, PUBLISHED}
        self.adopt(may)
        self.check_all()

    @rule()
    def settle(self) -> None:
        """With time, everything that is not needed goes, and space comes back."""
        self.did("settle")
        self.end_all()
        self.here.thaw()
        self.set_right()
        for known in self.points.values():
            # A clock that was wrong when a deadline was set may make it late.
            if known.state == DELETED and known.jumps != self.jumps:
                return
        days = self.rules.bin_days + 3
        longest = max((k.locked for k in self.points.values()), default=0.0)
        if longest and self.rebuilt:
            # A lock lasts, from when a catalogue was made again, as long as when it was set.
            longest = self.passed + _LOCK_DAYS * DAY
        if any(k.lock_jumps != self.jumps and k.locked for k in self.points.values()):
            return
        self.advance(max(days, (longest - self.passed) / DAY) + 3)
        self.expire()
        assert not [p for p, known in self.points.items() if known.state == DELETED]
        if not hasattr(self.here, "collect"):
            return
        for _ in range(3):
            self.advance(3)
            self.here.collect()
            self.haunted()
        self.check_all()
        needed = {
            number
            for known in self.points.values()
            if known.state == PUBLISHED
            for number in known.numbers
        }
        live = sum(50 + 37 * (number % 9) + 150 for number in needed)
        stored = self.here.statistics()["bytes_stored"]
        files = sum(path.stat().st_size for path in (self.directory / "packs").iterdir())
        assert stored == files, (stored, files)
        assert stored <= 2 * live + 4 * _OVERHEAD, (stored, live)
        self.counts["space came back"] += 1

    # --- crashes ----------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(
            ("publish", "delete", "undelete", "lock", "expire", "retain", "collect", "rebuild")
        ),
        after=st.one_of(st.integers(0, 7), st.integers(0, 25)),
        which=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    )
    def crash(self, what: str, after: int, which: list[int]) -> None:
        """A process dies at its nth act on the disk; what it had done wholly counts."""
        if what in ("collect", "scrub") and not hasattr(self.here, what):
            return
        self.did(f"crash in {what}")
        states = {
            "publish": (),
            "delete": (PUBLISHED,),
            "undelete": (DELETED,),
            "lock": (PUBLISHED,),
        }.get(what, ())
        found = [self.pick(each, *states) for each in which] if states else []
        chosen = list(dict.fromkeys(point for point in found if point is not None))
        if states and not chosen:
            return
        new, until = os.urandom(16), self.clock() + 9 * DAY
        numbers = list(range(self.next, self.next + 4))
        self.next += 4
        unlocked = not any(map(self.is_locked, chosen))
        frozen = self.here.frozen

        def act(repository: Repository) -> None:
            if what == "publish":
                for number in numbers:
                    repository.add(blob(number, 50 + 37 * (number % 9)))
                repository.flush()
                self.put(repository, new, "web", "daily", numbers)
            elif what in ("delete", "undelete"):
                getattr(repository, what)(chosen)
            elif what == "lock":
                repository.lock(chosen, until)
            elif what == "retain":
                repository.apply_retention()
            elif what == "rebuild":
                repository.rebuild_index()
            else:
                getattr(repository, what)()

        self.end_all()
        self.here.close()  # a data base that is open is not forked
        done = _dies(lambda: Repository.open(self.directory, clock=self.clock), act, after)
        self.here = Repository.open(self.directory, clock=self.clock)
        self.counts["crashes"] += not done
        if what == "publish":
            self.crashed_publish(new, numbers, done)
        may: dict[bytes, set[str | None]] = {}
        if what == "delete" and unlocked and not frozen:
            may = {point: {DELETED} if done else {DELETED, PUBLISHED} for point in chosen}
        elif what == "undelete":
            may = {point: {PUBLISHED} if done else {DELETED, PUBLISHED} for point in chosen}
        elif what == "expire":
            may = {p: {REMOVED, DELETED} for p, k in self.points.items() if k.state == DELETED}
        elif what == "retain":
            may = {p: {PUBLISHED, DELETED} for p, k in self.points.items() if k.state == PUBLISHED}
        elif what == "lock" and done:
            for point in chosen:
                known = self.points[point]
                if self.passed + 9 * DAY > known.locked:
                    known.locked, known.lock_jumps = self.passed + 9 * DAY, self.jumps
        self.adopt(may)
        if what in ("delete", "undelete", "retain"):
            for point in may:
                self.points[point].doubtful |= not done and self.points[point].state == DELETED
        self.check_all()

    def crashed_publish(self, point: bytes, numbers: list[int], done: bool) -> None:
        """Its point is there whole, or not at all."""
        try:
            self.here.point(point)
        except NotFound:
            assert not done
            self.ghosts[point] = numbers
        else:
            self.took(point, "web", "daily", numbers)
            [head] = self.here.heads(self.chain.number).heads
            assert head.entry.point == point
            self.chain = self.chain.follow(head)

    def haunted(self) -> None:
        """Take points in that were found, whole, and of which nobody had heard."""
        for point, state in self.listed().items():
            if point not in self.points:
                assert state in (PUBLISHED, WITHDRAWN), (point.hex(), state)
                self.took(point, "web", "daily", self.ghosts.pop(point))
                self.points[point].state = state
        for head in self.here.heads(self.chain.number).heads:
            assert head.entry.point in self.points
            self.chain = self.chain.follow(head)

    def adopt(self, may: dict[bytes, set[Any]]) -> None:
        """Take over what became of points, each of which may only be what is allowed."""
        self.haunted()
        there = self.listed()
        for point, known in self.points.items():
            state = there.get(point)
            allowed = may.get(point, {known.state})
            assert state in allowed, (point.hex(), state, allowed)
            if state == known.state or state is None:
                continue
            if state == DELETED:
                self.went_to_bin(point)
            elif state == REMOVED:
                self.left(point)
            else:
                known.state = state

    # --- what is always so ------------------------------------------------------------------------

    def listed(self) -> dict[bytes, str]:
        return {row.point: row.state for row in self.here.points(limit=10_000, states=STATES)}

    @invariant()
    def chain_holds(self) -> None:
        """The chain ends where the tenant knows that it ends."""
        page = self.here.heads(self.chain.number)
        assert (page.number, page.value) == (self.chain.number, self.chain.value)

    @invariant()
    def states_hold(self) -> None:
        """Every point is in the state that it must be in, and none is there that was not made."""
        there = self.listed()
        for point, known in self.points.items():
            if known.state != REMOVED or point in there:
                assert there.get(point) == known.state, (point.hex(), there.get(point), known)

    def check_all(self) -> None:
        """Everything that is published or in the bin can be restored."""
        for point, known in self.points.items():
            if known.state not in (PUBLISHED, DELETED):
                continue
            stored = self.here.point(point)
            kept = [name for batch in self.here.references(stored) for name in batch]
            assert kept == [name_of(number) for number in known.numbers]
            for number, got in zip(known.numbers, self.here.read_each(kept), strict=True):
                assert got == blob(number, 50 + 37 * (number % 9)), (number, got)
        self.counts["looks at all points"] += 1

    def teardown(self) -> None:
        try:
            self.check_all()
        finally:
            self.end_all()
            self.here.close()
            shutil.rmtree(self.folder, ignore_errors=True)


def _dies(opening: Callable[[], Repository], act: Callable[[Repository], None], after: int) -> bool:
    """Do ``act`` in a process that dies at its act number ``after`` on the disk.

    :return: whether it came to its end before that
    """
    ready, says = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ready)
            repository = opening()
            _die_at(after)
            try:
                act(repository)
            except (NoSpace, Refused, NotFound):
                os.write(says, b'"refused"')
            else:
                os.write(says, b'"done"')
        except BaseException as error:
            os.write(says, json.dumps(repr(error)).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(says)
    with open(ready, "rb") as file:
        said = file.read()
    os.waitpid(pid, 0)
    told = json.loads(said) if said else ""
    assert told in ("", "done", "refused"), told
    return told == "done"


def _die_at(after: int) -> None:
    """Let this process die when it comes to change the disk for the nth time."""
    left = [after]

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*arguments, **options)

        return counted

    for name in ("fsync", "link", "unlink", "mkdir", "rename"):
        setattr(os, name, dying(getattr(os, name)))
    sa.event.listen(sa.Engine, "commit", dying(lambda connection: None))
