"""Layer 3: the reading side of a backup: from the walk to batches of chunks and finished entries.

A :class:`Source` runs in a thread of its own. Entries come in walk order, and never in a batch
before the chunks that they need.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from cloudconnect.backup.batches import Batch, Outgoing
from cloudconnect.backup.drafts import FLAG_DEVICE, FLAG_LINKED, FLAG_ON_THE_WAY, Draft
from cloudconnect.backup.filecache import FileCache, Remembered
from cloudconnect.backup.links import LinkMap
from cloudconnect.backup.metadata import read_attributes, through_proc
from cloudconnect.backup.options import BackupOptions, BackupResult, StandardInput
from cloudconnect.backup.reader import FileReader
from cloudconnect.backup.walk import Found, Unreadable, absolute, open_below, reason_of, walk
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.manifest import encode_pieces
from cloudconnect.content.recent import RecentIds
from cloudconnect.errors import UsageError

#: A batch is handed over when it has so much content ...
BATCH_BYTES: Final = 4 << 20
#: ... or so many chunks ...
BATCH_IDS: Final = 1024
#: ... or so many entries, ...
BATCH_ENTRIES: Final = 2048
#: ... or entries that take so many bytes.
BATCH_ENTRY_BYTES: Final = 1 << 20
#: Entries, or bytes of them, that may wait for the chunk of a small file before them; then the
#: stream of the small files ends. Where few of many files have changed, no other ends it.
WAITING_ENTRIES: Final = 8192
WAITING_BYTES: Final = 8 << 20


class Source:
    """Reads what a backup is of.

    :param options: what that is
    :param keys: names the chunks
    :param chunking: how the repository's content is cut
    :param cache: what is known of unchanged files, or None; closed by :meth:`run`
    :param result: where files are counted and troubles listed; others read it for progress only
    :param hand_over: takes a batch; blocks while too much is under way
    """

    def __init__(
        self,
        options: BackupOptions,
        keys: RepositoryKeys,
        chunking: ChunkingParameters,
        cache: FileCache | None,
        result: BackupResult,
        hand_over: Callable[[Batch], None],
    ) -> None:
        self._options = options
        self._name = keys.chunk_id
        self._cache = cache
        self._result = result
        self._hand_over = hand_over
        self._paths = [absolute(path) for path in options.paths]
        now_ns = cache.now_ns if cache else lambda: 0
        self._reader = FileReader(chunking, self._take, now_ns, self._take_shared)
        self._batch = Batch()
        self._order: deque[Draft | Outgoing] = deque()  # entries that are not handed over
        self._order_bytes = 0  # of the Outgoing ones
        self._provided = RecentIds()  # chunks handed over with their content
        self._asked = RecentIds()  # chunks of unchanged files, without it
        self._links = LinkMap()
        self._again: SimpleQueue[tuple[int, bytes] | None] = SimpleQueue()
        self._enough = False
        self._distrusts = False
        self._tokens = 0

    def read_again(self, token: int, path: bytes) -> None:
        """The repository lacks a chunk of an unchanged file; may be called from any thread.

        An entry that replaces the one with ``token`` comes in a later batch.
        """
        self._again.put((token, path))

    def distrust(self) -> None:
        """From now on read unchanged files too; may be called from any thread."""
        self._distrusts = True

    def enough(self) -> None:
        """No more files will have to be read again; may be called from any thread."""
        self._again.put(None)

    def run(self) -> None:
        """Read everything; returns after :meth:`enough`.

        :raises Stopped: nobody takes batches any more
        :raises UsageError: nothing of what was named exists
        :raises CloudConnectError: what the check of standard input raises
        """
        try:
            if self._options.stdin is not None:
                self._standard_input(self._options.stdin)
            else:
                self._walk()
            self._complete(last=True)
            while not self._enough:
                self._read_requested(wait=True)
                self._complete()
        finally:
            self._links.close()
            if self._cache is not None:
                self._cache.close()

    def _walk(self) -> None:
        found = False
        items = walk(self._paths, self._options.rules, self._options.one_file_system)
        for item in items:
            if isinstance(item, Unreadable):
                self._result.unreadable.add(item.path, item.reason)
                continue
            found = found or not item.ancestor
            self._batch.path = item.path
            try:
                self._found(item)
            except OSError as error:
                self._result.unreadable.add(item.path, reason_of(error))
            self._settle()
            if len(self._order) > WAITING_ENTRIES or self._order_bytes > WAITING_BYTES:
                self._reader.finish()
                self._settle()
            self._flush_full()
            if not self._again.empty():
                self._read_requested(wait=False)
        if not found:
            raise UsageError("nothing of what is to be backed up exists or can be read")

    def _found(self, item: Found) -> None:
        """Draft the entry of one thing.

        :raises OSError: it cannot be read
        """
        result, mode = self._result, item.status.st_mode
        if stat.S_ISREG(mode):
            self._file(item)
            result.files += 1
            return
        if stat.S_ISBLK(mode) and item.named:
            self._device(item)
            result.files += 1
            return
        draft = Draft(item.path, item.status)
        if stat.S_ISDIR(mode):
            draft.xattrs = read_attributes(_where(item))
            if item.ancestor:
                draft.flags = FLAG_ON_THE_WAY
                result.on_the_way += 1
            else:
                result.directories += 1
            self._order.append(draft)
            return
        if stat.S_ISLNK(mode):
            draft.target = os.readlink(item.name, dir_fd=item.parent)
        if not self._further_name(draft):
            draft.xattrs = read_attributes(_where(item))
            self._first_name(draft)
            self._order.append(draft)
        result.other += 1

    def _file(self, item: Found) -> None:
        status, result = item.status, self._result
        several = status.st_nlink > 1
        if several and self._further_name(Draft(item.path, status)):
            return
        if self._cache is not None and not self._distrusts:
            known = self._cache.find(item.path, status)
            if known is not None:
                self._known(known, item.path)
                if several:
                    self._first_name(Draft(item.path, status))
                result.files_unchanged += 1
                result.bytes_source += status.st_size
                return
        draft = self._read(item.path, item.name, item.parent, status)
        self._first_name(draft)
        self._order.append(draft)
        result.bytes_source += draft.size

    def _device(self, item: Found) -> None:
        """A block device that was named: its content, as a file."""
        draft = self._reader.read_device(item.path, item.name, item.parent)
        self._order.append(draft)
        self._result.bytes_source += draft.size
        self._result.devices.append(item.path)

    def _known(self, known: Remembered, path: bytes) -> None:
        """Take the entry of a file that is not read."""
        if known.long is not None:
            self._complete()  # it holds a file open: it does not wait for small files before it
        self._tokens += 1
        outgoing = Outgoing(known.entry, known.ids, path, self._tokens, 0, known.long)
        for name in outgoing.needed:
            if name not in self._provided and self._asked.add(name):
                self._batch.add(name, None)
                if len(self._batch.ids) >= BATCH_IDS:
                    self._flush()
        self._order.append(outgoing)
        self._order_bytes += outgoing.size

    def _read(self, path: bytes, name: bytes, parent: int, status: os.stat_result) -> Draft:
        draft = self._reader.read(path, name, parent, status)
        if draft.changed:
            self._result.changed.add(path, "changed while it was read")
        return draft

    def _further_name(self, draft: Draft) -> bool:
        """Whether ``draft`` is a further name of something that came already; then it is done."""
        status = draft.status
        if status.st_nlink < 2:
            return False
        draft.link = self._links.further(status)
        if draft.link is None:
            return False
        if stat.S_ISREG(status.st_mode):
            draft.size = status.st_size
        self._order.append(draft)
        return True

    def _first_name(self, draft: Draft) -> None:
        """Note the first name of something that has more of them."""
        status = draft.status
        if status.st_nlink > 1:
            draft.flags |= FLAG_LINKED
            self._links.first(draft.path, status)

    def _standard_input(self, given: StandardInput) -> None:
        now = time.time_ns()
        names = (0o100600, 0, 0, 1, os.geteuid(), os.getegid(), 0, *(now // 1_000_000_000,) * 3)
        status = os.stat_result(names, {"st_mtime_ns": now})
        draft = Draft(b"/" + given.name.lstrip(b"/"), status)
        try:
            draft.entry()
        except ValueError as error:
            raise UsageError(f"the name for standard input cannot be used: {error}") from error
        if draft.path == b"/":
            raise UsageError("standard input needs a name")
        self._batch.path = draft.path
        self._order.append(draft)
        self._reader.read_stream(draft, given.stream)
        given.check()
        self._result.files, self._result.bytes_source = 1, draft.size

    # --- what the repository lost -----------------------------------------------------------------

    def _read_requested(self, wait: bool) -> None:
        """Read the files that have to be read after all: those waiting, or at least one."""
        try:
            request = self._again.get(wait)
            while request is not None:
                self._read_once_more(*request)
                request = self._again.get(block=False)
            self._enough = True
        except Empty:
            pass

    def _read_once_more(self, token: int, path: bytes) -> None:
        result = self._result
        result.files_unchanged -= 1
        try:
            parent = open_below(self._paths, path)
            try:
                name = path[path.rindex(b"/") + 1 :]
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                draft = self._read(path, name, parent, status)
            finally:
                os.close(parent)
        except OSError as error:
            result.unreadable.add(path, reason_of(error))
            result.files -= 1
            gone = Outgoing(b"", replaces=token)
            self._order.append(gone)
            self._order_bytes += gone.size
            return
        if status.st_nlink > 1:
            draft.flags |= FLAG_LINKED
        draft.replaces = token
        self._order.append(draft)

    # --- batches ----------------------------------------------------------------------------------

    def _take_shared(self, chunk: bytes | memoryview) -> bytes:
        """:meth:`_take` a chunk in which small files are joined."""
        return self._take(chunk, True)

    def _take(self, chunk: bytes | memoryview, shared: bool = False) -> bytes:
        """Name a chunk, and hand it over unless it was already."""
        name = self._name(chunk)
        if self._provided.add(name):
            batch = self._batch
            batch.add(name, chunk, shared)
            if batch.size >= BATCH_BYTES or len(batch.ids) >= BATCH_IDS:
                self._flush()
        return name

    def _settle(self) -> None:
        """Move finished entries from the front of the order into the batch."""
        order = self._order
        while order:
            draft = order[0]
            if isinstance(draft, Outgoing):
                self._batch.place(draft)
                self._order_bytes -= draft.size
            elif draft.missing:
                return
            else:
                self._settle_draft(draft)
            order.popleft()

    def _settle_draft(self, draft: Draft) -> None:
        entry, encoded = None, b""
        try:
            if draft.long:
                entry = draft.entry()
                next(encode_pieces(entry))  # what is wrong with it shows now
            else:
                encoded = draft.encoded()
        except ValueError as error:
            self._cannot_be_kept(draft, str(error))
            return
        self._batch.place(Outgoing(encoded, replaces=draft.replaces, entry=entry))
        cache, status = self._cache, draft.status
        if cache is None or draft.changed or draft.link is not None or not draft.read_ns:
            return
        if entry is not None:
            cache.remember_long(draft.path, status, draft.read_ns, entry)
        elif stat.S_ISREG(status.st_mode):
            cache.remember(draft.path, status, draft.read_ns, encoded, draft.ids())

    def _cannot_be_kept(self, draft: Draft, reason: str) -> None:
        """A manifest cannot hold it, such as a path that is too long."""
        result, mode = self._result, draft.status.st_mode
        result.unreadable.add(draft.path, reason)
        if draft.flags & FLAG_ON_THE_WAY:
            result.on_the_way -= 1
        elif stat.S_ISDIR(mode):
            result.directories -= 1
        elif stat.S_ISREG(mode) or draft.flags & FLAG_DEVICE:
            result.files -= 1
        else:
            result.other -= 1
        self._batch.place(Outgoing(b"", replaces=draft.replaces))

    def _complete(self, last: bool = False) -> None:
        """Hand over everything that was read, in several batches if it is much.

        :param last: the walk is over; only the very last batch says so
        """
        self._reader.finish()
        self._settle()
        self._batch.last = last
        self._flush()

    def _flush_full(self) -> None:
        batch = self._batch
        if (
            len(batch.entries) >= BATCH_ENTRIES
            or len(batch.ids) >= BATCH_IDS
            or batch.entry_bytes >= BATCH_ENTRY_BYTES
        ):
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, Batch()
        self._batch.path = batch.path
        self._hand_over(batch)


def _where(item: Found) -> int | bytes:
    """Where the extended attributes of ``item`` are read from."""
    if item.ancestor and item.descriptor is not None:
        return through_proc(item.descriptor, b".")
    if item.descriptor is not None:
        return item.descriptor
    return through_proc(item.parent, item.name)
