"""Comparing what is at hand with what chunks are called."""

from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.matching import Matcher, Piece, is_hole, open_regular, read_at
from cloudconnect.content.runs import Run
from tests.backup.trees import write, write_sparse


def name_of(data: bytes) -> bytes:
    return data[:4].rjust(32, b"\0") + b"%d" % len(data)


class MatcherTests(SynchronousTestCase):
    """Chunks that are whole, or shared by several files."""

    def setUp(self) -> None:
        self.hashed: list[bytes] = []
        self.matcher = Matcher(self.is_chunk)

    def is_chunk(self, name: bytes, data: bytes) -> bool:
        self.hashed.append(data)
        return name == name_of(data)

    def offer(self, chunk: bytes, offset: int, data: bytes, length: int = -1) -> Piece:
        size = len(data) if length < 0 else length
        return self.matcher.offer(Run(name_of(chunk), offset, size), data)

    def test_whole_chunk(self) -> None:
        """Is known at once, and is not held."""
        self.assertIs(self.offer(b"abcd", 0, b"abcd").good, True)
        self.assertEqual(self.hashed, [b"abcd"])

    def test_shared_chunk(self) -> None:
        """Pieces of several files that are a chunk together are good when the next one begins."""
        pieces = [self.offer(b"abcdef", at, b"abcdef"[at : at + 2]) for at in (0, 2, 4)]
        self.assertEqual([piece.good for piece in pieces], [None] * 3)
        other = self.offer(b"xy", 0, b"xy")
        self.assertEqual([piece.good for piece in (*pieces, other)], [True] * 4)

    def test_last_one(self) -> None:
        """The last chunk is known after a flush; a second one does nothing."""
        pieces = [self.offer(b"abcd", 0, b"ab"), self.offer(b"abcd", 2, b"cd")]
        self.matcher.flush()
        self.matcher.flush()
        self.assertEqual([piece.good for piece in pieces], [True, True])

    def test_changed_piece(self) -> None:
        """One changed byte, and none of the chunk's pieces can be believed."""
        pieces = [self.offer(b"abcd", 0, b"ab"), self.offer(b"abcd", 2, b"cX")]
        self.matcher.flush()
        self.assertEqual([piece.good for piece in pieces], [False, False])

    def test_missing_piece(self) -> None:
        """Where a piece is not there, or too short, the chunk is not either."""
        for data in (b"", b"c"):
            pieces = [
                self.offer(b"abcdef", 0, b"ab"),
                self.offer(b"abcdef", 2, data, 2),
                self.offer(b"abcdef", 4, b"ef"),
            ]
            self.matcher.flush()
            self.assertEqual([piece.good for piece in pieces], [False] * 3)

    def test_middle_of_a_chunk(self) -> None:
        """Without its beginning a chunk cannot be compared; nor with a part of it only."""
        self.assertIs(self.offer(b"abcd", 2, b"cd").good, False)
        beginning = self.offer(b"abcd", 0, b"ab")
        self.matcher.flush()
        self.assertIs(beginning.good, False)

    def test_wrong_chunk(self) -> None:
        """Other bytes are not that chunk."""
        piece = self.offer(b"abcd", 0, b"abXd")
        self.matcher.flush()
        self.assertIs(piece.good, False)


class FileTests(SynchronousTestCase):
    """Files, opened carefully."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.mkdir(self.top)
        self.parent = os.open(self.top, os.O_RDONLY)
        self.addCleanup(os.close, self.parent)

    def open(self, name: bytes) -> int | None:
        found = open_regular(self.parent, name, os.O_RDONLY)
        if found is not None:
            self.addCleanup(os.close, found)
        return found

    def test_regular(self) -> None:
        """A file is opened; so many bytes of it are read, or what there is."""
        write(self.top + b"/x", b"0123456789")
        descriptor = self.open(b"x")
        assert descriptor is not None
        self.assertEqual(read_at(descriptor, 2, 3), b"234")
        self.assertEqual(read_at(descriptor, 8, 5), b"89")
        self.assertEqual(read_at(descriptor, 20, 5), b"")

    def test_others(self) -> None:
        """Nothing else is opened, and nothing waits."""
        before = len(os.listdir("/proc/self/fd"))
        write(self.top + b"/x", b"")
        os.symlink(b"x", self.top + b"/link")
        os.mkdir(self.top + b"/folder")
        os.mkfifo(self.top + b"/fifo")
        os.mknod(self.top + b"/socket", stat.S_IFSOCK)
        for name in (b"link", b"folder", b"fifo", b"socket", b"none", b"n" * 300):
            self.assertIsNone(self.open(name), name)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_holes(self) -> None:
        """Holes and zeros are the same, up to the end of the file; anything else is not."""
        write_sparse(self.top + b"/x", {0: b"a", 500_000: bytes(5000) + b"b"}, 900_000)
        descriptor = self.open(b"x")
        assert descriptor is not None
        for start, length, hole in (
            (0, 1, False),
            (0, 900_000, False),
            (1, 499_999, True),
            (1, 504_999, True),
            (1, 505_000, False),
            (505_000, 1, False),
            (505_001, 10_000_000, True),
            (900_000, 5, True),
        ):
            self.assertIs(is_hole(descriptor, start, length), hole, (start, length))

    def test_without_holes(self) -> None:
        """On a file system that does not know holes the bytes tell."""

        def unknown(*_: int) -> int:
            raise OSError(22, "Invalid argument")

        write(self.top + b"/x", bytes(100_000) + b"x")
        descriptor = self.open(b"x")
        assert descriptor is not None
        self.patch(os, "lseek", unknown)
        self.assertIs(is_hole(descriptor, 0, 100_000), True)
        self.assertIs(is_hole(descriptor, 0, 100_001), False)
        self.assertIs(is_hole(descriptor, 100_001, 50), True)
