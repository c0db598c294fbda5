"""Layer 3: leases and fences: what nobody who is here now can be counting on any more.

Sessions and collections run side by side, and nobody asks the others to stop. What ties them
together is one counter in the catalogue, the *epoch*:

* Whoever opens a repository holds a lease that bears the epoch of that moment, until it closes the
  repository or dies (``flock``). It is made before anything is read that could be counted on: a
  collection that did not see it had raised its fence before that.
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
#: The lock of whoever takes something away.
COLLECTING: Final = "collect"


@attrs.frozen
class Leases:
    """The leases and fences of one repository."""

    store: IBlobStore
    catalogue: Catalogue

    def take(self) -> ILease:
        """A lease of the present epoch; the caller releases it."""
        return self.store.lease(self.epoch())

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
        """What was made unreachable before this fence, or an earlier one, nobody can reach.

        The number of the oldest lease that is held; where there is none, the epoch.
        """
        epoch = self.epoch()  # first: who takes a lease now has read nothing yet
        return min(self.store.leases(), default=epoch)
