"""Tests of :mod:`cloudconnect.content.entries`."""

from __future__ import annotations

import copy
import itertools
import pickle

import cbor2
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.entries import Entry, EntryType, PathCheck, check_path
from cloudconnect.content.manifest import EntryDecoder
from cloudconnect.content.runs import Run
from cloudconnect.content.usual import encode_file
from cloudconnect.errors import StoredDataDamaged

PATHS = (
    b"/",
    b"/a",
    b"/a/",
    b"/a/b",
    b"/a/b/c",
    b"/a/../b",
    b"/a/..",
    b"/a//b",
    b"/.",
    b"/a\0",
    b"/a\0/b",
    b"//a",
    b"a",
    b"a/b",
    b"..",
    b"../a",
    b"\0",
)


class PathCheckTests(SynchronousTestCase):
    """Paths that come one behind the other."""

    def test_behind_another(self) -> None:
        """Whether a path is one does not depend on those before it."""
        for before in itertools.product(PATHS, repeat=2):
            for path in PATHS:
                check = PathCheck()
                for one in before:
                    check.names(one)
                if check.names(path):
                    check_path(path)
                elif path != b"/":
                    self.assertRaises(ValueError, check_path, path)

    def test_written(self) -> None:
        """What has no slash in front is not written, also behind something below the root."""
        fields = (0o644, 0, 0, "", "", 1 << 40, 0, ())
        encode_file(b"/a", *fields)
        self.assertRaises(ValueError, encode_file, b"b", *fields)

    def test_read(self) -> None:
        """Nor read, where others like it have come."""
        good = encode_file(b"/a", 0o644, 0, 0, "", "", 1 << 40, 5, (Run(bytes(32), 0, 5),))
        bad = cbor2.dumps(cbor2.loads(good).replace(b"\x61p\x42/a", b"\x61p\x42ab"))
        decoder = EntryDecoder()
        self.assertEqual([b"/a"] * 3, [one.path for one in decoder.feed(good * 3)])
        self.assertRaises(StoredDataDamaged, list, decoder.feed(bad))


class EntryTests(SynchronousTestCase):
    """An entry as a value."""

    def test_as_a_value(self) -> None:
        """A copy is checked as any other, is equal, and is still one of this class."""
        made = Entry(b"/a", EntryType.FIFO, 0o600, 0, 0, "", "", 5)
        for copied in (copy.copy(made), pickle.loads(pickle.dumps(made))):
            self.assertEqual((made, Entry), (copied, type(copied)))
        wrong = made._replace(mode=1 << 20)
        self.assertRaises(ValueError, copy.copy, wrong)
