"""Layer 3: restore points: published last of all, listed, and withdrawn.

A point is its row in the catalogue. Before the row there are two blobs, durable: the references,
and the record with its signature, from which the row can be made again. A point of which there are
only the blobs was never acknowledged. How points are deleted, :mod:`cloudconnect.repository.bin`
says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription, verify
from cloudconnect.content.heads import SignedHead
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    Busy,
    NoSpace,
    NotFound,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.descriptions import description_name, read_description
from cloudconnect.repository.heads import check_point, head_fields, insert_heads, read_chain
from cloudconnect.repository.leases import PUBLISHING
from cloudconnect.repository.markers import encode_lock, lock_name, put_once
from cloudconnect.repository.references import ReferenceWriter, read_references, references_name
from cloudconnect.repository.rules import DAY, read_rules
from cloudconnect.repository.tables import point_tags_table, points_table
from cloudconnect.settings import IDS_MAX, PAGE_ROWS_MAX
from cloudconnect.wire import canonical

#: How often the references of a point are looked up again because blobs were removed meanwhile.
ATTEMPTS: Final = 3
PUBLISHED: Final = "published"
#: In the bin: not listed with the others, and still restorable.
DELETED: Final = "deleted"
#: Its session failed.
WITHDRAWN: Final = "withdrawn"
#: Gone for good; the row stays to say so.
REMOVED: Final = "removed"
STATES: Final = (PUBLISHED, DELETED, WITHDRAWN, REMOVED)
#: What stands in the blob of a point's record.
RECORD_FIELDS: Final = (
    "record",
    "signature",
    "reference_count",
    "reference_digest",
    "arrival_time",
    "bytes_stored",
)

_LISTED: Final = [
    column
    for column in points_table.c
    if column.name not in ("record", "signature", "reference_digest", "bin_clock", "locked_clock")
]
_STORED: Final = [
    column for column in points_table.c if column.name not in ("bin_clock", "locked_clock")
]
#: What :func:`point_row` needs, and the deadlines by the expiry clock.
known_columns: Final = [
    column for column in points_table.c if column.name not in ("record", "signature")
]


@attrs.frozen(kw_only=True)
class PointRow:
    """A restore point as the provider knows it.

    :ivar arrival: its number, in the order of arrival
    :ivar time: when it arrived, in seconds since 1970 on this repository's clock
    :ivar point: its 16 bytes
    :ivar state: ``published``, ``deleted`` (in the bin), ``withdrawn`` or ``removed``
    :ivar reference_count: blobs that it needs, without its manifest's
    :ivar bytes_stored: bytes that its session added to packs
    :ivar deleted_time: since when it has been in the bin, in seconds since 1970, or None
    :ivar deleted_by: who put it there: ``tenant``, ``retention`` or ``provider``
    :ivar bin_until: until when it stays there at least
    :ivar locked_until: until when nobody can delete it, or None
    :ivar removed_time: when it left for good, or None
    """

    arrival: int
    time: float
    point: bytes
    state: str
    session: bytes
    job_id: bytes
    host: str
    job: str
    tags: tuple[str, ...]
    statistics: dict[str, int]
    started_ns: int
    finished_ns: int
    manifest_length: int
    reference_count: int
    bytes_stored: int = 0
    deleted_time: float | None = None
    deleted_by: str | None = None
    bin_until: float | None = None
    locked_until: float | None = None
    removed_time: float | None = None

    def as_map(self) -> dict[str, Any]:
        """The fields as JSON values, ids in hexadecimal."""
        names = [field.name for field in attrs.fields(PointRow)]
        values = {name: getattr(self, name) for name in names}
        return {
            name: value.hex() if isinstance(value, bytes) else value
            for name, value in {**values, "tags": list(self.tags)}.items()
        }


@attrs.frozen(kw_only=True)
class StoredPoint(PointRow):
    """A restore point with all that is stored of it.

    :ivar record: the encoded record, as the tenant signed it
    :ivar signature: 64 bytes
    :ivar reference_digest: SHA-256 of the references, 32 bytes
    """

    record: bytes = attrs.field(repr=False)
    signature: bytes = attrs.field(repr=False)
    reference_digest: bytes = attrs.field(repr=False)


@attrs.frozen
class Points:
    """The restore points of one repository.

    :ivar clock: seconds since 1970
    """

    store: IBlobStore
    catalogue: Catalogue
    clock: Callable[[], float]

    def publish(
        self,
        record: PointRecord,
        encoded: bytes,
        signature: bytes,
        references: ReferenceWriter,
        head: SignedHead | None = None,
        bytes_stored: int = 0,
    ) -> tuple[int, float]:
        """See :meth:`cloudconnect.repository.store.Repository.publish`."""
        # One at a time: from the moment at which a blob is seen to be there until the row says that
        # it is needed, nobody may condemn it (repository.collect); and whether the head has moved
        # is known before anything is put.
        with self.store.exclusive(PUBLISHING, wait=True):
            return self._publish(record, encoded, signature, references, head, bytes_stored)

    def _publish(
        self,
        record: PointRecord,
        encoded: bytes,
        signature: bytes,
        references: ReferenceWriter,
        head: SignedHead | None,
        bytes_stored: int,
    ) -> tuple[int, float]:
        """The same, for one who has the lock."""
        with self.catalogue.reading() as connection:
            description = read_description(connection)  # another session may have replaced it
            at_head = read_chain(connection, description)
        self._check(description, record, encoded, signature)
        known = self._known(record.point)
        if known is not None:
            if known.state != PUBLISHED or (known.record, known.signature) != (encoded, signature):
                raise Refused("there is another restore point of this id already")
            return known.arrival, known.time  # only the acknowledgement was lost
        if head is not None:
            check_point(at_head, head, record.point, encoded)
            # What a session left that was killed in replacing the description has this number too.
            self.store.remove(description_name(description.revision + 1))
        time = self.clock()
        values = point_values(record, encoded, signature, references.count, references.digest, time)
        values["bytes_stored"] = bytes_stored
        removals = self._check_present(record, references.batches())
        self._put(record.point, references, values, head)
        try:
            for _ in range(ATTEMPTS):
                with self.catalogue.writing() as connection:
                    if self.catalogue.removals(connection) == removals:
                        values |= self._locked(connection, record.point, time)
                        insert_heads(connection, [head] if head is not None else [])
                        return insert_point(connection, values), time
                stored = read_references(
                    self.store, record.point, references.count, references.digest
                )
                removals = self._check_present(record, stored)
            raise Busy("blobs are being removed from the repository; publish again later")
        except (Busy, NoSpace, NotFound, Refused, StoredDataDamaged):
            # Here the row is certainly not there. Behind a commit that failed in any other way it
            # may be, when the catalogue is opened again: then the point must have what it needs.
            self.store.remove(record_name(record.point))
            self.store.remove(references_name(record.point))
            if "locked_until" in values:
                self.store.remove(lock_name(record.point, values["locked_until"]))
            raise

    def rows(
        self,
        host: str | None = None,
        job: str | None = None,
        tag: str | None = None,
        after: int = 0,
        limit: int = PAGE_ROWS_MAX,
        newest_first: bool = False,
        states: Collection[str] = (PUBLISHED,),
    ) -> list[PointRow]:
        """See :meth:`cloudconnect.repository.store.Repository.points`."""
        if not set(states) <= set(STATES):
            raise UsageError(f"a restore point is one of {', '.join(STATES)}")
        t = points_table.c
        query = sa.select(*_LISTED).where(t.state.in_(states)).limit(limit)
        if host is not None:
            query = query.where(t.host == host)
        if job is not None:
            query = query.where(t.job == job)
        if tag is not None:
            tagged = sa.select(point_tags_table.c.arrival).where(point_tags_table.c.tag == tag)
            query = query.where(t.arrival.in_(tagged))
        if newest_first:
            query = query.order_by(t.arrival.desc())
            query = query.where(t.arrival < after) if after else query
        else:
            query = query.order_by(t.arrival).where(t.arrival > after)
        with self.catalogue.reading() as connection:
            return [PointRow(**_fields(row)) for row in connection.execute(query)]

    def find(self, point: bytes | str) -> StoredPoint:
        """See :meth:`cloudconnect.repository.store.Repository.point`."""
        prefix = point.hex() if isinstance(point, bytes) else point.lower()
        if not prefix or set(prefix) - set("0123456789abcdef"):
            raise NotFound("a restore point is named by hexadecimal digits")
        t = points_table.c
        begins = t.point.startswith(prefix, autoescape=True)
        several = False
        with self.catalogue.reading() as connection:
            for state in (PUBLISHED, DELETED):  # what is in the bin makes no name ambiguous
                query = sa.select(*_STORED).where(begins, t.state == state)
                rows = connection.execute(query.limit(2)).all()
                if len(rows) == 1:
                    return StoredPoint(**_fields(rows[0]))
                if rows:
                    several = True
                    break
        begin = "several restore points begin" if several else "no restore point begins"
        raise NotFound(f"{begin} with {prefix}")

    def references(self, point: StoredPoint) -> Iterator[list[bytes]]:
        """See :meth:`cloudconnect.repository.store.Repository.references`."""
        return read_references(
            self.store, point.point, point.reference_count, point.reference_digest
        )

    def withdraw(self, points: Iterable[bytes], session: bytes | None = None) -> None:
        """See :meth:`cloudconnect.repository.store.Repository.withdraw`."""
        for point in points:
            known = self._known(point)
            if known is None or session not in (None, known.session):
                raise NotFound(f"there is no restore point {point.hex()}")
            put_once(self.store, withdrawn_name(point), b"withdrawn")
            with self.catalogue.writing() as connection:
                t = points_table.c
                connection.execute(
                    sa.update(points_table)
                    .where(t.point == point.hex(), t.state != REMOVED)
                    .values(state=WITHDRAWN)
                )

    @staticmethod
    def _check(
        description: RepositoryDescription, record: PointRecord, encoded: bytes, signature: bytes
    ) -> None:
        ours = (description.repository, description.mode)
        if (record.repository, record.mode) != ours or record.encode() != encoded:
            raise Refused("the restore point is not one of this repository")
        try:
            verify(description.public_key, signature, encoded)
        except StoredDataDamaged:
            raise Refused(
                "the restore point is not signed with this repository's newest key"
            ) from None

    def _check_present(self, record: PointRecord, references: Iterable[list[bytes]]) -> int:
        """Every blob of the point is stored; returns the count of removals before it was looked."""
        with self.catalogue.reading() as connection:
            removals = self.catalogue.removals(connection)
        missing = self.missing(record, references)
        if missing is not None:
            raise Refused(
                f"the restore point needs {missing.hex()}, which is not stored; run the "
                f"backup again"
            )
        return removals

    def missing(self, record: PointRecord, references: Iterable[list[bytes]]) -> bytes | None:
        """The first blob that a point needs and that is not stored; what is condemned is kept.

        Under the lock of publishing, until the point has its row.
        """
        manifest = record.manifest
        parts = (list(manifest[at : at + IDS_MAX]) for at in range(0, len(manifest), IDS_MAX))
        for batch in chain(parts, references):
            wanted = set(batch)
            with self.catalogue.reading() as connection:
                missing = wanted - self.catalogue.present_near(connection, batch)
            if missing:
                with self.catalogue.writing() as connection:
                    missing -= self.catalogue.rescue(connection, missing)
            if missing:
                return min(missing)
        return None

    def _put(
        self,
        point: bytes,
        references: ReferenceWriter,
        values: dict[str, Any],
        head: SignedHead | None,
    ) -> None:
        """Store the two blobs of a point."""
        fields = {name: values[name] for name in RECORD_FIELDS}
        encoded = canonical.encode(fields | head_fields(head))
        try:
            references.commit(point)
            try:
                self.store.put(record_name(point), [encoded])
            except FileExistsError:
                self.store.remove(references_name(point))
                raise
            except BaseException:
                # It may have got its name though storing it failed: it never stands alone.
                self.store.remove(record_name(point))
                self.store.remove(references_name(point))
                raise
        except FileExistsError:
            # Another session publishes it now, or one was killed in between.
            raise Refused("there is another restore point of this id already") from None

    def _locked(self, connection: sa.Connection, point: bytes, time: float) -> dict[str, float]:
        """Lock a new point as the rules demand: the columns for that; the marker is durable."""
        moment = observe(connection, self.clock())
        seconds = read_rules(connection).lock_days * DAY
        if not seconds:
            return {}
        until, clock = float(math.ceil(time + seconds)), moment.passed + seconds
        put_once(self.store, lock_name(point, until), encode_lock(until, clock, moment))
        return {"locked_until": until, "locked_clock": clock}

    def _known(self, point: bytes) -> StoredPoint | None:
        query = sa.select(*_STORED).where(points_table.c.point == point.hex())
        with self.catalogue.reading() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else StoredPoint(**_fields(row))


def record_name(point: bytes) -> str:
    """The name under which the record of the point with these 16 bytes is stored."""
    return f"points/{point.hex()}"


def withdrawn_name(point: bytes) -> str:
    """The name of the blob which says that the point was withdrawn."""
    return f"points/{point.hex()}-withdrawn"


def point_values(
    record: PointRecord, encoded: bytes, signature: bytes, count: int, digest: bytes, time: float
) -> dict[str, Any]:
    """The row of a new point."""
    return {
        "point": record.point.hex(),
        "arrival_time": time,
        "state": PUBLISHED,
        "session": record.session,
        "job_id": record.job_id,
        "host": record.host,
        "job": record.job,
        "tags": list(record.tags),
        "statistics": dict(record.statistics),
        "started_ns": record.started_ns,
        "finished_ns": record.finished_ns,
        "manifest_length": record.manifest_length,
        "record": encoded,
        "signature": signature,
        "reference_count": count,
        "reference_digest": digest,
    }


def insert_point(connection: sa.Connection, values: dict[str, Any]) -> int:
    """Insert a point's row and return its arrival number.

    :raises Refused: there is one of this id
    """
    try:
        result = connection.execute(sa.insert(points_table), values)
    except sa.exc.IntegrityError as error:
        raise Refused("there is another restore point of this id already") from error
    assert result.inserted_primary_key is not None
    arrival = int(result.inserted_primary_key[0])
    tags = [{"tag": tag, "arrival": arrival} for tag in sorted(set(values["tags"]))]
    if tags:
        connection.execute(sa.insert(point_tags_table), tags)
    return arrival


def point_row(row: sa.Row[Any]) -> PointRow:
    """The public part of a row of at least ``known_columns``."""
    fields = _fields(row)
    return PointRow(**{name: fields[name] for name in attrs.fields_dict(PointRow)})


def _fields(row: sa.Row[Any]) -> dict[str, Any]:
    fields = dict(row._mapping)
    try:
        fields["time"] = fields.pop("arrival_time")
        fields["point"] = bytes.fromhex(fields["point"])
        fields["tags"] = tuple(fields["tags"])
    except (TypeError, ValueError) as error:
        raise StoredDataDamaged(
            "the row of a restore point in the repository's catalogue was changed: recover it"
        ) from error
    return fields
