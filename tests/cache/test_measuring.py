"""Tests of :mod:`cloudconnect.cache.measuring`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cache.blocks import SEGMENT_SIZE_MIN, SEGMENTS_MIN, BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.cache.measuring import measure
from cloudconnect.cache.opening import INDEX
from tests.dedup.pairs import noise

BLOCKS, LENGTH = 50, 20_000


class MeasuringTests(SynchronousTestCase):
    """How large a cache is."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).resolve()

    def fill(self) -> BlockCache:
        """A cache with some blocks in it."""
        cache = BlockCache(
            self.directory, "acme", NodeKey(bytes(range(32))), SEGMENTS_MIN * SEGMENT_SIZE_MIN
        )
        appender = cache.appender()
        for number in range(BLOCKS):
            appender.append(number.to_bytes(32, "big"), noise(LENGTH))
        appender.close()
        return cache

    def test_closed(self) -> None:
        """Blocks are counted, and the bytes of their files."""
        self.fill().close()
        found = measure(self.directory)
        assert found is not None
        self.assertEqual(BLOCKS, found.blocks)
        self.assertGreater(found.size, BLOCKS * LENGTH)
        self.assertLess(found.size, BLOCKS * LENGTH + 200_000)
        self.assertEqual(found, measure(self.directory))

    def test_in_use(self) -> None:
        """It is measured while a process has it, and that is not disturbed."""
        cache = self.fill()
        found = measure(self.directory)
        assert found is not None
        self.assertGreater(found.size, BLOCKS * LENGTH)
        self.assertIsNotNone(cache.find((1).to_bytes(32, "big")))
        self.assertIsNone(cache.trouble)
        cache.close()

    def test_none(self) -> None:
        """Where there is none, there is none."""
        self.assertIsNone(measure(self.directory))
        self.directory.mkdir()
        self.assertIsNone(measure(self.directory))

    def test_damaged(self) -> None:
        """Without an index that can be read the bytes are known, and the blocks are not."""
        self.fill().close()
        index = self.directory / INDEX
        for damage in (lambda: index.write_bytes(b"no data base" * 1000), index.unlink):
            damage()
            found = measure(self.directory)
            assert found is not None
            self.assertIsNone(found.blocks)
            self.assertGreater(found.size, BLOCKS * LENGTH)

    def test_odd_names(self) -> None:
        """A folder's name may have what means something in an address."""
        self.directory = self.directory.parent / "a?b#c%41 d"
        self.fill().close()
        found = measure(self.directory)
        assert found is not None
        self.assertEqual(BLOCKS, found.blocks)
