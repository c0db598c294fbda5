"""What of the names of one thing is in a target."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import names as names_module
from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.names import FirstNames, Known, NamesThere, Places, Standing, looks_right
from cloudconnect.backup.target import Target
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from tests.backup.cases import entry_of, file_of
from tests.backup.trees import OLD_NS, is_root, set_attribute, write


class NamesTests(SynchronousTestCase):
    """Names of one file, looked at one behind the other."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.there = Target(self.top, create=False)
        self.addCleanup(self.there.close)
        self.names = NamesThere(self.there, MetadataWriter(lambda path, reason: None))
        self.addCleanup(self.names.close)
        owner: dict[str, Any] = {
            "uid": os.geteuid(),
            "gid": os.getegid(),
            "mtime_ns": OLD_NS,
            "size": 4,
        }
        self.first = file_of(b"/a", flags=FLAG_LINKED, **owner)
        self.second = file_of(b"/b", link=b"/a", runs=(), **owner)

    def file(self, name: bytes, data: bytes = b"data") -> None:
        write(self.top + name, data, self.first.mode, OLD_NS)

    def known(self) -> Standing | None:
        """What is known when both names were looked at."""
        self.names.note(self.first, (b"a",))
        self.names.note(self.second, (b"b",))
        known = self.names.get(b"/a")
        return None if known is None else known.standing

    def test_nothing(self) -> None:
        """Where no name looks right nothing is known."""
        self.file(b"/a", b"longer")
        self.assertIsNone(self.known())
        self.assertIsNone(self.names.judge(b"/a", self.first))

    def test_whole(self) -> None:
        """All names are there, of one file."""
        self.file(b"/a")
        os.link(self.top + b"/a", self.top + b"/b")
        self.assertEqual(self.known(), Standing.WHOLE)
        status = os.stat(self.top + b"/a")
        place = ((b"a",), status.st_dev, status.st_ino)
        self.assertEqual(self.names.judge(b"/a", self.first), Known(Standing.WHOLE, place))

    def test_broken(self) -> None:
        """One is missing, be it the first one or another, or is another file."""
        for there in ((b"/a",), (b"/b",), (b"/a", b"/b")):
            for name in (b"/a", b"/b"):
                if os.path.exists(self.top + name):
                    os.unlink(self.top + name)
            for name in there:
                self.file(name)
            names = self.names = NamesThere(self.there, MetadataWriter(lambda path, why: None))
            self.assertEqual(self.known(), Standing.BROKEN)
            judged = names.judge(b"/a", self.first)
            assert judged is not None
            self.assertEqual(judged.standing, Standing.GOOD)
            self.assertEqual(judged.place[0], (there[0][1:],))
            self.assertEqual(names.get(b"/a"), judged)
            names.close()

    def bad(self, entry: Entry | None = None) -> None:
        """No link may be made to the first name, which is there."""
        self.assertEqual(self.known(), Standing.BROKEN)
        judged = self.names.judge(b"/a", entry or self.first)
        assert judged is not None
        self.assertEqual(judged.standing, Standing.BAD)

    def test_mode(self) -> None:
        """No link is made to a file of another mode."""
        self.file(b"/a")
        os.chmod(self.top + b"/a", 0o606)
        self.bad()

    def test_owner(self) -> None:
        """No link is made to a file of another owner."""
        self.file(b"/a")
        if is_root():
            os.chown(self.top + b"/a", 12345, os.getegid())
            self.bad()

    def test_attributes(self) -> None:
        """No link is made to a file with other attributes."""
        self.file(b"/a")
        if set_attribute(self.top + b"/a", b"user.test", b"x"):
            os.utime(self.top + b"/a", ns=(OLD_NS, OLD_NS))
            self.bad()

    def test_exchanged(self) -> None:
        """No link is made to what was exchanged since it was looked at, or went away."""
        self.file(b"/a")
        self.names.note(self.first, (b"a",))
        self.names.note(self.second, (b"b",))
        self.file(b"/new")
        os.rename(self.top + b"/new", self.top + b"/a")
        judged = self.names.judge(b"/a", self.first)
        assert judged is not None
        self.assertEqual(judged.standing, Standing.BAD)

    def test_symbolic_links(self) -> None:
        """A symbolic link must lead where it should."""
        for target, standing in ((b"there", Standing.GOOD), (b"THERE", Standing.BAD)):
            os.symlink(target, self.top + b"/l" + target)
            path = self.top + b"/l" + target
            os.utime(path, ns=(OLD_NS, OLD_NS), follow_symlinks=False)
            entry = self.first._replace(
                path=b"/l" + target,
                type=EntryType.SYMLINK,
                target=b"there",
                size=0,
                runs=(),
            )
            further = entry._replace(path=b"/m", link=entry.path, flags=0)
            self.names.note(entry, (b"l" + target,))
            self.names.note(further, (b"m",))
            judged = self.names.judge(entry.path, entry)
            assert judged is not None
            self.assertEqual(judged.standing, standing)

    def test_looks_right(self) -> None:
        """Kind, time and size must be right, of a device its number too."""
        self.file(b"/a")
        status = os.stat(self.top + b"/a")
        self.assertTrue(looks_right(self.first, status))
        self.assertTrue(looks_right(self.second, status))
        self.assertFalse(looks_right(self.second._replace(size=5), status))
        self.assertFalse(looks_right(self.first._replace(mtime_ns=OLD_NS + 1), status))
        self.assertFalse(looks_right(entry_of(b"/a", EntryType.FIFO, mtime_ns=OLD_NS), status))
        null = os.stat("/dev/null")
        device = entry_of(b"/n", EntryType.CHARACTER, mtime_ns=null.st_mtime_ns, device=1)
        self.assertFalse(looks_right(device, null))
        self.assertTrue(looks_right(device._replace(device=null.st_rdev), null))


class RememberedTests(SynchronousTestCase):
    """First names and places."""

    def test_first_names(self) -> None:
        """An entry comes back as it was, a long one too."""
        self.patch(names_module, "LONG_RUNS", 3)
        names = FirstNames()
        self.addCleanup(names.close)
        runs = tuple(Run(bytes(32), 0, 10) for _ in range(4))
        entries = [
            file_of(b"/a\xff", flags=FLAG_LINKED),
            file_of(b"/b", flags=FLAG_LINKED, size=40, runs=runs),
        ]
        for entry in entries:
            names.put(entry)
        for entry in entries:
            self.assertEqual(names.get(entry.path), entry)
            names.drop(entry.path)
            self.assertIsNone(names.get(entry.path))

    def test_places(self) -> None:
        """A place comes back as it was, with names and numbers of any kind."""
        places = Places()
        self.addCleanup(places.close)
        place = ((b"a\xff", b"b\n"), (1 << 64) - 1, 1 << 63)
        places.put(b"/x", place)
        self.assertEqual(places.get(b"/x"), place)
        self.assertIsNone(places.get(b"/y"))
