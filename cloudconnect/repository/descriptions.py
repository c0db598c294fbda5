"""Layer 3: a repository's descriptions: the first one, and those that took its place.

The first is the blob ``description``, as it was made; a later one is ``descriptions/`` and its
revision, with its head. The catalogue says which one holds. Nothing is replaced unless the key
before it has signed for it (``docs/repository-format.rst``, generations).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import sqlalchemy as sa

from cloudconnect.content.description import DESCRIPTION_MAX, RepositoryDescription
from cloudconnect.content.heads import HEAD_MAX, SignedHead
from cloudconnect.errors import NoSpace, PeerError, Refused, StoredDataDamaged
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.heads import (
    check_description,
    head_fields,
    head_in,
    insert_heads,
    read_chain,
)
from cloudconnect.repository.leases import PUBLISHING
from cloudconnect.repository.tables import repository_table
from cloudconnect.wire import canonical

#: The blob of the first description.
DESCRIPTION: Final = "description"
#: Where the later descriptions lie.
DESCRIPTIONS: Final = "descriptions/"
#: Descriptions that may follow the first one. Each stays, with its head, and none counts against a
#: quota: 64 MiB in all. Somebody who changes a passphrase every day needs eleven years for them.
LATER_MAX: Final = 4096
_SIZE_MAX: Final = DESCRIPTION_MAX + HEAD_MAX + 256


def description_name(revision: int) -> str:
    """The name under which a later description is stored."""
    return f"{DESCRIPTIONS}{revision:08x}"


def read_description(connection: sa.Connection) -> RepositoryDescription:
    """The description that holds now."""
    row = connection.execute(sa.select(repository_table.c.description)).scalar_one()
    return RepositoryDescription.decode(bytes(row))


def replace_description(
    store: IBlobStore, catalogue: Catalogue, encoded: bytes, head: SignedHead
) -> RepositoryDescription:
    """See :meth:`cloudconnect.repository.store.Repository.replace_description`."""
    with store.exclusive(PUBLISHING, wait=True):
        with catalogue.reading() as connection:
            old = read_description(connection)
            chain = read_chain(connection, old)
        if encoded == old.encode():
            return old  # only the acknowledgement was lost
        new = RepositoryDescription.decode(encoded)
        _check(old, new)
        check_description(chain, head, encoded, new.public_key)
        name = description_name(new.revision)
        store.remove(name)  # of somebody who was killed before it was in the catalogue
        store.put(name, [canonical.encode({"description": encoded} | head_fields(head))])
        try:
            with catalogue.writing() as connection:
                insert_heads(connection, [head])
                connection.execute(
                    sa.update(repository_table).values(
                        description=encoded, description_revision=new.revision
                    )
                )
        except (NoSpace, Refused):
            # Here the row is certainly not changed; behind any other failure nobody knows it
            # before the catalogue is opened again, and what it may say must be there.
            store.remove(name)
            raise
        return new


def _check(old: RepositoryDescription, new: RepositoryDescription) -> None:
    fixed = [(d.repository, d.mode, d.chunking) for d in (old, new)]
    if fixed[0] != fixed[1]:
        raise Refused("a repository's id, mode and chunking do not change")
    if new.revision != old.revision + 1:
        raise Refused("another machine has changed this repository's keys; run the command again")
    if new.revision > LATER_MAX:
        raise Refused(
            f"the keys of this repository were changed {LATER_MAX} times, as often as they can be"
        )
    if new.public_keys[: len(old.public_keys)] != old.public_keys:
        raise Refused("the new description has lost an earlier master key")
    if len(new.public_keys) > len(old.public_keys) + 1:
        raise Refused("the new description names more than one new master key")
    try:
        new.verify_signature()
    except StoredDataDamaged as error:
        raise Refused(str(error)) from error


def later_descriptions(
    store: IBlobStore, repository: bytes, damaged: list[str]
) -> Iterator[tuple[RepositoryDescription, SignedHead]]:
    """Those in the blob store that can be used, the oldest first.

    :param repository: its 16 bytes
    :param damaged: gets a sentence for each that cannot be used
    """
    for name in store.names(DESCRIPTIONS):
        try:
            size = min(store.size(name), _SIZE_MAX)
            fields = canonical.decode_map(store.read(name, 0, size), max_depth=1, max_items=16)
            head = head_in(fields)
            if set(fields) != {"description"} or head is None:
                raise StoredDataDamaged("it has other fields than a later description")
            description = RepositoryDescription.decode(fields["description"])
            if description.repository != repository or name != description_name(
                description.revision
            ):
                raise StoredDataDamaged("it is of another repository or revision")
            description.verify_signature()
            if head.entry.digest != hashlib.sha256(fields["description"]).digest():
                raise StoredDataDamaged("its head is of something else")
            yield description, head
        except (PeerError, TypeError, OSError) as error:
            damaged.append(f"{name}: {error}")


def newest_description(store: IBlobStore, first: bytes) -> RepositoryDescription:
    """The newest description in the blob store that can be used.

    :param first: what lies there as ``description``
    """
    found = RepositoryDescription.decode(first)
    for description, _ in later_descriptions(store, found.repository, []):
        known = found.public_keys
        if description.public_keys[: len(known)] == known:
            found = description
    return found
