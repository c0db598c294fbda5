"""Reading manifests: everything once, in order, or an error."""

from __future__ import annotations

import os
import random

from cloudconnect.backup import manifests
from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.backup.manifests import ManifestGap, ReadParts, damaged_chunks, entries_of
from cloudconnect.content.entries import Entry
from cloudconnect.content.manifest import encode_entry
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.repository.store import Repository
from tests.backup.support import SESSION
from tests.backup.test_fetching import Case, entry


class ManifestCase(Case):
    """Manifests whose chunks are chosen by the test."""

    def opened(self) -> Fetcher:
        """A dialogue with the point of the case."""
        fetcher = self.fetcher(self.place.open("restore"))
        self.record = fetcher.open(self.point, "restore")
        return fetcher

    def _publish_parts(
        self, parts: list[bytes], length: int | None = None, files: int = 1
    ) -> bytes:
        keys, point = self.place.keys, os.urandom(16)
        names = [keys.manifest_id(part) for part in parts]
        record = PointRecord(
            point=point,
            repository=self.place.description.repository,
            session=SESSION,
            job_id=bytes(16),
            host="h",
            job="j",
            started_ns=0,
            finished_ns=0,
            mode=self.place.description.mode,
            manifest=tuple(names),
            manifest_length=sum(map(len, parts)) if length is None else length,
            statistics={"files": files},
            private=b"",
        )
        with Repository.open(self.place.directory) as repository:
            for name, part in zip(names, parts, strict=True):
                repository.add(keys.seal_blob("manifest", part, 3, name), "manifest")
            repository.flush()
            encoded = record.encode()
            repository.publish(record, encoded, keys.sign(encoded), [])
        return point


class EntriesTests(ManifestCase):
    """All entries of one point."""

    def test_entries(self) -> None:
        """All entries come in order, twice if asked twice."""
        self.patch(manifests, "CHUNKS", 1)
        fetcher = self.opened()
        self.assertEqual(list(entries_of(fetcher, self.record)), self.entries)
        self.assertEqual(list(entries_of(fetcher, self.record)), self.entries)
        fetcher.close()

    def test_long_manifest(self) -> None:
        """A manifest of more chunks than are asked for ahead."""
        self.patch(manifests, "CHUNKS", 2)
        entries = [entry(b"/%06d" % number) for number in range(2000)]
        encoded = [encode_entry(one) for one in entries]
        parts = [b"".join(encoded[at : at + 300]) for at in range(0, 2000, 300)]
        point = self._publish_parts(parts, files=len(entries))
        fetcher = self.fetcher(self.place.open("restore"))
        record = fetcher.open(point, "restore")
        self.assertEqual(len(record.manifest), 7)
        self.assertEqual(list(entries_of(fetcher, record)), entries)
        fetcher.close()

    def test_manifest_of_another_length(self) -> None:
        """A manifest that is shorter or longer than its record says is damaged."""
        part = encode_entry(entry(b"/x"))
        for length in (len(part) - 1, len(part) + 1):
            fetcher = self.fetcher(self.place.open("restore"))
            record = fetcher.open(self._publish_parts([part], length), "restore")
            with self.assertRaises(StoredDataDamaged):
                list(entries_of(fetcher, record))
            fetcher.close()

    def test_manifest_of_another_count(self) -> None:
        """A manifest with fewer or more entries than its record counts is damaged."""
        way = encode_entry(entry(b"/")._replace(flags=FLAG_ON_THE_WAY))
        part = way + encode_entry(entry(b"/x"))  # the way to it does not count
        for files, good in ((0, False), (1, True), (2, False)):
            fetcher = self.fetcher(self.place.open("restore"))
            record = fetcher.open(self._publish_parts([part], files=files), "restore")
            if good:
                self.assertEqual(len(list(entries_of(fetcher, record))), 2)
            else:
                with self.assertRaisesRegex(StoredDataDamaged, "has 1 .* counts"):
                    list(entries_of(fetcher, record))
            fetcher.close()

    def test_cut_manifest(self) -> None:
        """A manifest that ends inside an entry is damaged."""
        part = encode_entry(entry(b"/x"))[:-1]
        fetcher = self.fetcher(self.place.open("restore"))
        record = fetcher.open(self._publish_parts([part]), "restore")
        with self.assertRaises(StoredDataDamaged):
            list(entries_of(fetcher, record))
        fetcher.close()


class ReadPartsTests(ManifestCase):
    """Several points that have much in common."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(manifests, "CHUNKS", 2)
        self.entries = [entry(b"/%06d" % number) for number in range(900)]
        self.encoded = [encode_entry(one) for one in self.entries]

    def points(self, *texts: list[bytes]) -> list[bytes]:
        """A point for each list of a manifest's chunks."""
        return [
            self._publish_parts(parts, files=len(list(self.decoded(b"".join(parts)))))
            for parts in texts
        ]

    def decoded(self, manifest: bytes) -> list[Entry]:
        """What is in a manifest."""
        return list(manifests.EntryDecoder().feed(manifest))

    def cut(self, manifest: bytes, seed: int = 1) -> list[bytes]:
        """A manifest in chunks that do not end where entries do."""
        chooser, parts = random.Random(seed), []
        while manifest:
            size = chooser.randint(2000, 9000)
            parts.append(manifest[:size])
            manifest = manifest[size:]
        return parts

    def test_unchanged(self) -> None:
        """A point with the same manifest gives out nothing, and nothing is fetched for it."""
        parts = self.cut(b"".join(self.encoded))
        first, second = self.points(parts, parts)
        fetcher, known = self.fetcher(self.place.open("check")), ReadParts()
        fetcher.greet("check")
        self.assertEqual(list(entries_of(fetcher, fetcher.record(first), known)), self.entries)
        self.assertEqual(known.left_out, 0)
        record, asked = fetcher.record(second), fetcher._request
        self.assertEqual(list(entries_of(fetcher, record, known)), [])
        self.assertEqual(known.left_out, len(self.entries))
        self.assertEqual(fetcher._request, asked)
        fetcher.close()

    def test_changed(self) -> None:
        """Of one with a change in the middle comes what is in the chunks that are new, and in one
        that goes on with other bytes than before."""
        changed = [*self.encoded]
        changed[450] = encode_entry(self.entries[450]._replace(mode=0o600))
        first, second = self.points(*(self.cut(b"".join(one)) for one in (self.encoded, changed)))
        fetcher, known = self.fetcher(self.place.open("check")), ReadParts()
        fetcher.greet("check")
        list(entries_of(fetcher, fetcher.record(first), known))
        record = fetcher.record(second)
        whole = list(entries_of(fetcher, record))
        came = list(entries_of(fetcher, record, known))
        self.assertIn(0o600, [one.mode for one in came])
        self.assertEqual(len(came) + known.left_out, len(whole))
        self.assertGreater(known.left_out, len(came))
        at = whole.index(came[0])
        self.assertEqual(came, whole[at : at + len(came)])
        fetcher.close()

    def test_other_bytes_before(self) -> None:
        """The same chunk behind other bytes is another thing: it is read again."""
        before, behind = b"".join(self.encoded[:300]), b"".join(self.encoded[301:])
        cut = 12  # behind the mode
        one, twin = self.encoded[300], encode_entry(self.entries[300]._replace(mode=0o600))
        self.assertEqual(one[cut:], twin[cut:])
        first, second = self.points(
            *([before + start[:cut], one[cut:] + behind] for start in (one, twin))
        )
        fetcher, known = self.fetcher(self.place.open("check")), ReadParts()
        fetcher.greet("check")
        list(entries_of(fetcher, fetcher.record(first), known))
        record = fetcher.record(second)
        came = list(entries_of(fetcher, record, known))
        self.assertEqual(came, list(entries_of(fetcher, record)))
        self.assertEqual((came[300].mode, known.left_out), (0o600, 0))
        fetcher.close()

    def test_bounds(self) -> None:
        """Beyond so many chunks nothing is remembered, and everything comes."""
        self.patch(manifests, "PARTS_MAX", 2)
        self.assertLess(self.left_out(), len(self.entries) // 2)

    def test_bound_of_bytes(self) -> None:
        """So it is beyond so many bytes of entries that go on."""
        self.patch(manifests, "PENDING_IN_ALL", 100)
        self.assertLess(self.left_out(), len(self.entries))

    def left_out(self) -> int:
        """How much of the same manifest is left out when it is read again; not all of it."""
        parts = self.cut(b"".join(self.encoded))
        first, second = self.points(parts, parts)
        fetcher, known = self.fetcher(self.place.open("check")), ReadParts()
        fetcher.greet("check")
        list(entries_of(fetcher, fetcher.record(first), known))
        came = list(entries_of(fetcher, fetcher.record(second), known))
        paths = {one.path for one in came}
        self.assertEqual(came, [one for one in self.entries if one.path in paths])
        self.assertEqual(len(came) + known.left_out, len(self.entries))
        self.assertGreater(known.left_out, 0)
        fetcher.close()
        return known.left_out

    def test_damage(self) -> None:
        """A chunk that cannot be read is not remembered: each point that needs it is told of."""
        parts = self.cut(b"".join(self.encoded))
        points = self.points(parts, parts)
        self.place.damage(self.place.keys.manifest_id(parts[2]))
        fetcher, known = self.fetcher(self.place.open("check")), ReadParts()
        fetcher.greet("check")
        for point in points:
            record = fetcher.record(point)
            with self.assertRaises(ManifestGap):
                list(entries_of(fetcher, record, known))
            self.assertGreaterEqual(damaged_chunks(fetcher, record), 1)
        fetcher.close()
