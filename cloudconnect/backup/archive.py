"""Layer 3: what is in a restore point as a tar archive, of which a piece is made when it is wanted.

The format is POSIX pax (IEEE Std 1003.1, ``pax``), which GNU tar, bsdtar and Python read: names of
any bytes and length, times in nanoseconds, and extended attributes as ``SCHILY.xattr``, which is
where ``tar --xattrs`` looks for them. Holes become zeros. The archive of a restore point has the
same bytes each time, so that it can go on where a line broke.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from typing import Final

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.names import FirstNames
from cloudconnect.backup.reading import PointReader
from cloudconnect.backup.spilling import PathTable
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import NotFound, StoredDataDamaged

_TYPES: Final = {
    EntryType.FILE: tarfile.REGTYPE,
    EntryType.DIRECTORY: tarfile.DIRTYPE,
    EntryType.SYMLINK: tarfile.SYMTYPE,
    EntryType.FIFO: tarfile.FIFOTYPE,
    EntryType.CHARACTER: tarfile.CHRTYPE,
    EntryType.BLOCK: tarfile.BLKTYPE,
}
_XATTR: Final = "SCHILY.xattr."
#: What a keyword ends with, and what GNU tar writes in its place.
_ESCAPED: Final = str.maketrans({"%": "%25", "=": "%3D"})
_SECOND: Final = 10**9


class TarArchive:
    """A part of a restore point as a tar archive.

    :param reader: has the restore point open
    :param top: absolute path of the thing that is wanted, with all that is below it; ``/`` for all
    :param strip: so many names are taken from the front of each path; what has no more is left out
    :param skipped: called with the path of each thing that a tar archive cannot hold (a socket)
    """

    def __init__(
        self,
        reader: PointReader,
        top: bytes,
        strip: int = 0,
        skipped: Callable[[bytes], None] = lambda path: None,
    ) -> None:
        self._reader = reader
        self._top = top
        self._strip = strip
        self._skipped = skipped
        # The first name of what has several -> its path in the archive, where that is another one.
        self._moved = PathTable()
        self._outside: FirstNames | None = None  # first names that are not in the archive

    def pieces(self) -> Iterator[bytes]:
        """The archive, in pieces of any size.

        :raises NotFound: (from the iterator) there is nothing to put into it
        :raises StoredDataDamaged: (from the iterator) something is damaged or missing; what came is
            a broken archive
        :raises LocalError: (from the iterator) there is no room for temporary files
        """
        try:
            yield from self._pieces()
        finally:
            self._moved.close()
            if self._outside is not None:
                self._outside.close()

    def _pieces(self) -> Iterator[bytes]:
        written = 0
        for item in self._reader.contents(self._chosen()):
            if isinstance(item, Entry):
                piece = bytes(-written % tarfile.BLOCKSIZE) + self._header(item)
            else:
                piece = item
            written += len(piece)
            yield piece
        if not written:
            shown = self._top.decode("utf-8", "backslashreplace")
            raise NotFound(f"nothing of {shown} that an archive holds is in this restore point")
        end = bytes(-written % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)
        yield end + bytes(-(written + len(end)) % tarfile.RECORDSIZE)

    def _chosen(self) -> Iterator[Entry]:
        """The entries that become members; further names of what is in no other place are its
        first ones here."""
        for entry in self._reader.entries():
            if not self._wanted(entry.path):
                continue
            if entry.type not in _TYPES:
                self._skipped(entry.path)
            elif (
                entry.link is None
                or self._wanted(entry.link)
                or self._moved.get(entry.link) is not None
            ):
                yield entry
            else:
                self._moved.put(entry.link, entry.path)
                yield self._first(entry.link)._replace(path=entry.path)

    def _first(self, path: bytes) -> Entry:
        """The entry of a first name that is not in the archive; asked for once."""
        if self._outside is None:
            self._outside = self._first_names()
        entry = self._outside.get(path)
        if entry is None:
            return self._reader.find(path)
        self._outside.drop(path)
        return entry

    def _first_names(self) -> FirstNames:
        """All of these that are wanted: to look for each by itself would read everything anew for
        each, and a tree of snapshots has a million of them."""
        needed, found = PathTable(), FirstNames()
        try:
            for entry in self._reader.entries():
                link = entry.link
                if link is not None and self._wanted(entry.path) and not self._wanted(link):
                    needed.put(link, b"")
            for entry in self._reader.entries():
                first = entry.link is None and entry.flags & FLAG_LINKED
                if first and needed.get(entry.path) is not None:
                    found.put(entry)
        finally:
            needed.close()
        return found

    def _wanted(self, path: bytes) -> bool:
        below = path == self._top or path.startswith(self._top.rstrip(b"/") + b"/")
        return below and self._name(path) != ""

    def _name(self, path: bytes) -> str:
        names = path.strip(b"/").split(b"/")[self._strip :]
        return b"/".join(names).decode("utf-8", "surrogateescape")

    def _header(self, entry: Entry) -> bytes:
        member = tarfile.TarInfo(self._name(entry.path))
        member.type = _TYPES[entry.type]
        member.mode, member.uid, member.gid = entry.mode, entry.uid, entry.gid
        member.uname, member.gname = entry.user, entry.group
        member.mtime = max(0, entry.mtime_ns // _SECOND)
        # The number that a float cannot hold; it counts more than the other one.
        extended = {"mtime": _decimal(entry.mtime_ns)}
        if entry.link is not None:
            member.type = tarfile.LNKTYPE
            member.linkname = self._name(self._moved.get(entry.link) or entry.link)
        else:
            member.size = entry.size
            if entry.target is not None:
                member.linkname = entry.target.decode("utf-8", "surrogateescape")
            if entry.device is not None:
                member.devmajor, member.devminor = os.major(entry.device), os.minor(entry.device)
            for name, value in entry.xattrs:
                keyword = name.decode("utf-8", "backslashreplace").translate(_ESCAPED)
                extended[_XATTR + keyword] = value.decode("utf-8", "surrogateescape")
        member.pax_headers = extended
        try:
            return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        except ValueError as error:  # a number of a device that no system has
            raise StoredDataDamaged(f"an entry is nothing for a tar archive: {error}") from error


def _decimal(nanoseconds: int) -> str:
    """Seconds as pax writes them."""
    sign = "-" if nanoseconds < 0 else ""
    seconds, rest = divmod(abs(nanoseconds), _SECOND)
    return f"{sign}{seconds}.{rest:09d}"
