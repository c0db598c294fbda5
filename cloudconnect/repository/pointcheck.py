"""Layer 3: what is stored of restore points, held against the catalogue.

Of a point there are two copies but for its reference list: its row, and the blob of its record. A
signature says which of them is right where they differ; what it does not cover (the time of
arrival) is believed as the row says it. The wrong one is made again from the right one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.content.subkeys import verify_any
from cloudconnect.errors import NoSpace, NotFound, PeerError, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import look
from cloudconnect.repository.findings import Finding, FindingKind
from cloudconnect.repository.heads import head_fields, head_of
from cloudconnect.repository.leases import PUBLISHING
from cloudconnect.repository.markers import (
    deleted_name,
    encode_deleted,
    encode_lock,
    encode_removed,
    lock_name,
    read_deleted,
    read_lock_marker,
    read_removed,
    removed_fields,
    removed_name,
)
from cloudconnect.repository.marking import OUT_OF_ORDER, Marks, read_point
from cloudconnect.repository.points import (
    DELETED,
    RECORD_FIELDS,
    REMOVED,
    STATES,
    WITHDRAWN,
    point_values,
    record_name,
    withdrawn_name,
)
from cloudconnect.repository.references import read_references, references_name
from cloudconnect.repository.rewriting import rewrite
from cloudconnect.repository.tables import points_table
from cloudconnect.wire import canonical

_ROWS: Final = 512
_WITHDRAWN: Final = b"withdrawn"
#: Columns that only repeat what the signed record says.
_REPEATED: Final = (
    "session",
    "job_id",
    "host",
    "job",
    "tags",
    "statistics",
    "started_ns",
    "finished_ns",
    "manifest_length",
)
_HEAD: Final = ("head", "head_signature")
_t = points_table.c


@attrs.define
class PointChecker:
    """Looks at all points once.

    :ivar now: seconds since 1970
    :ivar seen: ids that were looked up already
    :ivar tell: is told of bytes that were read, and may raise to stop
    :ivar lost: is given ids of blobs that have no row, and what is said of them
    """

    store: IBlobStore
    catalogue: Catalogue
    description: RepositoryDescription
    now: float
    seen: Marks
    tell: Callable[[int], None]
    lost: Callable[[list[bytes], Finding], int]
    mended: int = 0

    def check(self) -> None:
        """Look at every point."""
        after = 0
        while True:
            query = sa.select(_t.arrival).where(_t.arrival > after).order_by(_t.arrival)
            with self.catalogue.reading() as connection:
                arrivals = list(connection.execute(query.limit(_ROWS)).scalars())
            if not arrivals:
                return
            if min(arrivals) <= after or arrivals != sorted(set(arrivals)):  # or it never ends
                raise StoredDataDamaged(OUT_OF_ORDER)
            for arrival in arrivals:
                self.tell(0)
                row = self._row(arrival)
                if row is not None:
                    self._check_readable(row)
            after = arrivals[-1]

    def _check_readable(self, row: sa.Row[Any]) -> None:
        """Look at one point; what the system cannot read of it keeps nobody from the next."""
        try:
            self._check(row)
        except OSError as error:
            text = f"the system cannot read what is stored of it: {error.strerror}"
            self._say(FindingKind.RECORD, record_name(bytes.fromhex(row.point)), text, row)

    def _check(self, row: sa.Row[Any]) -> None:
        point = bytes.fromhex(row.point)
        if row.state not in STATES:
            self._say(FindingKind.CATALOGUE, "points", f"{row.point} has an unknown state", row)
        if row.state != REMOVED:
            self._check_record(row, point)
        self._check_markers(row, point)

    # --- record and references -------------------------------------------------------------------

    def _check_record(self, row: sa.Row[Any], point: bytes) -> None:
        name = record_name(point)
        record = self._record(row.record, row.signature, point)
        blob, problem = self._blob(point)
        count, digest = self._references(row, point, blob)
        if record is None and blob is None:
            self._say(FindingKind.RECORD, name, f"{problem}; nor can the catalogue's be used", row)
            return
        if record is None:
            assert blob is not None
            found = self._record(blob["record"], blob["signature"], point)
            assert found is not None
            self._mend_row(row, found, blob, count, digest, "the catalogue's copy was changed")
            return
        values = point_values(record, row.record, row.signature, count, digest, row.arrival_time)
        said = [getattr(row, column) for column in _REPEATED]
        agrees = said == [values[column] for column in _REPEATED]
        if not agrees or (row.reference_count, row.reference_digest) != (count, digest):
            self._mend_row(row, record, values, count, digest, "the catalogue's columns differ")
        self._compare(row, point, values, blob, problem)

    def _compare(
        self,
        row: sa.Row[Any],
        point: bytes,
        values: Mapping[str, Any],
        blob: dict[str, Any] | None,
        problem: str,
    ) -> None:
        """Hold the blob of the record against what the row says."""
        with self.catalogue.reading() as connection:
            head = head_fields(head_of(connection, row.point))
        expected = {name: values[name] for name in RECORD_FIELDS if name != "bytes_stored"} | {
            "bytes_stored": row.bytes_stored
        }
        if blob is not None:
            found = {"bytes_stored": 0, **blob}
            if not head:  # that the chain lacks it is said elsewhere
                found = {name: value for name, value in found.items() if name not in _HEAD}
            if found == expected | head:
                return
            problem = "it is not what the catalogue says"
        with self.store.exclusive(PUBLISHING, wait=True):
            now = self._row(row.arrival)
            if now is None or now.state != row.state:
                return  # removed meanwhile
            mended = rewrite(self.store, record_name(point), canonical.encode(expected | head))
        self._say(FindingKind.RECORD, record_name(point), problem, row, mended)

    def _references(
        self, row: sa.Row[Any], point: bytes, blob: dict[str, Any] | None
    ) -> tuple[int, bytes]:
        """Look at the reference list; count and digest that it has, or else those of the row."""
        said = (row.reference_count, bytes(row.reference_digest))
        candidates = [said]
        if blob is not None:
            candidates.append((blob["reference_count"], blob["reference_digest"]))
        problem = ""
        for count, digest in dict.fromkeys(candidates):
            try:
                for batch in read_references(self.store, point, count, digest):
                    self.tell(32 * len(batch))
                    self._look_up(batch, row)
            except (NotFound, StoredDataDamaged) as error:
                problem = problem or str(error)
                continue
            return count, digest
        if self._still(row):
            self._say(FindingKind.REFERENCES, references_name(point), problem, row)
        return said

    def _look_up(self, ids: list[bytes], row: sa.Row[Any]) -> None:
        """See that each of ``ids`` has a row, the first time that it is met."""
        joined = b"".join(ids)
        new = {name for name, seen in zip(ids, self.seen.look_up(joined), strict=True) if not seen}
        if not new or row.state == WITHDRAWN:
            return
        self.seen.add(joined, live=False)
        with self.catalogue.reading() as connection:
            missing = new - self.catalogue.present(connection, new)
        if not missing:
            return
        names: list[bytes] = []
        with (
            contextlib.suppress(NoSpace),
            self.store.exclusive(PUBLISHING, wait=True),
            self.catalogue.writing() as connection,
        ):
            names = sorted(missing - self.catalogue.rows(connection, missing).keys())
            if self._still(row):
                self.catalogue.rescue(connection, missing)
        if names:
            text = f"{len(names)} blobs like this one have no row: rebuild the index"
            self.lost(names, Finding(FindingKind.MISSING, names[0].hex(), text))

    def _blob(self, point: bytes) -> tuple[dict[str, Any] | None, str]:
        """The fields of the record's blob, if its signature holds, or what is wrong with it."""
        name = record_name(point)
        try:
            fields = read_point(self.store, name)
            self.tell(len(fields["record"]))
            types = {"signature": bytes, "reference_count": int, "reference_digest": bytes}
            if any(type(fields.get(field)) is not kind for field, kind in types.items()):
                return None, "it has other fields than a point's"
            if fields["reference_count"] < 0 or type(fields.get("arrival_time")) is not float:
                return None, "it has other fields than a point's"
            if self._record(fields["record"], fields["signature"], point) is None:
                return None, "its signature does not hold, or it is that of another point"
            return fields, ""
        except NotFound:
            return None, "it is not there"
        except PeerError as error:
            return None, f"it was changed: {error}"

    def _record(self, encoded: bytes, signature: bytes, point: bytes) -> PointRecord | None:
        try:
            verify_any(self.description.public_keys, signature, encoded)
            record = PointRecord.decode(encoded)
        except PeerError:
            return None
        ours = (point, self.description.repository)
        return record if (record.point, record.repository) == ours else None

    def _mend_row(
        self,
        row: sa.Row[Any],
        record: PointRecord,
        fields: Mapping[str, Any],
        count: int,
        digest: bytes,
        text: str,
    ) -> None:
        values = point_values(
            record, fields["record"], fields["signature"], count, digest, row.arrival_time
        )
        del values["state"], values["arrival_time"]
        mended = False
        with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
            where = (_t.arrival == row.arrival, _t.state == row.state)
            connection.execute(sa.update(points_table).where(*where).values(**values))
            mended = True
        self._say(FindingKind.RECORD, record_name(record.point), text, row, mended)

    # --- markers ---------------------------------------------------------------------------------

    def _check_markers(self, row: sa.Row[Any], point: bytes) -> None:
        if row.state == DELETED:
            self._marker(row, deleted_name(point), self._deleted_is_right)
        if row.state == REMOVED:
            self._marker(row, removed_name(point), self._removed_is_right)
        if row.state == WITHDRAWN:
            self._marker(row, withdrawn_name(point), self._withdrawn_is_right)
        if row.locked_until is not None and row.state != REMOVED:
            self._marker(row, lock_name(point, row.locked_until), self._lock_is_right)

    def _marker(
        self, row: sa.Row[Any], name: str, is_right: Callable[[sa.Row[Any], str], bool]
    ) -> None:
        text = "it was changed"
        try:
            if is_right(row, name):
                return
        except NotFound:
            text = "it is not there"
        except PeerError as error:
            text = f"it was changed: {error}"
        with self.store.exclusive(PUBLISHING, wait=True), self.catalogue.writing() as connection:
            now = self._row(row.arrival)
            if now is None or (now.state, now.locked_until) != (row.state, row.locked_until):
                return
            moment = look(connection, self.now)
            if row.state == DELETED and name == deleted_name(bytes.fromhex(row.point)):
                octets = encode_deleted(row, moment)
            elif row.state == REMOVED:
                octets = encode_removed(connection, row)
            elif row.state == WITHDRAWN and name == withdrawn_name(bytes.fromhex(row.point)):
                octets = _WITHDRAWN
            else:
                octets = encode_lock(row.locked_until, row.locked_clock, moment)
            mended = rewrite(self.store, name, octets)
        # Who is killed behind the row of a deletion leaves no marker of it: that is no damage.
        if row.state != DELETED or text != "it is not there":
            self._say(FindingKind.MARKER, name, text, row, mended)

    def _deleted_is_right(self, row: sa.Row[Any], name: str) -> bool:
        time, by, deadline = read_deleted(self.store, bytes.fromhex(row.point))
        said = (row.deleted_time, row.deleted_by, row.bin_until)
        return (time, by, deadline.until) == said and deadline.seconds <= row.bin_clock

    def _removed_is_right(self, row: sa.Row[Any], name: str) -> bool:
        said = read_removed(self.store, bytes.fromhex(row.point))
        with self.catalogue.reading() as connection:
            wanted = removed_fields(connection, row)
        # The tombstone comes before the row; where somebody was killed in between, it has his time.
        return {**said, "removed_time": None} == {**wanted, "removed_time": None}

    def _withdrawn_is_right(self, row: sa.Row[Any], name: str) -> bool:
        return self._read(name) == _WITHDRAWN

    def _lock_is_right(self, row: sa.Row[Any], name: str) -> bool:
        lock = read_lock_marker(self.store, name)
        return bool(lock.until == row.locked_until and lock.seconds <= row.locked_clock)

    def _read(self, name: str) -> bytes:
        octets = self.store.read(name, 0, self.store.size(name))
        self.tell(len(octets))
        return octets

    # --- parts -----------------------------------------------------------------------------------

    def _row(self, arrival: int) -> sa.Row[Any] | None:
        with self.catalogue.reading() as connection:
            query = sa.select(points_table).where(_t.arrival == arrival)
            return connection.execute(query).one_or_none()

    def _still(self, row: sa.Row[Any]) -> bool:
        """Whether the point is what it was when the row was read."""
        now = self._row(row.arrival)
        return now is not None and now.state == row.state

    def _say(
        self, kind: FindingKind, name: str, text: str, row: sa.Row[Any], mended: bool = False
    ) -> None:
        self.mended += mended
        points = () if row.state in (REMOVED, WITHDRAWN) else (row.point,)
        self.lost([], Finding(kind, name, text, points, mended))
