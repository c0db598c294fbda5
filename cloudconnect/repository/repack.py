"""Layer 3: blobs moved out of packs that are mostly unused, each verified on its way.

A pack is never changed: what is still needed of it is copied into a new one. The new pack is
durable before any row says so, and the rows of one new pack change in one transaction, each only
where it still points to the copy that was read. A reader that looked a blob up before goes on
reading the old pack, which stays until the last such reader has ended
(:mod:`cloudconnect.repository.collect`). Killed before the rows change, the new pack is one that
nobody knows of (:mod:`cloudconnect.repository.leftovers`), as it is when the transaction fails: it
is not taken back then, because a commit that failed may still have happened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import PackRow
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.packs import Entry, PackBuilder, read_entries
from cloudconnect.repository.tables import blobs_table

#: Stored bytes that are copied before the packs that they came from are removed.
ROUND_BYTES: Final = 4 << 30

_b = blobs_table.c
_move = (
    sa.update(blobs_table)
    .where(
        _b.id == sa.bindparam("name"),
        _b.pack == sa.bindparam("old_pack"),
        _b.offset == sa.bindparam("old_offset"),
        _b.damaged.is_(sa.false()),
    )
    .values(pack=sa.bindparam("new_pack"), offset=sa.bindparam("new_offset"))
)


@attrs.define
class _Filling:
    """A new pack, and where what is in it came from."""

    builder: PackBuilder
    moves: list[tuple[Entry, int]] = attrs.field(factory=list)
    arrival_time: float = 0.0


@attrs.define
class Repacker:
    """Copies blobs into new packs.

    :ivar repository: 16 bytes
    :ivar check: is called now and then, and raises to stop
    :ivar blobs: how many were moved
    :ivar stored: their stored bytes
    :ivar damaged: ids that could not be copied, because their stored bytes are damaged
    """

    store: IBlobStore
    catalogue: Catalogue
    repository: bytes
    check: Callable[[], None]
    blobs: int = 0
    stored: int = 0
    damaged: list[bytes] = attrs.field(factory=list)
    _filling: dict[int, _Filling] = attrs.field(factory=dict, init=False)

    def empty(self, pack: PackRow) -> None:
        """Copy what is needed of ``pack``; its rows change when the new pack is full.

        :raises StoredDataDamaged: what is in it cannot be told
        :raises NotFound: it is not there
        :raises NoSpace: the disk is full
        """
        try:
            names = [entry.id for entry in read_entries(self.store, pack.name, self.repository)]
        except OSError as error:
            raise StoredDataDamaged(f"{pack.name} cannot be read now: {error}") from error
        self.move(pack, self.rows_of(pack, names))

    def rows_of(self, pack: PackRow, names: Sequence[bytes]) -> list[Entry]:
        """What lies in ``pack`` of the blobs of these names, in its order."""
        with self.catalogue.reading() as connection:
            found = self.catalogue.entries(connection, names, pack.number)
        return sorted(found, key=lambda entry: entry.offset)

    def move(self, pack: PackRow, entries: Sequence[Entry]) -> None:
        """Copy ``entries``, which the catalogue says lie in ``pack``."""
        damaged: list[bytes] = []
        unreadable = 0
        for entry in entries:
            self.check()
            try:
                data = self.store.read(pack.name, entry.offset, entry.stored_length)
                blob = entry.blob(data, pack.name)
            except (NotFound, StoredDataDamaged):
                damaged.append(entry.id)
                continue
            except OSError:
                unreadable += 1  # the system may read it another time
                continue
            filling = self._filling.get(entry.kind)
            if filling is None:
                builder = PackBuilder(self.store.begin(), self.repository, os.urandom(16))
                filling = self._filling[entry.kind] = _Filling(builder)
            filling.builder.add(blob, entry.kind)
            filling.moves.append((entry, pack.number))
            filling.arrival_time = max(filling.arrival_time, pack.arrival_time)
            if filling.builder.full:
                self._commit(entry.kind)
        if damaged:
            self.catalogue.mark_damaged(damaged, pack.name)
            self.damaged += damaged
        if unreadable:
            raise StoredDataDamaged(f"{unreadable} blobs in {pack.name} cannot be read now")

    def finish(self) -> None:
        """Move what was copied and is not moved yet.

        :raises NoSpace: the disk is full
        """
        for kind in sorted(self._filling):
            self._commit(kind)

    def close(self) -> None:
        """Forget what was not moved; it stays where it is."""
        for filling in self._filling.values():
            filling.builder.discard()
        self._filling.clear()

    def _commit(self, kind: int) -> None:
        filling = self._filling[kind]
        name, size = filling.builder.commit()
        del self._filling[kind]
        entries = filling.builder.entries
        with self.catalogue.writing() as connection:
            self.catalogue.refuse_frozen(connection)
            number = self.catalogue.insert_pack(
                connection, name, size, entries, filling.arrival_time
            )
            moves = [
                {
                    "name": old.id,
                    "old_pack": pack,
                    "old_offset": old.offset,
                    "new_pack": number,
                    "new_offset": new.offset,
                }
                for (old, pack), new in zip(filling.moves, entries, strict=True)
            ]
            self.blobs += connection.execute(_move, moves).rowcount
        self.stored += sum(entry.stored_length for entry in entries)
