"""Things with several names."""

from __future__ import annotations

import contextlib
import gc
import os
import stat
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.links import LinkMap


def status_of(inode: int, names: int, device: int = 3) -> Any:
    return SimpleNamespace(st_dev=device, st_ino=inode, st_nlink=names)


def nameless() -> set[tuple[int, int]]:
    """The files without a name that this process has open, by device and inode."""
    found = set()
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                found.add((status.st_dev, status.st_ino))
    return found


class LinkMapTests(SynchronousTestCase):
    """In memory and in a file, the same answers."""

    @given(
        st.lists(
            st.tuples(st.integers(0, 1), st.sampled_from([1, 2, 3, (1 << 63) + 5, (1 << 64) - 1])),
            max_size=40,
        ),
        st.integers(0, 3),
    )
    @settings(deadline=None, max_examples=100)
    def test_as_a_dictionary(self, names: list[tuple[int, int]], in_memory: int) -> None:
        """The first name of everything is known for as many names as there are."""
        links = LinkMap(in_memory)
        total = {inode: names.count(inode) for inode in names}
        first: dict[tuple[int, int], bytes] = {}
        for number, (device, inode) in enumerate(names):
            status = status_of(inode, total[device, inode], device)
            found = links.further(status)
            self.assertEqual(found, first.get((device, inode)))
            if found is None:
                first[device, inode] = b"/%d" % number
                links.first(b"/%d" % number, status)
        links.close()

    def test_done_with(self) -> None:
        """After its last name nothing is known of a thing: its number may be used again."""
        for in_memory in (100, 0):
            links = LinkMap(in_memory)
            links.first(b"/a", status_of(7, 3))
            self.assertEqual(links.further(status_of(7, 3)), b"/a")
            self.assertEqual(links.further(status_of(7, 3)), b"/a")
            self.assertIsNone(links.further(status_of(7, 3)))
            links.close()

    def test_bounded(self) -> None:
        """Of very many things only few are held in memory, and all are found."""
        links = LinkMap(100)
        for number in range(1000):
            links.first(b"/%d" % number, status_of(number, 2))
            self.assertLessEqual(len(links._known), 100)
        for number in range(1000):
            self.assertEqual(links.further(status_of(number, 2)), b"/%d" % number)
        links.close()

    def test_nothing_is_left(self) -> None:
        """The file goes with the list."""
        gc.collect()  # what earlier tests have left to it
        before = nameless()
        links = LinkMap(10)
        for number in range(200_000):
            links.first(b"/some/long/path/of/a/file/%d" % number, status_of(number, 2))
        self.assertTrue(nameless() - before)
        links.close()
        self.assertFalse(nameless() - before)
