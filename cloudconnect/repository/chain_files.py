"""Layer 3: the chain of heads made again from the files of points and descriptions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import sqlalchemy as sa

from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.heads import SignedHead
from cloudconnect.content.subkeys import verify_any
from cloudconnect.errors import PeerError
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.descriptions import later_descriptions
from cloudconnect.repository.heads import (
    head_in,
    holes,
    insert_heads,
    linked,
    read_heads,
)
from cloudconnect.repository.tables import heads_table
from cloudconnect.settings import FRAME_BODY_MAX
from cloudconnect.wire import canonical

_POINTS = "points/"
#: What the names end with that hold a head, behind the point's id: records, and what is left of
#: points that were removed.
_HOLDERS = ("", "-removed")
_ID_END = len(_POINTS) + 32


def rebuild_heads(
    store: IBlobStore,
    connection: sa.Connection,
    description: RepositoryDescription,
    damaged: list[str],
) -> None:
    """Make the table of heads again, from the files and what it still has.

    :param description: the newest one: what none of its keys has signed is not believed
    :param damaged: gets a sentence for each file that cannot be used, and each hole in the chain
    """
    found = list(_of_points(store))
    later = later_descriptions(store, description.repository, damaged)
    found += [(0.0, head) for _, head in later]
    # What the catalogue still knows was committed: at the end of the chain it counts most.
    found += [(math.inf, head) for head in read_heads(connection)]
    believed = []
    for _, head in sorted(found, key=lambda pair: pair[0]):
        try:
            verify_any(description.public_keys, head.signature, head.encoded, b"head")
            if head.entry.repository == description.repository:
                believed.append(head)
        except PeerError as error:
            damaged.append(f"a head cannot be used: {error}")
    chain = linked(believed)
    damaged += holes(chain)
    connection.execute(sa.delete(heads_table))
    insert_heads(connection, chain)


def _of_points(store: IBlobStore) -> Iterator[tuple[float, SignedHead]]:
    """The heads of points, with the time of their arrival; a missing one leaves a hole."""
    for name in store.names(_POINTS):
        if len(name) < _ID_END or name[_ID_END:] not in _HOLDERS:
            continue
        with contextlib.suppress(PeerError, TypeError, ValueError, OSError):
            size = min(store.size(name), 2 * FRAME_BODY_MAX)
            fields = canonical.decode_map(store.read(name, 0, size))
            head = head_in(fields)
            if head is not None:
                yield float(fields.get("arrival_time", 0.0)), head
