"""Counts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.statistics import Statistics
from tests.dedup.pairs import carry, noise, text


class StatisticsTests(SynchronousTestCase):
    """What is counted, and that it adds up."""

    def test_sum(self) -> None:
        """Counts are added one by one."""
        total = Statistics(plain=1, misses=2)
        total.add(Statistics(plain=10, damaged=3))
        expected = dict.fromkeys(total.as_map(), 0) | {"plain": 11, "misses": 2, "damaged": 3}
        self.assertEqual(total.as_map(), expected)

    def test_adds_up(self) -> None:
        """What came in is what went out and what was saved, but for a little framing."""
        source, target = MemoryCache(), MemoryCache()
        data = noise(500_000) + text(500_000)
        carry(data, source, target)
        changed = data[:300_000] + b"?" * 50 + data[310_000:] + text(100_000, 7)
        pair = carry(changed, source, target)
        sent, received = pair.ends[0].sent, pair.ends[1].received
        saved = sent.by_reference + sent.by_delta + sent.by_compression
        self.assertEqual(sent.plain, len(changed))
        self.assertEqual(sent.coded, pair.crossed[0])
        self.assertEqual(received.coded + 11, pair.crossed[1] - 21)
        self.assertLess(abs(sent.plain - saved - sent.coded), 2000)
        for name in ("plain", "by_reference", "by_delta", "by_compression", "misses"):
            self.assertEqual(getattr(sent, name), getattr(received, name), name)

    def test_with_misses(self) -> None:
        """What had to be resent is not counted as saved, on either side."""
        source, target = MemoryCache(), MemoryCache()
        data = noise(600_000)
        carry(data, source, target)
        target.drop(list(target._places)[3])
        pair = carry(data, source, target)
        sent, received = pair.ends[0].sent, pair.ends[1].received
        self.assertEqual(sent.resent, received.resent)
        self.assertGreater(sent.resent, 0)
        self.assertEqual(sent.by_reference, len(data) - sent.resent)
        self.assertEqual(received.by_reference, sent.by_reference)
