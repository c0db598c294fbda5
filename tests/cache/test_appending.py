"""Appending one stream to a cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.appending import BlockAppender
from cloudconnect.cache.keys import CacheKey, CacheKeys
from cloudconnect.cache.segments import SegmentWriter
from cloudconnect.dedup.interfaces import Place
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN
from tests.dedup.contract import block


class Taken:
    """Takes segments and remembers them; has room for two."""

    segment_size = 5000

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = CacheKeys(CacheKey(bytes(32)), "acme")
        self.begun: list[int] = []
        self.done: list[int] = []
        self.places: list[Place] = []

    def begin(self, before: int) -> SegmentWriter | None:
        if len(self.begun) == 2:
            return None
        self.begun.append(before)
        number = len(self.begun)
        return SegmentWriter(self.directory / str(number), number, before, self.keys)

    def appended(self, name: bytes, features: Sequence[int], place: Place) -> None:
        self.places.append(place)

    def ended(self, writer: SegmentWriter) -> None:
        writer.close()
        self.done.append(writer.number)


class AppenderTests(SynchronousTestCase):
    """One appender."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.taken = Taken(directory)
        self.appender = BlockAppender(self.taken)

    def test_segments(self) -> None:
        """A full segment is ended and the next one knows it; without room nothing is taken."""
        places = [self.appender.append(*block(seed)) for seed in range(12)]
        self.assertEqual(self.taken.begun, [0, 1])
        self.assertEqual(self.taken.done, [1, 2])
        self.assertEqual([place for place in places if place is not None], self.taken.places)
        self.assertEqual(places[8:], [None] * 4)

    def test_lazy(self) -> None:
        """One that takes nothing makes no segment."""
        self.appender.close()
        self.assertEqual(self.taken.begun, [])

    def test_sizes(self) -> None:
        """Blocks of impossible sizes are not taken."""
        for size in (0, BLOCK_MIN - 1, BLOCK_MAX + 1):
            self.assertIsNone(self.appender.append(bytes(32), bytes(size)))
        self.assertEqual(self.taken.begun, [])

    def test_closed(self) -> None:
        """After its end it takes nothing."""
        self.appender.append(*block(1))
        self.appender.close()
        self.appender.close()
        self.assertEqual(self.taken.done, [1])
        self.assertIsNone(self.appender.append(*block(2)))

    def test_disk_full(self) -> None:
        """A write that fails ends it; what was written before stays."""

        def full(name: bytes, data: bytes, features: Sequence[int]) -> Place:
            raise OSError(28, "No space left on device")

        self.appender.append(*block(1))
        self.patch(self.appender._writer, "append", full)
        self.assertIsNone(self.appender.append(*block(2)))
        self.assertEqual(self.taken.done, [1])
        self.assertIsNone(self.appender.append(*block(3)))
        self.assertEqual(len(self.taken.places), 1)
