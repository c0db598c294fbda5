"""Layer 3: getting chunks from the repository, many at a time, for restoring and reading.

Questions (GET) are sent ahead of the need, so that round trips do not add up; a receiver takes the
chunks as they come, and a few threads open them (unseal, decompress, compare with their name).
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from cloudconnect.backup.dialogue import Limits, greet
from cloudconnect.backup.records import fetch_record
from cloudconnect.backup.temporary import temporary_file
from cloudconnect.content.atrest import BlobKind, RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.manifest import Entry, EntryDecoder
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    CloudConnectError,
    LocalError,
    ProtocolViolation,
    StoredDataDamaged,
)
from cloudconnect.wire.channel import FrameChannel, failure
from cloudconnect.wire.frames import (
    Frame,
    FrameKind,
    StoredBlob,
    join_ids,
    unpack_chunk,
)

#: Threads that open chunks.
OPENERS: Final = 2
#: Stored bytes that such a thread takes at a time: a hop between threads costs some 100 us.
GROUP_BYTES: Final = 512 << 10
#: Manifest chunks in one GET; twice as many are asked for ahead.
MANIFEST_CHUNKS: Final = 8
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
    """

    def __init__(
        self, channel: FrameChannel, keys: RepositoryKeys, description: RepositoryDescription
    ) -> None:
        self._channel = channel
        self._keys = keys
        self._description = description
        self._limits = Limits()
        self._request = 0
        self._questions: deque[_Question] = deque()
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._ended = False
        self._unasked: list[Slot] = []
        self._kept: OrderedDict[bytes, Slot] = OrderedDict()
        self._openers = ThreadPoolExecutor(OPENERS, "cloudconnect-open")
        self._receiver = threading.Thread(
            target=self._receive, name="cloudconnect-receive", daemon=True
        )

    def open(self, point: bytes, purpose: str) -> PointRecord:
        """Greet the repository and open a restore point; then chunks may be asked for.

        :param point: its 16 bytes
        :param purpose: ``restore``, ``read`` or ``check``
        :raises NotFound: there is no such point
        :raises StoredDataDamaged: its signature does not hold
        :raises CloudConnectError: anything else
        """
        channel = self._channel
        self._limits = greet(channel, self._keys, self._description, purpose)
        self._request += 1
        record = fetch_record(channel, self._keys, self._description, point, self._request)
        self._receiver.start()
        return record

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
    def unasked(self) -> int:
        """How many wanted chunks have not been asked for."""
        return len(self._unasked)

    def ask(self) -> None:
        """Ask for everything that is wanted.

        :raises CloudConnectError: the dialogue has failed
        """
        slots, self._unasked = self._unasked, []
        self._get("chunk", slots)

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

    def entries(self, record: PointRecord) -> Iterator[Entry]:
        """The entries of a restore point, in walk order.

        :raises StoredDataDamaged: (from the iterator) its manifest is damaged
        """
        decoder, length = EntryDecoder(temporary_file), 0
        for slot in self._manifest(record.manifest):
            plain = self.wait(slot)
            length += len(plain)
            yield from decoder.feed(plain)
        decoder.finish()
        if length != record.manifest_length:
            raise StoredDataDamaged("a restore point's manifest does not have its length")

    def _manifest(self, ids: Sequence[bytes]) -> Iterator[Slot]:
        """The slots of a manifest's chunks, some of them asked for ahead."""
        ahead: deque[Slot] = deque()
        for at in range(0, len(ids), MANIFEST_CHUNKS):
            slots = [Slot(name) for name in ids[at : at + MANIFEST_CHUNKS]]
            self._get("manifest", slots)
            ahead.extend(slots)
            while len(ahead) > MANIFEST_CHUNKS:
                yield ahead.popleft()
        while ahead:
            yield ahead.popleft()

    def close(self) -> None:
        """End the dialogue properly: everything that was asked for is waited for.

        :raises CloudConnectError: it cannot be ended so
        """
        if self._receiver.ident is None:
            self.abort(LocalError("no restore point was opened"))
            return
        self._channel.finish()
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
            while (frame := self._channel.receive()).kind is not FrameKind.TOTALS:
                question, slot = self._asked_for(frame)
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

    def _asked_for(self, frame: Frame) -> tuple[_Question, Slot]:
        """What ``frame`` answers."""
        with self._changed:
            question = self._questions[0] if self._questions else None
        if frame.kind is FrameKind.FAIL and (question is None or frame.request == 0):
            raise failure(frame)
        if (
            frame.kind not in (FrameKind.CHUNK, FrameKind.FAIL)
            or question is None
            or frame.request != question.request
        ):
            raise ProtocolViolation(f"a {frame.kind.name} came that was not asked for")
        slot = question.slots[question.answered]
        question.answered += 1
        return question, slot

    def _open(self, kind: BlobKind, group: list[tuple[Slot, StoredBlob]]) -> None:
        opened: list[tuple[Slot, bytes | Exception]] = []
        for slot, blob in group:
            try:
                opened.append((slot, self._keys.open_blob(kind, blob)))
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
