"""Layer 3: what the reading side of a backup hands to the sending side."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import encode_pieces
from cloudconnect.content.runs import ids_of
from cloudconnect.shown import Shown

#: How often a byte counts that the repository has asked for. What it was only asked about hides
#: round trips; what waits to be compressed and sent hides nothing, and takes memory.
WANTED_COUNTS: Final = 3
#: What a long entry counts for: most of it lies in a file.
LONG_BYTES: Final = 512 << 10


class Stopped(Exception):
    """The other side of the pipeline has ended; so does this one."""


@attrs.define(repr=False)
class Outgoing(Shown):
    """A finished entry; not changed by anybody.

    :ivar encoded: for the manifest; empty where a file that was to be read again cannot be, and for
        a long entry
    :ivar ids: chunks of an unchanged file, which was not read: the repository must have them
    :ivar path: of that file
    :ivar token: number of that entry, or 0 for one that is final
    :ivar replaces: token of the entry that this one takes the place of, or 0
    :ivar entry: one of so many runs that it is encoded only piece by piece
    """

    encoded: bytes
    ids: tuple[bytes, ...] = ()
    path: bytes = b""
    token: int = 0
    replaces: int = 0
    entry: Entry | None = None

    @property
    def needed(self) -> Iterable[bytes]:
        """:attr:`ids`, also of a long entry."""
        return self.ids if self.entry is None else ids_of(self.entry.runs)

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        return LONG_BYTES if self.entry is not None else len(self.encoded) + 80 * len(self.ids)

    def pieces(self) -> Iterator[bytes]:
        """What goes into the manifest."""
        if self.entry is not None:
            yield from encode_pieces(self.entry)
        elif self.encoded:
            yield self.encoded


class Batch:
    """Some chunks, and entries that need no later ones.

    :ivar ids: chunks, 32 bytes each
    :ivar plains: the content of each; None where only an unchanged file needs it
    :ivar shared: those in which small files are joined
    :ivar size: bytes of content
    :ivar entries: in walk order
    :ivar entry_bytes: about how many bytes of memory these take
    :ivar path: what the source was at
    :ivar last: the walk is over
    """

    __slots__ = ("entries", "entry_bytes", "ids", "last", "path", "plains", "shared", "size")

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.plains: list[bytes | memoryview | None] = []
        self.shared: set[bytes] = set()
        self.size = 0
        self.entries: list[Outgoing] = []
        self.entry_bytes = 0
        self.path = b""
        self.last = False

    def add(self, name: bytes, plain: bytes | memoryview | None, shared: bool = False) -> None:
        """One more chunk."""
        if shared:
            self.shared.add(name)
        self.ids.append(name)
        self.plains.append(plain)
        if plain is not None:
            self.size += len(plain)

    def place(self, outgoing: Outgoing) -> None:
        """One more entry."""
        self.entries.append(outgoing)
        self.entry_bytes += outgoing.size


class Budget:
    """How much may be under way between the two sides; safe to use from several threads.

    :param bytes_max: bytes of content; one batch always fits
    :param batches_max: batches
    """

    def __init__(self, bytes_max: int, batches_max: int) -> None:
        self._changed = threading.Condition()
        self._bytes_max = bytes_max
        self._batches_max = batches_max
        self._bytes = 0
        self._batches = 0
        self._stopped = False

    def take(self, size: int) -> None:
        """Wait until there is room for a batch with ``size`` bytes of content.

        :raises Stopped: :meth:`stop` was called
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._has_room(size))
            if self._stopped:
                raise Stopped
            self._bytes += size
            self._batches += 1

    def _has_room(self, size: int) -> bool:
        fits = self._bytes == 0 or self._bytes + size <= self._bytes_max
        return fits and self._batches < self._batches_max

    def want(self, size: int) -> None:
        """``size`` of the bytes under way are to be sent: until :meth:`sent` they count more."""
        with self._changed:
            self._bytes += (WANTED_COUNTS - 1) * size

    def sent(self, size: int) -> None:
        """``size`` of the bytes that were to be sent are not under way any more."""
        self.give_back(WANTED_COUNTS * size)

    def give_back(self, size: int, batches: int = 0) -> None:
        """``size`` bytes that were not to be sent, and so many batches, are done with."""
        with self._changed:
            self._bytes -= size
            self._batches -= batches
            self._changed.notify_all()

    def stop(self) -> None:
        """Whoever waits, or comes, gets :class:`Stopped`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
