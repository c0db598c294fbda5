"""The manifest writer and the sender of chunks."""

from __future__ import annotations

import os
import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import sending
from cloudconnect.backup.batches import Budget
from cloudconnect.backup.following import LEVELS
from cloudconnect.backup.sending import ChunkSender, ManifestWriter, Plain
from cloudconnect.content.atrest import BlobKind, EncryptionMode, RepositoryKeys
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.errors import Truncated
from cloudconnect.keys import MasterKey
from cloudconnect.testing import PipePair
from cloudconnect.wire.frames import FLAG_MANIFEST, Coding, FrameKind, StoredBlob, unpack_chunk
from tests.backup.support import channels


class _Line:
    """A channel that takes everything.

    :param full: what it says of each group of chunks
    """

    def __init__(self, full: bool) -> None:
        self.full = full

    def send_chunks(self, request: int, blobs: list[StoredBlob], manifest: bool) -> bool:
        """Whether it had to wait."""
        return self.full


class ManifestTests(SynchronousTestCase):
    """Entries in, chunks out."""

    @given(st.lists(st.binary(max_size=300), max_size=60), st.integers(1, 2000), st.integers(1, 5))
    @settings(max_examples=60, deadline=None)
    def test_chunks_are_the_entries(self, entries: list[bytes], size: int, chunks: int) -> None:
        """All entries are in the chunks, in order; ids and length are those of the chunks."""
        self.patch(sending, "MANIFEST_BYTES", size)
        self.patch(sending, "MANIFEST_CHUNKS", chunks)
        offered: list[tuple[bytes, bytes]] = []

        def offer(some: list[tuple[bytes, Plain]]) -> None:
            self.assertLessEqual(len(some), chunks)
            offered.extend((name, bytes(plain)) for name, plain in some)

        parameters = ChunkingParameters(average=256, minimum=64, maximum=1024)
        names = iter(range(1 << 30))
        writer = ManifestWriter(parameters, lambda plain: b"%032d" % next(names), offer)
        for entry in entries:
            writer.add(entry)
        writer.finish()
        self.assertEqual(b"".join(plain for _, plain in offered), b"".join(entries))
        self.assertEqual(writer.ids, [name for name, _ in offered])
        self.assertEqual(writer.length, sum(map(len, entries)))

    def test_finished(self) -> None:
        """No entry may come behind the last one: it would be lost."""
        writer = ManifestWriter(ChunkingParameters(), bytes, lambda chunks: None)
        writer.finish()
        with self.assertRaises(RuntimeError):
            writer.add(b"entry")


class SenderTests(SynchronousTestCase):
    """Chunks are sealed and sent in threads."""

    def setUp(self) -> None:
        self.keys = RepositoryKeys(MasterKey.generate(), bytes(16))
        self.left, self.right = channels(PipePair(timeout=20.0, high_water=1 << 30))
        self.budget = Budget(1 << 30, 100)
        self.errors: list[BaseException] = []
        self.sender = ChunkSender(self.left, self.keys, 3, self.budget, self.errors.append)
        self.addCleanup(self.sender.stop)

    def test_sent(self) -> None:
        """Every chunk arrives sealed, with its kind; the budget gets back content's bytes only."""
        self.patch(sending, "GROUP_BYTES", 10_000)
        plains = [os.urandom(3000) for _ in range(20)]
        chunks: list[tuple[bytes, Plain]] = [(self.keys.chunk_id(p), p) for p in plains]
        self.budget.take(60_000)
        self.budget.want(60_000)
        self.sender.send("chunk", chunks)
        manifest = b"manifest" * 100
        self.sender.send("manifest", [(self.keys.manifest_id(manifest), manifest)])
        self.sender.finish()
        self.left.finish()
        opened = {"chunk": set(), "manifest": set()}
        stored = 0
        while (frame := self.right.receive()).kind is not FrameKind.TOTALS:
            kind = "manifest" if frame.flags & FLAG_MANIFEST else "chunk"
            blob = unpack_chunk(frame.body)
            stored += len(blob.data)
            opened[kind].add(self.keys.open_blob(kind, blob))
        self.assertEqual(opened, {"chunk": set(plains), "manifest": {manifest}})
        self.assertEqual(self.budget._bytes, 0)
        self.assertEqual(self.sender.bytes_stored, stored)
        self.assertEqual(self.errors, [])

    def test_plain(self) -> None:
        """Without seal and compression nothing is coded, and chunks go in their order."""
        self.patch(sending, "GROUP_BYTES", 10_000)
        self.keys = RepositoryKeys(MasterKey.generate(), bytes(16), EncryptionMode.NONE)
        self.sender = ChunkSender(self.left, self.keys, 0, self.budget, self.errors.append)
        plains = [b"%d" % number * 2000 for number in range(40)]
        kinds: tuple[BlobKind, ...] = ("chunk", "manifest")
        for kind in kinds:
            chunks: list[tuple[bytes, Plain]] = [(self.keys.blob_id(kind, p), p) for p in plains]
            self.sender.send(kind, chunks)
        self.sender.finish()
        self.left.finish()
        sent = []
        while (frame := self.right.receive()).kind is not FrameKind.TOTALS:
            blob = unpack_chunk(frame.body)
            self.assertEqual(blob.coding, Coding.PLAIN)
            sent.append(bytes(blob.data))
        self.assertEqual(sent, plains * 2)
        self.assertEqual(self.errors, [])

    def test_level_follows_the_line(self) -> None:
        """The level falls while chunks wait for a thread, and rises while the line is full."""
        self.patch(sending, "GROUP_BYTES", 1000)
        plain = b"content " * 200
        chunks: list[tuple[bytes, Plain]] = [(self.keys.chunk_id(plain), plain)] * 60
        levels = []
        for full in (False, True):
            line: Any = _Line(full)
            sender = ChunkSender(line, self.keys, None, Budget(1 << 30, 100), self.errors.append)
            sender.send("chunk", chunks)
            sender.finish()
            levels.append(sender.level)
        self.assertEqual(levels, [LEVELS[0], LEVELS[-1]])
        self.assertEqual(self.errors, [])

    def test_level_stays(self) -> None:
        """A level that was asked for does not follow anything."""
        line: Any = _Line(False)
        sender = ChunkSender(line, self.keys, 4, self.budget, self.errors.append)
        plain = b"content " * 200
        sender.send("chunk", [(self.keys.chunk_id(plain), plain)] * 60)
        sender.finish()
        self.assertEqual(sender.level, 4)

    def test_much_of_a_manifest(self) -> None:
        """Who sends more of a manifest than waits already, waits until some of it was sent."""
        self.left, self.right = channels(PipePair(timeout=20.0, high_water=50_000))
        self.sender = ChunkSender(self.left, self.keys, 0, self.budget, self.errors.append)
        self.patch(sending, "GROUP_BYTES", 10_000)
        plains = [os.urandom(10_000) for _ in range(60)]
        sent: list[int] = []

        def send() -> None:
            for plain in plains:
                self.sender.send("manifest", [(self.keys.manifest_id(plain), plain)])
                sent.append(1)
            self.sender.finish()
            self.left.finish()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        came, most = 0, 0
        while self.right.receive().kind is not FrameKind.TOTALS:
            came += 1
            most = max(most, len(sent) - came)
        thread.join(60)
        self.assertEqual((came, self.errors), (60, []))
        self.assertLess(most, 30)

    def test_stop_while_waiting(self) -> None:
        """A stop lets go of who waits."""
        self.left, self.right = channels(PipePair(timeout=20.0, high_water=10_000))
        self.sender = ChunkSender(self.left, self.keys, 0, self.budget, self.errors.append)
        plain = os.urandom(10_000)
        chunk: tuple[bytes, Plain] = (self.keys.manifest_id(plain), plain)
        waits = threading.Event()

        def send() -> None:
            try:
                for number in range(100):
                    if number == sending.MANIFEST_GROUPS:
                        waits.set()
                    self.sender.send("manifest", [chunk])
            except RuntimeError:
                pass  # its threads have ended

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        self.assertTrue(waits.wait(60))
        self.sender.stop()
        self.left.abort(Truncated("the line broke"))
        thread.join(60)
        self.assertFalse(thread.is_alive())

    def test_failure(self) -> None:
        """A broken line is reported."""
        self.left.abort(Truncated("the line broke"))
        self.sender.send("chunk", [(bytes(32), b"x")])
        self.sender.finish()
        self.assertIsInstance(self.errors[0], Truncated)

    def test_stop(self) -> None:
        """After a stop nothing more is sent, and the broken line is nobody's news."""
        self.sender.stop()
        self.left.abort(Truncated("the line broke"))
        self.sender._send("chunk", [(bytes(32), b"x")])
        self.assertEqual(self.errors, [])
        self.assertEqual(self.left.bytes_sent, 0)
