"""Layer 3: a backup: the source mover's side of the dialogue, with the threads behind it.

Threads meet in one inbox. The :class:`~cloudconnect.backup.source.Source` reads, cuts and names; a
receiver takes the repository's frames; senders compress, seal and send what the repository wants;
and the thread of :meth:`BackupRun.run` leads the dialogue and writes the manifest. Many questions
(HAVE) are open at a time, so that their round trips do not add up, and a budget bounds how much is
under way.

The entries of a batch go into the manifest when the batch's questions were answered: then it is
known that the repository has, or gets, every chunk that they need. Where it lacks a chunk of an
unchanged file, that file is read after all, and the entries behind it wait.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Final

import attrs

from cloudconnect.backup.batches import Batch, Budget, Outgoing, Stopped
from cloudconnect.backup.dialogue import Limits, expect, greet
from cloudconnect.backup.filecache import FileCache
from cloudconnect.backup.options import BackupOptions, BackupResult, Labels, Progress
from cloudconnect.backup.references import ReferenceList
from cloudconnect.backup.sending import ChunkSender, ManifestWriter, Plain
from cloudconnect.backup.source import Source
from cloudconnect.backup.walk import Unreadable, absolute, walk
from cloudconnect.content.atrest import BlobKind, RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import Cancelled, ProtocolViolation, UsageError
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import (
    FLAG_PART,
    ID_SIZE,
    Frame,
    FrameKind,
    decode_body,
    encode_body,
    join_ids,
    unpack_bitmap,
)

#: Bytes of file content that may be under way between the source and the wire.
IN_FLIGHT_BYTES: Final = 48 << 20
#: Batches that may be under way: this hides round trips where nothing but ids is sent.
IN_FLIGHT_BATCHES: Final = 32
#: References in one PART of a POINT, where the repository takes so many.
REFERENCES_PART: Final = 1 << 15
#: Frames of the repository that may wait to be looked at.
FRAMES_MAX: Final = 256
#: Seconds after which progress is reported again and a cancellation is noticed.
LOOK_SECONDS: Final = 0.2
#: Source paths are kept, for people, in the point's record up to so many bytes in all.
PRIVATE_MAX: Final = 64 << 10
#: Seconds that a thread gets to end when a backup has failed; it may hang in reading a source.
JOIN_SECONDS: Final = 5.0


@attrs.define
class _Waiting:
    """A batch whose entries are not all in the manifest.

    :ivar entries: those that are not
    :ivar questions: HAVEs of the batch that are not answered
    """

    entries: deque[Outgoing]
    questions: int = 0


@attrs.frozen
class _Question:
    """A HAVE that was sent.

    :ivar waiting: the batch that it is of, or None for manifest chunks
    """

    request: int
    ids: Sequence[bytes]
    plains: Sequence[Plain | None]
    waiting: _Waiting | None


@attrs.frozen
class _Failure:
    error: BaseException


class BackupRun:
    """One backup over one dialogue.

    :param channel: to the repository; None for a dry run
    :param keys: of the repository
    :param description: of the repository
    :param options: what to back up, and how
    :param labels: what the restore point will be found by
    :param session: the session's 16 bytes
    :param progress: called in the thread of :meth:`run`, a few times a second
    :param cancelled: asked in the thread of :meth:`run`, a few times a second
    :param now_ns: the clock, nanoseconds since 1970
    """

    def __init__(
        self,
        channel: FrameChannel | None,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        options: BackupOptions,
        labels: Labels,
        session: bytes,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._description = description
        self._options = options
        self._labels = labels
        self._session = session
        self._progress = progress
        self._cancelled = cancelled
        self._now_ns = now_ns
        self._result = BackupResult()
        self._path = b""
        self._looked = time.monotonic()

    def run(self) -> BackupResult:
        """Back up, publish the restore point, and end the dialogue.

        After an error the channel is aborted, and the repository keeps what it has stored.

        :raises Cancelled: ``cancelled`` said so
        :raises UsageError: nothing of what was named exists, or a label cannot be used
        :raises CloudConnectError: the repository refuses, the line broke, or the check of standard
            input failed; no restore point was published
        """
        started = time.monotonic()
        if self._options.dry_run:
            self._count()
        else:
            assert self._channel is not None, "only a dry run goes without a channel"
            try:
                self._back_up(self._channel)
            except BaseException as error:
                self._channel.abort(error if isinstance(error, Exception) else Cancelled())
                raise
        self._result.seconds = time.monotonic() - started
        return self._result

    def _count(self) -> None:
        """A dry run."""
        options, result = self._options, self._result
        inodes: set[tuple[int, int]] = set()
        paths = [absolute(path) for path in options.paths]
        for item in walk(paths, options.rules, options.one_file_system):
            if isinstance(item, Unreadable):
                result.unreadable.add(item.path, item.reason)
                continue
            self._path, status = item.path, item.status
            if stat.S_ISREG(status.st_mode):
                result.files += 1
                inode = (status.st_dev, status.st_ino)
                if status.st_nlink == 1 or inode not in inodes:
                    result.bytes_source += status.st_size
                if status.st_nlink > 1:
                    inodes.add(inode)
            elif not stat.S_ISDIR(status.st_mode):
                result.other += 1
            elif not item.ancestor:
                result.directories += 1
            self._look()

    def _back_up(self, channel: FrameChannel) -> None:
        started_ns, point = self._now_ns(), os.urandom(16)
        self._record(point, started_ns, [], 0)  # wrong labels are noticed now, not at the end
        limits = greet(channel, self._keys, self._description, "backup")
        upload = _Upload(channel, self._keys, self._description, self._options, self._result)
        upload.start(limits, self._look)
        try:
            upload.lead()
            record = self._record(point, started_ns, upload.manifest.ids, upload.manifest.length)
            upload.publish(record)
        except BaseException as error:
            upload.stop(error)
            raise
        finally:
            upload.close()
        channel.finish()
        channel.expect_end()
        self._result.bytes_sent = channel.bytes_sent
        self._result.bytes_received = channel.bytes_received

    def _record(
        self, point: bytes, started_ns: int, manifest: Sequence[bytes], length: int
    ) -> PointRecord:
        result, labels = self._result, self._labels
        try:
            return PointRecord(
                point=point,
                repository=self._description.repository,
                session=self._session,
                job_id=labels.job_id,
                host=labels.host,
                job=labels.job,
                tags=labels.tags,
                started_ns=started_ns,
                finished_ns=self._now_ns(),
                mode=self._description.mode,
                manifest=tuple(manifest),
                manifest_length=length,
                statistics={
                    "files": result.files,
                    "directories": result.directories,
                    "other": result.other,
                    "bytes_source": result.bytes_source,
                    "bytes_new": result.bytes_new,
                    "unreadable": result.unreadable.count,
                },
                private=self._keys.seal_private(point, self._private_paths()),
            )
        except ValueError as error:
            raise UsageError(str(error)) from error

    def _private_paths(self) -> list[bytes]:
        stdin = self._options.stdin
        named = [stdin.name] if stdin is not None else self._options.paths
        kept, size = [], 0
        for path in named:
            size += len(path) + 8
            if size > PRIVATE_MAX:
                break
            kept.append(path)
        return kept

    def _look(self, path: bytes = b"") -> None:
        """Report progress and notice a cancellation, now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the backup was interrupted")
        if self._progress is not None:
            result, channel = self._result, self._channel
            self._progress(
                Progress(
                    files=result.files + result.directories + result.other,
                    bytes_done=result.bytes_source,
                    bytes_new=result.bytes_new,
                    bytes_sent=channel.bytes_sent if channel else 0,
                    bytes_received=channel.bytes_received if channel else 0,
                    path=path or self._path,
                )
            )


class _Upload:
    """The threads of one backup and what leads them; see the module's beginning."""

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        options: BackupOptions,
        result: BackupResult,
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._result = result
        self._limits = Limits()
        self._look: Callable[[bytes], None] = lambda path: None
        self._path = b""
        self._inbox: SimpleQueue[Batch | Frame | _Failure | None] = SimpleQueue()
        self._frame_slots = threading.Semaphore(FRAMES_MAX)
        self._budget = Budget(IN_FLIGHT_BYTES, IN_FLIGHT_BATCHES)
        self._references = ReferenceList()
        self._request = 0
        self._questions: deque[_Question] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._lost: set[bytes] = set()  # ids of unchanged files that the repository lacks
        self._again: dict[int, bytes | None] = {}  # by token: the entry once it was read again
        self._walked = False
        cache = None
        if options.cache is not None:
            cache = FileCache(options.cache, description.repository, keys.id_check)
        self._source = Source(options, keys, description.chunking, cache, result, self._hand_over)
        self._sender = ChunkSender(channel, keys, options.compression, self._budget, self._failed)
        self.manifest = ManifestWriter(description.chunking, keys.manifest_id, self._offer_manifest)
        self._threads = [
            threading.Thread(target=target, name=f"cloudconnect-{name}", daemon=True)
            for name, target in (("source", self._read), ("receive", self._receive))
        ]

    # --- the threads ------------------------------------------------------------------------------

    def start(self, limits: Limits, look: Callable[[bytes], None]) -> None:
        self._limits, self._look = limits, look
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        try:
            self._source.run()
            self._inbox.put(None)
        except Stopped:
            pass
        except BaseException as error:
            self._failed(error)

    def _hand_over(self, batch: Batch) -> None:
        self._budget.take(batch.size)
        self._inbox.put(batch)

    def _receive(self) -> None:
        """Take frames until the last one that is due in the dialogue."""
        try:
            while True:
                frame = self._channel.receive()
                if frame.kind is FrameKind.STORED:
                    continue  # POINTED says it for all of them
                self._frame_slots.acquire()
                self._inbox.put(frame)
                if frame.kind in (FrameKind.POINTED, FrameKind.FAIL, FrameKind.TOTALS):
                    return
        except BaseException as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._inbox.put(_Failure(error))

    def stop(self, error: BaseException) -> None:
        """Something went wrong: end all threads."""
        self._sender.stop()
        self._budget.stop()
        self._source.enough()
        self._frame_slots.release(FRAMES_MAX)
        self._channel.abort(error if isinstance(error, Exception) else Cancelled())

    def close(self) -> None:
        for thread in self._threads:
            thread.join(JOIN_SECONDS)
        self._references.close()

    # --- leading ----------------------------------------------------------------------------------

    def lead(self) -> None:
        """Until everything was read, and sent as far as it was wanted."""
        while (message := self._next()) is not None:
            self._handle(message)
            if self._walked and not self._waiting:
                self._walked = False
                self._source.enough()
        self.manifest.finish()
        while self._questions:
            self._handle(self._next())
        self._sender.finish()

    def publish(self, record: PointRecord) -> None:
        """Send the restore point and wait until it is durable."""
        try:
            encoded = record.encode()
        except ValueError as error:
            raise UsageError(f"too much for one restore point: {error}") from error
        self._request += 1
        references = self._references
        for part in references.parts(min(REFERENCES_PART, self._limits.body // ID_SIZE)):
            self._channel.send(FrameKind.POINT, self._request, part, FLAG_PART)
        body = encode_body(
            record=encoded,
            signature=self._keys.sign(encoded),
            references=references.count,
            digest=references.digest,
        )
        self._channel.send(FrameKind.POINT, self._request, body)
        message = self._next()
        if not isinstance(message, Frame):
            raise ProtocolViolation("nothing but an answer to the restore point was due")
        answer = decode_body(expect(message, FrameKind.POINTED))
        arrival, arrived = answer.get("arrival"), answer.get("time")
        if (
            answer.get("point") != record.point
            or type(arrival) is not int
            or not isinstance(arrived, (int, float))
        ):
            raise ProtocolViolation("a POINTED does not answer the restore point that was sent")
        result = self._result
        result.point, result.record = record.point, record
        result.arrival, result.time = arrival, float(arrived)
        result.bytes_stored = self._sender.bytes_stored

    def _next(self) -> Batch | Frame | None:
        """The next thing that happened; None: the source has ended."""
        while True:
            self._look(self._path)
            try:
                message = self._inbox.get(timeout=LOOK_SECONDS)
            except Empty:
                continue
            if isinstance(message, _Failure):
                raise message.error
            if isinstance(message, Frame):
                self._frame_slots.release()
            return message

    def _handle(self, message: Batch | Frame | None) -> None:
        if isinstance(message, Batch):
            self._batch(message)
        elif message is not None:
            self._answer(expect(message, FrameKind.WANT))

    def _batch(self, batch: Batch) -> None:
        self._path = batch.path
        self._walked = self._walked or batch.last
        entries: deque[Outgoing] = deque()
        for outgoing in batch.entries:
            if outgoing.replaces:
                self._again[outgoing.replaces] = outgoing.encoded
            else:
                entries.append(outgoing)
        waiting = _Waiting(entries)
        self._waiting.append(waiting)
        self._ask("chunk", batch.ids, batch.plains, waiting)
        if not waiting.questions:
            self._answered(waiting)

    def _offer_manifest(self, chunks: list[tuple[bytes, Plain]]) -> None:
        self._ask("manifest", [name for name, _ in chunks], [plain for _, plain in chunks], None)

    def _ask(
        self,
        kind: BlobKind,
        ids: Sequence[bytes],
        plains: Sequence[Plain | None],
        waiting: _Waiting | None,
    ) -> None:
        """Ask which of ``ids`` the repository lacks."""
        most = self._limits.ids
        for at in range(0, len(ids), most):
            self._request += 1
            part = slice(at, at + most)
            self._questions.append(_Question(self._request, ids[part], plains[part], waiting))
            if waiting is not None:
                waiting.questions += 1
            self._channel.send(FrameKind.HAVE, self._request, join_ids(ids[part]))

    def _answer(self, frame: Frame) -> None:
        if not self._questions or self._questions[0].request != frame.request:
            raise ProtocolViolation("a WANT came that answers no question, or not the oldest one")
        question = self._questions.popleft()
        wanted: list[tuple[bytes, Plain]] = []
        unwanted = 0
        offered: list[bytes] = []
        bitmap = unpack_bitmap(frame.body, len(question.ids))
        for name, plain, want in zip(question.ids, question.plains, bitmap, strict=True):
            if plain is None:
                if want:
                    self._lost.add(name)
                continue
            offered.append(name)
            if want:
                wanted.append((name, plain))
            else:
                unwanted += len(plain)
        if question.waiting is None:
            self._sender.send("manifest", wanted)
            return
        self._lost.difference_update(offered)
        self._references.add(offered)
        self._result.bytes_new += sum(len(plain) for _, plain in wanted)
        self._sender.send("chunk", wanted)
        self._budget.give_back(unwanted)
        question.waiting.questions -= 1
        if not question.waiting.questions:
            self._answered(question.waiting)

    def _answered(self, waiting: _Waiting) -> None:
        """All questions of a batch, and of those before it, were answered."""
        self._budget.give_back(0, batches=1)
        if self._lost:
            for outgoing in waiting.entries:
                if outgoing.token and not self._lost.isdisjoint(outgoing.ids):
                    self._again[outgoing.token] = None
                    self._source.read_again(outgoing.token, outgoing.path)
        self._place()

    def _place(self) -> None:
        """Put entries into the manifest, up to one that is not known yet."""
        while self._waiting and not self._waiting[0].questions:
            entries = self._waiting[0].entries
            while entries:
                outgoing = entries[0]
                encoded: bytes | None = outgoing.encoded
                if outgoing.token in self._again:
                    encoded = self._again[outgoing.token]
                    if encoded is None:
                        return
                    del self._again[outgoing.token]
                else:
                    self._references.add(outgoing.ids)
                if encoded:
                    self.manifest.add(encoded)
                entries.popleft()
            self._waiting.popleft()
