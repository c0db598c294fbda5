"""Tests of :mod:`cloudconnect.transports.pipes`."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.transports import pipes
from cloudconnect.transports.pipes import REFUSED_REQUESTS, SIZE_MIN, Pipe, PipePool, open_pipe


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


class PipeTests(SynchronousTestCase):
    """One pipe."""

    def test_size(self) -> None:
        """What the kernel has granted is read back, and neither end blocks."""
        pipe = open_pipe(256 << 10)
        assert pipe is not None
        self.addCleanup(pipe.close)
        self.assertEqual(fcntl.fcntl(pipe.writer, fcntl.F_GETPIPE_SZ), pipe.size)
        self.assertGreaterEqual(pipe.size, SIZE_MIN)
        self.assertRaises(BlockingIOError, os.read, pipe.reader, 1)

    def test_too_little(self) -> None:
        """A pipe that got less than is worth it is closed at once."""
        opened: list[Any] = []

        def small(flags: int) -> Any:
            opened.append(real(flags))
            fcntl.fcntl(opened[-1][1], set_size, 4096)
            return opened[-1]

        real, set_size = os.pipe2, fcntl.F_SETPIPE_SZ
        self.patch(pipes.os, "pipe2", small)
        self.patch(pipes.fcntl, "F_SETPIPE_SZ", fcntl.F_GETPIPE_SZ)  # nothing more is granted
        self.assertIsNone(open_pipe(1 << 20))
        self.assertEqual([False, False], [is_open(end) for end in opened[0]])

    def test_no_descriptors(self) -> None:
        """Where no descriptor is left there is no pipe, and no error."""

        def none(flags: int) -> Any:
            raise OSError(24, "Too many open files")

        self.patch(pipes.os, "pipe2", none)
        self.assertIsNone(open_pipe(1 << 20))


class PoolTests(SynchronousTestCase):
    """A pool of them."""

    def setUp(self) -> None:
        self.pool = PipePool(((128 << 10, 1), (64 << 10, 2)))
        self.addCleanup(self.pool.close)

    def take(self) -> Pipe:
        pipe = self.pool.take()
        assert pipe is not None
        return pipe

    def test_tiers(self) -> None:
        """There are so many pipes of each size and no more; what is given back is lent again, the
        largest first."""
        taken = [self.take() for _ in range(3)]
        self.assertEqual([128 << 10, 64 << 10, 64 << 10], [pipe.size for pipe in taken])
        self.assertIsNone(self.pool.take())
        for pipe in taken:
            self.pool.give(pipe)
        self.assertIs(taken[0], self.take())
        self.assertEqual(64 << 10, self.take().size)
        self.assertEqual(3, self.pool.opened)

    def test_drop(self) -> None:
        """A pipe with somebody's bytes in it is never lent again."""
        pipe = self.take()
        os.write(pipe.writer, b"left over")
        self.pool.drop(pipe)
        self.assertFalse(is_open(pipe.reader))
        self.assertEqual(0, self.pool.opened)
        self.assertRaises(BlockingIOError, os.read, self.take().reader, 1)

    def test_refused(self) -> None:
        """Where the kernel grants nothing it is asked again after a while, not each time."""
        asked: list[int] = []
        self.patch(pipes, "open_pipe", lambda size: asked.append(size))
        for _ in range(REFUSED_REQUESTS + 1):
            self.assertIsNone(self.pool.take())
        self.assertEqual(1, len(asked))
        self.assertIsNone(self.pool.take())
        self.assertEqual(2, len(asked))

    def test_close(self) -> None:
        """Closing leaves no descriptor behind."""
        pipe = self.take()
        self.pool.give(pipe)
        self.pool.close()
        self.assertEqual([False, False], [is_open(pipe.reader), is_open(pipe.writer)])
