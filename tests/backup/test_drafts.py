"""Entries in the making, and the streams that their content goes through."""

from __future__ import annotations

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import drafts
from cloudconnect.backup.drafts import ContentStream, Draft
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.entries import EntryType
from cloudconnect.content.runs import Run

SMALL = ChunkingParameters(average=256, minimum=64, maximum=1024)


class Chunks:
    """Names chunks by what is in them."""

    def __init__(self) -> None:
        self.taken: dict[bytes, bytes] = {}
        self.sizes: list[int] = []

    def take(self, chunk: bytes | memoryview) -> bytes:
        name = b"%032d" % len(self.sizes)
        self.taken[name] = bytes(chunk)
        self.sizes.append(len(chunk))
        return name

    def content(self, runs: list[Run]) -> bytes:
        return b"".join(
            bytes(run.length)
            if run.id is None
            else self.taken[run.id][run.offset : run.offset + run.length]
            for run in runs
        )


def draft(name: bytes = b"/x") -> Draft:
    return Draft(name, os.stat("/"))


class StreamTests(SynchronousTestCase):
    """Runs that give back exactly what was added."""

    @given(
        st.lists(
            st.lists(
                st.one_of(st.binary(max_size=700), st.integers(1, 5000)),
                max_size=4,
            ),
            max_size=12,
        ),
        st.integers(1, 3000),
        st.integers(1, 20),
    )
    @settings(max_examples=150, deadline=None)
    def test_runs_give_the_content_back(
        self, files: list[list[bytes | int]], feed: int, files_max: int
    ) -> None:
        """Whatever the files, the holes and the boundaries: all bytes, in order, in every file."""
        self.patch(drafts, "_FEED", feed)
        self.patch(drafts, "_FILES_MAX", files_max)
        chunks = Chunks()
        stream = ContentStream(SMALL, chunks.take)
        made: list[tuple[Draft, bytes]] = []
        for pieces in files:
            one = draft()
            for piece in pieces:
                if isinstance(piece, int):
                    stream.hole(one, piece)
                else:
                    stream.add(one, piece)
            made.append((one, b"".join(bytes(p) if isinstance(p, int) else p for p in pieces)))
        stream.finish()
        for one, content in made:
            self.assertEqual(one.missing, 0)
            self.assertEqual(one.size, len(content))
            self.assertEqual(chunks.content(one.runs), content)
            self.assertTrue(all(run.length > 0 for run in one.runs))

    def test_small_files_share_chunks(self) -> None:
        """Many small files make few chunks."""
        chunks = Chunks()
        stream = ContentStream(SMALL, chunks.take)
        for _ in range(100):
            stream.add(draft(), os.urandom(10))
        stream.finish()
        self.assertLess(len(chunks.sizes), 12)

    def test_boundaries_are_those_of_the_whole(self) -> None:
        """How the content is split into files does not move the boundaries."""
        content = os.urandom(20_000)
        sizes = []
        for step in (1, 77, 20_000):
            chunks = Chunks()
            stream = ContentStream(SMALL, chunks.take)
            self.patch(drafts, "_FILES_MAX", 1 << 30)
            for at in range(0, len(content), step):
                stream.add(draft(), content[at : at + step])
            stream.finish()
            sizes.append(chunks.sizes)
        self.assertEqual(sizes[0], sizes[1])
        self.assertEqual(sizes[0], sizes[2])

    def test_tiny_files_do_not_wait_for_ever(self) -> None:
        """However small the files, only so many wait for a chunk to become full."""
        self.patch(drafts, "_FILES_MAX", 50)
        stream = ContentStream(SMALL, Chunks().take)
        made = [draft() for _ in range(1000)]
        for one in made:
            stream.add(one, b"x")
            self.assertLess(sum(other.missing for other in made), 51)

    def test_hole_is_known_at_once(self) -> None:
        """A hole that nothing of the file waits before is in its runs at once."""
        stream = ContentStream(SMALL, Chunks().take)
        one, other = draft(), draft()
        stream.add(other, b"waits")
        stream.hole(one, 100)
        stream.hole(one, 0)
        self.assertEqual((one.runs, one.missing, one.size), ([Run(None, 0, 100)], 0, 100))


class DraftTests(SynchronousTestCase):
    """What becomes of a draft."""

    def test_entry(self) -> None:
        """The entry has the numbers of the status, and what the draft was given."""
        status = os.stat("/dev/null")
        one = Draft(b"/dev/null", status)
        one.xattrs = ((b"user.a", b"1"),)
        entry = one.entry()
        self.assertIs(entry.type, EntryType.CHARACTER)
        self.assertEqual(entry.device, status.st_rdev)
        self.assertEqual(entry.mode, status.st_mode & 0o7777)
        self.assertEqual((entry.user, entry.group), ("root", "root"))
        self.assertEqual(entry.mtime_ns, status.st_mtime_ns)
        self.assertEqual(entry.xattrs, one.xattrs)

    def test_ids(self) -> None:
        """The chunks of a file come once each, holes not at all."""
        one = draft()
        a, b = b"a" * 32, b"b" * 32
        one.runs = [Run(a, 0, 1), Run(None, 0, 9), Run(b, 0, 1), Run(a, 0, 1)]
        self.assertEqual(list(one.ids()), [a, b])

    def test_impossible_path(self) -> None:
        """A path that a manifest cannot hold is refused when the entry is made."""
        self.assertRaises(ValueError, draft(b"/" + b"x/" * 40_000 + b"x").entry)
