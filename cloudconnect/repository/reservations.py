"""Layer 3: the quota: reserved in the catalogue before it is written, turned into what is stored.

Every session that stores has a row with the packs that it is about to index and, under a quota, the
bytes that it may still store. Each reservation is one transaction that sees what is stored, what
all sessions have reserved, and the quota: however many race, in however many processes, together
they never pass it by a byte. The transaction that indexes a pack takes its size from the row, so
that no byte counts twice or not at all.

A session that died leaves its row. What it had reserved counts no more, but a pack that it may have
made durable without indexing it does, until the next session (:mod:`.adopting`) or a collection has
indexed it.

Far from the quota so much is reserved at once that nobody waits for it; near it only what is
needed: what one session has reserved and does not use is not there for another.
"""

from __future__ import annotations

from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import NotFound, QuotaUsed
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.accounting import list_bytes, read_measured, stored_bytes
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.tables import packs_table, reservations_table
from cloudconnect.shown import size_text

#: Bytes that are reserved at once at most: two packs of 32 MiB.
GRANT_MAX: Final = 64 << 20
#: ... and never more than one in so many of those that are left.
GRANT_SHARE: Final = 32

_r = reservations_table.c


def counted_bytes(connection: sa.Connection) -> int:
    """What counts against a quota: packs, less what only the bin needs, and lists and records."""
    return max(0, stored_bytes(connection) - read_measured(connection).free) + list_bytes(
        connection
    )


@attrs.define
class Reservation:
    """What one session may still store; used by one thread.

    :ivar store: knows which sessions live
    :ivar lease: the name of the session's lease
    :ivar quota: bytes that the repository may hold; None: any number
    """

    store: IBlobStore
    catalogue: Catalogue
    lease: str
    quota: int | None
    _left: int = 0  # reserved, and not asked for yet
    _spent: int = 0  # stored, and still in the row
    _has_row: bool = False
    _under_way: list[str] = attrs.field(factory=list)  # packs that may be durable, without a row

    def take(self, size: int) -> None:
        """Reserve bytes, before they are stored.

        :raises QuotaUsed: there are not so many left
        """
        if self.quota is None:
            return
        if size > self._left:
            self._reserve(size - self._left, self.quota)
        self._left -= size

    def _reserve(self, size: int, quota: int) -> None:
        with self.catalogue.writing() as connection:
            used = counted_bytes(connection) + self._others(connection)
            mine = self._settled(connection)
            free = quota - used - mine
            if size > free:
                raise QuotaUsed(
                    f"the backup does not fit into the quota of {size_text(quota)}, of which "
                    f"{size_text(used)} are stored or about to be: ask the provider for more; what "
                    "is there stays restorable"
                )
            grant = max(size, min(GRANT_MAX, free // GRANT_SHARE))
            self._write(connection, mine + grant)
        self._left += grant

    def about_to_store(self, pack: str) -> None:
        """A pack is about to get its name: from here on it may be durable.

        Without a quota a power cut may take back that it was said: then the pack is found later.
        """
        self._under_way.append(pack)
        with self.catalogue.writing(durable=self.quota is not None) as connection:
            self._write(connection, self._settled(connection))

    def stored(self, connection: sa.Connection, pack: str, size: int) -> None:
        """A pack of so many bytes is being indexed, in this transaction."""
        self._under_way.remove(pack)
        self._write(connection, max(0, self._settled(connection) - size))

    def published(self, size: int) -> None:
        """So many bytes count as a point's now; the next transaction takes them from the row."""
        self._spent += size

    def release(self) -> None:
        """The session has ended: what it did not use is free again."""
        if self._has_row:
            with self.catalogue.writing(durable=self.quota is not None) as connection:
                connection.execute(sa.delete(reservations_table).where(_r.lease == self.lease))
        self._left = self._spent = 0

    def _settled(self, connection: sa.Connection) -> int:
        """What the row holds, without what is stored by now."""
        query = sa.select(_r.bytes).where(_r.lease == self.lease)
        held = connection.execute(query).scalar() or 0
        spent, self._spent = self._spent, 0
        return max(0, int(held) - spent)

    def _write(self, connection: sa.Connection, size: int) -> None:
        self._has_row = True
        values = {"bytes": size, "packs": list(self._under_way)}
        row = sa.update(reservations_table).where(_r.lease == self.lease).values(values)
        if connection.execute(row).rowcount == 0:
            connection.execute(sa.insert(reservations_table), {"lease": self.lease, **values})

    def _others(self, connection: sa.Connection) -> int:
        """What the other sessions have reserved; of those that died, what they may have left."""
        query = sa.select(_r.lease, _r.bytes, _r.packs).where(_r.lease != self.lease)
        total = 0
        for lease, size, packs in connection.execute(query).all():
            if self.store.lease_held(lease):
                total += size
                continue
            left = sum(self._unindexed(connection, name) for name in packs)
            if left:
                total += left
            else:
                connection.execute(sa.delete(reservations_table).where(_r.lease == lease))
        return total

    def _unindexed(self, connection: sa.Connection, name: str) -> int:
        """The size of a pack that is stored, and that no row counts; 0 where there is none."""
        known = sa.select(packs_table.c.number).where(packs_table.c.name == name)
        if connection.execute(known).first() is not None:
            return 0
        try:
            return self.store.size(name)
        except NotFound:
            return 0
