"""Leading a backup: when it is interrupted, and when the repository is hostile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from cloudconnect.backup import leading as leading_module
from cloudconnect.backup import sending as sending_module
from cloudconnect.backup import source as source_module
from cloudconnect.backup import upload as upload_module
from cloudconnect.backup.batches import Batch, Budget, Outgoing
from cloudconnect.backup.options import BackupOptions, BackupResult
from cloudconnect.backup.upload import BackupRun
from cloudconnect.content import points as points_module
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    Cancelled,
    CloudConnectError,
    NoSpace,
    ProtocolViolation,
    Truncated,
    UsageError,
)
from cloudconnect.testing import PipePair
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import (
    FLAG_PART,
    Frame,
    FrameKind,
    decode_body,
    encode_body,
    pack_bitmap,
    split_ids,
    unpack_chunk,
)
from tests.backup.cases import BackupCase
from tests.backup.support import SESSION, channels
from tests.backup.trees import write


class InterruptionTests(BackupCase):
    """Backups that do not come to their end."""

    def run_with(self, channel: FrameChannel, **arguments: Any) -> BackupResult:
        return BackupRun(
            channel,
            self.place.keys,
            self.place.description,
            BackupOptions(paths=(self.top,)),
            self.place.labels,
            SESSION,
            **arguments,
        ).run()

    def test_cancelled(self) -> None:
        """A cancelled backup publishes nothing and leaves no thread behind."""
        self.patch(upload_module, "LOOK_SECONDS", 0.0)
        self.tree()
        asked: list[int] = []

        def cancelled() -> bool:
            asked.append(1)
            return len(asked) > 2

        with self.assertRaises(Cancelled):
            self.run_with(self.place.open("backup"), cancelled=cancelled)
        assert self.place.served is not None
        self.place.served.wait()  # its repository has threads too
        self.assertEqual(self.points(), 0)
        self.assertEqual(
            [thread.name for thread in threading.enumerate() if "cloudconnect" in thread.name], []
        )

    def test_line_breaks(self) -> None:
        """After a broken line, what was stored is not sent again."""
        self.patch(source_module, "BATCH_BYTES", 200_000)
        for number in range(20):
            write(self.top + b"/%02d" % number, os.urandom(200_000))
        broken: list[_Breaking] = []

        def breaking(channel: FrameChannel) -> FrameChannel:
            broken.append(_Breaking(channel, 30))
            return broken[0]  # type: ignore[return-value]

        with self.assertRaises(CloudConnectError):
            self.run_with(self.place.open("backup", breaking))
        assert self.place.served is not None
        self.assertIsInstance(self.place.served.wait(), Truncated)
        self.assertEqual(self.points(), 0)
        result = self.place.backup(self.top)
        self.assertLess(result.bytes_new, 4_000_000 - 25 * 16384)
        self.assertEqual(result.bytes_source, 4_000_000)
        self.assertEqual(self.content(result.point, b"/07"), self.read(b"/07"))

    def read(self, name: bytes) -> bytes:
        with open(self.top + name, "rb") as file:
            return file.read()

    def test_refused_point(self) -> None:
        """When the repository refuses the point, that is the error, and there is none."""
        self.tree(3)

        def full(record: object) -> None:
            raise NoSpace("the quota is used up")

        self.place.serve_options["on_point"] = full
        with self.assertRaises(NoSpace) as caught:
            self.place.backup(self.top)
        self.assertIn("the quota is used up", str(caught.exception))
        self.assertEqual(self.points(), 0)

    def test_no_space_in_the_middle(self) -> None:
        """When the quota ends in the middle of the content, the backup ends with that error."""
        self.tree(60)
        left = [200_000]

        def reserve(count: int) -> None:
            left[0] -= count
            if left[0] < 0:
                raise NoSpace("the quota is used up")

        self.place.serve_options["reserve"] = reserve
        with self.assertRaises(NoSpace):
            self.place.backup(self.top)

    def test_too_much_for_one_point(self) -> None:
        """A record that is too large for a frame is a clear refusal, not a broken dialogue."""
        self.patch(points_module, "POINT_RECORD_MAX", 200)
        self.tree(3)
        with self.assertRaises(UsageError) as caught:
            self.place.backup(self.top)
        self.assertIn("too much", str(caught.exception))
        self.assertEqual(self.points(), 0)

    def test_last_chunk_fails(self) -> None:
        """When the very last chunk cannot be sent, the point is not even offered."""
        write(self.top + b"/file", b"x")
        real = sending_module.ChunkSender.finish

        def finish(sender: sending_module.ChunkSender) -> None:
            real(sender)
            sender._failed(ZeroDivisionError("a bug"))

        self.patch(sending_module.ChunkSender, "finish", finish)
        with self.assertRaises(ZeroDivisionError):
            self.place.backup(self.top)
        self.assertEqual(self.points(), 0)

    def test_an_entry_is_lost(self) -> None:
        """Where a bug loses an entry on its way, no point is published that lacks it."""
        self.tree(10)
        real = Batch.place

        def place(batch: Batch, outgoing: Outgoing) -> None:
            if b"f003" not in outgoing.encoded:
                real(batch, outgoing)

        self.patch(Batch, "place", place)
        with self.assertRaises(RuntimeError):
            self.place.backup(self.top)
        self.assertEqual(self.points(), 0)

    def test_last_batch_comes_late(self) -> None:
        """What is cut when the walk is over comes into the point, however late it comes."""
        self.patch(source_module, "BATCH_BYTES", 2000)
        for number in range(300):
            write(self.top + b"/%03d" % number, os.urandom(1000))
        real, lasts = leading_module.Upload._hand_over, [False]

        def late(upload: leading_module.Upload, batch: Batch) -> None:
            if lasts[-1]:
                time.sleep(0.2)  # whoever took the one before for the last one has got on by now
            lasts.append(batch.last)
            real(upload, batch)

        self.patch(leading_module.Upload, "_hand_over", late)
        result = self.place.backup(self.top)
        self.assertEqual(len(self.entries(result.point)), 301)

    def test_sender_fails(self) -> None:
        """A bug in a thread ends the backup with that error, not in silence."""
        self.tree(10)

        def fail(*arguments: object) -> None:
            raise ZeroDivisionError("a bug")

        self.patch(sending_module.ChunkSender, "_send", _failing(fail))
        with self.assertRaises(ZeroDivisionError):
            self.place.backup(self.top)
        self.assertEqual(self.points(), 0)

    def test_little_memory(self) -> None:
        """Never more content is under way than the budget allows, and everything arrives."""
        self.patch(leading_module, "IN_FLIGHT_BYTES", 300_000)
        self.patch(leading_module, "IN_FLIGHT_BATCHES", 3)
        self.patch(source_module, "BATCH_BYTES", 50_000)
        most = [0, 0]
        real = Budget.take

        def take(budget: Budget, size: int) -> None:
            real(budget, size)
            most[0] = max(most[0], budget._bytes)
            most[1] = max(most[1], budget._batches)

        self.patch(Budget, "take", take)
        for number in range(15):
            write(self.top + b"/%02d" % number, os.urandom(250_000))
        result = self.place.backup(self.top)
        self.assertEqual(result.bytes_new, 15 * 250_000)
        self.assertLessEqual(most[0], 300_000)
        self.assertLessEqual(most[1], 3)
        self.assertGreater(most[0], 100_000)
        self.assertEqual(self.content(result.point, b"/14"), self.read(b"/14"))

    def test_far_away(self) -> None:
        """More may be under way over a line on which each answer takes its time."""
        bounds: list[int] = []

        def budget(bytes_max: int, batches_max: int) -> Budget:
            bounds.append(bytes_max)
            return Budget(bytes_max, batches_max)

        self.patch(leading_module, "Budget", budget)
        self.tree(3)
        for seconds in (None, 0.0005, 0.04):
            self.place.backup(self.top, round_trip=seconds)
        near, far = leading_module.IN_FLIGHT_BYTES, leading_module.IN_FLIGHT_BYTES_FAR
        self.assertEqual([near, near, far], bounds)


def _failing(fail: Callable[..., None]) -> Callable[..., None]:
    def send(self: Any, kind: str, group: object) -> None:
        try:
            fail()
        except BaseException as error:
            self._failed(error)

    return send


class _Breaking:
    """A channel whose pipe breaks after some chunks were received."""

    def __init__(self, channel: FrameChannel, chunks: int) -> None:
        self._channel = channel
        self._left = chunks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def receive(self) -> Frame:
        frame = self._channel.receive()
        if frame.kind is FrameKind.CHUNK:
            self._left -= 1
            if self._left == 0:
                error = Truncated("the line broke")
                self._channel.abort(error)
                raise error
        return frame


class HostileTests(BackupCase):
    """Repositories that do not keep to the protocol."""

    def against(self, serve: Callable[[FrameChannel], None], **options: Any) -> BackupResult:
        """Back up to what ``serve`` does after the greeting."""
        left, right = channels(PipePair(timeout=30.0))
        description = self.place.description

        def run() -> None:
            right.receive()
            limits = {"ids": 8192, "chunk": 4 << 20, "body": 8 << 20}
            body = encode_body(
                version=1,
                repository=description.repository,
                codings=[16, 17],
                limits=options.pop("limits", limits),
            )
            right.send(FrameKind.WELCOME, 0, body)
            with contextlib.suppress(CloudConnectError):  # the other side gave up
                serve(right)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            return BackupRun(
                left,
                self.place.keys,
                description,
                BackupOptions(paths=(self.top,)),
                self.place.labels,
                SESSION,
            ).run()
        finally:
            thread.join(10)
            self.assertFalse(thread.is_alive())

    def refused(self, serve: Callable[[FrameChannel], None]) -> str:
        with self.assertRaises(ProtocolViolation) as caught:
            self.against(serve)
        return str(caught.exception)

    def test_answer_to_no_question(self) -> None:
        """A WANT with a number that was not asked is refused."""
        self.tree(3)

        def serve(channel: FrameChannel) -> None:
            frame = channel.receive()
            channel.send(FrameKind.WANT, frame.request + 1, b"\x00")
            channel.receive()

        self.assertIn("no question", self.refused(serve))

    def test_answer_of_another_length(self) -> None:
        """A WANT with more bits than ids is refused."""
        self.tree(3)

        def serve(channel: FrameChannel) -> None:
            channel.send(FrameKind.WANT, channel.receive().request, bytes(500))
            channel.receive()

        self.refused(serve)

    def test_early_end(self) -> None:
        """A repository that ends before the point is published has not stored it."""
        self.tree(3)

        def serve(channel: FrameChannel) -> None:
            channel.receive()
            channel.finish()
            channel.receive()

        with self.assertRaises(CloudConnectError):
            self.against(serve)

    def test_point_acknowledged_at_once(self) -> None:
        """A POINTED that comes before there is a point is not believed."""
        self.tree(3)

        def serve(channel: FrameChannel) -> None:
            channel.receive()
            body = encode_body(point=bytes(16), arrival=1, time=1.0)
            channel.send(FrameKind.POINTED, 1, body)
            channel.receive()

        self.refused(serve)

    def test_another_point_acknowledged(self) -> None:
        """A POINTED for another point is not believed."""
        write(self.top + b"/file", b"x")

        def serve(channel: FrameChannel) -> None:
            while True:
                frame = channel.receive()
                if frame.kind is FrameKind.HAVE:
                    bits = pack_bitmap([True] * (len(frame.body) // 32))
                    channel.send(FrameKind.WANT, frame.request, bits)
                elif frame.kind is FrameKind.POINT and not frame.flags & FLAG_PART:
                    body = encode_body(point=bytes(16), arrival=1, time=1.0)
                    channel.send(FrameKind.POINTED, frame.request, body)

        self.assertIn("does not answer", self.refused(serve))

    def test_many_questions_are_open(self) -> None:
        """Questions are asked on while answers are late, so round trips do not add up; what is
        sent in the end is complete: all references, their digest, all wanted chunks."""
        self.patch(source_module, "BATCH_BYTES", 20_000)
        for number in range(30):
            write(self.top + b"/%02d" % number, os.urandom(30_000))
        wanted: set[bytes] = set()
        came: set[bytes] = set()
        references: list[bytes] = []
        points: list[dict[str, Any]] = []

        def answer(channel: FrameChannel, frame: Frame) -> None:
            ids = split_ids(frame.body)
            wanted.update(ids[::2])
            bits = pack_bitmap([number % 2 == 0 for number in range(len(ids))])
            channel.send(FrameKind.WANT, frame.request, bits)

        def serve(channel: FrameChannel) -> None:
            late = [channel.receive() for _ in range(8)]
            self.assertEqual({frame.kind for frame in late}, {FrameKind.HAVE})
            for frame in late:
                answer(channel, frame)
            while (frame := channel.receive()).kind is not FrameKind.TOTALS:
                if frame.kind is FrameKind.HAVE:
                    answer(channel, frame)
                elif frame.kind is FrameKind.CHUNK:
                    came.add(unpack_chunk(frame.body).id)
                elif frame.flags & FLAG_PART:
                    references.extend(split_ids(frame.body))
                else:
                    points.append(decode_body(frame))
                    body = encode_body(point=self.point_of(points[0]), arrival=1, time=1.0)
                    channel.send(FrameKind.POINTED, frame.request, body)
            channel.finish()

        result = self.against(serve)
        self.assertEqual(came, wanted)
        self.assertEqual(references, sorted(set(references)))
        self.assertEqual(points[0]["references"], len(references))
        digest = hashlib.sha256(b"".join(references)).digest()
        self.assertEqual(points[0]["digest"], digest)
        self.assertEqual(result.bytes_source, 900_000)

    def point_of(self, body: dict[str, Any]) -> bytes:
        return PointRecord.decode(body["record"]).point

    def test_small_limits(self) -> None:
        """A repository that takes few ids at a time is asked in more questions."""
        self.tree(20)
        sizes: list[int] = []

        def serve(channel: FrameChannel) -> None:
            while (frame := channel.receive()).kind is not FrameKind.TOTALS:
                if frame.kind is FrameKind.HAVE:
                    sizes.append(len(frame.body) // 32)
                    bits = pack_bitmap([False] * sizes[-1])
                    channel.send(FrameKind.WANT, frame.request, bits)
                elif frame.kind is FrameKind.POINT and not frame.flags & FLAG_PART:
                    body = encode_body(point=self.point_of(decode_body(frame)), arrival=1, time=1.0)
                    channel.send(FrameKind.POINTED, frame.request, body)
            channel.finish()

        self.against(serve, limits={"ids": 2, "chunk": 4 << 20, "body": 1 << 16})
        self.assertGreater(len(sizes), 3)
        self.assertLessEqual(max(sizes), 2)
