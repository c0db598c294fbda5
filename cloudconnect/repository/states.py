"""Layer 3: what became of a restore point, from the blobs beside its record alone.

For a catalogue that is made again (:mod:`cloudconnect.repository.rebuild`). In doubt a point is
restorable: what a killed process left half done counts as not done, where it can be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain, groupby
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.points import PointRecord
from cloudconnect.errors import PeerError
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import Moment
from cloudconnect.repository.markers import (
    deleted_name,
    read_deleted,
    read_lock,
    read_removed,
    removed_name,
)
from cloudconnect.repository.points import DELETED, REMOVED, WITHDRAWN, record_name, withdrawn_name
from cloudconnect.repository.references import read_references
from cloudconnect.repository.tables import points_table
from cloudconnect.settings import IDS_MAX

_POINTS: Final = "points/"
_ID_END: Final = len(_POINTS) + 32


def point_names(store: IBlobStore) -> Iterator[tuple[bytes, list[str]]]:
    """The names below ``points/`` by the point that they are about, whose id is of 16 bytes."""
    for digits, names in groupby(store.names(_POINTS), key=lambda name: name[:_ID_END]):
        if re.fullmatch("[0-9a-f]{32}", digits[len(_POINTS) :], re.ASCII):
            yield bytes.fromhex(digits[len(_POINTS) :]), list(names)


@attrs.frozen
class States:
    """Reads the markers of points.

    :ivar connection: of the transaction in which rows are made, with the index of blobs complete
    :ivar moment: the clocks, as that transaction observed them
    :ivar damaged: gets a sentence for each blob that cannot be used
    """

    store: IBlobStore
    catalogue: Catalogue
    connection: sa.Connection
    moment: Moment
    damaged: list[str]

    def settled(self, values: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
        """The row of a point whose record is there, with what its markers say.

        :param values: the row of a point that was just published
        :param names: all that lie beside the record
        """
        point = bytes.fromhex(values["point"])
        values = values | self.lock(names)
        if withdrawn_name(point) in names:
            return values | {"state": WITHDRAWN}
        if removed_name(point) in names:
            return values | self._removed(point, values)
        if deleted_name(point) in names:
            return values | self._deleted(point)
        return values

    def tombstone(self, point: bytes, names: Collection[str]) -> dict[str, Any] | None:
        """The row of a removed point of which only the tombstone is there; None: that neither."""
        if removed_name(point) not in names:
            return None
        fields = self._tombstone(point)
        if fields is None:
            return None
        if record_name(point) not in names:
            for name in names:  # its removal was killed: no row would say so any more
                if name != removed_name(point):
                    self.store.remove(name)
        return {
            **fields,
            "point": point.hex(),
            "state": REMOVED,
            "record": b"",
            "signature": b"",
        }

    def lock(self, names: Collection[str]) -> dict[str, float]:
        """The columns of the longest lock that the names speak of."""
        found = [read_lock(self.store, name, self.moment.now) for name in names]
        locks = [lock for lock in found if lock is not None]
        if not locks:
            return {}
        return {
            "locked_until": max(lock.until for lock in locks),
            "locked_clock": self.moment.passed + max(lock.seconds for lock in locks),
        }

    def raise_lock(self, point: bytes, names: Collection[str]) -> None:
        """Let a point that has a row be locked for as long as its markers say, at least."""
        lock = self.lock(names)
        t = points_table.c
        for name, value in lock.items():
            shorter = sa.or_(t[name].is_(None), t[name] < value)
            update = sa.update(points_table).where(t.point == point.hex(), shorter)
            self.connection.execute(update.values(**{name: value}))

    def _deleted(self, point: bytes) -> dict[str, Any]:
        try:
            time, by, deadline = read_deleted(self.store, point)
        except (PeerError, OSError) as error:
            self.damaged.append(f"{deleted_name(point)}: {error}")
            return {}
        return {
            "state": DELETED,
            "deleted_time": time,
            "deleted_by": by,
            "bin_until": deadline.until,
            "bin_clock": self.moment.passed + deadline.seconds,
        }

    def _removed(self, point: bytes, values: dict[str, Any]) -> dict[str, Any]:
        """Of a point that was about to be removed, or was, and still has its record."""
        tombstone = self._tombstone(point)
        if tombstone is None and self._all_present(values):
            return self._deleted(point)
        names = ("deleted_time", "deleted_by", "bin_until", "removed_time")
        columns = {name: (tombstone or {}).get(name) for name in names}
        if not self._all_present(values):
            return {**columns, "state": REMOVED}
        # The row may not have said so yet, and nothing is lost: so it is in the bin, its time over.
        over = {"bin_until": self.moment.now, "bin_clock": self.moment.passed}
        return {**columns, **over, "state": DELETED, "removed_time": None}

    def _tombstone(self, point: bytes) -> dict[str, Any] | None:
        try:
            fields = read_removed(self.store, point)
        except (PeerError, OSError) as error:
            self.damaged.append(f"{removed_name(point)}: {error}")
            return None
        return {name: value for name, value in fields.items() if name in points_table.c}

    def _all_present(self, values: dict[str, Any]) -> bool:
        """Whether all blobs are stored that a point needs."""
        record = PointRecord.decode(values["record"])
        count, digest = values["reference_count"], values["reference_digest"]
        manifest = record.manifest
        parts = (list(manifest[at : at + IDS_MAX]) for at in range(0, len(manifest), IDS_MAX))
        try:
            for batch in chain(parts, read_references(self.store, record.point, count, digest)):
                wanted = set(batch)
                if wanted - self.catalogue.present(self.connection, wanted):
                    return False
        except (PeerError, OSError):
            return False
        return True
