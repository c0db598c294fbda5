"""Layer 3: packs that a session made durable and could not index any more, because it was killed.

A collection finds them too, when it comes. Until then nobody is told of what is in them, and the
job that stored it, which goes on in a new session, would send it again: so that session looks
first. Which packs they are stands in the dead session's row (:mod:`.reservations`); a pack of a
session that lives is never among them, since it may still take it back.
"""

from __future__ import annotations

import sqlalchemy as sa

from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.packs import Entry, read_entries
from cloudconnect.repository.rebuild import unchanged_entries
from cloudconnect.repository.tables import orphans_table, packs_table, reservations_table

_r = reservations_table.c


def adopt_packs(
    store: IBlobStore, catalogue: Catalogue, repository: bytes, own: str, now: float
) -> int:
    """Index what dead sessions have left, and forget those of them that have left nothing else.

    What cannot be read is left to the next collection, which says so.

    :param repository: 16 bytes
    :param own: the lease of the session that looks
    :param now: seconds since 1970
    :return: how many packs were indexed
    """
    with catalogue.reading() as connection:
        rows = connection.execute(sa.select(_r.lease, _r.packs).where(_r.lease != own)).all()
    dead = [(lease, packs) for lease, packs in rows if not store.lease_held(lease)]
    return sum(_adopt(store, catalogue, repository, lease, packs, now) for lease, packs in dead)


def _adopt(
    store: IBlobStore,
    catalogue: Catalogue,
    repository: bytes,
    lease: str,
    packs: list[str],
    now: float,
) -> int:
    found: dict[str, tuple[int, list[Entry]]] = {}
    left = False
    for name in _unknown(catalogue, packs):
        try:
            store.settle(name)
            entries = read_entries(store, name, repository)
            sound = list(unchanged_entries(store, name, entries, []))
            found[name] = store.size(name), sound
            left = left or not sound
        except NotFound:
            continue  # it died before that
        except (StoredDataDamaged, OSError):
            left = True
    done = 0
    with catalogue.writing() as connection:
        mine = _r.lease == lease
        if connection.execute(sa.select(_r.lease).where(mine)).first() is None:
            return 0  # another session was faster
        for name, (size, sound) in found.items():
            if sound:
                catalogue.add_pack(connection, name, size, sound, now)
                connection.execute(sa.delete(orphans_table).where(orphans_table.c.name == name))
                done += 1
        if not left:
            connection.execute(sa.delete(reservations_table).where(mine))
    return done


def _unknown(catalogue: Catalogue, packs: list[str]) -> list[str]:
    """Those of these packs that have no row."""
    p = packs_table.c.name
    with catalogue.reading() as connection:
        known = set(connection.execute(sa.select(p).where(p.in_(packs))).scalars())
    return [name for name in packs if name not in known]
