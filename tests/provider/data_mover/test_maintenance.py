"""Tests of :mod:`cloudconnect.provider.data_mover.maintenance`:
what is done by the hour, on a clock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Busy, Cancelled, NoSpace, NotFound, Refused, StoredDataDamaged
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.data_mover.maintenance import (
    FINDINGS_MAX,
    FIRST_SECONDS,
    HOUR,
    RATE,
    SLICE_MIN,
    Intervals,
    Maintenance,
    Owner,
    counts_text,
)
from tests.provider.stage import TENANT, MemoryReactor, StageCase
from tests.repository.repositories import flip

ONE, TWO = b"1" * 16, b"2" * 16


class Repositories:
    """Repositories of which is known what was done to them.

    :ivar done: how often what was done to which
    :ivar read: bytes that scrubs were allowed to read, and how fast
    """

    def __init__(self, reactor: MemoryReactor) -> None:
        self._reactor = reactor
        self.done: Counter[tuple[str, bytes]] = Counter()
        self.removed = 2
        self.read: list[tuple[int | None, float | None]] = []
        self.stored = self.garbage = 0
        self.found: list[str] = []
        self.errors: dict[tuple[str, bytes], Exception] = {}
        self.threads: set[int] = set()
        self.began = threading.Event()
        self.waits = False
        self.gone: set[bytes] = set()
        self.released = False  # and a collection leaves what is held
        self.held = False

    def _do(self, what: str, repository: bytes) -> None:
        self.threads.add(threading.get_ident())
        self.done[what, repository] += 1
        if (what, repository) in self.errors:
            raise self.errors[what, repository]

    read_only = False

    def folder(self, repository: bytes) -> Path:
        return Path("/nowhere" if repository in self.gone else "/")

    def look_at_reserve(self) -> None:
        self._do("reserve", b"")

    def repositories(self) -> list[bytes]:
        return [ONE, TWO]

    def set_rules(self, repository: bytes, rules: dict[str, Any], frozen: bool) -> bool:
        self._do("rules", repository)
        return True

    def expire(self, repository: bytes) -> int:
        self._do("expire", repository)
        return self.removed

    def apply_retention(self, repository: bytes) -> int:
        self._do("retention", repository)
        return 1

    def measure(self, repository: bytes) -> dict[str, Any]:
        return {"bytes_stored": self.stored, "bytes_garbage": self.garbage}

    def has_released(self, repository: bytes) -> bool:
        return self.released

    def collect(self, repository: bytes, *, cancelled: Callable[[], bool]) -> dict[str, Any]:
        self._do("collect", repository)
        self.released = self.released and self.held
        self.began.set()
        self._reactor.callFromThread(lambda: None)  # wakes a test that waits for it
        while self.waits and not cancelled():
            threading.Event().wait(0.001)
        if self.waits:
            raise Cancelled("stopped")
        return {"packs_removed": 3}

    def scrub(
        self,
        repository: bytes,
        limit: int | None,
        rate: float | None,
        *,
        cancelled: Callable[[], bool],
    ) -> dict[str, Any]:
        self._do("scrub", repository)
        self.read.append((limit, rate))
        return {"found": len(self.found), "findings": self.found, "packs": 1}


class MaintenanceCase(SynchronousTestCase):
    """A test with two repositories, one of them frozen if it says so."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.acts = Repositories(self.reactor)
        self.owners: dict[bytes, Owner] = {
            ONE: Owner("one", {}, False),
            TWO: Owner("two", {}, False),
        }
        self.told: list[SessionEvent | SecurityWarning] = []
        self.made = self.maintenance()

    def maintenance(self, **intervals: int) -> Maintenance:
        made = Maintenance(
            self.reactor,
            self.acts,  # type: ignore[arg-type]
            lambda repository: succeed(self.owners.get(repository)),
            self.tell,
            Intervals(**intervals),
        )
        made.startService()
        self.addCleanup(lambda: self.reactor.result_of(made.stopService()))
        return made

    def tell(self, told: SessionEvent | SecurityWarning) -> Deferred[None]:
        self.told.append(told)
        return succeed(None)

    def names(self) -> list[str]:
        return [event.name for event in self.told if isinstance(event, SessionEvent)]

    def round(self) -> None:
        self.reactor.result_of(self.made.round())


class RoundTests(MaintenanceCase):
    """One round after the other."""

    def rounds(self) -> int:
        """How many rounds have come to their end."""
        while self.made._running:
            self.reactor._handed.get(timeout=60)()
            self.reactor.settle()
        return self.acts.done["reserve", b""]

    def test_by_the_hour(self) -> None:
        """The first round comes soon after the start, then one each hour; none after a stop."""
        self.reactor.advance(FIRST_SECONDS - 1)
        self.assertEqual(0, self.rounds())
        self.reactor.advance(1)
        self.assertEqual(1, self.rounds())
        for count in (2, 3):
            self.reactor.advance(HOUR)
            self.assertEqual(count, self.rounds())
        self.reactor.result_of(self.made.stopService())
        self.reactor.advance(10 * HOUR)
        self.assertEqual(3, self.rounds())
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_changed(self) -> None:
        """Another interval holds at once, also for a round and a collection that would have been
        later."""
        self.made.change(Intervals(maintenance_hours=24, gc_hours=720))
        self.reactor.advance(FIRST_SECONDS)
        self.assertEqual(1, self.rounds())
        self.reactor.advance(2 * HOUR)
        self.assertEqual(1, self.rounds())
        self.made.change(Intervals(maintenance_hours=1, gc_hours=2))
        self.reactor.advance(HOUR - 1)
        self.assertEqual((1, 1), (self.rounds(), self.acts.done["collect", ONE]))
        self.reactor.advance(1)
        self.assertEqual((2, 2), (self.rounds(), self.acts.done["collect", ONE]))

    def test_what_when(self) -> None:
        """Bins are looked at and a slice is scrubbed each hour, the rest is done each day."""
        self.reactor.advance(FIRST_SECONDS)
        for count in range(1, 31):
            self.assertEqual(count, self.rounds())
            self.reactor.advance(HOUR)
        self.rounds()
        counts = {what: self.acts.done[what, ONE] for what in ("expire", "scrub")}
        self.assertEqual({"expire": 31, "scrub": 31}, counts)
        counts = {what: self.acts.done[what, ONE] for what in ("retention", "collect")}
        self.assertEqual({"retention": 2, "collect": 2}, counts)  # points left the bin
        self.assertLessEqual(
            {"points_removed", "retention_applied", "garbage_collected"}, set(self.names())
        )

    def days(self, count: int) -> int:
        """Collections after so many days of rounds."""
        for _ in range(count):
            self.round()
            self.reactor.advance(24 * HOUR)
        return self.acts.done["collect", ONE]

    def test_nothing_to_collect(self) -> None:
        """Where nothing came or went since nothing was found, nothing is collected."""
        self.acts.removed = 0
        self.assertEqual(1, self.days(3))
        self.acts.stored += 1
        self.assertEqual(2, self.days(3))
        self.acts.removed = 1
        self.assertEqual(5, self.days(3))

    def test_garbage_left(self) -> None:
        """What is too young to go today may go tomorrow."""
        self.acts.removed, self.acts.garbage = 0, 5
        self.assertEqual(3, self.days(3))

    def test_one_thread(self) -> None:
        """Everything is done in one thread, which is not the reactor's."""
        self.round()
        self.assertEqual(1, len(self.acts.threads))
        self.assertNotIn(threading.get_ident(), self.acts.threads)

    def test_frozen(self) -> None:
        """Of a frozen tenant nothing expires or is collected; it is scrubbed, and so are others."""
        self.owners[ONE] = Owner("one", {}, True)
        self.round()
        done = {what for what, repository in self.acts.done if repository == ONE}
        self.assertEqual({"rules", "scrub"}, done)
        self.assertEqual(1, self.acts.done["collect", TWO])

    def test_nobodys(self) -> None:
        """What belongs to nobody is not touched."""
        del self.owners[ONE]
        self.round()
        self.assertEqual(set(), {what for what, repository in self.acts.done if repository == ONE})

    def test_failures(self) -> None:
        """What fails is kept as an event, and neither others nor later rounds suffer."""
        for error in (StoredDataDamaged("a list is gone"), Refused("no"), KeyError("a bug")):
            self.acts.done.clear()
            self.acts.errors = {("expire", ONE): error}
            self.round()
            self.assertEqual(1, self.acts.done["expire", TWO])
            self.assertEqual(1, self.acts.done["scrub", ONE])
        self.flushLoggedErrors(KeyError)
        texts = [e.text for e in self.told if getattr(e, "name", "") == "maintenance_failed"]
        self.assertEqual(3, len(texts))
        self.assertIn("a list is gone", texts[0])
        self.assertNotIn("a bug", texts[2])

    def test_removed_meanwhile(self) -> None:
        """A repository that went while it was tended has not failed, however that showed."""
        for error in (OSError(5, "disk I/O error"), NotFound("none"), StoredDataDamaged("missing")):
            self.acts.errors = {("expire", ONE): error, ("scrub", ONE): error}
            self.acts.gone = {ONE}
            self.acts.done.clear()
            self.round()
            self.assertEqual(1, self.acts.done["expire", ONE])
            self.assertEqual(1, self.acts.done["scrub", TWO])
        self.assertNotIn("maintenance_failed", self.names())

    def test_removed(self) -> None:
        """Of a repository that is not there any more nothing is remembered."""
        self.round()
        self.assertIn(ONE, self.made._collected)
        self.patch(self.acts, "repositories", lambda: [TWO])
        self.round()
        known = (self.made._collected, self.made._clean, self.made._release_again)
        self.assertEqual([[TWO], [], []], [list(table) for table in known])

    def test_full_disk(self) -> None:
        """Where retention fails, as on a full disk, garbage is collected all the same."""
        self.acts.errors = {("retention", ONE): NoSpace("the disk is full")}
        self.round()
        self.assertEqual(1, self.acts.done["collect", ONE])
        self.assertIn("maintenance_failed", self.names())


class ScrubTests(MaintenanceCase):
    """How much is read, and what becomes of what is found."""

    def test_whole_cycle(self) -> None:
        """The slices of the days in which all is to be read are more than all of it."""
        self.acts.stored = 10 << 40
        self.round()
        limit, rate = self.acts.read[0]
        assert limit is not None and rate is not None
        self.assertGreaterEqual(limit * 30 * 24, 2 * self.acts.stored - 1000)
        self.assertLessEqual(limit / rate, HOUR / 4)

    def test_small(self) -> None:
        """A small repository is read in pieces that are worth it, slowly."""
        self.acts.stored = 1000
        self.round()
        self.assertEqual((SLICE_MIN, RATE), self.acts.read[0])

    def test_findings(self) -> None:
        """What is found becomes warnings of that tenant, a bounded number; all is counted."""
        self.acts.found = [f"pack {number} is damaged" for number in range(100)]
        result = self.reactor.result_of(self.made.scrub(ONE, "one", 0))
        self.assertEqual(100, result["found"])
        warnings = [told for told in self.told if isinstance(told, SecurityWarning)]
        self.assertEqual(FINDINGS_MAX, len(warnings))
        self.assertEqual(
            ("one", "stored_data_damaged", "pack 0 is damaged"),
            (warnings[0].tenant, warnings[0].kind.value, warnings[0].text),
        )
        (event,) = [told for told in self.told if isinstance(told, SessionEvent)]
        self.assertEqual(("scrubbed", 100), (event.name, event.fields["found"]))

    def test_again(self) -> None:
        """What is found each day is told once a week, but whenever an admin asks."""
        self.acts.found = ["pack 1 is damaged"]
        for days, count in ((0, 1), (1, 1), (5, 1), (1, 2)):
            self.reactor.advance(days * 24 * HOUR)
            self.round()
            told = [w for w in self.told if isinstance(w, SecurityWarning) and w.tenant == "one"]
            self.assertEqual(count, len(told))
        self.reactor.result_of(self.made.scrub(ONE, "one", 0))
        told = [w for w in self.told if isinstance(w, SecurityWarning) and w.tenant == "one"]
        self.assertEqual(3, len(told))

    def test_read_only(self) -> None:
        """On a disk that cannot be written nothing is done."""
        self.patch(Repositories, "read_only", True)
        self.round()
        self.assertEqual({}, dict(self.acts.done))

    def test_limit(self) -> None:
        """An admin's scrub reads as much as was asked for, as fast as it goes."""
        for limit in (0, 5000):
            self.reactor.result_of(self.made.scrub(ONE, "one", limit))
        self.assertEqual([(None, None), (5000, None)], self.acts.read)


class ReleaseTests(MaintenanceCase):
    """What refused backups have stored."""

    def ended(self, refused: bool = False) -> int:
        """A session ends; how often garbage was collected by then."""
        self.made.session_ended(ONE, "one", refused)
        self.reactor.advance(0)
        while self.made._running:
            self.reactor._handed.get(timeout=60)()
            self.reactor.settle()
        return self.acts.done["collect", ONE]

    def test_at_once(self) -> None:
        """It is collected when the session has ended, once; other sessions change nothing."""
        self.assertEqual(0, self.ended())
        self.acts.released = True
        self.assertEqual(1, self.ended(refused=True))
        self.assertEqual(1, self.ended())

    def test_held(self) -> None:
        """What somebody counts on is collected when the next session ends; not too often."""
        self.acts.released = self.acts.held = True
        self.assertEqual(1, self.ended(refused=True))
        self.assertEqual(2, self.ended())
        self.made._release_again[ONE] = self.reactor.seconds() + 50
        self.assertEqual(2, self.ended())
        self.acts.held = False
        self.reactor.advance(50)
        while self.made._running:
            self.reactor._handed.get(timeout=60)()
            self.reactor.settle()
        self.assertEqual(3, self.acts.done["collect", ONE])

    def test_in_the_middle(self) -> None:
        """A session that is refused while it is collected has its turn behind that."""
        self.acts.released = self.acts.held = True
        self.made.session_ended(ONE, "one", True)
        self.reactor.advance(0)
        self.assertEqual(2, self.ended(refused=True))

    def test_by_the_hour(self) -> None:
        """After a restart nobody remembers it, and the next round finds it all the same."""
        self.round()
        before = self.acts.done["collect", ONE]
        self.acts.released = True
        self.round()
        self.assertEqual(before + 1, self.acts.done["collect", ONE])

    def test_stopped(self) -> None:
        """A mover that stops begins nothing new."""
        self.acts.released = True
        self.reactor.result_of(self.made.stopService())
        self.made.session_ended(ONE, "one", True)
        self.assertEqual({}, self.made._waiting)


class AskedTests(MaintenanceCase):
    """What an admin asks for, beside a round."""

    def test_beside(self) -> None:
        """The hours go on while something that was asked for is being done."""
        self.acts.waits = True
        collecting = self.made.collect(ONE, "one")
        self.assertTrue(self.acts.began.wait(60))
        self.owners = {TWO: Owner("two", {}, True)}
        self.round()
        self.assertEqual(1, self.acts.done["scrub", TWO])
        self.assertNoResult(collecting)
        self.reactor.result_of(self.made.stopService())
        self.failureResultOf(collecting, Cancelled)

    def test_busy(self) -> None:
        """A round that meets it leaves the same out, and that is no failure."""
        self.acts.errors = {("collect", ONE): Busy("somebody else is at it already")}
        self.round()
        self.assertEqual(1, self.acts.done["scrub", ONE])
        self.assertNotIn("maintenance_failed", self.names())


class StopTests(MaintenanceCase):
    """The end."""

    def test_stops_what_runs(self) -> None:
        """A collection that runs is told to give up, and waited for."""
        self.acts.waits = True
        collecting = self.made.collect(ONE, "one")
        self.assertTrue(self.acts.began.wait(60))
        stopped = self.made.stopService()
        self.assertNoResult(stopped)
        self.assertRaises(Cancelled, self.reactor.result_of, collecting)
        self.reactor.result_of(stopped)

    def test_stops_a_round(self) -> None:
        """A round that runs ends with it, without an error."""
        self.acts.waits = True
        self.reactor.advance(FIRST_SECONDS)
        while not self.acts.began.is_set():
            self.reactor._handed.get(timeout=60)()
            self.reactor.settle()
        self.reactor.result_of(self.made.stopService())
        self.assertEqual((1, 0), (self.acts.done["collect", ONE], self.acts.done["collect", TWO]))
        self.assertEqual([], self.flushLoggedErrors())

    def test_twice(self) -> None:
        """A second stop does nothing."""
        for _ in range(2):
            self.reactor.result_of(self.made.stopService())


class RealTests(StageCase):
    """A provider's own maintenance, on the clock of the stage and real repositories."""

    def rounds(self, seconds: float) -> None:
        """Let a round begin after so much time, and wait for its end."""
        self.reactor.advance(seconds)
        maintenance = self.provider.mover.maintenance
        while maintenance._round is not None:
            self.reactor._handed.get(timeout=60)()
            self.reactor.settle()
        self.reactor.settle()

    def test_by_itself(self) -> None:
        """What is deleted leaves the bin, what it needed leaves the disk, what stays is sound."""
        tenant = self.connected()
        self.provider.accounts.change_tenant(TENANT, {"rules": {"bin_days": 0, "grace_hours": 0}})
        gone, kept = (self.reactor.result_of(tenant.back_up(self.source())).point for _ in range(2))
        self.rounds(FIRST_SECONDS)
        self.reactor.result_of(tenant.manager.delete_points([gone]))
        stored = self.provider.mover.acts.measure(tenant.repository)["bytes_stored"]
        for _ in range(25):
            self.rounds(HOUR)
        measured = self.provider.mover.acts.measure(tenant.repository)
        self.assertLess(measured["bytes_stored"], stored)
        self.assertEqual([kept.hex()], [row["point"] for row in self.provider.points()])
        restored = self.reactor.result_of(tenant.restore(kept, self.mktemp()))
        self.assertEqual((1, 0), (restored.files, restored.damaged.count))
        names = self.provider.names(tenant=TENANT)
        self.assertLessEqual({"points_removed", "garbage_collected"}, set(names))
        self.assertNotIn("maintenance_failed", self.provider.names())

    def test_damage(self) -> None:
        """What was damaged on the disk is found, and its tenant told at its next log-in."""
        tenant = self.connected()
        self.reactor.result_of(tenant.back_up(self.source()))
        for path in self.provider.repositories.glob("*/packs/*"):
            flip(path, path.stat().st_size // 2)
        self.rounds(FIRST_SECONDS)
        rows = self.provider.events(type="warning", name="stored_data_damaged", tenant=TENANT)
        self.assertGreaterEqual(len(rows), 1)
        tenant.close()
        tenant.manager = tenant.make_manager()
        tenant.log_in()
        self.reactor.pass_time(1)
        self.assertEqual("stored_data_damaged", tenant.warnings[0].kind.value)


class TextTests(SynchronousTestCase):
    """What is said of results."""

    def test_counts(self) -> None:
        """Numbers with their names, and nothing else."""
        self.assertEqual(
            "3 packs removed, 0 blobs",
            counts_text({"packs_removed": 3, "full": True, "blobs": 0, "findings": ["x"]}),
        )
