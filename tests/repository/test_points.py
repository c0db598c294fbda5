"""Tests for cloudconnect.repository.points."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import (
    Busy,
    NoSpace,
    NotFound,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.points import ATTEMPTS
from cloudconnect.repository.tables import point_tags_table, points_table
from tests.repository.repositories import (
    SESSION,
    RepositoryCase,
    blob,
    failing,
    flip,
    keys,
    name_of,
    record,
)


class PointsCase(RepositoryCase):
    """A repository with ten blobs."""

    def setUp(self) -> None:
        super().setUp()
        self.repository = self.created()
        for number in range(10):
            self.repository.add(blob(number))
        self.repository.flush()

    def publish(self, point: bytes, references: Any = (), **changes: Any) -> tuple[int, float]:
        made = record(point, **changes)
        encoded = made.encode()
        return self.repository.publish(made, encoded, keys().sign(encoded), references)

    def nothing_there(self) -> None:
        """No point, and no file of one."""
        self.assertEqual(self.repository.points(), [])
        self.assertEqual(list(self.repository.store.names("points/")), [])
        self.assertEqual(self.files("temporary"), [])


class PublishTests(PointsCase):
    """A point is published when all that it needs is durable, and then it is there."""

    def test_published(self) -> None:
        """The answer is its number and the repository's own time; all of it is kept."""
        references = [name_of(number) for number in range(5)]
        manifest = (name_of(7), name_of(8))
        answer = self.publish(
            b"p" * 16, references, manifest=manifest, tags=("b", "a"), host="h", job="j"
        )
        self.assertEqual(answer, (1, 1000.0))
        for repository in (self.repository, self.opened()):
            point = repository.point(b"p" * 16)
            self.assertEqual((point.arrival, point.time), answer)
            self.assertEqual((point.host, point.job, point.tags), ("h", "j", ("b", "a")))
            self.assertEqual((point.session, point.job_id), (SESSION, b"j" * 16))
            self.assertEqual((point.statistics, point.state), ({"files": 1}, "published"))
            made = record(b"p" * 16, manifest=manifest, tags=("b", "a"), host="h", job="j")
            self.assertEqual(point.record, made.encode())
            self.assertEqual(point.signature, keys().sign(made.encode()))
            self.assertEqual(point.reference_count, 5)
            self.assertEqual(list(repository.references(point)), [references])

    def test_missing_reference(self) -> None:
        """A point that needs something that is not stored is refused, and leaves nothing."""
        for changes in (
            {"references": [name_of(1), name_of(77)]},
            {"references": [], "manifest": (name_of(1), name_of(77))},
        ):
            error = self.assertRaises(Refused, self.publish, b"p" * 16, **changes)
            self.assertIn(name_of(77).hex(), str(error))
            self.nothing_there()

    def test_not_durable(self) -> None:
        """Stored means durable: what is still in an open pack does not count."""
        self.repository.add(blob(50))
        self.assertRaises(Refused, self.publish, b"p" * 16, [name_of(50)])
        self.repository.flush()
        self.nothing_there()
        self.publish(b"p" * 16, [name_of(50)])

    def test_damaged_reference(self) -> None:
        """What is known to be damaged does not count either."""
        self.repository.catalogue.mark_damaged([name_of(3)])
        self.assertRaises(Refused, self.publish, b"p" * 16, [name_of(3)])
        self.nothing_there()

    def test_many_references(self) -> None:
        """More references than one batch are all looked up; repetitions are allowed."""
        references = [name_of(number % 10) for number in range(20_000)]
        self.publish(b"p" * 16, references)
        self.assertRaises(Refused, self.publish, b"q" * 16, [*references, name_of(11)])

    def test_signature(self) -> None:
        """A record that is not signed by this repository's key is refused."""
        made = record(b"p" * 16)
        encoded = made.encode()
        other = keys(master=b"o" * 32)
        for signature in (other.sign(encoded), bytes(64), b"", keys().sign(encoded, b"other")):
            self.assertRaises(Refused, self.repository.publish, made, encoded, signature, [])
        self.nothing_there()

    def test_other_repository(self) -> None:
        """So is one of another repository or mode, or whose bytes say something else."""
        self.assertRaises(Refused, self.publish, b"p" * 16, repository=b"o" * 16)
        self.assertRaises(Refused, self.publish, b"p" * 16, mode=EncryptionMode.NONE)
        encoded = record(b"p" * 16, host="told").encode()
        signature = keys().sign(encoded)
        made = record(b"p" * 16, host="shown")
        self.assertRaises(Refused, self.repository.publish, made, encoded, signature, [])
        self.nothing_there()

    def test_again(self) -> None:
        """The same point again gets the same answer: only the acknowledgement was lost."""
        first = self.publish(b"p" * 16, [name_of(1)])
        self.time = 2000.0
        self.assertEqual(self.publish(b"p" * 16, [name_of(1)]), first)
        self.assertEqual(len(self.repository.points()), 1)

    def test_same_id(self) -> None:
        """Another point of the same id is refused, and the first stays as it is."""
        self.publish(b"p" * 16, [name_of(1)])
        self.assertRaises(Refused, self.publish, b"p" * 16, [name_of(2)], host="other")
        point = self.repository.point(b"p" * 16)
        self.assertEqual(list(self.repository.references(point)), [[name_of(1)]])

    def test_order(self) -> None:
        """References and record are durable before the row is: a crash leaves no half point."""
        there: list[list[str]] = []
        real = self.repository.catalogue.engine.dialect.do_commit

        def commit(connection: Any) -> None:
            rows = connection.cursor().execute("SELECT count(*) FROM points").fetchone()
            if rows[0]:
                there.append(list(self.repository.store.names("points/")))
            real(connection)

        self.patch(self.repository.catalogue.engine.dialect, "do_commit", commit)
        self.publish(b"p" * 16, [name_of(1)])
        self.assertEqual(there[0], ["points/" + "70" * 16, "points/" + "70" * 16 + "-references"])

    def test_row_fails(self) -> None:
        """If the row cannot be written there is no point, and its files are taken back."""
        engine = self.repository.catalogue.engine
        with self.repository.catalogue.reading() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        large = {f"counter {number}" * 20: number for number in range(64)}
        self.assertRaises(
            NoSpace, self.publish, b"p" * 16, [], statistics=large, tags=("t" * 200,) * 60
        )
        engine.dispose()
        self.nothing_there()
        self.publish(b"p" * 16)

    def test_removal_meanwhile(self) -> None:
        """Blobs that are removed while a point is published are looked up again."""
        real = Catalogue.present
        seen: list[int] = []

        def present(catalogue: Catalogue, connection: Any, ids: Any) -> set[bytes]:
            found = real(catalogue, connection, ids)
            if not seen:
                seen.append(1)
                self.opened().catalogue.mark_damaged([name_of(1)])
            return found

        self.patch(Catalogue, "present", present)
        self.assertRaises(Refused, self.publish, b"p" * 16, [name_of(1)])
        self.nothing_there()

    def test_removals_without_end(self) -> None:
        """Somebody who removes all the time makes the publisher give up, not lie."""
        other = self.opened()
        real = Catalogue.present
        seen: list[int] = []

        def present(catalogue: Catalogue, connection: Any, ids: Any) -> set[bytes]:
            seen.append(1)
            other.catalogue.mark_damaged([name_of(9)])
            return real(catalogue, connection, ids)

        self.patch(Catalogue, "present", present)
        self.assertRaises(Busy, self.publish, b"p" * 16, [name_of(1)])
        self.assertEqual(len(seen), ATTEMPTS + 1)
        self.nothing_there()

    def test_reference_writer(self) -> None:
        """References may come in parts, before the record does."""
        writer = self.repository.begin_references()
        writer.extend(name_of(1) + name_of(2))
        self.publish(b"p" * 16, writer)
        self.assertEqual(self.files("temporary"), [])
        point = self.repository.point(b"p" * 16)
        self.assertEqual(list(self.repository.references(point)), [[name_of(1), name_of(2)]])

    def test_disk_full(self) -> None:
        """A full disk refuses the point and leaves nothing."""
        self.patch(self.repository.store, "put", failing(NoSpace("full"), len)[0])
        self.assertRaises(NoSpace, self.publish, b"p" * 16, [name_of(1)])
        self.nothing_there()

    def test_doubtful_record(self) -> None:
        """A record whose storing failed, and which is there all the same, does not stay alone."""
        put = self.repository.store.put

        def doubtful(name: str, parts: Any) -> int:
            put(name, parts)
            raise OSError(errno.EIO, "it has its name, and the fsync of its folder failed")

        with self.patched(self.repository.store, "put", doubtful):
            self.assertRaises(OSError, self.publish, b"p" * 16, [name_of(1)])
        self.nothing_there()

    def test_doubtful_commit(self) -> None:
        """A point whose row's commit failed, and may be there all the same, has what it needs."""
        writing = Catalogue.writing

        @contextlib.contextmanager
        def doubtful(catalogue: Catalogue) -> Iterator[sa.Connection]:
            with writing(catalogue) as connection:
                yield connection
            raise OSError(errno.EIO, "the log was written, and its fsync failed")

        with self.patched(Catalogue, "writing", doubtful):
            self.assertRaises(OSError, self.publish, b"p" * 16, [name_of(1)])
        reopened = self.opened()
        [row] = reopened.points()
        point = reopened.point(row.point)
        self.assertEqual(list(reopened.references(point)), [[name_of(1)]])

    @contextlib.contextmanager
    def patched(self, *where: Any) -> Iterator[None]:
        patcher = self.patch(*where)
        yield
        patcher.restore()


class ListTests(PointsCase):
    """Points are listed by what they belong to, page by page."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(6):
            self.publish(
                bytes((number,)) * 16,
                host=("web", "db")[number % 2],
                job=("daily", "weekly")[number // 3],
                tags=("all", f"number {number}"),
            )

    def arrivals(self, **query: Any) -> list[int]:
        return [row.arrival for row in self.repository.points(**query)]

    def test_filters(self) -> None:
        """By host, job, tag, and all of them."""
        self.assertEqual(self.arrivals(), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.arrivals(host="web"), [1, 3, 5])
        self.assertEqual(self.arrivals(job="weekly"), [4, 5, 6])
        self.assertEqual(self.arrivals(tag="all"), [1, 2, 3, 4, 5, 6])
        self.assertEqual(self.arrivals(tag="number 2"), [3])
        self.assertEqual(self.arrivals(host="db", job="weekly", tag="all"), [4, 6])
        self.assertEqual(self.arrivals(host="w%"), [])

    def test_pages(self) -> None:
        """Upwards and downwards from where the last page ended."""
        self.assertEqual(self.arrivals(limit=2), [1, 2])
        self.assertEqual(self.arrivals(after=2, limit=2), [3, 4])
        self.assertEqual(self.arrivals(newest_first=True, limit=2), [6, 5])
        self.assertEqual(self.arrivals(newest_first=True, after=5, limit=2), [4, 3])
        self.assertEqual(self.arrivals(host="db", newest_first=True, limit=1), [6])

    def test_map(self) -> None:
        """A row goes over a wire, and into JSON."""
        row = self.repository.points(limit=1)[0].as_map()
        self.assertEqual(json.loads(json.dumps(row)), row)
        self.assertEqual((row["point"], row["host"], row["arrival"]), ("00" * 16, "web", 1))

    def test_prefix(self) -> None:
        """A point is found by the beginning of its id, when only one begins so."""
        self.publish(b"\x01\xff" + bytes(14))
        self.assertEqual(self.repository.point("01FF").arrival, 7)
        self.assertEqual(self.repository.point(b"\x01" * 16).arrival, 2)
        for prefix in ("01", "", "77", "zz", "0_", "%"):
            self.assertRaises(NotFound, self.repository.point, prefix)
        self.assertRaises(NotFound, self.repository.point, b"\x09" * 16)

    def test_states(self) -> None:
        """By what became of them; by default those that are published."""
        ids = [bytes((number,)) * 16 for number in range(6)]
        self.repository.delete([ids[1], ids[2]])
        self.repository.withdraw([ids[3]])
        self.assertEqual(self.arrivals(), [1, 5, 6])
        self.assertEqual(self.arrivals(states=["deleted"]), [2, 3])
        self.assertEqual(self.arrivals(states=["deleted"], host="web"), [3])
        self.assertEqual(self.arrivals(states=("deleted", "withdrawn"), after=2), [3, 4])
        self.assertEqual(self.arrivals(states=["removed"]), [])
        self.assertEqual(self.arrivals(states=[]), [])
        everything = ("published", "deleted", "withdrawn", "removed")
        self.assertEqual(self.arrivals(states=everything, newest_first=True, limit=2), [6, 5])
        self.assertRaises(UsageError, self.arrivals, states=["lost"])

    def test_prefix_of_deleted(self) -> None:
        """A point in the bin is found too, where no published one begins so."""
        self.publish(b"\x01\xff" + bytes(14))
        self.repository.delete([b"\x01" * 16])
        self.assertEqual(self.repository.point("01").arrival, 7)
        self.assertEqual(self.repository.point("0101").state, "deleted")
        self.repository.delete([b"\x01\xff" + bytes(14)])
        self.assertRaises(NotFound, self.repository.point, "01")
        self.assertEqual(self.repository.point("01ff").arrival, 7)

    def test_bytes_stored(self) -> None:
        """What a point's session added to packs is kept with it."""
        made = record(b"n" * 16)
        encoded = made.encode()
        self.repository.publish(made, encoded, keys().sign(encoded), [], bytes_stored=77)
        self.assertEqual(self.repository.point(b"n" * 16).bytes_stored, 77)

    def test_numbers_are_not_used_again(self) -> None:
        """The number of a point that is gone is not given to another one."""
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.delete(point_tags_table))
            connection.execute(sa.delete(points_table))
        self.assertEqual(self.publish(b"n" * 16)[0], 7)

    def test_changed_references(self) -> None:
        """A reference list that was changed is damaged data."""
        self.publish(b"r" * 16, [name_of(1), name_of(2)])
        flip(self.directory / "points" / ("72" * 16 + "-references"), 3)
        point = self.repository.point(b"r" * 16)
        self.assertRaises(StoredDataDamaged, list, self.repository.references(point))


class WithdrawTests(PointsCase):
    """Points of a session that ended badly are taken back."""

    def test_withdrawn(self) -> None:
        """A withdrawn point is not listed, not found, and cannot be published again."""
        self.publish(b"p" * 16)
        self.publish(b"q" * 16)
        self.repository.withdraw([b"p" * 16])
        self.repository.withdraw([b"p" * 16])
        self.assertEqual([row.point for row in self.repository.points()], [b"q" * 16])
        self.assertRaises(NotFound, self.repository.point, b"p" * 16)
        self.assertRaises(Refused, self.publish, b"p" * 16)
        self.assertEqual(self.repository.statistics()["points"], 1)
        (row,) = self.repository.points(states=["withdrawn"])
        self.assertEqual(row.point, b"p" * 16)

    def test_unknown(self) -> None:
        """There must be such a point."""
        self.assertRaises(NotFound, self.repository.withdraw, [b"p" * 16])

    def test_of_another_session(self) -> None:
        """A session takes back what it has published itself, and nothing else."""
        self.publish(b"p" * 16)
        self.assertRaises(NotFound, self.repository.withdraw, [b"p" * 16], b"x" * 16)
        self.assertFalse((self.directory / "points" / ("70" * 16 + "-withdrawn")).exists())
        self.assertEqual(self.repository.point(b"p" * 16).state, "published")
        self.repository.withdraw([b"p" * 16], SESSION)
        self.assertRaises(NotFound, self.repository.point, b"p" * 16)
