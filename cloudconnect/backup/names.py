"""Layer 3: things with several names of which some are in a restore's target already.

Looked for before anything is made, because which name has the content must be known when the first
one is planned: one that is missing, or another file by now, becomes a link to those that are there,
and nothing is written again. No link is made to what has another owner, mode or attributes than it
should have.
"""

from __future__ import annotations

import enum
import os
import stat
import struct
from typing import Final

import attrs

from cloudconnect.backup.linked import LONG_MAX, LONG_RUNS
from cloudconnect.backup.matching import open_regular
from cloudconnect.backup.metadata import MetadataWriter, safe_mode, through_proc, type_of
from cloudconnect.backup.placing import Place
from cloudconnect.backup.spilling import PathTable
from cloudconnect.backup.target import Parts, Target
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.manifest import EntryDecoder, encode_entry
from cloudconnect.errors import UnsafePath
from cloudconnect.shown import Shown

_PLACE: Final = struct.Struct("<QQ")
_HEAD: Final = struct.Struct("<BQQ")


class Standing(enum.IntEnum):
    """What is known of the names of one thing."""

    #: All are there, as names of one thing.
    WHOLE = 0
    #: One is there and looks right; the others may be missing, or something else.
    BROKEN = 1
    #: Likewise, and it has the owner, mode and attributes that it should have.
    GOOD = 2
    #: It has not.
    BAD = 3


@attrs.frozen(repr=False)
class Known(Shown):
    """One thing of which a name is there.

    :ivar place: where, and which inode it is
    """

    standing: Standing
    place: Place


class Places:
    """Where first names were put, by their paths in the restore point."""

    def __init__(self) -> None:
        self._places = PathTable()

    def put(self, group: bytes, place: Place) -> None:
        """Remember one.

        :raises LocalError: there is no room for temporary files
        """
        self._places.put(group, _PLACE.pack(*place[1:]) + b"/".join(place[0]))

    def get(self, group: bytes) -> Place | None:
        """The place of one."""
        packed = self._places.get(group)
        if packed is None:
            return None
        device, inode = _PLACE.unpack_from(packed)
        return tuple(packed[_PLACE.size :].split(b"/")), device, inode

    def close(self) -> None:
        """Forget all."""
        self._places.close()


class FirstNames:
    """Entries of first names that are not restored, for those that get the content instead."""

    def __init__(self) -> None:
        self._entries = PathTable()
        self._long: dict[bytes, Entry] = {}

    def put(self, entry: Entry) -> None:
        """Remember one.

        :raises LocalError: there is no room for temporary files
        """
        if len(entry.runs) > LONG_RUNS and len(self._long) < LONG_MAX:
            self._long[entry.path] = entry
        else:
            self._entries.put(entry.path, encode_entry(entry))

    def get(self, path: bytes) -> Entry | None:
        """That of this path."""
        if path in self._long:
            return self._long[path]
        encoded = self._entries.get(path)
        return None if encoded is None else next(EntryDecoder().feed(encoded))

    def drop(self, path: bytes) -> None:
        """Forget that of this path."""
        if self._long.pop(path, None) is None:
            self._entries.drop(path)

    def close(self) -> None:
        """Forget all."""
        self._long = {}
        self._entries.close()


class NamesThere:
    """The things of one restore point of which a name is in the target and looks right.

    :param there: the target, opened for looking only
    :param metadata: knows what of a thing's metadata can be set
    """

    def __init__(self, there: Target, metadata: MetadataWriter) -> None:
        self._there = there
        self._metadata = metadata
        self._known = PathTable()

    def note(self, entry: Entry, parts: Parts) -> None:
        """Look at one name that is to be restored; called for all of them in walk order.

        :raises LocalError: there is no room for temporary files
        """
        group = entry.link or entry.path
        status, known = self._there.status(parts), self.get(group)
        if status is None or not looks_right(entry, status):
            if known is not None and known.standing is Standing.WHOLE:
                self._put(group, Known(Standing.BROKEN, known.place))
        elif known is None:
            # Where this is a further name, the first one is missing, or was not asked for.
            standing = Standing.WHOLE if entry.link is None else Standing.BROKEN
            self._put(group, Known(standing, (parts, status.st_dev, status.st_ino)))
        elif known.standing is Standing.WHOLE and not is_at(status, known.place):
            self._put(group, Known(Standing.BROKEN, known.place))

    def get(self, group: bytes) -> Known | None:
        """What is known of the thing with this first name; None: no name of it looks right."""
        packed = self._known.get(group)
        if packed is None:
            return None
        standing, device, inode = _HEAD.unpack_from(packed)
        parts = tuple(packed[_HEAD.size :].split(b"/"))
        return Known(Standing(standing), (parts, device, inode))

    def judge(self, group: bytes, entry: Entry) -> Known | None:
        """Likewise, and if need be whether a link may be made to what is there.

        :param entry: of the first name
        """
        known = self.get(group)
        if known is None or known.standing is not Standing.BROKEN:
            return known
        good = self._is_as(entry, known.place)
        judged = Known(Standing.GOOD if good else Standing.BAD, known.place)
        self._put(group, judged)
        return judged

    def close(self) -> None:
        """Forget everything."""
        self._known.close()

    def _put(self, group: bytes, known: Known) -> None:
        parts, device, inode = known.place
        self._known.put(group, _HEAD.pack(known.standing, device, inode) + b"/".join(parts))

    def _is_as(self, entry: Entry, place: Place) -> bool:
        """Whether what is in a place is that inode, and has what ``entry`` says, but for content
        that only reading would show."""
        parts, name = place[0][:-1], place[0][-1]
        try:
            with self._there.beside(parts) as folder:
                if entry.type is not EntryType.FILE:
                    status = os.lstat(name, dir_fd=folder)
                    return is_at(status, place) and self._is_same_thing(entry, status, folder, name)
                descriptor = open_regular(folder, name, os.O_RDONLY)
                if descriptor is None:
                    return False
                try:
                    status = os.fstat(descriptor)
                    return is_at(status, place) and self._has_metadata(entry, descriptor, status)
                finally:
                    os.close(descriptor)
        except (OSError, UnsafePath):
            return False

    def _is_same_thing(
        self, entry: Entry, status: os.stat_result, folder: int, name: bytes
    ) -> bool:
        if not looks_right(entry, status):
            return False
        if entry.type is EntryType.SYMLINK and os.readlink(name, dir_fd=folder) != entry.target:
            return False
        return self._has_metadata(entry, through_proc(folder, name), status)

    def _has_metadata(self, entry: Entry, where: int | bytes, status: os.stat_result) -> bool:
        shown = may_be_linked(entry, status, self._metadata)
        return shown and self._metadata.has(entry, where, status)


def looks_right(entry: Entry, status: os.stat_result) -> bool:
    """Whether something has the kind, the time and the size of ``entry``."""
    if type_of(status) is not entry.type or status.st_mtime_ns != entry.mtime_ns:
        return False
    if entry.type in (EntryType.CHARACTER, EntryType.BLOCK) and entry.link is None:
        return status.st_rdev == entry.device
    return entry.type is not EntryType.FILE or status.st_size == entry.size


def may_be_linked(entry: Entry, status: os.stat_result, metadata: MetadataWriter) -> bool:
    """Whether something has the kind, time, size, mode and owner of ``entry``.

    Looked at once more when the link is there: a number of an inode is soon given to another thing
    where the first one is removed.
    """
    if not (looks_right(entry, status) and metadata.has_owner(entry, status)):
        return False
    # A symbolic link's mode means nothing.
    mode = stat.S_IMODE(status.st_mode)
    return entry.type is EntryType.SYMLINK or mode == safe_mode(entry, status)


def is_at(status: os.stat_result, place: Place) -> bool:
    """Whether this is the inode of that place."""
    return (status.st_dev, status.st_ino) == place[1:]
