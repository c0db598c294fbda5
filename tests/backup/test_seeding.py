"""Seeding the source accelerator's cache from files."""

from __future__ import annotations

import os
import tracemalloc
from typing import Any

from blake3 import blake3

from cloudconnect.backup.options import BackupOptions
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.backup.seeding import SeedResult, seed_from_files
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.errors import Cancelled, UsageError
from cloudconnect.wire.channel import FrameChannel
from tests.backup import support
from tests.backup.cases import BackupCase
from tests.backup.loops import loop_device
from tests.backup.support import Listening
from tests.backup.trees import write, write_sparse
from tests.dedup.pairs import NoCache


class SeedingCase(BackupCase):
    """A tree, a repository that the provider can read, and a cache."""

    def setUp(self) -> None:
        super().setUp()
        self.place = support.Place(self.mktemp(), EncryptionMode.NONE)
        self.blocks = MemoryCache(1 << 30)

    def seed(self, **more: Any) -> SeedResult:
        """Seed the cache from the tree."""
        options = BackupOptions(paths=(self.top,), rules=more.pop("rules", ExcludeRules()))
        return seed_from_files(
            more.pop("cache", self.blocks),
            self.place.keys,
            self.place.description,
            options,
            **more,
        )

    def sent(self, **options: Any) -> list[bytes]:
        """The bodies of the CHUNKs of a backup of the tree."""
        heard: list[Listening] = []

        def listen(channel: FrameChannel) -> FrameChannel:
            heard.append(Listening(channel))
            return heard[-1]

        self.place.wrap = listen
        self.place.backup(self.top, compression=0, **options)
        return heard[0].chunks

    def has(self, body: bytes) -> bool:
        """Whether the body of a CHUNK is a block in the cache."""
        return self.blocks.find(blake3(body).digest()) is not None


class SeedingTests(SeedingCase):
    """What gets into the cache."""

    def test_what_a_backup_sends(self) -> None:
        """Every CHUNK of a backup is in the cache afterwards, of its content and its manifest, and
        nothing else is."""
        self.tree(60)
        write(self.top + b"/large", os.urandom(5_000_000))
        write(self.top + b"/zeros", os.urandom(70_000) + bytes(200_000) + os.urandom(9000))
        write_sparse(self.top + b"/sparse", {1 << 20: os.urandom(100_000)}, 3 << 20)
        os.link(self.top + b"/large", self.top + b"/link")
        result = self.seed()
        sent = self.sent()
        self.assertGreater(len(sent), 60)
        self.assertEqual([body for body in sent if not self.has(body)], [])
        self.assertEqual(result.chunks, len(sent))
        self.assertEqual(result.bytes_added, sum(map(len, sent)))
        self.assertTrue(result.complete)

    def test_counts(self) -> None:
        """The result counts files and their bytes, and lists what could not be read."""
        write(self.top + b"/a", b"x" * 1000)
        write(self.top + b"/b", b"y" * 2000)
        options = BackupOptions(paths=(self.top, self.top + b"-missing"))
        result = seed_from_files(self.blocks, self.place.keys, self.place.description, options)
        self.assertEqual((result.files, result.bytes_source), (2, 3000))
        self.assertEqual([one.path for one in result.unreadable.listed], [self.top + b"-missing"])

    def test_twice(self) -> None:
        """A second time nothing is added."""
        self.tree()
        self.assertGreater(self.seed().bytes_added, 100_000)
        again = self.seed()
        self.assertEqual(again.bytes_added, 0)
        self.assertTrue(again.complete)

    def test_rules(self) -> None:
        """What a backup leaves out is left out."""
        write(self.top + b"/in", os.urandom(100_000))
        write(self.top + b"/out", os.urandom(100_000))
        result = self.seed(rules=ExcludeRules(patterns=PathPatterns([b"/**/out"])))
        self.assertEqual((result.files, result.bytes_source), (1, 100_000))

    def test_device(self) -> None:
        """A block device that is named is read."""
        image = self.top + b"/image"
        write(image, os.urandom(1 << 20))
        device = loop_device(self, image)
        options = BackupOptions(paths=(device,))
        result = seed_from_files(self.blocks, self.place.keys, self.place.description, options)
        self.assertEqual((result.files, result.bytes_source), (1, 1 << 20))
        self.assertGreater(result.bytes_added, 1 << 20)

    def test_memory(self) -> None:
        """However large a file is, little of it is held."""
        write(self.top + b"/large", os.urandom(48 << 20))
        tracemalloc.start()
        try:
            result = self.seed(cache=NoCache())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertGreater(result.bytes_added, 48 << 20)
        self.assertLess(peak, 20 << 20)


class EndTests(SeedingCase):
    """How seeding ends early, or does not begin."""

    def test_limit(self) -> None:
        """With the limit it ends, and says that there was more."""
        for number in range(20):
            write(self.top + b"/%02d" % number, os.urandom(1_000_000))
        result = self.seed(limit=3_000_000)
        self.assertFalse(result.complete)
        self.assertTrue(3_000_000 <= result.bytes_added < 3_500_000)
        self.assertLess(result.files, 20)

    def test_progress(self) -> None:
        """Progress is told on the way."""
        for number in range(10):
            write(self.top + b"/%02d" % number, os.urandom(1_000_000))
        seen: list[tuple[int, bytes]] = []
        self.seed(progress=lambda result: seen.append((result.bytes_added, result.path)))
        self.assertGreater(len(seen), 2)
        self.assertEqual(seen, sorted(seen))
        self.assertTrue(all(path.startswith(self.top) for _, path in seen))

    def test_cancelled(self) -> None:
        """Who stops it has what was added until then."""
        for number in range(10):
            write(self.top + b"/%02d" % number, os.urandom(1_000_000))
        calls: list[int] = []

        def cancelled() -> bool:
            calls.append(1)
            return len(calls) == 2

        self.assertRaises(Cancelled, self.seed, cancelled=cancelled)
        self.assertFalse(self.blocks.empty())
        self.assertEqual(len(calls), 2)

    def test_tenant(self) -> None:
        """In mode tenant it is refused: a sealed chunk is never the same twice."""
        self.place = support.Place(self.mktemp())
        write(self.top + b"/a", b"x" * 1000)
        self.assertRaises(UsageError, self.seed)
        self.assertTrue(self.blocks.empty())

    def test_nothing_there(self) -> None:
        """Nothing to read is an error, as for a backup."""
        options = BackupOptions(paths=(self.top + b"-missing",))
        self.assertRaises(
            UsageError,
            seed_from_files,
            self.blocks,
            self.place.keys,
            self.place.description,
            options,
        )
