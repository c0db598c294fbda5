"""Whether the far end can be believed to have what we have."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.trust import PAUSE_FIRST, SAMPLE, Trust

OLD, NEW = Place(4, 0, 0, 1000), Place(5, 0, 0, 1000)


class TrustTests(SynchronousTestCase):
    """With a horizon of 5."""

    def test_at_first(self) -> None:
        """Everything is believed."""
        trust = Trust(5)
        self.assertTrue(trust.believes(OLD) and trust.believes(NEW))
        self.assertEqual((trust.is_new(OLD), trust.is_new(NEW)), (False, True))

    def test_many_misses(self) -> None:
        """After too many misses older blocks are not, for a while, which grows."""
        trust = Trust(5)
        for pause in (PAUSE_FIRST, 2 * PAUSE_FIRST):
            trust.passed(SAMPLE, SAMPLE)
            trust.missed(SAMPLE)
            self.assertFalse(trust.believes(OLD))
            self.assertTrue(trust.believes(NEW))
            trust.passed(pause - 1, 0)
            self.assertFalse(trust.believes(OLD))
            trust.passed(1, 0)
            self.assertTrue(trust.believes(OLD))

    def test_few_misses(self) -> None:
        """Misses among many hits change nothing."""
        trust = Trust(5)
        for _ in range(100):
            trust.passed(SAMPLE, SAMPLE)
            trust.missed(SAMPLE // 3)
        self.assertTrue(trust.believes(OLD))

    def test_distrusted_twice(self) -> None:
        """Distrust that begins again while it lasts does not grow."""
        trust = Trust(5)
        trust.distrust()
        trust.distrust()
        trust.passed(PAUSE_FIRST, 0)
        self.assertTrue(trust.believes(OLD))
