"""Layer 3: the thread that leads a backup's dialogue, and the inbox in which the others meet.

The :class:`~cloudconnect.backup.source.Source` reads, cuts and names; a receiver takes the
repository's frames; senders compress, seal and send what the repository wants. Many questions
(HAVE) are open at a time, so that their round trips do not add up, and a budget bounds how much is
under way.

The entries of a batch go into the manifest when the batch's questions were answered: then it is
known that the repository has, or gets, every chunk that they need. Where it lacks a chunk of an
unchanged file, that file is read after all, and the entries behind it wait.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final

import attrs

from cloudconnect.backup.batches import Batch, Budget, Outgoing, Stopped
from cloudconnect.backup.dialogue import Limits, expect
from cloudconnect.backup.filecache import FileCache
from cloudconnect.backup.heads import KnownHeads
from cloudconnect.backup.options import BackupOptions, BackupResult
from cloudconnect.backup.references import ReferenceList
from cloudconnect.backup.sending import ChunkSender, ManifestWriter, Plain
from cloudconnect.backup.source import Source
from cloudconnect.content.atrest import BlobKind, RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import Cancelled, HeadMoved, ProtocolViolation, UsageError
from cloudconnect.settings import LONG_LINE_SECONDS
from cloudconnect.shown import Shown
from cloudconnect.wire.channel import FrameChannel, failure
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

#: Bytes of file content that may be under way between the source and the wire ...
IN_FLIGHT_BYTES: Final = 24 << 20
#: ... and over a long line, where each answer takes its time.
IN_FLIGHT_BYTES_FAR: Final = 48 << 20
#: Where so many times as much of a batch is not wanted, the rest is copied out of the blocks that
#: were read, so that these need not wait for it to be sent.
SPARSE: Final = 2
#: Batches that may be under way: this hides round trips where nothing but ids is sent.
IN_FLIGHT_BATCHES: Final = 32
#: Offers of manifest chunks that may be without an answer while a long entry is encoded.
MANIFEST_OFFERS: Final = 8
#: Ids of unchanged files that the repository may lack; with more, no unchanged file is trusted.
LOST_MAX: Final = 1 << 16
#: References in one PART of a POINT, where the repository takes so many.
REFERENCES_PART: Final = 1 << 15
#: Frames of the repository that may wait to be looked at.
FRAMES_MAX: Final = 256
#: Seconds after which the leading thread looks up, though nothing has happened.
WAKE_SECONDS: Final = 0.2
#: How often a point is offered because others were faster: each time one of them has got done.
OFFERS_MAX: Final = 1000
#: Seconds that a thread gets to end when a backup has failed; it may hang in reading a source.
JOIN_SECONDS: Final = 5.0


#: Frames behind which no other is due.
_LAST: Final = (FrameKind.POINTED, FrameKind.FAIL, FrameKind.TOTALS)


@attrs.define(repr=False)
class _Waiting(Shown):
    """A batch whose entries are not all in the manifest.

    :ivar entries: those that are not
    :ivar questions: HAVEs of the batch that are not answered
    """

    entries: deque[Outgoing]
    questions: int = 0


@attrs.frozen(repr=False)
class _Question(Shown):
    """A HAVE that was sent.

    :ivar waiting: the batch that it is of, or None for manifest chunks
    """

    request: int
    ids: Sequence[bytes]
    plains: Sequence[Plain | None]
    waiting: _Waiting | None


@attrs.frozen(repr=False)
class _Failure(Shown):
    error: BaseException


class Upload:
    """The threads of one backup and what leads them, from behind WELCOME up to POINTED.

    :param channel: to the repository, which has welcomed us
    :param keys: of the repository
    :param description: of the repository
    :param options: what to back up, and how
    :param limits: what the repository takes
    :param result: what comes of it is counted there
    :param look: called a few times a second with the path that the source is at; may raise
    :ivar manifest: ids and length of the manifest, complete after :meth:`lead`
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        options: BackupOptions,
        limits: Limits,
        result: BackupResult,
        look: Callable[[bytes], None],
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._result = result
        self._limits = limits
        self._look = look
        self._path = b""
        self._inbox: SimpleQueue[Batch | Frame | _Failure | None] = SimpleQueue()
        self._frame_slots = threading.Semaphore(FRAMES_MAX)
        far = options.round_trip is not None and options.round_trip >= LONG_LINE_SECONDS
        self._budget = Budget(IN_FLIGHT_BYTES_FAR if far else IN_FLIGHT_BYTES, IN_FLIGHT_BATCHES)
        self._references = ReferenceList()
        self._request = 0
        self._questions: deque[_Question] = deque()
        self._waiting: deque[_Waiting] = deque()
        self._lost: set[bytes] = set()  # ids of unchanged files that the repository lacks
        self._again: dict[int, Outgoing | None] = {}  # by token: the entry once it was read again
        self._placing = False
        self._placed = 0  # entries in the manifest
        self._offers = 0  # questions about manifest chunks that are not answered
        self._distrusts = False  # it lacks so many that each unchanged file is read again
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

    def lead(self) -> None:
        """Until everything was read, and sent as far as it was wanted.

        :raises Exception: what went wrong in any of the threads
        """
        for thread in self._threads:
            thread.start()
        while (message := self._next()) is not None:
            self._handle(message)
            if self._walked and not self._waiting:
                self._walked = False
                self._source.enough()
        self._check_complete()
        self.manifest.finish()
        while self._questions:
            self._handle(self._next())
        self._sender.finish()
        while not self._inbox.empty():
            self._handle(self._next())  # what went wrong in the senders at last

    def _check_complete(self) -> None:
        """No restore point without everything that was read, whatever this program does wrong."""
        result = self._result
        counted = result.files + result.directories + result.other + result.on_the_way
        if self._waiting or self._placed != counted:
            raise RuntimeError(f"{self._placed} of {counted} entries came into the manifest")

    def publish(self, record: PointRecord, heads: KnownHeads | None = None) -> None:
        """Send the restore point and wait until it is durable.

        Where another session has published meanwhile, the point is offered again with another head.

        :param heads: the repository's chain, in which the point gets a head; None: it gets none
        :raises UsageError: its record is too large
        :raises ProtocolViolation: something else than this point was acknowledged
        :raises CloudConnectError: the repository refuses it, or the line broke
        """
        try:
            encoded = record.encode()
        except ValueError as error:
            raise UsageError(f"too much for one restore point: {error}") from error
        references = self._references
        for part in references.parts(min(REFERENCES_PART, self._limits.body // ID_SIZE)):
            self._channel.send(FrameKind.POINT, self._request + 1, part, FLAG_PART)
        fields: dict[str, Any] = {
            "record": encoded,
            "signature": self._keys.sign(encoded),
            "references": references.count,
            "digest": references.digest,
        }
        for _ in range(OFFERS_MAX):
            head = None if heads is None else heads.next_point(record.point, encoded)
            if head is not None:
                fields.update(head=head.encoded, head_signature=head.signature)
            frame = self._exchange(FrameKind.POINT, encode_body(**fields))
            if heads is None or not _head_moved(frame):
                break
            heads.catch_up(self._ask_heads)
        answer = decode_body(expect(frame, FrameKind.POINTED))
        arrival, arrived = answer.get("arrival"), answer.get("time")
        if (
            answer.get("point") != record.point
            or type(arrival) is not int
            or not isinstance(arrived, (int, float))
        ):
            raise ProtocolViolation("a POINTED does not answer the restore point that was sent")
        if heads is not None and head is not None:
            heads.taken(head, record.host, record.job)
        result = self._result
        result.point, result.record = record.point, record
        result.arrival, result.time = arrival, float(arrived)
        result.bytes_stored = self._sender.bytes_stored

    def _exchange(self, kind: FrameKind, body: bytes) -> Frame:
        """Send a question, and return what comes next."""
        self._request += 1
        self._channel.send(kind, self._request, body)
        message = self._next()
        if not isinstance(message, Frame) or message.request not in (self._request, 0):
            raise ProtocolViolation("nothing but an answer to the restore point was due")
        return message

    def _ask_heads(self, body: bytes) -> dict[str, Any]:
        return decode_body(expect(self._exchange(FrameKind.HEADS, body), FrameKind.HEADED))

    def stop(self, error: BaseException) -> None:
        """Something went wrong: end all threads."""
        self._sender.stop()
        self._budget.stop()
        self._source.enough()
        self._frame_slots.release(FRAMES_MAX)
        self._channel.abort(error if isinstance(error, Exception) else Cancelled())

    def close(self) -> None:
        """Wait for the threads to end, and drop what is kept."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(JOIN_SECONDS)
        self._references.close()

    # --- the other threads ------------------------------------------------------------------------

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
                if frame.kind in _LAST and not _head_moved(frame):
                    return
        except BaseException as error:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        self._inbox.put(_Failure(error))

    # --- the leading thread -----------------------------------------------------------------------

    def _next(self) -> Batch | Frame | None:
        """The next thing that happened; None: the source has ended."""
        while True:
            self._look(self._path)
            try:
                message = self._inbox.get(timeout=WAKE_SECONDS)
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
                self._again[outgoing.replaces] = outgoing
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
            else:
                self._offers += 1
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
            self._offers -= 1
            self._sender.send("manifest", wanted)
            return
        self._lost.difference_update(offered)
        if len(self._lost) > LOST_MAX:
            self._distrusts = True
            self._source.distrust()
        if self._distrusts:
            self._lost.clear()
        self._references.add(offered)
        size = sum(len(plain) for _, plain in wanted)
        if SPARSE * size < unwanted:
            wanted = [(name, bytes(plain)) for name, plain in wanted]
        self._result.bytes_new += size
        self._budget.want(size)
        self._sender.send("chunk", wanted)
        self._budget.give_back(unwanted)
        question.waiting.questions -= 1
        if not question.waiting.questions:
            self._answered(question.waiting)

    def _answered(self, waiting: _Waiting) -> None:
        """All questions of a batch, and of those before it, were answered."""
        self._budget.give_back(0, batches=1)
        if self._lost or self._distrusts:
            for outgoing in waiting.entries:
                if outgoing.token and (
                    self._distrusts or not self._lost.isdisjoint(outgoing.needed)
                ):
                    self._again[outgoing.token] = None
                    self._source.read_again(outgoing.token, outgoing.path)
        self._place()

    def _place(self) -> None:
        """Put entries into the manifest, up to one that is not known yet."""
        if self._placing:
            return  # what came meanwhile is placed by the loop below
        self._placing = True
        while self._waiting and not self._waiting[0].questions:
            entries = self._waiting[0].entries
            while entries:
                outgoing = entries[0]
                if outgoing.token in self._again:
                    again = self._again[outgoing.token]
                    if again is None:
                        self._placing = False
                        return
                    del self._again[outgoing.token]
                    outgoing = again
                elif outgoing.token:
                    self._references.add(outgoing.needed)
                entries.popleft()
                self._placed += bool(outgoing.encoded or outgoing.entry)
                for piece in outgoing.pieces():
                    self.manifest.add(piece)
                    self._wait_for_answers()
            self._waiting.popleft()
        self._placing = False

    def _wait_for_answers(self) -> None:
        """Let a long entry not be encoded faster than it is taken."""
        while self._offers > MANIFEST_OFFERS:
            self._handle(self._next())


def _head_moved(frame: Frame) -> bool:
    """Whether ``frame`` says that a point's head does not continue the chain any more."""
    return frame.kind is FrameKind.FAIL and isinstance(failure(frame), HeadMoved)
