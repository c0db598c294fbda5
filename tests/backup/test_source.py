"""The reading side: batches in the right order, with the right things in them."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import source as source_module
from cloudconnect.backup.batches import Batch, Stopped
from cloudconnect.backup.drafts import FLAG_LINKED, FLAG_ON_THE_WAY
from cloudconnect.backup.filecache import FileCache
from cloudconnect.backup.options import BackupOptions, BackupResult, StandardInput
from cloudconnect.backup.source import Source
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import EntryDecoder
from cloudconnect.keys import MasterKey
from tests.backup.trees import write


class SourceTests(SynchronousTestCase):
    """A source that is run in this thread, with what it hands over collected."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.keys = RepositoryKeys(MasterKey.generate(), bytes(16))
        self.batches: list[Batch] = []
        self.result = BackupResult()
        self.patch(source_module, "BATCH_BYTES", 20_000)

    def source(self, cache: Path | None = None, **options: Any) -> Source:
        chosen = BackupOptions(**(options or {"paths": (self.top,)}))
        known = None
        if cache is not None:
            known = FileCache(cache, bytes(16), bytes(8), lambda: 1 << 62)
        parameters = ChunkingParameters(average=1024, minimum=256, maximum=4096)
        return Source(chosen, self.keys, parameters, known, self.result, self.batches.append)

    def run_source(self, source: Source) -> None:
        source.enough()
        source.run()

    def entries(self) -> list[Entry]:
        decoder, found = EntryDecoder(), []
        for batch in self.batches:
            for outgoing in batch.entries:
                found.extend(decoder.feed(outgoing.encoded))
        decoder.finish()
        return [entry for entry in found if entry.path.startswith(self.top)]

    def test_chunks_come_before_what_needs_them(self) -> None:
        """No entry stands in a batch before one with its chunks."""
        for number in range(40):
            write(self.top + b"/%02d" % number, os.urandom(number * 400))
        self.run_source(self.source())
        self.assertGreater(len(self.batches), 5)
        provided: set[bytes] = set()
        decoder, count = EntryDecoder(), 0
        for batch in self.batches:
            provided.update(batch.ids)
            for outgoing in batch.entries:
                for entry in decoder.feed(outgoing.encoded):
                    count += 1
                    for run in entry.runs:
                        self.assertIn(run.id, provided)
        self.assertGreaterEqual(count, 41)

    def test_each_chunk_once(self) -> None:
        """A chunk comes once, with its content, under its name."""
        data = os.urandom(30_000)
        write(self.top + b"/a", data)
        write(self.top + b"/b", data)
        self.run_source(self.source())
        ids = [name for batch in self.batches for name in batch.ids]
        self.assertEqual(len(ids), len(set(ids)))
        for batch in self.batches:
            for name, plain in zip(batch.ids, batch.plains, strict=True):
                assert plain is not None
                self.assertEqual(self.keys.chunk_id(plain), name)

    def test_batches_are_bounded(self) -> None:
        """Batches are handed over at their limits of bytes, ids and entries."""
        self.patch(source_module, "BATCH_IDS", 10)
        self.patch(source_module, "BATCH_ENTRIES", 25)
        for number in range(100):
            write(self.top + b"/empty%03d" % number, b"")
        write(self.top + b"/large", os.urandom(200_000))
        self.run_source(self.source())
        self.assertLessEqual(max(batch.size for batch in self.batches), 20_000 + 4096)
        self.assertLessEqual(max(len(batch.ids) for batch in self.batches), 10)
        self.assertLessEqual(max(len(batch.entries) for batch in self.batches), 26)

    def test_last(self) -> None:
        """One batch says that the walk is over; only files that are read again come after it."""
        write(self.top + b"/a", b"x")
        self.run_source(self.source())
        marks = [batch.last for batch in self.batches]
        self.assertEqual(sum(marks), 1)
        after = self.batches[marks.index(True) + 1 :]
        self.assertEqual([batch.entries for batch in after], [[]] * len(after))

    def test_last_of_several(self) -> None:
        """Where what is left fills more than one batch, only the last of them says so."""
        for size in (100, 1000, 3000):
            for number in range(8):
                write(self.top + b"/%d" % number, os.urandom(size))
            for limit in (1, size, 4 * size, 8 * size):
                self.patch(source_module, "BATCH_BYTES", limit)
                self.batches.clear()
                self.run_source(self.source())
                marks = [batch.last for batch in self.batches]
                self.assertEqual(sum(marks), 1)
                for batch in self.batches[marks.index(True) + 1 :]:
                    self.assertEqual((batch.entries, batch.ids), ([], []))
                self.assertEqual(len(self.entries()), 9)

    def test_flags(self) -> None:
        """The first of several names, and folders on the way, are marked."""
        write(self.top + b"/a", b"x")
        os.link(self.top + b"/a", self.top + b"/b")
        write(self.top + b"/c", b"y")
        self.run_source(self.source())
        flags = {entry.path[len(self.top) :]: entry.flags for entry in self.entries()}
        self.assertEqual(flags, {b"": 0, b"/a": FLAG_LINKED, b"/b": 0, b"/c": 0})
        decoder = EntryDecoder()
        first = next(iter(decoder.feed(self.batches[0].entries[0].encoded)))
        self.assertEqual(first.flags, FLAG_ON_THE_WAY)

    def test_known_files(self) -> None:
        """An unchanged file comes with its ids, without content, and a token."""
        cache = Path(os.path.abspath(self.mktemp()))
        write(self.top + b"/a", os.urandom(5000))
        self.run_source(self.source(cache))
        before = self.entries()
        self.batches.clear()
        self.run_source(self.source(cache))
        self.assertEqual(self.entries(), before)
        known = [o for batch in self.batches for o in batch.entries if o.token]
        self.assertEqual([outgoing.path for outgoing in known], [self.top + b"/a"])
        self.assertEqual(set(known[0].ids), {run.id for run in before[-1].runs})
        plains = [plain for batch in self.batches for plain in batch.plains]
        self.assertEqual(plains, [None] * len(known[0].ids))

    def test_read_again(self) -> None:
        """A file that is to be read after all comes with its content, and names its token."""
        cache = Path(os.path.abspath(self.mktemp()))
        data = os.urandom(5000)
        write(self.top + b"/a", data)
        self.run_source(self.source(cache))
        self.batches.clear()
        source = self.source(cache)
        source.read_again(41, self.top + b"/a")
        self.run_source(source)
        again = [o for batch in self.batches for o in batch.entries if o.replaces]
        self.assertEqual([outgoing.replaces for outgoing in again], [41])
        plains = [p for batch in self.batches for p in batch.plains if p is not None]
        self.assertEqual(sum(map(len, plains)), 5000)

    def test_read_again_what_is_gone(self) -> None:
        """A file that is to be read after all and is gone comes as an empty entry, reported."""
        write(self.top + b"/a", b"x")
        source = self.source()
        source.read_again(41, self.top + b"/gone")
        self.run_source(source)
        again = [o for batch in self.batches for o in batch.entries if o.replaces]
        self.assertEqual([(o.replaces, o.encoded) for o in again], [(41, b"")])
        self.assertEqual(self.result.unreadable.listed[0].path, self.top + b"/gone")

    def test_waits_for_enough(self) -> None:
        """After the walk the source waits, as files may have to be read again."""
        write(self.top + b"/a", b"x")
        source = self.source()
        came = threading.Event()

        def take(batch: Batch) -> None:
            if any(outgoing.replaces == 1 for outgoing in batch.entries):
                came.set()

        source._hand_over = take
        thread = threading.Thread(target=source.run, daemon=True)
        thread.start()
        source.read_again(1, self.top + b"/a")
        self.assertTrue(came.wait(10))
        self.assertTrue(thread.is_alive())
        source.enough()
        thread.join(10)
        self.assertFalse(thread.is_alive())

    def test_stopped(self) -> None:
        """When nobody takes batches any more, the source ends and closes what it holds open."""
        for number in range(5):
            write(self.top + b"/%d" % number, os.urandom(30_000))
        before = set(os.listdir("/proc/self/fd"))
        source = self.source()

        def stop(batch: Batch) -> None:
            raise Stopped

        source._hand_over = stop
        self.assertRaises(Stopped, source.run)
        del source
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)

    def test_standard_input(self) -> None:
        """A stream is one file."""
        data = os.urandom(50_000)
        self.run_source(self.source(stdin=StandardInput(b"a/b", BytesIO(data))))
        decoder = EntryDecoder()
        (entry,) = [e for b in self.batches for o in b.entries for e in decoder.feed(o.encoded)]
        self.assertEqual((entry.path, entry.size), (b"/a/b", 50_000))
