"""Layer 3: leases and fences: what nobody who is here now can be counting on any more.

Sessions and collections run side by side, and nobody asks the others to stop. What ties them
together is one counter in the catalogue, the *epoch*:

* Whoever opens a repository holds a lease that bears the epoch of that moment, until it closes the
  repository or dies (``flock``). The lease is made first, and the epoch read again behind it: had
  it changed, whoever raised it might not have seen the lease.
* A *fence* raises the epoch by one, in a transaction of its own. What was committed before it is
  seen by every session whose lease has at least the new number, because such a session read
  the epoch, and so everything, later.

So what was made unreachable before fence ``n`` (a row that nobody is told of any more, a pack to
which no row points) is unreachable for good once :meth:`Leases.oldest` is at least ``n``: every
session that may have seen it otherwise has ended. No clock is asked, and a session may take weeks.
"""

from __future__ import annotations

from typing import Final

import attrs
import sqlalchemy as sa

from cloudconnect.interfaces import IBlobStore, ILease
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.tables import repository_table

#: The lock of whoever publishes a point, replaces the description, or condemns blobs.
PUBLISHING: Final = "publish"
#: What :meth:`Leases.oldest` says when nobody is here: later than every fence.
NOBODY: Final = (1 << 63) - 1
#: The lock of whoever takes something away.
COLLECTING: Final = "collect"


@attrs.frozen
class Leases:
    """The leases and fences of one repository."""

    store: IBlobStore
    catalogue: Catalogue

    def take(self) -> ILease:
        """A lease of the present epoch; the caller releases it."""
        while True:
            lease: ILease = self.store.lease(self.epoch())
            try:
                # A lease of 0 says "older than every fence", whatever the epoch.
                if lease.number in (0, self.epoch()):
                    return lease
            except BaseException:
                lease.release()
                raise
            lease.release()

    def epoch(self) -> int:
        """How many fences there have been."""
        with self.catalogue.reading() as connection:
            return self.catalogue.epoch(connection)

    def fence(self) -> int:
        """Raise the epoch, and return what it is now."""
        with self.catalogue.writing() as connection:
            epoch = repository_table.c.epoch
            connection.execute(sa.update(repository_table).values(epoch=epoch + 1))
            return self.catalogue.epoch(connection)

    def oldest(self) -> int:
        """The number of the oldest lease that is held; :data:`NOBODY` where there is none."""
        return min(self.store.leases(), default=NOBODY)
