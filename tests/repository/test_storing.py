"""Tests for cloudconnect.repository.storing."""

from __future__ import annotations

import errno
import os
from typing import Any

from cloudconnect.errors import (
    NoSpace,
    Refused,
    StoredDataDamaged,
)
from cloudconnect.repository import packs
from tests.repository.repositories import (
    RepositoryCase,
    blob,
    failing,
    name_of,
)


class StoringTests(RepositoryCase):
    """Blobs become durable a pack at a time, in the order that was promised."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 3)
        self.repository = self.created()

    def test_durable_ids(self) -> None:
        """Ids are returned when their pack closes, each once."""
        got = [self.repository.add(blob(number)) for number in range(7)]
        ids = [name_of(number) for number in range(7)]
        self.assertEqual(got, [[], [], ids[:3], [], [], ids[3:6], []])
        self.assertEqual(self.repository.flush(), ids[6:])
        self.assertEqual(self.repository.flush(), [])
        self.assertEqual(len(self.files("packs")), 3)

    def test_have(self) -> None:
        """A blob need not be sent from when it was taken; for others, from when it is durable."""
        other = self.opened()
        ids = [name_of(1), name_of(2), name_of(1)]
        self.repository.add(blob(1))
        self.assertEqual(self.repository.have(ids), [True, False, True])
        self.assertEqual(other.have(ids), [False, False, False])
        self.repository.flush()
        self.assertEqual(other.have(ids), [True, False, True])
        self.assertEqual(self.repository.have([]), [])

    def test_kinds_apart(self) -> None:
        """Chunks of manifests lie in packs of their own."""
        for number in range(4):
            self.repository.add(blob(number), ("chunk", "manifest")[number % 2])
        self.repository.flush()
        places = self.repository.catalogue.locate(map(name_of, range(4)))
        names = [places[name_of(number)][0] for number in range(4)]
        kinds = [places[name_of(number)][1].kind for number in range(4)]
        self.assertEqual(kinds, [0, 1, 0, 1])
        self.assertEqual((names[0], names[1]), (names[2], names[3]))
        self.assertNotEqual(names[0], names[1])

    def test_twice(self) -> None:
        """A blob that comes again while its pack is open takes no room again."""
        self.repository.add(blob(1))
        self.repository.add(blob(1))
        self.assertEqual(self.repository.flush(), [name_of(1)])
        self.assertEqual(self.repository.statistics()["blobs"], 1)

    def test_not_read_before(self) -> None:
        """What is not durable is not read."""
        self.repository.add(blob(1))
        self.assertRaises(StoredDataDamaged, list, self.repository.read([name_of(1)]))
        self.repository.flush()
        self.assertEqual(list(self.repository.read([name_of(1)])), [blob(1)])

    def test_streamed(self) -> None:
        """A pack is not held in memory while it fills: its bytes are in the temporary file."""
        self.repository.add(blob(1, 2 << 20))
        (path,) = self.files("temporary")
        self.assertGreaterEqual(path.stat().st_size, 2 << 20)

    def test_index_after_pack(self) -> None:
        """When the index is written, the pack has its name already."""
        packs_then: list[int] = []
        real = self.repository.catalogue.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            packs_then.append(len(self.files("packs")))
            real(connection)

        self.patch(self.repository.catalogue.engine.dialect, "do_commit", commit)
        self.repository.add(blob(1))
        self.repository.flush()
        self.assertEqual(packs_then, [1])

    def test_fsync_error(self) -> None:
        """After EIO from fsync nothing is acknowledged, and nothing more is stored."""
        self.repository.add(blob(1))
        call, calls = failing(OSError(errno.EIO, "I/O error"), os.fsync)
        patch = self.patch(os, "fsync", call)
        self.assertRaises(OSError, self.repository.flush)
        patch.restore()
        self.assertEqual(len(calls), 1)
        for attempt in (
            self.repository.flush,
            lambda: self.repository.add(blob(2)),
            lambda: self.published(self.repository, b"p" * 16, 0),
        ):
            self.assertRaises(Refused, attempt)
        self.assertEqual(self.files("packs") if (self.directory / "packs").exists() else [], [])
        self.assertEqual(self.repository.have([name_of(1)]), [False])
        self.assertEqual(self.files("temporary"), [])

    def test_fsync_error_in_add(self) -> None:
        """So too where the pack was closed because it was full."""
        self.repository.add(blob(1))
        self.repository.add(blob(2), "manifest")
        self.repository.add(blob(3))
        patch = self.patch(os, "fsync", failing(OSError(errno.EIO, "I/O error"), os.fsync)[0])
        self.assertRaises(OSError, self.repository.add, blob(4))
        patch.restore()
        self.assertRaises(Refused, self.repository.flush)
        self.assertRaises(Refused, self.repository.begin_references)
        there = self.repository.have([name_of(number) for number in range(1, 5)])
        self.assertEqual(there, [False] * 4)
        self.assertEqual(self.files("temporary"), [])

    def test_catalogue_full(self) -> None:
        """A catalogue that cannot grow fails the store; the pack without an index does no harm."""
        with self.repository.catalogue.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        self.patch(packs, "PACK_ENTRIES_MAX", 1000)
        for number in range(900):
            self.repository.add(blob(number))
        self.assertRaises(NoSpace, self.repository.flush)
        self.assertEqual(len(self.files("packs")), 1)
        repository = self.opened()
        self.assertEqual(repository.have([name_of(5)]), [False])
        repository.add(blob(5))
        repository.flush()
        self.assertEqual(list(repository.read([name_of(5)])), [blob(5)])

    def test_disk_full(self) -> None:
        """A full disk is NoSpace, and what was durable before can still be read."""
        for number in range(3):
            self.repository.add(blob(number))
        self.patch(os, "write", failing(OSError(errno.ENOSPC, "full"), os.write)[0])
        self.repository.add(blob(5))
        self.assertRaises(NoSpace, self.repository.flush)
        self.assertEqual(list(self.repository.read([name_of(1)])), [blob(1)])

    def test_statistics(self) -> None:
        """Packs and blobs are counted, and their bytes."""
        for number in range(4):
            self.repository.add(blob(number, 1000))
        self.repository.flush()
        found = self.repository.statistics()
        sizes = [path.stat().st_size for path in self.files("packs")]
        self.assertEqual(
            found,
            {
                "packs": 2,
                "bytes_stored": sum(sizes),
                "bytes_counted": sum(sizes),
                "blobs": 4,
                "bytes_plain": 4000,
                "points": 0,
            },
        )
