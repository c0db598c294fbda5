"""Zeros that become holes."""

from __future__ import annotations

import os
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import zeros as zeros_module
from cloudconnect.backup.drafts import ContentStream
from cloudconnect.backup.zeros import ZERO_BLOCK, ZeroSkipper, has_zeros
from cloudconnect.content.runs import Run
from tests.backup.test_drafts import SMALL, Chunks, draft

BLOCK = 64


class ZeroTests(SynchronousTestCase):
    """Exact bytes, without the zeros."""

    def small_blocks(self) -> None:
        self.patch(zeros_module, "ZERO_BLOCK", BLOCK)
        self.patch(zeros_module, "_ZEROS", bytes(BLOCK))

    def skipped(self, parts: list[bytes | int], chunks: Chunks) -> list[Run]:
        """The runs of a file of these parts (numbers are holes)."""
        stream, one = ContentStream(SMALL, chunks.take), draft()
        skipper = ZeroSkipper(stream, one)
        for part in parts:
            if isinstance(part, int):
                skipper.hole(part)
            else:
                skipper.add(part)
        skipper.finish()
        stream.finish()
        self.assertEqual(one.missing, 0)
        return list(one.runs)

    @given(
        st.lists(
            st.one_of(
                st.integers(1, 300),
                st.integers(1, 300).map(bytes),
                st.binary(max_size=200),
                st.integers(1, 200).map(lambda length: b"x" * length),
            ),
            max_size=12,
        )
    )
    @settings(deadline=None, max_examples=200)
    def test_exact_bytes(self, parts: list[bytes | int]) -> None:
        """Whatever is there, and however it comes, the same bytes come back; holes never touch."""
        self.small_blocks()
        chunks = Chunks()
        runs = self.skipped(parts, chunks)
        expected = b"".join(bytes(p) if isinstance(p, int) else p for p in parts)
        self.assertEqual(chunks.content(runs), expected)
        for one, next_one in pairwise(runs):
            self.assertFalse(one.id is None and next_one.id is None)

    @given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 5))
    @settings(deadline=None, max_examples=100)
    def test_no_block_of_zeros_is_taken(self, blocks: list[bool], step: int) -> None:
        """Of blocks that are read whole, those of zeros are in no chunk."""
        self.small_blocks()
        chunks = Chunks()
        content = b"".join(b"\1" * BLOCK if block else bytes(BLOCK) for block in blocks)
        size = step * BLOCK
        parts = [content[at : at + size] for at in range(0, len(content), size)]
        runs = self.skipped(list(parts), chunks)
        self.assertEqual(chunks.content(runs), content)
        self.assertNotIn(0, b"".join(chunks.taken.values()))

    def test_end_of_zeros(self) -> None:
        """The last bytes of a region of zeros, less than a block, belong to the hole."""
        chunks = Chunks()
        runs = self.skipped([bytes(ZERO_BLOCK + 100)], chunks)
        self.assertEqual(runs, [Run(None, 0, ZERO_BLOCK + 100)])

    def test_few_zeros(self) -> None:
        """Zeros that fill no block are content like any."""
        chunks = Chunks()
        runs = self.skipped([b"x" + bytes(ZERO_BLOCK), b"y"], chunks)
        self.assertNotIn(None, [run.id for run in runs])

    def test_all_zeros_is_one_run(self) -> None:
        """However large, a file of zeros is one hole and no chunk."""
        chunks = Chunks()
        runs = self.skipped([bytes(1 << 20)] * 40, chunks)
        self.assertEqual(runs, [Run(None, 0, 40 << 20)])
        self.assertEqual(chunks.sizes, [])

    def test_has_zeros(self) -> None:
        """A block counts where blocks begin, and as a whole."""
        block = os.urandom(ZERO_BLOCK)
        self.assertTrue(has_zeros(block + bytes(ZERO_BLOCK)))
        self.assertTrue(has_zeros(bytes(ZERO_BLOCK) + block))
        self.assertFalse(has_zeros(b"x" + bytes(ZERO_BLOCK)))
        self.assertFalse(has_zeros(bytes(ZERO_BLOCK - 1)))
        self.assertFalse(has_zeros(b""))
