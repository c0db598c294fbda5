"""What goes from the reading to the sending side, and how much of it."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.batches import Batch, Budget, Outgoing, Stopped
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.runs import Run
from cloudconnect.settings import MANIFEST_PIECE_RUNS
from tests.backup.cases import file_of


class BatchTests(SynchronousTestCase):
    """Batches."""

    def test_size(self) -> None:
        """A batch's size is that of the content in it."""
        batch = Batch()
        batch.add(b"1" * 32, b"12345")
        batch.add(b"2" * 32, None)
        batch.add(b"3" * 32, memoryview(b"123"))
        self.assertEqual(batch.size, 8)
        self.assertEqual(len(batch.ids), 3)
        self.assertIsNone(batch.plains[1])
        self.assertEqual(batch.shared, set())

    def test_shared(self) -> None:
        """It says which chunks have several small files in them."""
        batch = Batch()
        batch.add(b"1" * 32, b"12345", True)
        batch.add(b"2" * 32, b"12345")
        self.assertEqual(batch.shared, {b"1" * 32})

    def test_entries(self) -> None:
        """What entries take is counted, with the ids of unchanged files."""
        batch = Batch()
        batch.place(Outgoing(b"x" * 100))
        batch.place(Outgoing(b"x" * 50, (b"1" * 32, b"2" * 32), b"/x", 1))
        self.assertEqual(batch.entry_bytes, 150 + 2 * 80)
        self.assertEqual(len(batch.entries), 2)


class OutgoingTests(SynchronousTestCase):
    """Entries on their way."""

    def test_short(self) -> None:
        """A short one is what is encoded of it, and needs its ids; a lost one is nothing."""
        one = Outgoing(b"entry", (b"1" * 32,), b"/x", 1)
        self.assertEqual((list(one.pieces()), list(one.needed)), ([b"entry"], [b"1" * 32]))
        self.assertEqual(list(Outgoing(b"", replaces=1).pieces()), [])

    def test_long(self) -> None:
        """A long one is encoded piece by piece, any number of times."""
        runs = tuple(Run(b"%032d" % number, 0, 10) for number in range(MANIFEST_PIECE_RUNS + 1))
        entry = file_of(b"/x", size=10 * len(runs), runs=runs)
        one = Outgoing(b"", path=b"/x", token=1, entry=entry)
        for _ in range(2):
            pieces = list(one.pieces())
            self.assertEqual(len(pieces), 2)
            self.assertEqual(b"".join(pieces), encode_entry(entry))
            self.assertEqual(list(one.needed), [run.id for run in runs])


class BudgetTests(SynchronousTestCase):
    """What may be under way."""

    def test_room(self) -> None:
        """Batches are let through while there is room, without waiting."""
        budget = Budget(100, 3)
        budget.take(60)
        budget.take(40)
        budget.give_back(0, batches=2)
        budget.give_back(100)
        budget.take(100)

    def waits(self, budget: Budget, size: int) -> tuple[threading.Thread, list[str]]:
        happened: list[str] = []

        def run() -> None:
            try:
                budget.take(size)
                happened.append("taken")
            except Stopped:
                happened.append("stopped")

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread, happened

    def test_waits_for_bytes(self) -> None:
        """A batch that does not fit waits, though no batch waits for an answer any more."""
        budget = Budget(100, 3)
        budget.take(60)
        budget.give_back(0, batches=1)
        thread, happened = self.waits(budget, 50)
        self.assertFalse(budget._has_room(50))
        self.assertEqual(happened, [])
        budget.give_back(60)
        thread.join(60)
        self.assertEqual(happened, ["taken"])

    def test_waits_for_batches(self) -> None:
        """No more than so many batches wait for an answer, however small they are."""
        budget = Budget(100, 2)
        budget.take(1)
        budget.take(0)
        self.assertFalse(budget._has_room(0))
        thread, happened = self.waits(budget, 0)
        budget.give_back(0, batches=1)
        thread.join(60)
        self.assertEqual(happened, ["taken"])

    def test_waits_for_wanted_bytes(self) -> None:
        """What waits to be sent takes the room of more, until it was sent."""
        budget = Budget(100, 9)
        budget.take(60)
        self.assertTrue(budget._has_room(40))
        budget.want(20)
        self.assertFalse(budget._has_room(1))
        thread, happened = self.waits(budget, 40)
        budget.sent(20)
        thread.join(60)
        self.assertEqual(happened, ["taken"])
        budget.give_back(80)
        self.assertEqual(budget._bytes, 0)

    def test_larger_than_everything(self) -> None:
        """A batch that is larger than the whole budget goes alone."""
        budget = Budget(100, 2)
        budget.take(1000)
        self.assertFalse(budget._has_room(1))

    def test_stop(self) -> None:
        """Who waits is told to stop, and who comes later too."""
        budget = Budget(100, 2)
        budget.take(100)
        thread, happened = self.waits(budget, 1)
        budget.stop()
        thread.join(60)
        self.assertEqual(happened, ["stopped"])
        self.assertRaises(Stopped, budget.take, 0)
