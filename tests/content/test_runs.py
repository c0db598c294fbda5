"""Runs in little memory."""

from __future__ import annotations

import io
import tracemalloc
from typing import IO

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content import runs as runs_module
from cloudconnect.content.runs import Run, RunList, ids_of
from cloudconnect.settings import CHUNK_MAX

some_runs = st.lists(
    st.one_of(
        st.builds(
            lambda name, length, offset: Run(name, offset % (CHUNK_MAX - length + 1), length),
            st.binary(min_size=32, max_size=32),
            st.integers(1, CHUNK_MAX),
            st.integers(0, CHUNK_MAX),
        ),
        st.builds(lambda length: Run(None, 0, length), st.integers(1, (1 << 63) - 1)),
    ),
    max_size=60,
)


class RunListTests(SynchronousTestCase):
    """A list of runs is as good as a tuple of them."""

    def setUp(self) -> None:
        self.files: list[io.BytesIO] = []

    def spill(self) -> IO[bytes]:
        self.files.append(io.BytesIO())
        return self.files[-1]

    @given(some_runs, st.integers(40, 1000), st.booleans(), st.data())
    @settings(deadline=None, max_examples=150)
    def test_as_a_tuple(
        self, some: list[Run], in_memory: int, spills: bool, data: st.DataObject
    ) -> None:
        """In memory or in a file: the same runs, in order, by number, and in slices."""
        self.patch(runs_module, "IN_MEMORY", in_memory)
        kept = RunList(self.spill if spills else None)
        kept.extend(some)
        self.assertEqual(list(kept), some)
        self.assertEqual(len(kept), len(some))
        self.assertEqual(kept.total, sum(run.length for run in some))
        self.assertTrue(kept == tuple(some) and tuple(some) == kept)
        self.assertFalse(kept == (*some, Run(None, 0, 1)))
        ends = st.integers(-70, 70)
        part = slice(data.draw(ends), data.draw(ends), data.draw(st.sampled_from([None, 2, -1])))
        self.assertEqual(kept[part], tuple(some[part]))
        for at in range(-len(some), len(some)):
            self.assertEqual(kept[at], some[at])
        self.assertRaises(IndexError, kept.__getitem__, len(some))
        self.assertRaises(IndexError, kept.__getitem__, -len(some) - 1)

    def test_appended_after_reading(self) -> None:
        """Reading does not disturb what is appended after it."""
        self.patch(runs_module, "IN_MEMORY", 200)
        kept, some = RunList(self.spill), []
        for number in range(50):
            some.append(Run(b"%032d" % number, number, 1 + number))
            kept.append(some[-1])
            self.assertEqual(kept[number // 2], some[number // 2])
        self.assertEqual(list(kept), some)
        self.assertEqual(len(self.files), 1)

    def test_bounds(self) -> None:
        """A run that no manifest may hold is refused, and the list stays as it was."""
        kept = RunList()
        name = b"n" * 32
        for bad in (
            Run(name, 0, 0),
            Run(name, -1, 5),
            Run(name, CHUNK_MAX - 4, 5),
            Run(name[:31], 0, 5),
            Run(None, 1, 5),
            Run(None, 0, 0),
            Run(None, 0, 1 << 63),
        ):
            self.assertRaises(ValueError, kept.append, bad)
        self.assertEqual((len(kept), kept.total), (0, 0))

    def test_memory(self) -> None:
        """A hundred thousand runs (8 GB of content) need less than a MiB of memory."""
        with open(self.mktemp(), "w+b", buffering=0) as file:
            kept, one = RunList(lambda: file), Run(b"n" * 32, 7, 80_000)
            tracemalloc.start()
            try:
                for _ in range(100_000):
                    kept.append(one)
                self.assertEqual(sum(1 for _ in kept), 100_000)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        self.assertLess(peak, 1 << 20)

    def test_cut_file(self) -> None:
        """A file that lost its end is an error, never other runs."""
        self.patch(runs_module, "IN_MEMORY", 400)
        kept = RunList(self.spill)
        kept.extend([Run(b"n" * 32, 0, 1)] * 25)
        self.files[0].truncate(500)
        self.assertRaises(OSError, list, kept)

    def test_close(self) -> None:
        """The file is closed with the list."""
        self.patch(runs_module, "IN_MEMORY", 40)
        kept = RunList(self.spill)
        kept.append(Run(None, 0, 1))
        kept.close()
        self.assertTrue(self.files[0].closed)
        self.assertEqual(len(kept), 0)


class IdsTests(SynchronousTestCase):
    """Which chunks runs need."""

    def test_neighbours(self) -> None:
        """Holes need none, and neighbours in the same chunk need it once."""
        a, b = b"a" * 32, b"b" * 32
        some = [Run(a, 0, 1), Run(None, 0, 9), Run(a, 1, 1), Run(b, 0, 1), Run(a, 0, 1)]
        self.assertEqual(list(ids_of(some)), [a, b, a])
