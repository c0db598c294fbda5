"""Getting chunks: ahead of the need, in any kind of weather."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import fetching
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    NoSpace,
    NotFound,
    ProtocolViolation,
    StoredDataDamaged,
    Truncated,
)
from cloudconnect.testing import PipePair
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import Frame, FrameKind, encode_body, split_ids
from tests.backup.support import Place, channels


def entry(path: bytes, runs: tuple[Run, ...] = ()) -> Entry:
    size = sum(run.length for run in runs)
    return Entry(path, EntryType.FILE, 0o644, 0, 0, "", "", 0, size, runs)


class Case(SynchronousTestCase):
    """A repository with a restore point."""

    def setUp(self) -> None:
        self.place = Place(self.mktemp())
        self.contents = [os.urandom(1000) + b"%d" % number for number in range(40)]
        self.ids = [self.place.keys.chunk_id(content) for content in self.contents]
        self.entries = [
            entry(b"/%02d" % number, (Run(name, 0, 1000),)) for number, name in enumerate(self.ids)
        ]
        self.point = self.place.publish(self.entries, self.contents)

    def fetcher(self, channel: FrameChannel) -> Fetcher:
        fetcher = Fetcher(channel, self.place.keys, self.place.description)
        self.addCleanup(fetcher.abort, CloudConnectError("the test is over"))
        return fetcher


class FetchTests(Case):
    """With a repository that keeps to the protocol."""

    def opened(self) -> Fetcher:
        fetcher = self.fetcher(self.place.open("restore"))
        self.record = fetcher.open(self.point, "restore")
        return fetcher

    def test_chunks(self) -> None:
        """Chunks come back, in whatever order they are waited for."""
        fetcher = self.opened()
        slots = [fetcher.want(name) for name in self.ids]
        self.assertEqual(fetcher.unasked, len(self.ids))
        fetcher.ask()
        self.assertEqual(fetcher.unasked, 0)
        for slot, content in reversed(list(zip(slots, self.contents, strict=True))):
            self.assertEqual(fetcher.wait(slot), content)
        fetcher.close()

    def test_waiting_asks(self) -> None:
        """Who waits for a chunk that was not asked for asks for it."""
        fetcher = self.opened()
        self.assertEqual(fetcher.wait(fetcher.want(self.ids[3])), self.contents[3])
        fetcher.close()

    def test_known_chunks_are_not_asked_for_again(self) -> None:
        """A chunk that was wanted not long ago is the same one; later it is got again."""
        self.patch(fetching, "KEPT_CHUNKS", 3)
        fetcher = self.opened()
        first = fetcher.want(self.ids[0])
        self.assertIs(fetcher.want(self.ids[0]), first)
        for name in self.ids[1:4]:
            fetcher.want(name)
        again = fetcher.want(self.ids[0])
        self.assertIsNot(again, first)
        self.assertEqual(fetcher.wait(again), self.contents[0])
        self.assertEqual(fetcher.wait(first), self.contents[0])
        fetcher.close()

    def test_missing_chunk(self) -> None:
        """A chunk that is not there is an error of its own; others of the same question come."""
        fetcher = self.opened()
        names = [self.ids[0], bytes(32), self.ids[1]]
        slots = [fetcher.want(name) for name in names]
        with self.assertRaises(StoredDataDamaged):
            fetcher.wait(slots[1])
        self.assertEqual(fetcher.wait(slots[0]), self.contents[0])
        self.assertEqual(fetcher.wait(slots[2]), self.contents[1])
        fetcher.close()

    def test_several_points(self) -> None:
        """Records of several points come over one dialogue; one that is not there, or is damaged,
        does not end it."""
        other = self.place.publish([entry(b"/other")])
        fetcher = self.fetcher(self.place.open("check"))
        fetcher.greet("check")
        self.assertEqual(fetcher.record(self.point).point, self.point)
        with self.assertRaises(NotFound):
            fetcher.record(bytes(16))
        record = fetcher.record(other)
        self.assertEqual(record.point, other)
        self.assertIsNone(fetcher.failure)
        fetcher.close()

    def test_have(self) -> None:
        """Which chunks are missing, of several questions at once, chunks asked for in between."""
        fetcher = self.fetcher(self.place.open("check"))
        fetcher.greet("check")
        asked = [[self.ids[0], bytes(32)], [b"x" * 32], self.ids]
        replies = [fetcher.have(ids) for ids in asked]
        slots = fetcher.get(self.ids[:2])
        found = [fetcher.missing(*pair) for pair in zip(replies, asked, strict=True)]
        self.assertEqual(found, [[bytes(32)], [b"x" * 32], []])
        self.assertEqual([fetcher.wait(slot) for slot in slots], self.contents[:2])
        fetcher.close()

    def test_have_is_refused(self) -> None:
        """Where the session's purpose has no such question the dialogue ends, and who waits is
        told."""
        fetcher = self.opened()
        reply = fetcher.have(self.ids[:1])
        with self.assertRaises(CloudConnectError):
            fetcher.missing(reply, self.ids[:1])
        self.assertIsNotNone(fetcher.failure)

    def test_close_without_using_what_was_asked_for(self) -> None:
        """The dialogue ends properly though nobody looked at the chunks."""
        fetcher = self.opened()
        for name in self.ids:
            fetcher.want(name)
        fetcher.ask()
        fetcher.close()
        assert self.place.served is not None
        self.assertNotIsInstance(self.place.served.wait(), BaseException)

    def test_close_before_opening(self) -> None:
        """A dialogue that never began is simply ended."""
        self.fetcher(self.place.open("restore")).close()
        assert self.place.served is not None
        self.assertIsInstance(self.place.served.wait(), CloudConnectError)

    def test_no_thread_is_left(self) -> None:
        """Neither a proper end nor an abort leaves a thread behind."""
        fetcher = self.opened()
        fetcher.wait(fetcher.want(self.ids[0]))
        fetcher.close()
        fetcher = self.opened()
        fetcher.want(self.ids[0])
        fetcher.ask()
        fetcher.abort(CloudConnectError("enough"))
        names = [thread.name for thread in threading.enumerate()]
        self.assertEqual([name for name in names if name.startswith("cloudconnect-")], [])


class HostileTests(Case):
    """With repositories that do not."""

    def against(self, serve: Callable[[FrameChannel], None]) -> Fetcher:
        """A fetcher, opened, whose repository then does what ``serve`` does."""
        left, right = channels(PipePair(timeout=30.0))
        description = self.place.description

        def run() -> None:
            right.receive()
            limits = {"ids": 8192, "chunk": 4 << 20, "body": 8 << 20}
            body = encode_body(
                version=1, repository=description.repository, codings=[16, 17], limits=limits
            )
            right.send(FrameKind.WELCOME, 0, body)
            asked = right.receive()
            record = self.place.record_of(self.point).encode()
            signature = self.place.keys.sign(record)
            body = encode_body(record=record, signature=signature, arrival=1)
            right.send(FrameKind.OPENED, asked.request, body)
            with contextlib.suppress(CloudConnectError):  # the other side gave up
                serve(right)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        fetcher = self.fetcher(left)
        fetcher.open(self.point, "restore")
        return fetcher

    def fails(self, serve: Callable[[FrameChannel], None], kind: type[Exception]) -> str:
        """What waiting for two chunks ends in."""
        fetcher = self.against(serve)
        slots = [fetcher.want(name) for name in self.ids[:2]]
        fetcher.ask()
        with self.assertRaises(kind) as caught:
            for slot in slots:
                fetcher.wait(slot)
        return str(caught.exception)

    def chunk(self, channel: FrameChannel, request: int, number: int) -> None:
        content, name = self.contents[number], self.ids[number]
        channel.send_chunk(request, self.place.keys.seal_blob("chunk", content, 3, name))

    def test_wrong_order(self) -> None:
        """Chunks that come in another order than they were asked for are refused."""

        def serve(channel: FrameChannel) -> None:
            asked = channel.receive()
            self.chunk(channel, asked.request, 1)
            self.chunk(channel, asked.request, 0)
            channel.receive()

        self.assertIn("not the next one", self.fails(serve, ProtocolViolation))

    def test_not_asked_for(self) -> None:
        """A chunk under a number that was not asked, or one too many, is refused."""

        def serve(channel: FrameChannel) -> None:
            asked = channel.receive()
            self.chunk(channel, asked.request + 5, 0)
            channel.receive()

        self.assertIn("not asked for", self.fails(serve, ProtocolViolation))

    def test_before_anything_was_asked(self) -> None:
        """A chunk out of the blue is refused, and does not pile up."""

        def serve(channel: FrameChannel) -> None:
            self.chunk(channel, 7, 0)
            channel.receive()
            channel.receive()

        self.fails(serve, ProtocolViolation)

    def test_another_kind(self) -> None:
        """Frames that have no business here are refused."""

        def serve(channel: FrameChannel) -> None:
            asked = channel.receive()
            channel.send(FrameKind.WANT, asked.request, b"\x00")
            channel.receive()

        self.fails(serve, ProtocolViolation)

    def test_early_end(self) -> None:
        """A repository that ends in the middle of an answer has not answered."""

        def serve(channel: FrameChannel) -> None:
            asked = channel.receive()
            self.chunk(channel, asked.request, 0)
            channel.finish()
            channel.receive()

        self.assertIn("before it had answered", self.fails(serve, ProtocolViolation))

    def test_failure_of_the_dialogue(self) -> None:
        """A FAIL of the whole dialogue reaches who waits, as its error."""

        def serve(channel: FrameChannel) -> None:
            channel.receive()
            channel.send_failure(0, NoSpace("no space left"))
            channel.receive()

        self.assertIn("no space left", self.fails(serve, NoSpace))

    def test_broken_line(self) -> None:
        """A broken line reaches who waits."""

        def serve(channel: FrameChannel) -> None:
            channel.receive()
            channel.abort(Truncated("the line broke"))

        self.fails(serve, Truncated)

    def test_seal_of_another_chunk(self) -> None:
        """Stored bytes of one chunk under another's name are damaged, not believed."""

        def serve(channel: FrameChannel) -> None:
            asked = channel.receive()
            names = split_ids(asked.body)
            keys = self.place.keys
            blob = keys.seal_blob("chunk", self.contents[1], 3, self.ids[1])
            channel.send_chunk(asked.request, attrs.evolve(blob, id=names[0]))
            self.chunk(channel, asked.request, 1)
            channel.receive()

        self.fails(serve, StoredDataDamaged)

    def opening(self, answer: Callable[[FrameChannel, Frame], None]) -> None:
        """Open a point of which ``answer`` makes the answer."""
        left, right = channels(PipePair(timeout=30.0))
        limits = {"ids": 8192, "chunk": 4 << 20, "body": 8 << 20}
        repository = self.place.description.repository
        body = encode_body(version=1, repository=repository, codings=[16], limits=limits)

        def run() -> None:
            right.receive()
            right.send(FrameKind.WELCOME, 0, body)
            answer(right, right.receive())

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.fetcher(left).open(self.point, "restore")

    def opened(self, record: bytes, signature: bytes) -> Callable[[FrameChannel, Frame], None]:
        def answer(channel: FrameChannel, frame: Frame) -> None:
            body = encode_body(record=record, signature=signature, arrival=1)
            channel.send(FrameKind.OPENED, frame.request, body)

        return answer

    def test_wrong_signature(self) -> None:
        """A record that was changed, in one bit or for another's, is not believed."""
        record = self.place.record_of(self.point).encode()
        signature = self.place.keys.sign(record)
        changed = record[:-1] + bytes((record[-1] ^ 1,))
        for octets, signed in ((changed, signature), (record, bytes(64)), (record, b"short")):
            with self.assertRaises(StoredDataDamaged):
                self.opening(self.opened(octets, signed))

    def test_another_point(self) -> None:
        """A genuine record of another point is not the one that was asked for."""
        other = self.place.record_of(self.place.publish([entry(b"/other")])).encode()
        with self.assertRaises(ContextMismatch):
            self.opening(self.opened(other, self.place.keys.sign(other)))

    def test_not_a_record(self) -> None:
        """A signed something that is no record, or no record at all, is refused."""
        with self.assertRaises(ProtocolViolation):
            self.opening(self.opened(b"\xa0", self.place.keys.sign(b"\xa0")))

        def nothing(channel: FrameChannel, frame: Frame) -> None:
            fields: dict[str, Any] = {"record": "text", "signature": None}
            channel.send(FrameKind.OPENED, frame.request, encode_body(**fields))

        with self.assertRaises(ProtocolViolation):
            self.opening(nothing)
