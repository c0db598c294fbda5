"""What goes from the reading to the sending side, and how much of it."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.batches import Batch, Budget, RecentIds, Stopped


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


class RecentIdsTests(SynchronousTestCase):
    """A set that forgets."""

    def test_knows_what_was_added(self) -> None:
        """An id is new once."""
        recent = RecentIds(10)
        self.assertTrue(recent.add(b"a"))
        self.assertFalse(recent.add(b"a"))
        self.assertIn(b"a", recent)
        self.assertNotIn(b"b", recent)

    def test_is_bounded(self) -> None:
        """The last ``size`` ids are known, and never more than twice as many."""
        recent = RecentIds(10)
        names = [b"%d" % number for number in range(100)]
        for name in names:
            recent.add(name)
        self.assertTrue(all(name in recent for name in names[-10:]))
        self.assertLessEqual(sum(name in recent for name in names), 20)
        self.assertNotIn(names[0], recent)


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
        thread.join(10)
        self.assertEqual(happened, ["taken"])

    def test_waits_for_batches(self) -> None:
        """No more than so many batches wait for an answer, however small they are."""
        budget = Budget(100, 2)
        budget.take(1)
        budget.take(0)
        self.assertFalse(budget._has_room(0))
        thread, happened = self.waits(budget, 0)
        budget.give_back(0, batches=1)
        thread.join(10)
        self.assertEqual(happened, ["taken"])

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
        thread.join(10)
        self.assertEqual(happened, ["stopped"])
        self.assertRaises(Stopped, budget.take, 0)
