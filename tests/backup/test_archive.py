"""Restore points as tar archives."""

from __future__ import annotations

import io
import os
import socket
import tarfile
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import reading
from cloudconnect.backup.archive import TarArchive, _decimal
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import NotFound, StoredDataDamaged
from tests.backup.cases import entry_of
from tests.backup.support import Place
from tests.backup.trees import ODD_NAMES, OLD_NS, write, write_sparse


class ArchiveTests(SynchronousTestCase):
    """A tree of many kinds of things, read by Python's own reader of archives."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        self.large = os.urandom(2_000_000)
        write(self.top + b"/a/large", self.large, mtime_ns=OLD_NS)
        write(self.top + b"/a/small", b"small", mode=0o600)
        write(self.top + b"/empty", b"")
        write(self.top + b"/old", b"old", mtime_ns=-1_500_000_000)
        write_sparse(self.top + b"/sparse", {1 << 20: b"x" * 5000}, 3 << 20)
        for name in ODD_NAMES:
            write(self.top + b"/odd/" + name, name)
        os.link(self.top + b"/a/small", self.top + b"/b-link")
        os.link(self.top + b"/a/small", self.top + b"/z-link")
        os.symlink(b"a/\xff", self.top + b"/symlink")
        os.mkfifo(self.top + b"/fifo")
        self.place = Place(self.mktemp())

    def archived(self, top: bytes, strip: int = 0) -> bytes:
        """The archive's bytes; what could not be in it is noted."""
        self.skipped: list[bytes] = []
        with self.place.reader(self.place.backup(self.top).point) as reader:
            archive = TarArchive(reader, top, strip, self.skipped.append)
            return b"".join(archive.pieces())

    def unpacked(self, octets: bytes) -> dict[bytes, tarfile.TarInfo]:
        """Its members by name."""
        self.tar = tarfile.open(fileobj=io.BytesIO(octets))  # noqa: SIM115
        self.addCleanup(self.tar.close)
        return {os.fsencode(member.name): member for member in self.tar.getmembers()}

    def content(self, member: tarfile.TarInfo) -> bytes:
        file = self.tar.extractfile(member)
        assert file is not None
        return file.read()

    def test_everything(self) -> None:
        """Every thing of the tree is there by its path without the first slash, with content, mode,
        owner and time; files behind files, in whole records."""
        octets = self.archived(self.top)
        self.assertEqual(0, len(octets) % tarfile.RECORDSIZE)
        found = self.unpacked(octets)
        names = {self.top[1:]}
        for folder, folders, files in os.walk(self.top):
            names |= {os.path.join(folder, name)[1:] for name in (*folders, *files)}
        self.assertEqual(names, set(found))
        for name, member in found.items():
            status = os.lstat(b"/" + name)
            self.assertEqual(status.st_mode & 0o7777, member.mode, name)
            self.assertEqual((status.st_uid, status.st_gid), (member.uid, member.gid))
            if member.isreg():
                with open(b"/" + name, "rb") as file:
                    self.assertEqual(file.read(), self.content(member), name)

    def test_times(self) -> None:
        """Times keep their nanoseconds, also those before 1970."""
        found = self.unpacked(self.archived(self.top))
        for name, time in ((b"/a/large", "1000000000.123456789"), (b"/old", "-1.500000000")):
            self.assertEqual(time, found[self.top[1:] + name].pax_headers["mtime"])
        self.assertEqual(("0.000000000", "-0.000000001"), tuple(map(_decimal, (0, -1))))

    def test_links(self) -> None:
        """Further names are hard links to the first one, symlinks keep what they say."""
        found = self.unpacked(self.archived(self.top))
        first = os.fsdecode(self.top[1:] + b"/a/small")
        for name in (b"/b-link", b"/z-link"):
            member = found[self.top[1:] + name]
            self.assertEqual((tarfile.LNKTYPE, first), (member.type, member.linkname))
        self.assertEqual(b"a/\xff", os.fsencode(found[self.top[1:] + b"/symlink"].linkname))
        self.assertTrue(found[self.top[1:] + b"/fifo"].isfifo())

    def test_part(self) -> None:
        """A part alone: what lies beside it is not there, also where its name begins the same."""
        write(self.top + b"/ab", b"beside")
        found = self.unpacked(self.archived(self.top + b"/a"))
        names = {self.top[1:] + name for name in (b"/a", b"/a/large", b"/a/small")}
        self.assertEqual(names, set(found))
        found = self.unpacked(self.archived(self.top + b"/empty"))
        self.assertEqual([self.top[1:] + b"/empty"], list(found))

    def test_first_name_outside(self) -> None:
        """Where the first of several names is not in the archive, the next one has the content, and
        further ones link to that."""
        os.mkdir(self.top + b"/m")
        for name in (b"/m/1", b"/m/2"):
            os.link(self.top + b"/a/small", self.top + name)
        found = self.unpacked(self.archived(self.top + b"/m"))
        first, second = (found[self.top[1:] + name] for name in (b"/m/1", b"/m/2"))
        self.assertEqual((b"small", 0o600), (self.content(first), first.mode))
        self.assertEqual((tarfile.LNKTYPE, first.name), (second.type, second.linkname))

    def test_many_first_names_outside(self) -> None:
        """However many of them there are, the restore point is read three times and not once for
        each."""
        for number in range(5):
            write(self.top + b"/a/%d" % number, b"content %d" % number)
            write(self.top + b"/m/own-%d" % number, b"own")
            for name in (b"/m/%d-1", b"/m/%d-2"):
                os.link(self.top + b"/a/%d" % number, self.top + name % number)
        read: list[PointRecord] = []
        real = reading.entries_of

        def entries_of(fetcher: Fetcher, record: PointRecord) -> Iterator[Entry]:
            read.append(record)
            return real(fetcher, record)

        self.patch(reading, "entries_of", entries_of)
        found = self.unpacked(self.archived(self.top + b"/m"))
        self.assertEqual(3, len(read))
        for number in range(5):
            first, second = (found[self.top[1:] + b"/m/%d-%d" % (number, n)] for n in (1, 2))
            self.assertEqual(b"content %d" % number, self.content(first))
            self.assertEqual((tarfile.LNKTYPE, first.name), (second.type, second.linkname))

    def test_strip(self) -> None:
        """Names are taken from the front; what has none left is not there."""
        depth = self.top.count(b"/")
        found = self.unpacked(self.archived(self.top, depth))
        self.assertIn(b"a/large", found)
        self.assertNotIn(b"", found)
        self.assertEqual("a/small", found[b"z-link"].linkname)
        self.assertEqual(
            {b"large", b"small"},
            set(self.unpacked(self.archived(self.top + b"/a", depth + 1))),
        )

    def test_attributes(self) -> None:
        """Extended attributes are where other programs look for them, whatever bytes they hold."""
        os.setxattr(self.top + b"/empty", b"user.key", b"\xffvalue\x00")
        found = self.unpacked(self.archived(self.top + b"/empty"))
        (member,) = found.values()
        value = member.pax_headers["SCHILY.xattr.user.key"]
        self.assertEqual(b"\xffvalue\x00", value.encode("utf-8", "surrogateescape"))

    def test_odd_attributes(self) -> None:
        """A name that a keyword could not hold is written as GNU tar writes it."""
        os.setxattr(self.top + b"/empty", b"user.50%=half", b"x")
        (member,) = self.unpacked(self.archived(self.top + b"/empty")).values()
        self.assertEqual("x", member.pax_headers["SCHILY.xattr.user.50%25%3Dhalf"])

    def test_impossible_device(self) -> None:
        """A device of a number that no archive holds is damage, and no bug."""
        made = entry_of(b"/d", EntryType.CHARACTER, device=(1 << 64) - 1)
        point = self.place.publish([made])
        with self.assertRaises(StoredDataDamaged), self.place.reader(point) as reader:
            list(TarArchive(reader, b"/").pieces())

    def test_sockets(self) -> None:
        """What an archive cannot hold is told, and the rest is there."""
        before = os.getcwd()
        os.chdir(self.top)
        self.addCleanup(os.chdir, before)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("socket")
        found = self.unpacked(self.archived(self.top))
        self.assertEqual([self.top + b"/socket"], self.skipped)
        self.assertNotIn(self.top[1:] + b"/socket", found)

    def test_the_same_each_time(self) -> None:
        """The same bytes each time, also where fewer chunks are asked for at a time."""
        point = self.place.backup(self.top).point
        made = []
        for chunks in (reading.CHUNKS, 1):
            self.patch(reading, "CHUNKS", chunks)
            with self.place.reader(point) as reader:
                made.append(b"".join(TarArchive(reader, self.top).pieces()))
        self.assertEqual(*made)

    def test_nothing(self) -> None:
        """Nothing is no archive: a wrong path, or all names taken away."""
        for top, strip in ((b"/nowhere", 0), (self.top, 50)):
            self.assertRaises(NotFound, self.archived, top, strip)

    def test_damage(self) -> None:
        """Damage is an error, and not zeros."""
        point = self.place.backup(self.top).point
        with self.place.reader(point) as reader:
            damaged = reader.find(self.top + b"/a/large").runs[0].id
        assert damaged is not None
        self.place.damage(damaged)
        with self.assertRaises(StoredDataDamaged), self.place.reader(point) as reader:
            for _ in TarArchive(reader, self.top).pieces():
                pass
