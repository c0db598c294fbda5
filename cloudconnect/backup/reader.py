"""Layer 3: reading the content of files for a backup.

Small files share one stream of chunks, each larger one is a stream of its own. Holes of sparse
files are found, not read, and blocks of zeros in other files and in devices become holes. A file
that changes while it is read is read once more, and then kept as it was read, with a mark.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final

from cloudconnect.backup.drafts import FLAG_DEVICE, ContentStream, Draft
from cloudconnect.backup.metadata import read_attributes
from cloudconnect.backup.walk import open_quietly
from cloudconnect.backup.zeros import ZeroSkipper, has_zeros
from cloudconnect.content.chunking import Chunker, ChunkingParameters
from cloudconnect.content.entries import FLAG_CHANGED

#: Files of fewer bytes share chunks with their neighbours: the usual size of a chunk.
SMALL_FILE: Final = 64 << 10
#: Files of up to so many bytes are read at once; larger ones in blocks of this size.
BLOCK: Final = 1 << 20
#: A file of so many bytes ends the stream of the small ones before it, so that their entries do
#: not wait for it to be read.
LARGE_FILE: Final = 16 << 20

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEVICE_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class FileReader:
    """Reads files and cuts them.

    :param parameters: how the repository's content is cut
    :param take: called with each chunk; returns its id
    :param now_ns: the clock that tells whether a file can be remembered as unchanged
    :param take_shared: is called in its place with chunks of the stream of the small files
    """

    def __init__(
        self,
        parameters: ChunkingParameters,
        take: Callable[[bytes | memoryview], bytes],
        now_ns: Callable[[], int],
        take_shared: Callable[[bytes | memoryview], bytes] | None = None,
    ) -> None:
        self._parameters = parameters
        self._take = take
        self._now_ns = now_ns
        self._chunker = Chunker(parameters)
        self._small = ContentStream(parameters, take_shared or take)

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

    def read_device(self, path: bytes, name: bytes, parent: int) -> Draft:
        """Draft the entry of a block device: a file with the device's content.

        :param name: of the device, or of a link to it, in the folder that ``parent`` is a
            descriptor of
        :raises OSError: it cannot be read, or is none
        """
        self.finish()
        descriptor = os.open(name, _DEVICE_FLAGS, dir_fd=parent)
        try:
            status, size = os.fstat(descriptor), device_size(descriptor)
            kind, rest = stat.S_IFREG | stat.S_IMODE(status.st_mode), tuple(status)[1:]
            times = {"st_mtime_ns": status.st_mtime_ns, "st_ctime_ns": status.st_ctime_ns}
            draft = Draft(path, os.stat_result((kind, *rest), times))
            draft.flags = FLAG_DEVICE
            self._read_large(draft, descriptor, size, False)
        finally:
            os.close(descriptor)
        if draft.size != size:
            draft.flags |= FLAG_CHANGED
        return draft

    def read_stream(self, draft: Draft, stream: BinaryIO) -> None:
        """Add to ``draft`` all that ``stream`` has."""
        content = ContentStream(self._parameters, self._take)
        skipper = ZeroSkipper(content, draft)
        while data := stream.read(BLOCK):
            skipper.add(data)
        skipper.finish()
        content.finish()

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
                    extents = list(_extents(descriptor, size))
                    os.lseek(descriptor, 0, os.SEEK_SET)
                data = os.read(descriptor, size)
                if len(data) < size:
                    data = _read_on(descriptor, data, size)
                if extents is None and len(data) >= SMALL_FILE and has_zeros(data):
                    extents = [(0, len(data))]
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
            skipper, position = ZeroSkipper(self._small, draft), 0
            for start, end in extents:
                start, end = min(start, len(data)), min(end, len(data))
                skipper.hole(start - position)
                skipper.add(data[start:end])
                position = end
            skipper.hole(len(data) - position)
            skipper.finish()
        else:
            for chunk in self._chunker.cut(data):
                draft.run(self._take(chunk), 0, len(chunk))
            draft.size = len(data)

    def _read_large(self, draft: Draft, descriptor: int, size: int, sparse: bool) -> None:
        if size >= LARGE_FILE:
            self.finish()
        # A stream of its own: one that failed in the middle is of no use to the next file.
        stream = ContentStream(self._parameters, self._take)
        skipper, position = ZeroSkipper(stream, draft), 0
        for start, end in _extents(descriptor, size) if sparse else [(0, size)]:
            skipper.hole(start - position)
            position = start
            while position < end:
                most = min(BLOCK - position % BLOCK, end - position)
                data = os.pread(descriptor, most, position)
                if not data:
                    break  # it became shorter
                skipper.add(data)
                position += len(data)
            if position < end:
                break
        else:
            skipper.hole(size - position)
        skipper.finish()
        stream.finish()


def device_size(descriptor: int) -> int:
    """The bytes of a block device.

    :raises OSError: it is none
    """
    if not stat.S_ISBLK(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "became something else than a block device")
    return os.lseek(descriptor, 0, os.SEEK_END)


def _read_on(descriptor: int, data: bytes, size: int) -> bytes:
    """``data`` and what follows it, up to ``size`` bytes in all or the end of the file."""
    while 0 < len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            break
        data += more
    return data


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Where in the first ``size`` bytes of a file there is data: (start, end), in order."""
    position = 0
    while position < size:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            if error.errno == errno.EINVAL and not position:
                yield 0, size  # a file system that does not know holes
                return
            raise
        if start >= size:
            return
        position = min(os.lseek(descriptor, start, os.SEEK_HOLE), size)
        yield start, position
