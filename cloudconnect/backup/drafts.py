"""Layer 3: manifest entries in the making.

A small file's chunk is only known once the files behind it were read too, so an entry waits as a
:class:`Draft`, and in a :class:`ContentStream` its bytes wait for the chunk that they end up in.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from cloudconnect.backup.metadata import group_name, type_of, user_name
from cloudconnect.backup.temporary import temporary_file
from cloudconnect.content.chunking import ChunkingParameters, StreamChunker
from cloudconnect.content.entries import FLAG_CHANGED, Entry
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.runs import Run, RunList
from cloudconnect.content.usual import encode_file
from cloudconnect.settings import MANIFEST_PIECE_RUNS

#: In :attr:`Entry.flags`: this file has further names, whose entries are hard links to this one.
FLAG_LINKED: Final = 0x02
#: In :attr:`Entry.flags`: this folder is only on the way to what was backed up.
FLAG_ON_THE_WAY: Final = 0x04
#: In :attr:`Entry.flags`: the content is that of a block device, which had this path.
FLAG_DEVICE: Final = 0x08

_KIND: Final = 0o170000
_DEVICES: Final = (stat.S_IFCHR, stat.S_IFBLK)

#: What waits in a stream is handed to the chunker when it has this many bytes: fewer calls, fewer
#: copies of the uncut tail.
_FEED: Final = 1 << 20
#: A file of more runs than this has them packed: as objects they take some 200 bytes each.
LONG_RUNS: Final = 1 << 12
#: A stream is cut, whatever the content, when this many files wait in it: bounds the drafts that
#: wait where files have a few bytes each.
_FILES_MAX: Final = 8192


class Draft:
    """An entry whose content may not all be known yet.

    :ivar path: absolute
    :ivar status: what the entry's numbers are taken from
    :ivar runs: what is known of the content
    :ivar missing: bytes of the content that are added but not in ``runs`` yet
    :ivar size: bytes added
    :ivar read_ns: when the reading began, nanoseconds since 1970
    :ivar replaces: the token of the entry that this one takes the place of, or 0
    """

    # One is made for each file, and most files need few of these.
    missing = 0
    size = 0
    flags = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    target: bytes | None = None
    link: bytes | None = None
    read_ns = 0
    replaces = 0

    def __init__(self, path: bytes, status: os.stat_result) -> None:
        self.path = path
        self.status = status
        self.runs: list[Run] | RunList = []

    def run(self, name: bytes | None, offset: int, length: int) -> None:
        """One more run of the content.

        :raises OSError: there are very many, and the file for them cannot be made or written
        """
        runs = self.runs
        if len(runs) == LONG_RUNS and isinstance(runs, list):
            self.runs = RunList(temporary_file)
            self.runs.extend(runs)
            runs = self.runs
        runs.append(Run(name, offset, length))

    @property
    def long(self) -> bool:
        """Whether there are so many runs that an encoded entry of all of them takes much room."""
        return len(self.runs) > LONG_RUNS

    @property
    def changed(self) -> bool:
        """Whether the file was changed while it was read."""
        return bool(self.flags & FLAG_CHANGED)

    def entry(self) -> Entry:
        """The finished entry.

        :raises ValueError: the manifest cannot hold it, such as a path of more than 65,535 bytes
        """
        status = self.status
        mode = status.st_mode
        kind = mode & _KIND
        device = kind in _DEVICES
        return Entry(
            self.path,
            type_of(status),
            mode & 0o7777,
            status.st_uid,
            status.st_gid,
            user_name(status.st_uid),
            group_name(status.st_gid),
            status.st_mtime_ns,
            self.size,
            tuple(self.runs) if isinstance(self.runs, list) else self.runs,
            self.target,
            status.st_rdev if device else None,
            self.link,
            self.xattrs,
            self.flags,
        )

    def encoded(self) -> bytes:
        """:meth:`entry`, encoded; not for a long one.

        :raises ValueError: likewise
        """
        runs, status = self.runs, self.status
        mode = status.st_mode
        usual = mode & _KIND == stat.S_IFREG and self.link is None and not self.xattrs
        if not usual or len(runs) > MANIFEST_PIECE_RUNS:
            return encode_entry(self.entry())
        return encode_file(
            self.path,
            mode & 0o7777,
            status.st_uid,
            status.st_gid,
            user_name(status.st_uid),
            group_name(status.st_gid),
            status.st_mtime_ns,
            self.size,
            runs,
            self.flags,
        )

    def ids(self) -> Iterator[bytes]:
        """The chunks that the content needs, each once; not for a long one."""
        runs = self.runs
        if len(runs) == 1 and (name := runs[0].id) is not None:  # as most files have
            return iter((name,))
        return iter(dict.fromkeys(run.id for run in runs if run.id is not None))


class ContentStream:
    """Content of one or many files as one stream of chunks.

    Where a chunk ends up holding the end of one file and the beginning of the next, both get a run
    of it. The chunks are what :class:`StreamChunker` makes of all content in a row.

    :param parameters: how it is cut
    :param take: called with each chunk; returns its id
    """

    def __init__(
        self, parameters: ChunkingParameters, take: Callable[[bytes | memoryview], bytes]
    ) -> None:
        self._chunker = StreamChunker(parameters)
        self._take = take
        self._waiting: list[bytes] = []
        self._bytes = 0  # in there
        # (draft, bytes) of what is not in a chunk yet; a hole has its bytes below zero.
        self._pieces: deque[tuple[Draft, int]] = deque()

    def add(self, draft: Draft, data: bytes) -> None:
        """``data`` follows what was added before; it belongs to ``draft``."""
        if not data:
            return
        draft.missing += len(data)
        draft.size += len(data)
        self._pieces.append((draft, len(data)))
        self._waiting.append(data)
        self._bytes += len(data)
        if len(self._pieces) >= _FILES_MAX:
            self.finish()
        elif self._bytes >= _FEED:
            self._feed()

    def hole(self, draft: Draft, length: int) -> None:
        """So many zeros that take no space follow in ``draft``; none at all is fine too."""
        if length <= 0:
            return
        draft.size += length
        if draft.missing == 0:
            draft.run(None, 0, length)
        else:
            draft.missing += length
            self._pieces.append((draft, -length))

    def finish(self) -> None:
        """End the stream, so that all drafts in it are complete; another one begins."""
        self._feed()
        for chunk in self._chunker.finish():
            self._assign(chunk)

    def _feed(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if waiting:
            data = waiting[0] if len(waiting) == 1 else b"".join(waiting)
            for chunk in self._chunker.feed(data):
                self._assign(chunk)

    def _assign(self, chunk: bytes | memoryview) -> None:
        """Give the drafts that come next their runs of ``chunk``."""
        name, length = self._take(chunk), len(chunk)
        pieces, offset = self._pieces, 0
        while offset < length:
            draft, size = pieces.popleft()
            if size < 0:
                draft.run(None, 0, -size)
                draft.missing += size
                continue
            if size > length - offset:
                pieces.appendleft((draft, size - (length - offset)))
                size = length - offset
            draft.run(name, offset, size)
            draft.missing -= size
            offset += size
        while pieces and pieces[0][1] < 0:
            draft, size = pieces.popleft()
            draft.run(None, 0, -size)
            draft.missing += size
