"""Features of blocks."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.sketch import FEATURES, Sketcher
from tests.dedup.pairs import noise


class SketchTests(SynchronousTestCase):
    """What similar blocks have in common."""

    def shared(self, one: bytes, other: bytes) -> int:
        """How many features they share."""
        sketcher = Sketcher()
        return len(set(sketcher.features(one)) & set(sketcher.features(other)))

    def test_similar(self) -> None:
        """Blocks that differ in places share features; others do not."""
        data = noise(60_000)
        self.assertEqual(self.shared(data, data), FEATURES)
        self.assertGreaterEqual(self.shared(data, data[:30_000] + b"change" + data[30_000:]), 2)
        self.assertGreaterEqual(self.shared(data, data[10_000:]), 1)
        self.assertEqual(self.shared(data, noise(60_000, 2)), 0)

    def test_small(self) -> None:
        """A small block has none."""
        self.assertEqual(Sketcher().features(b"x" * 2047), ())
        self.assertEqual(len(Sketcher().features(bytes(200_000))), 2)
