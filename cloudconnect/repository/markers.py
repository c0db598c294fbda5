"""Layer 3: the blobs beside a restore point's record that say what became of it.

They exist for the day on which the catalogue is lost (:mod:`cloudconnect.repository.rebuild`): what
counts otherwise is the point's row. The order in which row and blob are written is in
:mod:`cloudconnect.repository.bin`; the fields are in ``docs/repository-format.rst``.

Deadlines stand in them as a date and as the seconds that were left of the expiry clock, whose own
count is lost with the catalogue: it is counted from there again, so a point is kept for longer.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.retention import SECONDS_MAX
from cloudconnect.errors import NotFound, PeerError, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.clock import Moment
from cloudconnect.repository.tables import heads_table
from cloudconnect.wire import canonical

#: Largest of these blobs, in bytes: the labels of a point are bounded, and so are the counters.
SIZE_MAX: Final = 1 << 17

_LOCK: Final = "lock-"
#: Columns that a tombstone repeats as they are.
_KEPT: Final = (
    "arrival_time",
    "session",
    "job_id",
    "host",
    "job",
    "tags",
    "statistics",
    "started_ns",
    "finished_ns",
    "manifest_length",
    "reference_count",
    "reference_digest",
    "bytes_stored",
    "deleted_time",
    "deleted_by",
    "bin_until",
    "locked_until",
    "removed_time",
)


@attrs.frozen
class Deadline:
    """A deadline by both clocks.

    :ivar until: by the time of day, in seconds since 1970
    :ivar seconds: by the expiry clock, from when it was written
    """

    until: float
    seconds: float

    def __attrs_post_init__(self) -> None:
        if type(self.until) is not float or type(self.seconds) is not float:
            raise StoredDataDamaged("a deadline is not made of numbers")
        if not math.isfinite(self.until) or not 0 <= self.seconds <= 2 * SECONDS_MAX:
            raise StoredDataDamaged("a deadline is out of bounds")


def deleted_name(point: bytes) -> str:
    """The name of the blob which says that the point with these 16 bytes is in the bin."""
    return f"points/{point.hex()}-deleted"


def removed_name(point: bytes) -> str:
    """The name of the tombstone of the point with these 16 bytes."""
    return f"points/{point.hex()}-removed"


def lock_name(point: bytes, until: float) -> str:
    """The name of the blob which says that the point is locked until then."""
    return f"points/{point.hex()}-{_LOCK}{math.ceil(until):016x}"


def put_once(store: IBlobStore, name: str, octets: bytes) -> None:
    """Store a marker; one that is there already stays, also where the disk is full."""
    try:
        store.size(name)
    except NotFound:
        with contextlib.suppress(FileExistsError):
            store.put(name, [octets])


def encode_deleted(row: sa.Row[Any], moment: Moment) -> bytes:
    """The marker of a row that is in the bin."""
    return _with_digest(
        {
            "deleted_time": row.deleted_time,
            "deleted_by": row.deleted_by,
            **_deadline(row.bin_until, row.bin_clock, moment),
        }
    )


def encode_lock(until: float, clock: float, moment: Moment) -> bytes:
    """The marker of a lock until then by the time of day, and by the expiry clock."""
    return _with_digest(_deadline(until, clock, moment))


def encode_removed(connection: sa.Connection, row: sa.Row[Any]) -> bytes:
    """The tombstone of a row: what it says, and the entry in the tenant's chain about it."""
    return _with_digest(removed_fields(connection, row))


def removed_fields(connection: sa.Connection, row: sa.Row[Any]) -> dict[str, Any]:
    """What the tombstone of a row says, as :func:`read_removed` returns it."""
    fields = {name: getattr(row, name) for name in _KEPT}
    h = heads_table.c
    entry = connection.execute(sa.select(h.entry, h.signature).where(h.point == row.point)).first()
    if entry is not None:
        fields |= {"head": entry.entry, "head_signature": entry.signature}
    return fields


def read_deleted(store: IBlobStore, point: bytes) -> tuple[float, str, Deadline]:
    """Since when a point is in the bin, by whom, and until when.

    :raises PeerError: the marker is damaged or missing
    """
    fields = _read(store, deleted_name(point), {"deleted_time", "deleted_by", "until", "seconds"})
    time, by = fields["deleted_time"], fields["deleted_by"]
    if type(time) is not float or not isinstance(by, str):
        raise StoredDataDamaged(f"{deleted_name(point)} has a field of another type")
    return time, by, Deadline(fields["until"], fields["seconds"])


def read_lock(store: IBlobStore, name: str, now: float) -> Deadline | None:
    """Until when the lock holds that the blob of this name is; None: the name is not of a lock.

    Of a blob that is damaged or cannot be read the name still says it.

    :param now: seconds since 1970
    """
    digits = name.rpartition(_LOCK)[2]
    if not name.endswith(f"-{_LOCK}{digits}"):
        return None
    try:
        return read_lock_marker(store, name)
    except (PeerError, OSError):
        with contextlib.suppress(ValueError, StoredDataDamaged, OverflowError):
            until = float(int(digits, 16))
            return Deadline(until, max(until - now, 0.0))
    return None


def read_lock_marker(store: IBlobStore, name: str) -> Deadline:
    """Until when a lock holds, by its marker.

    :raises PeerError: the marker is damaged or missing
    """
    fields = _read(store, name, {"until", "seconds"})
    return Deadline(fields["until"], fields["seconds"])


def read_removed(store: IBlobStore, point: bytes) -> dict[str, Any]:
    """A tombstone's columns, with ``head`` and ``head_signature`` where the point had an entry.

    :raises PeerError: it is damaged or missing
    """
    name = removed_name(point)
    fields = _read(store, name, {*_KEPT}, {"head", "head_signature"})
    for column, types in _TYPES.items():
        if type(fields[column]) not in types:
            raise StoredDataDamaged(f"{name} has a field of another type")
    return fields


_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(_KEPT, (int,)),
    **dict.fromkeys(("session", "job_id", "reference_digest"), (bytes,)),
    **dict.fromkeys(("host", "job"), (str,)),
    **dict.fromkeys(("arrival_time", "removed_time"), (float,)),
    **dict.fromkeys(("deleted_time", "bin_until", "locked_until"), (float, type(None))),
    "deleted_by": (str, type(None)),
    "tags": (list,),
    "statistics": (dict,),
}


def _deadline(until: float, clock: float, moment: Moment) -> dict[str, float]:
    return {"until": float(until), "seconds": max(float(clock) - moment.passed, 0.0)}


def _with_digest(fields: dict[str, Any]) -> bytes:
    """A marker, in which each changed bit is seen: not all of it stands in the row too."""
    return canonical.encode({**fields, "digest": _digest(fields)})


def _digest(fields: dict[str, Any]) -> bytes:
    return hashlib.sha256(canonical.encode(fields)).digest()


def _read(
    store: IBlobStore, name: str, fields: set[str], more: frozenset[str] | set[str] = frozenset()
) -> dict[str, Any]:
    size = store.size(name)
    if size > SIZE_MAX:
        raise StoredDataDamaged(f"{name} is too long")
    found = canonical.decode_map(store.read(name, 0, size))
    digest = found.pop("digest", None)
    if digest != _digest(found):
        raise StoredDataDamaged(f"{name} was changed")
    if not fields <= set(found) <= fields | more:
        raise StoredDataDamaged(f"{name} has other fields than it should")
    return found
