"""Layer 3: reading the content of files for a backup.

Small files share one stream of chunks, each larger one is a stream of its own. Holes of sparse
files are found, not read. A file that changes while it is read is read once more, and then kept as
it was read, with a mark.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import BinaryIO, Final

from cloudconnect.backup.drafts import ContentStream, Draft
from cloudconnect.backup.metadata import read_attributes
from cloudconnect.backup.walk import open_quietly
from cloudconnect.content.chunking import Chunker, ChunkingParameters
from cloudconnect.content.manifest import FLAG_CHANGED, Run

#: Files of fewer bytes share chunks with their neighbours: the usual size of a chunk.
SMALL_FILE: Final = 64 << 10
#: Files of up to so many bytes are read at once; larger ones in blocks of this size.
BLOCK: Final = 2 << 20
#: A file of so many bytes ends the stream of the small ones before it, so that their entries do
#: not wait for it to be read.
LARGE_FILE: Final = 16 << 20

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class FileReader:
    """Reads files and cuts them.

    :param parameters: how the repository's content is cut
    :param take: called with each chunk; returns its id
    :param now_ns: the clock that tells whether a file can be remembered as unchanged
    """

    def __init__(
        self,
        parameters: ChunkingParameters,
        take: Callable[[bytes | memoryview], bytes],
        now_ns: Callable[[], int],
    ) -> None:
        self._take = take
        self._now_ns = now_ns
        self._chunker = Chunker(parameters)
        self._small = ContentStream(parameters, take)
        self._large = ContentStream(parameters, take)

    def read(self, path: bytes, name: bytes, parent: int, status: os.stat_result) -> Draft:
        """Draft the entry of a file. Its content may be complete only after :meth:`finish`.

        :param name: of the file in the folder that ``parent`` is a descriptor of
        :param status: what it was like just now
        :raises OSError: it cannot be read; what was read of it is of no use to anybody
        """
        draft = Draft(path, status)
        if self._attempt(draft, name, parent, False):
            return draft
        draft = Draft(path, os.stat(name, dir_fd=parent, follow_symlinks=False))
        if not stat.S_ISREG(draft.status.st_mode):
            raise OSError(errno.EINVAL, "became something else than a file")
        if not self._attempt(draft, name, parent, last=True):
            draft.flags |= FLAG_CHANGED
        return draft

    def read_stream(self, draft: Draft, stream: BinaryIO) -> None:
        """Add to ``draft`` all that ``stream`` has."""
        while data := stream.read(BLOCK):
            self._large.add(draft, data)
        self._large.finish()

    def finish(self) -> None:
        """Complete all drafts: the stream of the small files ends, and another one begins."""
        self._small.finish()

    def _attempt(self, draft: Draft, name: bytes, parent: int, last: bool) -> bool:
        """Read a file; whether it stayed as it was.

        If it did not, and this is not the ``last`` attempt, nothing is left of it in the stream of
        the small files.
        """
        status = draft.status
        size, sparse = status.st_size, status.st_blocks * 512 < status.st_size
        draft.read_ns = self._now_ns()
        data = b""
        extents: list[tuple[int, int]] | None = None
        descriptor = open_quietly(name, _FLAGS, parent, status.st_uid)
        try:
            if size > BLOCK or (sparse and size >= SMALL_FILE):
                self._read_large(draft, descriptor, size, sparse)
            elif size:
                if sparse:
                    extents = _extents(descriptor, size)
                data = os.read(descriptor, size)
                if len(data) < size:
                    data = _read_on(descriptor, data, size)
            draft.xattrs = read_attributes(descriptor)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if after.st_ctime_ns != status.st_ctime_ns:
            draft.read_ns = 0  # something about it changed: it is not to be remembered
        same = (
            after.st_mtime_ns == status.st_mtime_ns
            and after.st_size == size
            and after.st_ino == status.st_ino
            and after.st_dev == status.st_dev
        )
        if same or last:
            if extents is None and len(data) < SMALL_FILE:
                self._small.add(draft, data)
            else:
                self._add(draft, data, extents)
        return same

    def _add(self, draft: Draft, data: bytes, extents: list[tuple[int, int]] | None) -> None:
        """Cut a file that was read at once, and has holes or is not small."""
        if extents is not None:
            position = 0
            for start, end in extents:
                self._small.hole(draft, min(start, len(data)) - position)
                self._small.add(draft, data[start:end])
                position = min(end, len(data))
            self._small.hole(draft, len(data) - position)
        else:
            for chunk in self._chunker.cut(data):
                draft.runs.append(Run(self._take(chunk), 0, len(chunk)))
            draft.size = len(data)

    def _read_large(self, draft: Draft, descriptor: int, size: int, sparse: bool) -> None:
        if size >= LARGE_FILE:
            self.finish()
        stream, position = self._large, 0
        try:
            for start, end in _extents(descriptor, size) if sparse else [(0, size)]:
                stream.hole(draft, start - position)
                position = start
                while position < end:
                    data = os.pread(descriptor, min(BLOCK, end - position), position)
                    if not data:
                        return  # it became shorter
                    stream.add(draft, data)
                    position += len(data)
            stream.hole(draft, size - position)
        finally:
            stream.finish()


def _read_on(descriptor: int, data: bytes, size: int) -> bytes:
    """``data`` and what follows it, up to ``size`` bytes in all or the end of the file."""
    while 0 < len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data


def _extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """Where in the first ``size`` bytes of a file there is data: (start, end), in order."""
    found: list[tuple[int, int]] = []
    position = 0
    try:
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break  # nothing but a hole up to the end
                raise
            if start >= size:
                break
            position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
            found.append((start, position))
        os.lseek(descriptor, 0, os.SEEK_SET)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return [(0, size)]  # a file system that does not know holes
    return found
