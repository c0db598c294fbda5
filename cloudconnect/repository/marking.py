"""Layer 3: what restore points need: marked, in little memory, for a collection.

A mark may be there that nobody set, where two ids fall together: then a blob stays that nobody
needs, until the next collection, which looks at other bits of the ids. A mark that was set is never
missing: that would be the loss of data, so whatever cannot be read stops the collection.

Counted as needed: everything of every point but those that were withdrawn or removed. A point
whose state this release does not know is needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.content.subkeys import verify_any
from cloudconnect.errors import NotFound, PeerError, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.points import PUBLISHED, REMOVED, WITHDRAWN, record_name
from cloudconnect.repository.references import read_joined
from cloudconnect.repository.tables import points_table
from cloudconnect.settings import FRAME_BODY_MAX
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import ID_SIZE

#: What is not needed any more.
GONE: Final = frozenset((WITHDRAWN, REMOVED))
#: Said where a row comes again behind itself: a walk over a data base changed so would never end.
OUT_OF_ORDER: Final = "the catalogue's restore points are out of order: recover it"
#: Bits for each blob. With three of them set for each that is needed, fewer than one in 10,000 that
#: nobody needs seems to be needed, so that most packs without a needed blob are emptied at once.
MARKS_PER_BLOB: Final = 64
_BITS: Final = 3
#: Most bits: 64 MiB each for what is needed and for what is needed outside the bin.
MARKS_MAX: Final = 1 << 29
_MARKS_MIN: Final = 1 << 16
#: Rows of points that are listed at a time.
_ROWS: Final = 512
_WORDS: Final = ID_SIZE // 8
_WORD_BITS: Final = 64

UNNEEDED: Final = 0
IN_BIN: Final = 1
LIVE: Final = 2


class Marks:
    """Which ids are needed, and which of them by a point that is not in the bin.

    An id is marked by three bits, each from a word of it: an id is random, and needs no hash.

    :param blobs: how many there are, about
    """

    def __init__(self, blobs: int) -> None:
        wanted = max(_MARKS_MIN, min(MARKS_MAX, blobs * MARKS_PER_BLOB))
        bits = (wanted - 1).bit_length()
        self._mask = (1 << bits) - 1
        # Other parts of the ids each time, so that no two of them fall together twice.
        self._words = secrets.SystemRandom().sample(range(_WORDS), _BITS)
        self._shift = secrets.randbelow(_WORD_BITS - bits + 1)
        self._needed = bytearray((self._mask + 1) >> 3)
        self._live = bytearray((self._mask + 1) >> 3)

    def add(self, ids: bytes, live: bool) -> None:
        """Mark ids, joined.

        :param live: the point that needs them is not in the bin
        """
        needed, marked = self._needed, self._live
        for places in self._places(ids):
            if live:
                for at in places:
                    bit = 1 << (at & 7)
                    needed[at >> 3] |= bit
                    marked[at >> 3] |= bit
            else:
                for at in places:
                    needed[at >> 3] |= 1 << (at & 7)

    def look_up(self, ids: bytes) -> list[int]:
        """UNNEEDED, IN_BIN or LIVE for each of ``ids``, joined."""
        found = self._look_up(self._needed, ids)
        live = self._look_up(self._live, ids)
        return [needed + marked for needed, marked in zip(found, live, strict=True)]

    def _look_up(self, marks: bytearray, ids: bytes) -> list[int]:
        one, two, three = self._places(ids)
        return [
            marks[a >> 3] >> (a & 7) & marks[b >> 3] >> (b & 7) & marks[c >> 3] >> (c & 7) & 1
            for a, b, c in zip(one, two, three, strict=True)
        ]

    def _places(self, ids: bytes) -> list[list[int]]:
        words = memoryview(ids).cast("Q")
        mask, shift = self._mask, self._shift
        return [[word >> shift & mask for word in words[at::_WORDS].tolist()] for at in self._words]


@attrs.define
class Marker:
    """Marks what the points of a repository need, those first that came first.

    :ivar marks: where to
    :ivar check: is called now and then, and raises to stop
    :ivar newest: every point up to this arrival number has been marked
    :ivar points: points that were marked
    """

    store: IBlobStore
    catalogue: Catalogue
    description: RepositoryDescription
    marks: Marks
    check: Callable[[], None]
    newest: int = 0
    points: int = 0

    def mark_new(self) -> None:
        """Mark all points that came since the last time.

        :raises StoredDataDamaged: what one of them needs cannot be told; its id is in the message
        """
        t = points_table.c
        query = (
            sa.select(t.arrival, t.point, t.state, t.reference_count, t.reference_digest)
            .order_by(t.arrival)
            .limit(_ROWS)
        )
        while True:
            with self.catalogue.reading() as connection:
                rows = connection.execute(query.where(t.arrival > self.newest)).all()
            for row in rows:
                if row.arrival <= self.newest:
                    raise StoredDataDamaged(OUT_OF_ORDER)
                if row.state not in GONE:
                    self._mark_row(row)
                self.newest = row.arrival
            if not rows:
                return

    def mark_references(self, parts: Iterable[bytes], live: bool) -> None:
        """Mark what stands in a list of ids, whose parts come joined."""
        for part in parts:
            self.check()
            self.marks.add(part, live)

    def mark_manifest(self, record: PointRecord, live: bool) -> None:
        """Mark the chunks of a point's manifest."""
        self.marks.add(b"".join(record.manifest), live)

    def _mark_row(self, row: Any) -> None:
        point, live = bytes.fromhex(row.point), row.state == PUBLISHED
        try:
            self.mark_manifest(self._record(row.arrival, point), live)
            parts = read_joined(self.store, point, row.reference_count, row.reference_digest)
            self.mark_references(parts, live)
        except (NotFound, StoredDataDamaged, OSError) as error:
            if self._gone(row.arrival):
                return  # removed while its list was being read
            raise StoredDataDamaged(
                f"nothing is collected, as it cannot be told what the restore point {row.point} "
                f"needs: {error}"
            ) from error
        self.points += 1

    def _record(self, arrival: int, point: bytes) -> PointRecord:
        """The record of a point, in which somebody has confidence: its signer or a second copy."""
        t = points_table.c
        with self.catalogue.reading() as connection:
            query = sa.select(t.record, t.signature).where(t.arrival == arrival)
            encoded, signature = connection.execute(query).one()
        try:
            verify_any(self.description.public_keys, signature, encoded)
        except StoredDataDamaged:
            # Of a key that came meanwhile, perhaps; then the blob of the record says the same.
            if read_point(self.store, record_name(point))["record"] != encoded:
                raise
        try:
            record = PointRecord.decode(encoded)
        except PeerError as error:
            raise StoredDataDamaged(f"its record cannot be used: {error}") from error
        if record.point != point:
            raise StoredDataDamaged("its record is that of another point")
        return record

    def _gone(self, arrival: int) -> bool:
        t = points_table.c
        with self.catalogue.reading() as connection:
            state = connection.execute(sa.select(t.state).where(t.arrival == arrival)).scalar()
        return state in GONE


def read_point(store: IBlobStore, name: str) -> dict[str, Any]:
    """The fields of the blob in which a point's record lies.

    :raises NotFound: there is none
    :raises StoredDataDamaged: it is not one
    """
    try:
        size = min(store.size(name), 2 * FRAME_BODY_MAX)
        fields = canonical.decode_map(store.read(name, 0, size))
        if not isinstance(fields.get("record"), bytes):
            raise StoredDataDamaged(f"{name} has other fields than a point's")
        return fields
    except NotFound:
        raise
    except PeerError as error:
        raise StoredDataDamaged(f"{name}: {error}") from error
