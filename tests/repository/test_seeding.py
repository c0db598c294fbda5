"""Seeding the target accelerator's cache from a repository."""

from __future__ import annotations

import functools
import os
import tracemalloc
from collections.abc import Iterator
from typing import Any

import attrs
from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import reader, source
from cloudconnect.backup.options import BackupOptions
from cloudconnect.backup.seeding import seed_from_files
from cloudconnect.backup.walk import Found, Unreadable, walk
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.content.runs import Run
from cloudconnect.dedup.cutting import FrameCutter
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.errors import Cancelled, Refused
from cloudconnect.keys import MasterKey, Subkey
from cloudconnect.repository import seeding
from cloudconnect.repository.seeding import SeedResult, newest_points, seed_from_repository
from cloudconnect.repository.store import Repository
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import (
    CHUNK_PREFIX_SIZE,
    Coding,
    FrameKind,
    FrameWriter,
    StoredBlob,
    unpack_chunk,
)
from tests.backup.cases import file_of
from tests.backup.support import Listening, Place
from tests.backup.trees import write, write_sparse
from tests.dedup.pairs import NoCache, Pair, carry, noise
from tests.dedup.pairs import text as make_text

text = functools.cache(make_text)


def name_of(body: bytes) -> bytes:
    """The name of the block that the body of a CHUNK is."""
    return blake3(body).digest()


def stream_of(bodies: list[bytes], key: int) -> bytes:
    """A session's stream of frames: CHUNKs, under a key of its own."""
    writer = FrameWriter(Subkey(bytes([key]) * 32), 0)
    parts: list[bytes | memoryview] = []
    for request, body in enumerate(bodies):
        parts += writer.encode(FrameKind.CHUNK, request, body)
    return b"".join(parts)


class SeedingCase(SynchronousTestCase):
    """A tree, a repository that can be read, and a cache."""

    mode = EncryptionMode.NONE

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.place = Place(self.mktemp(), self.mode)
        self.own: RepositoryKeys | None = None
        if self.mode is EncryptionMode.PROVIDER:
            repository = self.place.description.repository
            self.own = RepositoryKeys(MasterKey.generate(), repository, self.mode)
        self.place.serve_options = {"plain_on_wire": True, "keys": self.own}
        self.cache = MemoryCache(1 << 30)
        self.hold_still()

    def hold_still(self) -> None:
        """See to it that the folders above the tree stay what they are, or manifests do not.

        Others make files in them, and that is their time of change, which a manifest holds.
        """
        seen: dict[bytes, os.stat_result] = {}

        def still(*args: Any) -> Iterator[Found | Unreadable]:
            for item in walk(*args):
                if isinstance(item, Found) and item.ancestor:
                    item.status = seen.setdefault(item.path, item.status)
                yield item

        self.patch(source, "walk", still)

    def tree(self, size: int = 1) -> None:
        """Files of all sizes, with what is special about some."""
        for number in range(40):
            write(self.top + b"/d%d/%02d" % (number % 3, number), text(number * 700 * size, number))
        for number in range(4):
            data = text(400_000 * size, 100 + number)
            write(self.top + b"/d%d/m%d" % (number % 3, number), data)
        write(self.top + b"/large", text(3_000_000, 200))
        write(self.top + b"/noise", noise(300_000))
        write(self.top + b"/zeros", text(90_000, 201) + bytes(300_000) + text(9000, 202))
        write_sparse(self.top + b"/sparse", {1 << 21: text(200_000, 203)}, 4 << 20)

    def back_up(self, host: str = "host", job: str = "job") -> list[bytes]:
        """Back the tree up; the bodies of the CHUNKs that were sent."""
        heard: list[Listening] = []

        def listen(channel: FrameChannel) -> FrameChannel:
            heard.append(Listening(channel))
            return heard[-1]

        self.place.wrap = listen
        self.place.labels = attrs.evolve(self.place.labels, host=host, job=job)
        self.point = self.place.backup(self.top, compression=0).point
        return heard[0].chunks

    def seed(self, **more: Any) -> SeedResult:
        """Seed the cache from the repository, opened to be read only."""
        with Repository.open(self.place.directory, read_only=True) as repository:
            return seed_from_repository(
                more.pop("cache", self.cache), repository, **{"keys": self.own, **more}
            )

    def lacking(self, bodies: list[bytes]) -> list[bytes]:
        """Which of the bodies of CHUNKs are not in the cache."""
        return [body for body in bodies if self.cache.find(name_of(body)) is None]


class SeedingTests(SeedingCase):
    """What gets into the cache."""

    def test_what_was_sent(self) -> None:
        """Every CHUNK of a backup is in the cache afterwards, and nothing else is."""
        self.tree()
        sent = self.back_up()
        result = self.seed()
        self.assertEqual(self.lacking(sent), [])
        self.assertEqual(result.chunks, len(sent))
        self.assertEqual(result.bytes_added, sum(map(len, sent)))
        self.assertEqual(result.bytes_plain, sum(len(b) - CHUNK_PREFIX_SIZE for b in sent))
        self.assertEqual((result.points, result.points_total, result.damaged), (1, 1, 0))
        self.assertTrue(result.complete)

    def test_stored_compressed(self) -> None:
        """It does not matter how the chunks came to the repository."""
        self.tree()
        self.place.serve_options = {"keys": self.own}
        self.place.backup(self.top)
        self.assertGreater(self.seed().bytes_added, 1_000_000)
        options = BackupOptions(paths=(self.top,))
        again = seed_from_files(self.cache, self.place.keys, self.place.description, options)
        self.assertEqual(again.bytes_added, 0)

    def test_memory(self) -> None:
        """However much there is, little of it is held."""
        write(self.top + b"/large", os.urandom(64 << 20))
        self.back_up()
        tracemalloc.start()
        try:
            result = self.seed(cache=NoCache())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertGreater(result.bytes_added, 64 << 20)
        self.assertLess(peak, 32 << 20)

    def test_order(self) -> None:
        """Neighbours are the same as in a cache that was seeded from the files."""
        self.tree()
        self.back_up()
        self.seed()
        files = MemoryCache(1 << 30)
        options = BackupOptions(paths=(self.top,))
        seed_from_files(files, self.place.keys, self.place.description, options)
        caches = (self.cache, files)
        self.assertEqual(set(files._places), set(self.cache._places))
        for name in files._places:
            after = []
            for cache in caches:
                place = cache.find(name)
                assert place is not None
                follower = cache.beside(place, 1)
                after.append(follower and cache.read(follower))
            self.assertEqual(after[0], after[1])

    def test_twice(self) -> None:
        """A second time nothing is added."""
        self.tree()
        self.back_up()
        self.assertGreater(self.seed().bytes_added, 1_000_000)
        again = self.seed()
        self.assertEqual(again.bytes_added, 0)
        self.assertTrue(again.complete)

    def test_newest(self) -> None:
        """Of each job on each host the newest point counts, and it can be asked for one of them."""
        sent: dict[bytes, list[bytes]] = {}
        points = {}
        for name, host, job in ((b"a", "one", "job"), (b"b", "two", "job"), (b"c", "one", "job")):
            write(self.top + b"/file", text(300_000, name[0]))
            sent[name] = self.back_up(host, job)
            points[name] = self.point
        with Repository.open(self.place.directory, read_only=True) as repository:
            self.assertEqual(newest_points(repository), [points[b"c"], points[b"b"]])
            self.assertEqual(newest_points(repository, "two"), [points[b"b"]])
            self.assertEqual(newest_points(repository, "two", "other"), [])
        self.assertEqual(self.seed(host="one").points, 1)
        self.assertEqual(self.lacking(sent[b"c"]), [])
        self.assertEqual(self.lacking(sent[b"b"]), sent[b"b"])
        self.assertEqual(self.seed().points, 2)
        self.assertEqual(self.lacking(sent[b"b"]), [])
        self.assertEqual(len(self.lacking(sent[b"a"])), len(sent[b"a"]))

    def test_many_points(self) -> None:
        """However many points there are, all are looked at."""
        write(self.top + b"/file", b"content")
        for number in range(5):
            self.back_up(f"host {number}")
        real = Repository.points

        def short(repository: Repository, *args: Any, **options: Any) -> Any:
            return real(repository, *args, **{**options, "limit": 2})

        self.patch(Repository, "points", short)
        self.assertEqual(self.seed().points, 5)

    def test_sizes(self) -> None:
        """Which files are joined is the source mover's choice, and known here."""
        self.assertEqual(seeding.SMALL_FILE, reader.SMALL_FILE)
        self.assertEqual(seeding.SMALL_SPARSE_FILE, reader.BLOCK)


class ProviderSeedingTests(SeedingTests):
    """The same where the provider's mover has sealed what is stored."""

    mode = EncryptionMode.PROVIDER

    def test_without_keys(self) -> None:
        """Without the provider's key it is refused."""
        self.tree()
        self.back_up()
        self.assertRaises(Refused, self.seed, keys=None)

    def test_other_keys(self) -> None:
        """With another key nothing opens: nothing is added, and all of it is counted."""
        self.tree()
        self.back_up()
        repository = self.place.description.repository
        other = RepositoryKeys(MasterKey.generate(), repository, self.mode)
        result = self.seed(keys=other)
        self.assertEqual(result.bytes_added, 0)
        self.assertGreater(result.damaged, 40)


class TenantTests(SeedingCase):
    """Where only the tenant can read."""

    mode = EncryptionMode.TENANT

    def test_refused(self) -> None:
        """Sealed chunks are refused in words."""
        self.tree()
        self.back_up()
        error = self.assertRaises(Refused, self.seed)
        self.assertIn("tenant", str(error))
        self.assertTrue(self.cache.empty())


class DamageTests(SeedingCase):
    """What is damaged costs itself."""

    def chunks(self, manifest: bool) -> list[bytes]:
        """The bodies of the CHUNKs of a backup: of its manifest, or of its content."""
        self.tree()
        sent = self.back_up()
        listed = set(self.place.record_of(self.point).manifest)
        return [body for body in sent if (unpack_chunk(body).id in listed) is manifest]

    def test_chunk(self) -> None:
        """A damaged chunk is left out and counted."""
        sent = self.chunks(False)
        self.place.damage(unpack_chunk(sent[5]).id)
        result = self.seed()
        self.assertEqual(self.lacking(sent), [sent[5]])
        self.assertEqual(result.damaged, 1)
        self.assertTrue(result.complete)

    def test_manifest(self) -> None:
        """Where the manifest is damaged the list of references says what is needed."""
        (body,) = self.chunks(True)
        content = self.back_up("other")
        self.place.damage(unpack_chunk(body).id)
        with Repository.open(self.place.directory, read_only=True) as repository:
            count = repository.point(self.point).reference_count
        result = self.seed(host="host")
        self.assertEqual(self.lacking([body]), [body])
        self.assertEqual((result.chunks, result.damaged), (count, 1))
        self.assertEqual(content, [])

    def test_no_frame(self) -> None:
        """So is one that was stored as what cannot be decompressed, or has another length."""
        contents = [text(500, 1), text(500, 2), text(500, 3)]
        names = [self.place.keys.chunk_id(content) for content in contents]
        runs = tuple(Run(name, 0, 500) for name in names)
        self.place.publish([file_of(b"/file", size=1500, runs=runs)], contents[2:])
        with Repository.open(self.place.directory) as repository:
            for name, data, coding in (
                (names[0], b"no frame", Coding.ZSTD),
                (names[1], b"another length", Coding.PLAIN),
            ):
                repository.add(StoredBlob(name, 500, coding, blake3(data).digest(), data))
            repository.flush()
        result = self.seed()
        self.assertEqual((result.damaged, result.chunks), (2, 2))
        bodies = [self.body(content) for content in contents]
        self.assertEqual(self.lacking(bodies), bodies[:2])

    def body(self, plain: bytes) -> bytes:
        """The body of the CHUNK of this content."""
        blob = self.place.keys.seal_blob("chunk", plain, 0, self.place.keys.chunk_id(plain))
        writer = FrameWriter(Subkey(bytes(32)), 0)
        return b"".join(writer.encode_chunk(0, blob)[1:3])


class EndTests(SeedingCase):
    """How seeding ends early."""

    def test_limit(self) -> None:
        """With the limit it ends, and says that there was more."""
        self.tree()
        self.back_up()
        result = self.seed(limit=1_000_000)
        self.assertFalse(result.complete)
        self.assertTrue(1_000_000 <= result.bytes_added < 1_500_000)

    def test_progress(self) -> None:
        """Progress is told on the way."""
        self.patch(seeding, "READ_AT_ONCE", 4)
        self.tree()
        self.back_up()
        seen: list[tuple[int, int]] = []
        self.seed(progress=lambda result: seen.append((result.bytes_added, result.points_total)))
        self.assertGreater(len(seen), 4)
        self.assertEqual(seen, sorted(seen))
        self.assertEqual({total for _, total in seen}, {1})

    def test_cancelled(self) -> None:
        """Who stops it has what was added until then."""
        self.patch(seeding, "READ_AT_ONCE", 4)
        self.tree()
        self.back_up()
        calls: list[int] = []

        def cancelled() -> bool:
            calls.append(1)
            return len(calls) == 3

        self.assertRaises(Cancelled, self.seed, cancelled=cancelled)
        self.assertFalse(self.cache.empty())
        self.assertEqual(len(calls), 3)


class PairTests(SeedingCase):
    """What seeds at both ends are worth."""

    mode = EncryptionMode.PROVIDER

    def setUp(self) -> None:
        super().setUp()
        self.tree(size=2)
        self.old = self.back_up()
        self.seed()
        self.source = MemoryCache(1 << 30)
        options = BackupOptions(paths=(self.top,))
        seed_from_files(self.source, self.place.keys, self.place.description, options)

    def change(self) -> None:
        """Change a few bytes of some files."""
        for name in (b"/d0/03", b"/d1/10", b"/d2/m2", b"/d0/m0", b"/large"):
            with open(self.top + name, "r+b") as file:
                data = file.read()
                at = len(data) // 3
                file.seek(0)
                file.write(data[:at] + b"something else" + data[at:])

    def test_changed(self) -> None:
        """A backup of changed content costs what has changed; the far end misses nothing."""
        self.change()
        new = stream_of(self.back_up(), 3)
        cold = carry(new, MemoryCache(), MemoryCache(), cutter=FrameCutter)
        pair = carry(new, self.source, self.cache, cutter=FrameCutter)
        self.assertEqual(pair.ends[0].sent.misses, 0)
        self.assertLess(self.crossed(pair), self.crossed(cold) // 10)
        self.assertGreater(pair.ends[0].sent.by_delta, len(new) * 9 // 10)

    def test_all_of_it(self) -> None:
        """A restore of old content costs next to nothing, by reference."""
        stream = stream_of(self.old, 4)
        pair = carry(stream, self.cache, self.source, cutter=FrameCutter)
        self.assertEqual(pair.ends[0].sent.misses, 0)
        self.assertLess(self.crossed(pair), len(stream) // 200)

    @staticmethod
    def crossed(pair: Pair) -> int:
        """Bytes on the line, both ways."""
        return sum(pair.crossed)
