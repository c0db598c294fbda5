"""Layer 3: which bytes of the packs are needed, and what a tenant is charged for.

A pack's *use* is counted row by row, in pieces, beside sessions that write. That is exact enough to
take a pack away: a row leaves a pack (it is deleted, or the blob is stored again elsewhere) and
never comes back to one that was indexed before, so a pack of which a count that began later than
its indexing saw no row has none for good.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.packs import ENTRY_SIZE
from cloudconnect.repository.tables import (
    blobs_table,
    packs_table,
    points_table,
    repository_table,
)
from cloudconnect.wire.frames import ID_SIZE

#: Rows that one statement counts, about: no reader keeps the write-ahead log from being emptied.
_ROWS: Final = 16384
_RANGES_MAX: Final = 1 << 16
#: States of points whose lists a tenant is charged for ...
_LISTED_STATES: Final = ("published", "withdrawn")
#: ... and that of points of which a row and a tombstone stay for good, each with the labels.
_REMOVED_STATE: Final = "removed"
#: Bytes of both of them beside those labels, and of the point's entry in the chain of heads.
TOMBSTONE_BYTES: Final = 1024


@attrs.frozen
class PackRow:
    """A pack, and what of it is used.

    :ivar retired: the fence behind which nothing of it was needed any more, or None
    :ivar rows: blobs that lie in it, as the catalogue says
    :ivar used: bytes of those
    :ivar sound: bytes of those that are not known to be damaged
    """

    number: int
    name: str
    size: int
    arrival_time: float
    retired: int | None
    rows: int
    used: int
    sound: int


@attrs.frozen
class Measured:
    """How many bytes of the packs are what; as of the last collection that came to its end.

    :ivar live: of blobs that published points need
    :ivar bin: of blobs that only points in the bin need
    :ivar garbage: the rest
    :ivar fence: the first fence of that collection, 0 before there was one
    :ivar time: when that was, in seconds since 1970
    :ivar scrubbed: when everything but packs was last scrubbed, likewise
    :ivar undeleted: how often points were taken out of the bin
    :ivar counted: what that was when the collection began; if it is more by now, what ``bin`` says
        may be live
    """

    live: int = 0
    bin: int = 0
    garbage: int = 0
    fence: int = 0
    time: float = 0.0
    scrubbed: float = 0.0
    undeleted: int = 0
    counted: int = 0

    @property
    def free(self) -> int:
        """Bytes of packs that nobody is charged for."""
        return self.bin if self.undeleted == self.counted else 0


def read_measured(connection: sa.Connection) -> Measured:
    """What the catalogue says of the last collection."""
    values: Any = connection.execute(sa.select(repository_table.c.measured)).scalar() or {}
    return Measured(
        **{name: values[name] for name in attrs.fields_dict(Measured) if name in values}
    )


def write_measured(connection: sa.Connection, measured: Measured) -> None:
    """Note what a collection has found."""
    connection.execute(sa.update(repository_table).values(measured=attrs.asdict(measured)))


def read_since(connection: sa.Connection) -> float:
    """Since when all packs were read and compared, or came: seconds since 1970, 0 without packs."""
    p = packs_table.c
    looked_at = sa.func.min(sa.func.coalesce(p.scrubbed, p.arrival_time))
    query = sa.select(looked_at).where(p.retired.is_(None))
    return float(connection.execute(query).scalar() or 0.0)


def stored_bytes(connection: sa.Connection, retired: bool = True) -> int:
    """Sizes of all packs together.

    :param retired: also of those that only wait to be removed
    """
    query = sa.select(sa.func.coalesce(sa.func.sum(packs_table.c.size), 0))
    if not retired:
        query = query.where(packs_table.c.retired.is_(None))
    return int(connection.execute(query).scalar_one())


def list_bytes(connection: sa.Connection) -> int:
    """Bytes of the reference lists and records of points that are published, or were withdrawn, and
    of what stays of removed ones.

    A list may name one small blob many million times: it is counted as it is stored. A record lies
    there twice, and so do the labels of a removed point: a tenant could store without end in them.
    """
    t = points_table.c
    listed = t.reference_count * ID_SIZE + 2 * sa.func.length(t.record)
    labels = sa.func.length(sa.cast(t.tags, sa.Text)) + sa.func.length(
        sa.cast(t.statistics, sa.Text)
    )
    each = sa.case(
        (t.state.in_(_LISTED_STATES), listed),
        (t.state == _REMOVED_STATE, 2 * labels + TOMBSTONE_BYTES),
        else_=0,
    )
    return int(connection.execute(sa.select(sa.func.coalesce(sa.func.sum(each), 0))).scalar_one())


def blobs_about(connection: sa.Connection) -> int:
    """How many blobs there are, from the packs: at least as many as there are rows, mostly."""
    query = sa.select(sa.func.coalesce(sa.func.sum(packs_table.c.blobs), 0))
    return int(connection.execute(query).scalar_one())


def pack_use(catalogue: Catalogue, check: Callable[[], None]) -> list[PackRow]:
    """Every pack that was indexed when the count began, with its use.

    :param check: is called now and then, and raises to stop
    """
    p, b = packs_table.c, blobs_table.c
    with catalogue.reading() as connection:
        listed = connection.execute(
            sa.select(p.number, p.name, p.size, p.arrival_time, p.retired).order_by(p.number)
        ).all()
        pieces = max(1, min(_RANGES_MAX, blobs_about(connection) // _ROWS))
    highest = listed[-1].number if listed else 0
    rows, used, sound = (array("q", bytes(8 * (highest + 1))) for _ in range(3))
    length = sa.func.sum(b.stored_length + ENTRY_SIZE)
    kept = sa.func.sum(sa.case((b.damaged, 0), else_=b.stored_length + ENTRY_SIZE))
    query = sa.select(b.pack, sa.func.count(), length, kept).group_by(b.pack)
    bounds = [(piece << 32) // pieces for piece in range(pieces)]
    for piece, low in enumerate(bounds):
        check()
        part = query.where(b.id >= low.to_bytes(4, "big"))
        if piece + 1 < pieces:
            part = part.where(b.id < bounds[piece + 1].to_bytes(4, "big"))
        with catalogue.reading() as connection:
            for pack, count, size, good in connection.execute(part):
                if pack <= highest:
                    rows[pack] += count
                    used[pack] += size
                    sound[pack] += good
    return [PackRow(*row, rows[row.number], used[row.number], sound[row.number]) for row in listed]
