"""Layer 3: the sending side of a backup: chunks that the repository wants, and the manifest."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cloudconnect.backup.batches import Budget
from cloudconnect.backup.following import LEVEL_FIRST, FollowingLevel
from cloudconnect.content.atrest import BlobKind, RepositoryKeys
from cloudconnect.content.chunking import ChunkingParameters, StreamChunker
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import StoredBlob

#: Threads that compress, seal and send: compressing takes most of the time of a backup.
SENDERS: Final = 2
#: Bytes of content that such a thread takes at a time: a hop between threads costs some 100 us.
GROUP_BYTES: Final = 1 << 20
#: With so many groups that no thread has taken up, compressing is what a backup waits for.
BEHIND_GROUPS: Final = 4
#: Bytes of encoded entries that are cut into manifest chunks at a time.
MANIFEST_BYTES: Final = 1 << 20
#: Groups of manifest chunks that may wait for such a thread; who sends more waits. File content is
#: bounded by the budget.
MANIFEST_GROUPS: Final = 8
#: Manifest chunks that are offered at a time.
MANIFEST_CHUNKS: Final = 64

Plain = bytes | memoryview


class ChunkSender:
    """Compresses, seals and sends chunks in threads of its own.

    :param channel: to the repository
    :param keys: what the chunks are sealed with
    :param level: of compression, 0 to 19; None: one that follows the line, higher while chunks wait
        for it, and low while they wait to be compressed
    :param budget: gets back the bytes of file content that were sent
    :param failed: called once, in any thread, with what went wrong
    :ivar level: the level in use
    :ivar bytes_stored: bytes of sent chunks after compression and sealing
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        level: int | None,
        budget: Budget,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._follows = FollowingLevel() if level is None else None
        self.level = LEVEL_FIRST if level is None else level
        self._budget = budget
        self._failed = failed
        # Where nothing is to be computed one is enough, and chunks go in the order of the files: an
        # accelerator has use for that (``docs/wan.rst``, blocks).
        count = SENDERS if self.level or keys.sealing else 1
        self._threads = ThreadPoolExecutor(count, "cloudconnect-send")
        self._lock = threading.Lock()
        self._manifest_slots = threading.Semaphore(MANIFEST_GROUPS)
        self._stopped = False
        self._groups = 0  # that no thread has taken up
        self.bytes_stored = 0

    def send(self, kind: BlobKind, chunks: Sequence[tuple[bytes, Plain]]) -> None:
        """Send chunks, each with its id, some time soon; waits where much of a manifest waits."""
        group: list[tuple[bytes, Plain]] = []
        size = 0
        for chunk in chunks:
            group.append(chunk)
            size += len(chunk[1])
            if size >= GROUP_BYTES:
                self._submit(kind, group)
                group, size = [], 0
        if group:
            self._submit(kind, group)

    def finish(self) -> None:
        """Wait until everything was sent, or something went wrong."""
        self._threads.shutdown()

    def stop(self) -> None:
        """Send nothing more; what is being written is for the channel to stop."""
        self._stopped = True
        self._manifest_slots.release(MANIFEST_GROUPS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _submit(self, kind: BlobKind, group: list[tuple[bytes, Plain]]) -> None:
        if kind == "manifest":
            self._manifest_slots.acquire()
        with self._lock:
            self._groups += 1
        self._threads.submit(self._send, kind, group)

    def _send(self, kind: BlobKind, group: list[tuple[bytes, Plain]]) -> None:
        manifest = kind == "manifest"
        with self._lock:
            self._groups -= 1
        try:
            blobs: list[StoredBlob] = []
            for name, plain in group:
                if self._stopped:
                    return
                blobs.append(self._keys.seal_blob(kind, plain, self.level, name))
            waited = self._channel.send_chunks(0, blobs, manifest)
            with self._lock:
                self.bytes_stored += sum(len(blob.data) for blob in blobs)
            if not manifest:
                self._budget.sent(sum(len(plain) for _, plain in group))
            self._follow(waited)
        except BaseException as error:
            if not self._stopped:
                self._failed(error)
        finally:
            if manifest:
                self._manifest_slots.release()

    def _follow(self, waited: bool) -> None:
        """Choose the level for the next groups.

        :param waited: a group had to wait for the line
        """
        if self._follows is not None:
            with self._lock:
                self.level = self._follows.observe(waited, self._groups >= BEHIND_GROUPS)


class ManifestWriter:
    """Cuts encoded entries into manifest chunks.

    :param parameters: how the repository's content is cut
    :param name: names a manifest chunk
    :param offer: called with some chunks, each with its id
    :ivar ids: of all chunks so far, in order
    :ivar length: bytes of all entries so far
    """

    def __init__(
        self,
        parameters: ChunkingParameters,
        name: Callable[[Plain], bytes],
        offer: Callable[[list[tuple[bytes, Plain]]], None],
    ) -> None:
        self._chunker = StreamChunker(parameters)
        self._name = name
        self._offer = offer
        self._entries: list[bytes] = []
        self._size = 0
        self._chunks: list[tuple[bytes, Plain]] = []
        self._finished = False
        self.ids: list[bytes] = []
        self.length = 0

    def add(self, encoded: bytes) -> None:
        """One more entry.

        :raises RuntimeError: :meth:`finish` was called
        """
        if self._finished:
            raise RuntimeError("an entry came when the manifest was finished")
        self._entries.append(encoded)
        self._size += len(encoded)
        if self._size >= MANIFEST_BYTES:
            self._feed()

    def finish(self) -> None:
        """That was the last entry."""
        self._finished = True
        self._feed()
        for chunk in self._chunker.finish():
            self._take(chunk)
        self._give()

    def _feed(self) -> None:
        data = b"".join(self._entries)
        self._entries, self._size = [], 0
        self.length += len(data)
        for chunk in self._chunker.feed(data):
            self._take(chunk)

    def _take(self, chunk: Plain) -> None:
        name = self._name(chunk)
        self.ids.append(name)
        self._chunks.append((name, chunk))
        if len(self._chunks) >= MANIFEST_CHUNKS:
            self._give()

    def _give(self) -> None:
        chunks, self._chunks = self._chunks, []
        if chunks:
            self._offer(chunks)
