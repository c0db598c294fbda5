"""Layer 3: the freeze: while it lasts nothing is deleted, expires, is collected or removed.

The row in the catalogue is what counts. The blob :data:`FROZEN` beside it tells a catalogue that is
made again (:mod:`cloudconnect.repository.rebuild`); there is none where the disk was full.
"""

from __future__ import annotations

import contextlib
from typing import Final

import sqlalchemy as sa

from cloudconnect.errors import NoSpace
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.tables import repository_table

#: The blob that says that the repository is frozen.
FROZEN: Final = "frozen"


def is_frozen(connection: sa.Connection) -> bool:
    """Whether the repository is frozen."""
    return bool(connection.execute(sa.select(repository_table.c.frozen)).scalar_one())


def freeze(store: IBlobStore, catalogue: Catalogue, now: float) -> None:
    """Freeze the repository; nothing happens where it is frozen.

    :param now: seconds since 1970
    """
    with catalogue.writing() as connection:
        observe(connection, now)
        connection.execute(sa.update(repository_table).values(frozen=True))
    with catalogue.writing() as connection:
        # A transaction again, as it waits for a thaw() that may be under way.
        if observe(connection, now).frozen:
            with contextlib.suppress(FileExistsError, NoSpace):
                store.put(FROZEN, [b"frozen"])


def thaw(store: IBlobStore, catalogue: Catalogue, now: float) -> None:
    """Thaw the repository; the expiry clock goes on where it stood.

    :param now: seconds since 1970
    """
    with catalogue.writing() as connection:
        observe(connection, now)
        connection.execute(sa.update(repository_table).values(frozen=False))
        store.remove(FROZEN)
