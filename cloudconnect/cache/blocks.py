"""Layer 3: the accelerator's block cache on disk (``docs/wan.rst``, the cache).

One directory for each tenant: ``key``, ``lock``, ``index.sqlite`` and ``segments/``. Everything in
it may be lost, damaged or another host's at any time; that costs bytes on the line, never
exactness, and nothing here raises for it once the cache is open.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import attrs
from zope.interface import implementer

from cloudconnect.cache.appending import BlockAppender
from cloudconnect.cache.index import SegmentRow, remove_index
from cloudconnect.cache.keys import NodeKey
from cloudconnect.cache.opening import INDEX, hold, open_directory, segment_path
from cloudconnect.cache.segments import HEADER_SIZE, OVERHEAD, Entry, SegmentFile, SegmentWriter
from cloudconnect.dedup.interfaces import SIMILAR_MAX, IBlockCache, Place
from cloudconnect.dedup.limits import BLOCK_MAX, BLOCK_MIN
from cloudconnect.errors import UsageError

#: Bytes of a full segment: long runs, few files, and an eviction loses little at a time.
SEGMENT_SIZE: Final = 64 << 20
#: Segments of a smaller cache are smaller, so that it has this many ...
SEGMENTS_USUAL: Final = 64
#: ... but have at least so many bytes.
SEGMENT_SIZE_MIN: Final = 4 << 20
#: Segments that a cache has room for, at least: appenders have one each, and those stay.
SEGMENTS_MIN: Final = 4
#: Segment files that are kept open.
OPEN_MAX: Final = 64
#: Bytes that stay free on the file system.
FREE_MIN: Final = 64 << 20

_T = TypeVar("_T")


@attrs.define
class _Segment:
    """What is known of a segment without opening it.

    :ivar last: its last block, or None while it has none
    :ivar after: number of the segment that its stream filled next, or 0
    :ivar writing: an appender has it
    """

    number: int
    before: int
    size: int
    last: Place | None
    used: int
    writing: bool = False
    after: int = 0


@implementer(IBlockCache)
class BlockCache:
    """The cache of one tenant; safe to use from several threads of one process.

    :param directory: is made, with mode 0700, when it is missing; its parent must exist
    :param tenant: the tenant's name
    :param node: the host's key, kept elsewhere
    :param limit: bytes that its segments may take
    :param segment_size: bytes of a full segment; by default what suits the limit
    :ivar segment_size: the same
    :ivar trouble: why nothing more is added or found, or None
    :ivar damaged: blocks that could not be opened
    :raises UsageError: another process uses it, or the limit is too small
    :raises OSError: the directory cannot be used
    """

    def __init__(
        self,
        directory: Path,
        tenant: str,
        node: NodeKey,
        limit: int,
        segment_size: int | None = None,
    ) -> None:
        if segment_size is None:
            segment_size = min(max(limit // SEGMENTS_USUAL, SEGMENT_SIZE_MIN), SEGMENT_SIZE)
        if limit < SEGMENTS_MIN * segment_size:
            raise UsageError(f"a block cache needs room for {SEGMENTS_MIN * segment_size} bytes")
        self._limit = limit
        self.segment_size = segment_size
        self._lock = threading.RLock()
        self._files: OrderedDict[int, SegmentFile] = OrderedDict()
        self._segments: dict[int, _Segment] = {}
        self._size = 0
        self._clock = 1
        self.trouble: str | None = None
        self.damaged = 0
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        self._directory = directory
        self._held = hold(directory / "lock")
        try:
            opened = open_directory(directory, tenant, node)
            self._keys, self._index, self._next = opened.keys, opened.index, opened.next
            for row in opened.rows:
                self._add(_Segment(row.number, row.before, row.size, row.last, row.used))
                self._clock = max(self._clock, row.used)
            while self._size > self._limit and self.evict():
                pass
        except sqlite3.Error as error:
            os.close(self._held)
            raise OSError(f"the block cache in {directory} has no index: {error}") from error
        except BaseException:
            os.close(self._held)
            raise

    # --- what the codec asks ----------------------------------------------------------------------

    def find(self, name: bytes) -> Place | None:
        """See :meth:`IBlockCache.find`."""
        masked = self._keys.masked(name)
        with self._lock:
            if self.trouble is not None:
                return None
            try:  # as in _guarded(), without its price
                place = self._index.find(masked)
            except sqlite3.Error as error:
                self._fail(error)
                return None
            return place if place is not None and self._use(place.segment) else None

    def read(self, place: Place) -> tuple[bytes, bytes] | None:
        """See :meth:`IBlockCache.read`."""
        file = self._file(place.segment)
        if file is None or not BLOCK_MIN <= place.length <= BLOCK_MAX:
            return None
        try:
            block = file.read(place)  # without the lock: this is most of the work
        except OSError:
            return None
        if block is None:
            return None
        name, data = block
        if data is None:
            self.damaged += 1
            self.drop(name)
            return None
        return name, data

    def beside(self, place: Place, steps: int) -> Place | None:
        """See :meth:`IBlockCache.beside`."""
        found: Place | None = place
        for _ in range(abs(steps)):
            if found is None:
                return None
            found = self._one_after(found) if steps > 0 else self._one_before(found)
        return found

    def similar(self, features: Sequence[int]) -> list[Place]:
        """See :meth:`IBlockCache.similar`."""
        masked = [self._keys.masked_feature(feature) for feature in features]
        with self._lock:
            nothing: list[Place] = []
            places = self._guarded(lambda: list(self._index.similar(masked)), nothing)
            return list(islice((one for one in places if self._use(one.segment)), SIMILAR_MAX))

    def drop(self, name: bytes) -> None:
        """See :meth:`IBlockCache.drop`."""
        masked = self._keys.masked(name)
        with self._lock:
            self._guarded(lambda: self._index.remove(masked), None)

    def appender(self) -> BlockAppender:
        """See :meth:`IBlockCache.appender`."""
        return BlockAppender(self)

    def horizon(self) -> int:
        """See :meth:`IBlockCache.horizon`."""
        return self._next

    def empty(self) -> bool:
        """See :meth:`IBlockCache.empty`."""
        with self._lock:
            return self._guarded(self._index.empty, True)

    # --- for its owner -------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of its segments."""
        return self._size

    @property
    def limit(self) -> int:
        """Bytes that its segments may take."""
        return self._limit

    def close(self) -> None:
        """Write what waits, and let go of the directory; appenders were closed before."""
        with self._lock:
            if self.trouble is None:
                used = [(one.number, one.used) for one in self._segments.values()]
                self._guarded(lambda: self._index.use(used), None)
                self._guarded(self._index.close, None)
            self.trouble = self.trouble or "it is closed"
            self._files.clear()
            if self._held >= 0:
                os.close(self._held)
                self._held = -1

    def evict(self) -> bool:
        """Forget the segment that was not used for longest; False where there is none to spare.

        Who is reading it goes on reading it: the file stays until nobody has it open.
        """
        with self._lock:
            idle = [one for one in self._segments.values() if not one.writing]
            if not idle:
                return False
            self._forget(min(idle, key=lambda one: one.used))
            return True

    # --- what appenders do ---------------------------------------------------------------------

    def begin(self, before: int) -> SegmentWriter | None:
        """A new segment for an appender, behind the one that it filled before; None: no room."""
        with self._lock:
            if self.trouble is not None:
                return None
            try:
                while self._size + self.segment_size > self._limit or self._is_disk_full():
                    if not self.evict():
                        return None
                number, self._next = self._next, self._next + 1
                writer = SegmentWriter(self._path(number), number, before, self._keys)
            except OSError as error:
                self._fail(error)
                return None
            self._clock += 1
            self._add(_Segment(number, before, writer.size, None, self._clock, writing=True))
            # What may still be written counts as written: several appenders share the limit.
            self._size += self.segment_size - writer.size
            return writer

    def appended(self, name: bytes, features: Sequence[int], place: Place) -> None:
        """An appender wrote a block."""
        masked = self._keys.masked(name)
        shown = [self._keys.masked_feature(feature) for feature in features]
        with self._lock:
            segment = self._segments[place.segment]
            segment.last = place
            segment.size = place.offset + place.length + OVERHEAD
            self._guarded(lambda: self._index.add(masked, shown, place), None)

    def ended(self, writer: SegmentWriter) -> None:
        """An appender is done with a segment."""
        with self._lock:
            writer.close()
            segment = self._segments[writer.number]
            self._size += segment.size - self.segment_size
            segment.writing = False
            if segment.last is None:
                self._forget(segment)
            elif self.trouble is None:
                row = SegmentRow(
                    segment.number, segment.before, segment.size, segment.last, segment.used
                )
                self._guarded(lambda: self._index.close_segment(row), None)

    # --- segments ------------------------------------------------------------------------------

    def _path(self, number: int) -> Path:
        return segment_path(self._directory, number)

    def _add(self, segment: _Segment) -> None:
        self._segments[segment.number] = segment
        self._size += segment.size
        before = self._segments.get(segment.before)
        if before is not None:
            before.after = segment.number

    def _forget(self, segment: _Segment) -> None:
        entries = None
        file = self._file(segment.number)
        if file is not None:
            with contextlib.suppress(OSError):
                entries = [
                    (
                        self._keys.masked(entry.name),
                        [self._keys.masked_feature(feature) for feature in entry.features],
                    )
                    for _, entry in file.entries()
                ]
                if len(entries) != (segment.last.ordinal + 1 if segment.last else 0):
                    entries = None  # some of it cannot be read
        del self._segments[segment.number]
        self._files.pop(segment.number, None)
        self._size -= segment.size
        self._guarded(lambda: self._index.forget_segment(segment.number, entries), None)
        with contextlib.suppress(OSError):
            self._path(segment.number).unlink(missing_ok=True)

    def _file(self, number: int) -> SegmentFile | None:
        with self._lock:
            file = self._files.get(number)
            if file is not None:
                self._files.move_to_end(number)
                return file
            if number not in self._segments:
                return None
            try:
                file = SegmentFile(self._path(number), number, self._keys)
            except (OSError, ValueError):
                return None
            self._files[number] = file
            if len(self._files) > OPEN_MAX:
                self._files.popitem(last=False)
            return file

    def _use(self, number: int) -> bool:
        """Note that a segment is of use; False where it is gone."""
        segment = self._segments.get(number)
        if segment is None:
            return False
        if segment.used != self._clock:
            self._clock += 1
            segment.used = self._clock
        return True

    def _one_after(self, place: Place) -> Place | None:
        with self._lock:
            segment = self._segments.get(place.segment)
            if segment is None or segment.last is None:
                return None
            if place.ordinal < segment.last.ordinal:
                number, ordinal = place.segment, place.ordinal + 1
                offset = place.offset + place.length + OVERHEAD
            else:
                number, ordinal, offset = segment.after, 0, HEADER_SIZE
        return self._at(number, ordinal, offset)

    def _one_before(self, place: Place) -> Place | None:
        if place.ordinal == 0:
            with self._lock:
                segment = self._segments.get(place.segment)
                before = None if segment is None else self._segments.get(segment.before)
                return None if before is None else before.last
        file = self._file(place.segment)
        entry = None if file is None else _entry(file, place.ordinal, place.offset)
        if entry is None:
            return None
        offset = place.offset - entry.before - OVERHEAD
        return Place(place.segment, place.ordinal - 1, offset, entry.before)

    def _at(self, number: int, ordinal: int, offset: int) -> Place | None:
        file = self._file(number)
        entry = None if file is None else _entry(file, ordinal, offset)
        return None if entry is None else Place(number, ordinal, offset, entry.length)

    # --- trouble -------------------------------------------------------------------------------

    def _is_disk_full(self) -> bool:
        status = os.statvfs(self._directory)
        return status.f_bavail * status.f_frsize < FREE_MIN + self.segment_size

    def _guarded(self, work: Callable[[], _T], instead: _T) -> _T:
        """``work`` on the index; from the first error on the cache is as good as empty."""
        if self.trouble is not None:
            return instead
        try:
            return work()
        except sqlite3.Error as error:
            self._fail(error)
            return instead

    def _fail(self, error: Exception) -> None:
        self.trouble = f"the block cache is not used: {error}"
        if isinstance(error, sqlite3.Error):
            # The next one to open it makes it again from the segments.
            with contextlib.suppress(sqlite3.Error, OSError):
                self._index.close()
            with contextlib.suppress(OSError):
                remove_index(self._directory / INDEX)


def _entry(file: SegmentFile, ordinal: int, offset: int) -> Entry | None:
    try:
        return file.entry(ordinal, offset)
    except OSError:
        return None
