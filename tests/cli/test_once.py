"""Tests of :mod:`cloudconnect.cli.once`."""

from __future__ import annotations

import io

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.once import ReadOnce, Shown


class ShownTests(SynchronousTestCase):
    """What is shown once over several sessions."""

    def test_again(self) -> None:
        """A session that begins anew shows nothing that one before it has shown, and then goes on;
        also where it does not come as far."""
        shown, out = Shown(), []
        for length in (2, 1, 5):
            shown.begin()
            out += [number for number in range(length) if shown.new()]
        self.assertEqual(list(range(5)), out)

    def test_bytes(self) -> None:
        """Of pieces it is the last bytes that are new, however they are cut."""
        content, out = bytes(range(100)), bytearray()
        shown = Shown()
        for size, end in ((7, 40), (9, 30), (11, 100)):
            shown.begin()
            for at in range(0, end, size):
                piece = content[at : min(at + size, end)]
                out += piece[len(piece) - shown.new(len(piece)) :]
        self.assertEqual(content, bytes(out))


class ReadOnceTests(SynchronousTestCase):
    """Standard input."""

    def test_touched(self) -> None:
        """It is known whether anything was read, also where nothing came of it."""
        stream = ReadOnce(io.BytesIO(b""))
        self.assertFalse(stream.touched)
        self.assertEqual(b"", stream.read(10))
        self.assertTrue(stream.touched)
        self.assertEqual(b"abc", ReadOnce(io.BytesIO(b"abc")).read())
