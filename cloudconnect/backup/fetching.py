"""Layer 3: getting chunks from the repository, many at a time, for restoring, reading, checking.

Questions (GET, HAVE, OPEN) are sent ahead of the need, so that round trips do not add up; a
receiver takes the answers as they come, and a few threads open chunks (unseal, decompress, compare
with their name).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cloudconnect.backup.dialogue import Limits, Remembers, greet
from cloudconnect.backup.records import believed
from cloudconnect.content.atrest import BlobKind, RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    CloudConnectError,
    LocalError,
    ProtocolViolation,
)
from cloudconnect.settings import CHUNK_MAX
from cloudconnect.wire.channel import FrameChannel, failure
from cloudconnect.wire.frames import (
    Frame,
    FrameKind,
    StoredBlob,
    decode_body,
    encode_body,
    join_ids,
    unpack_bitmap,
    unpack_chunk,
)

#: Threads that open chunks.
OPENERS: Final = 2
#: Stored bytes that such a thread takes at a time: a hop between threads costs some 100 us.
GROUP_BYTES: Final = 512 << 10
#: Opened chunks that are kept because the next small files may need them too.
KEPT_CHUNKS: Final = 256


class Slot:
    """A chunk that was asked for.

    :ivar id: its name, 32 bytes
    :ivar plain: its content once it is there, else None
    :ivar error: why it cannot be there, or None
    """

    __slots__ = ("error", "id", "plain")

    def __init__(self, name: bytes) -> None:
        self.id = name
        self.plain: bytes | None = None
        self.error: Exception | None = None


class Reply:
    """An answer of one frame that is awaited.

    :ivar frame: it, once it is there, else None
    :ivar error: why it cannot be there, or None
    """

    __slots__ = ("error", "frame", "kind", "request")

    def __init__(self, request: int, kind: FrameKind) -> None:
        self.request = request
        self.kind = kind
        self.frame: Frame | None = None
        self.error: Exception | None = None


class _Question:
    """A GET that is not answered fully.

    :ivar answered: how many of the slots are
    """

    __slots__ = ("answered", "kind", "request", "slots")

    def __init__(self, request: int, kind: BlobKind, slots: list[Slot]) -> None:
        self.request = request
        self.kind = kind
        self.slots = slots
        self.answered = 0


class Fetcher:
    """Gets chunks over one dialogue; its methods are called by one thread.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param heads: what is known of the repository's past
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        heads: Remembers | None = None,
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._description = description
        self._heads = heads
        self._limits = Limits()
        self._request = 0
        self._questions: deque[_Question | Reply] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._ended = False
        self._unasked: list[Slot] = []
        self._kept: OrderedDict[bytes, Slot] = OrderedDict()
        self._openers = ThreadPoolExecutor(OPENERS, "cloudconnect-open")
        self._receiver = threading.Thread(
            target=self._receive, name="cloudconnect-receive", daemon=True
        )

    def greet(self, purpose: str) -> None:
        """Greet the repository; then restore points and chunks may be asked for.

        :param purpose: ``restore``, ``read`` or ``check``
        :raises CloudConnectError: the repository refuses, or the line broke
        """
        self._limits = greet(self._channel, self._keys, self._description, purpose, self._heads)
        self._receiver.start()

    def open(self, point: bytes, purpose: str) -> PointRecord:
        """:meth:`greet` and :meth:`record` for who needs one restore point."""
        self.greet(purpose)
        return self.record(point)

    def record(self, point: bytes) -> PointRecord:
        """The record of a restore point.

        :param point: its 16 bytes
        :raises NotFound: there is no such point
        :raises StoredDataDamaged: its signature does not hold
        :raises CloudConnectError: anything else
        """
        reply = self._asked(FrameKind.OPEN, encode_body(point=point), FrameKind.OPENED)
        return believed(self._answer(reply), self._keys, self._description, point, self._heads)

    def have(self, ids: Sequence[bytes]) -> Reply:
        """Ask which of so many chunks the repository has; :meth:`missing` waits for the answer.

        :param ids: at most :attr:`ids_max`, 32 bytes each
        """
        return self._asked(FrameKind.HAVE, join_ids(ids), FrameKind.WANT)

    def missing(self, reply: Reply, ids: Sequence[bytes]) -> list[bytes]:
        """Those of ``ids`` that the repository does not have.

        :param reply: what :meth:`have` returned for them
        :raises CloudConnectError: the dialogue has failed
        """
        wanted = unpack_bitmap(self._answer(reply).body, len(ids))
        return [name for name, absent in zip(ids, wanted, strict=True) if absent]

    def verify(self, ids: Sequence[bytes]) -> Reply:
        """Ask the repository to read so many chunks; :meth:`verified` waits for what it says.

        :param ids: at most :attr:`verify_max`, 32 bytes each
        """
        return self._asked(FrameKind.VERIFY, join_ids(ids), FrameKind.VERIFIED)

    def verified(self, reply: Reply, ids: Sequence[bytes]) -> tuple[int, list[bytes]]:
        """What the repository says that it has read: stored bytes that have their digest, and
        those of ``ids`` that are damaged or missing.

        The dialogue ends with any other answer.

        :param reply: what :meth:`verify` returned for them
        :raises ProtocolViolation: its answer cannot be used
        :raises CloudConnectError: the dialogue has failed
        """
        try:
            return self._word(self._answer(reply), ids)
        except CloudConnectError as error:
            self._fail(error)
            raise

    @staticmethod
    def _word(frame: Frame, ids: Sequence[bytes]) -> tuple[int, list[bytes]]:
        body = decode_body(frame)
        size, damaged = body.get("bytes"), body.get("damaged")
        if (
            type(size) is not int
            or not 0 <= size <= len(ids) * CHUNK_MAX
            or not isinstance(damaged, bytes)
            or len(body) != 2
        ):
            raise ProtocolViolation("a VERIFIED does not have its fields")
        flags = unpack_bitmap(damaged, len(ids))
        return size, [name for name, lost in zip(ids, flags, strict=True) if lost]

    @property
    def verify_max(self) -> int:
        """Most ids in one :meth:`verify`; 0: the repository is of an older release."""
        return self._limits.verify

    @property
    def ids_max(self) -> int:
        """Most ids in one question."""
        return self._limits.ids

    @property
    def failure(self) -> BaseException | None:
        """Why nothing more can be got, or None where an error was of one thing only."""
        return self._failure

    def _asked(self, kind: FrameKind, body: bytes, answer: FrameKind) -> Reply:
        self._request += 1
        reply = Reply(self._request, answer)
        with self._changed:
            self._questions.append(reply)
        self._channel.send(kind, reply.request, body)
        return reply

    def _answer(self, reply: Reply) -> Frame:
        with self._changed:
            self._changed.wait_for(lambda: reply.frame or reply.error or self._failure)
        if reply.frame is not None:
            return reply.frame
        error = reply.error or self._failure
        assert error is not None
        raise error

    def want(self, name: bytes) -> Slot:
        """A chunk of content: asked for at the next :meth:`ask`, or known from not long ago."""
        slot = self._kept.get(name)
        if slot is not None:
            self._kept.move_to_end(name)
            return slot
        slot = self._kept[name] = Slot(name)
        self._unasked.append(slot)
        if len(self._kept) > KEPT_CHUNKS:
            self._kept.popitem(last=False)
        return slot

    @property
    def chunk_average(self) -> int:
        """Bytes of a usual chunk."""
        return self._description.chunking.average

    @property
    def unasked(self) -> int:
        """How many wanted chunks have not been asked for."""
        return len(self._unasked)

    def ask(self) -> None:
        """Ask for everything that is wanted.

        :raises CloudConnectError: the dialogue has failed
        """
        slots, self._unasked = self._unasked, []
        self._get("chunk", slots)

    def get(self, ids: Sequence[bytes], kind: BlobKind = "chunk") -> list[Slot]:
        """Ask for chunks at once, whether or not they were got before.

        :param kind: ``chunk``: of content; ``manifest``: of a manifest
        """
        slots = [Slot(name) for name in ids]
        self._get(kind, slots)
        return slots

    def _get(self, kind: BlobKind, slots: list[Slot]) -> None:
        most = self._limits.ids
        for at in range(0, len(slots), most):
            part = slots[at : at + most]
            self._request += 1
            with self._changed:
                self._questions.append(_Question(self._request, kind, part))
            body = join_ids(slot.id for slot in part)
            self._channel.send(FrameKind.GET, self._request, body)

    def wait(self, slot: Slot) -> bytes:
        """The content of a chunk, once it is there.

        :raises StoredDataDamaged: it is damaged or missing; others may still be got
        :raises CloudConnectError: the dialogue has failed
        """
        if slot.plain is None and slot.error is None:
            if self._unasked:
                self.ask()
            with self._changed:
                self._changed.wait_for(
                    lambda: slot.plain is not None or slot.error is not None or self._failure
                )
        if slot.plain is not None:
            return slot.plain
        error = slot.error or self._failure
        assert error is not None
        raise error

    def close(self) -> None:
        """End the dialogue properly: everything that was asked for is waited for.

        :raises CloudConnectError: it cannot be ended so
        """
        if self._receiver.ident is None:
            self.abort(LocalError("no restore point was opened"))
            return
        with self._changed:
            last = not self._questions
        self._channel.finish(last)
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._failure)
        self._openers.shutdown()
        self._receiver.join()
        if self._failure is not None:
            raise self._failure

    def abort(self, error: BaseException) -> None:
        """End the dialogue at once."""
        self._channel.abort(error if isinstance(error, Exception) else CloudConnectError("ended"))
        self._openers.shutdown(cancel_futures=True)
        if self._receiver.is_alive():
            self._receiver.join()

    # --- the receiver's thread, and the openers' --------------------------------------------------

    def _receive(self) -> None:
        try:
            group: list[tuple[Slot, StoredBlob]] = []
            size = 0
            question: _Question | Reply | None = None
            while (frame := self._channel.receive()).kind is not FrameKind.TOTALS:
                if (
                    not isinstance(question, _Question)
                    or question.answered == len(question.slots)
                    or frame.kind is not FrameKind.CHUNK
                    or frame.request != question.request
                ):  # else it is one more of the same answer
                    question = self._asked_for(frame)
                if isinstance(question, Reply):
                    self._replied(question, frame)
                    continue
                slot = question.slots[question.answered]
                question.answered += 1
                if frame.kind is FrameKind.CHUNK:
                    blob = unpack_chunk(frame.body)
                    if blob.id != slot.id:
                        raise ProtocolViolation("a CHUNK came that was not the next one asked for")
                    group.append((slot, blob))
                    size += len(blob.data)
                else:
                    self._settle([(slot, failure(frame))])
                complete = question.answered == len(question.slots)
                if complete:
                    with self._changed:
                        self._questions.popleft()
                if group and (complete or size >= GROUP_BYTES):
                    self._openers.submit(self._open, question.kind, group)
                    group, size = [], 0
            if self._questions:
                raise ProtocolViolation("the repository ended before it had answered")
            self._channel.expect_end()
            with self._changed:
                self._ended = True
                self._changed.notify_all()
        except BaseException as error:
            self._fail(error)

    def _asked_for(self, frame: Frame) -> _Question | Reply:
        """What ``frame`` answers."""
        with self._changed:
            question = self._questions[0] if self._questions else None
        if frame.kind is FrameKind.FAIL and (question is None or frame.request == 0):
            raise failure(frame)
        kind = question.kind if isinstance(question, Reply) else FrameKind.CHUNK
        if (
            frame.kind not in (kind, FrameKind.FAIL)
            or question is None
            or frame.request != question.request
        ):
            raise ProtocolViolation(f"a {frame.kind.name} came that was not asked for")
        return question

    def _replied(self, reply: Reply, frame: Frame) -> None:
        with self._changed:
            self._questions.popleft()
            if frame.kind is FrameKind.FAIL:
                reply.error = failure(frame)
            else:
                reply.frame = frame
            self._changed.notify_all()

    def _open(self, kind: BlobKind, group: list[tuple[Slot, StoredBlob]]) -> None:
        opened: list[tuple[Slot, bytes | Exception]] = []
        for slot, blob in group:
            try:
                opened.append((slot, self._keys.open_blob(kind, blob, digested=True)))
            except CloudConnectError as error:
                opened.append((slot, error))
            except BaseException as error:
                self._fail(error)
                return
        self._settle(opened)

    def _settle(self, results: Sequence[tuple[Slot, bytes | Exception]]) -> None:
        with self._changed:
            for slot, result in results:
                if isinstance(result, bytes):
                    slot.plain = result
                else:
                    slot.error = result
            self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
