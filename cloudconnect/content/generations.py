"""Layer 1: a repository's keys over time (``docs/repository-format.rst``, generations).

A *generation* is what is derived from one master key. The newest one signs, names and seals; what
an older one has signed is read with that one. The older master keys stand in the description, each
sealed under the newest, so whoever opens a key slot gets them all, in one step. Each function here
makes the next description of a repository from the one before; that the provider takes it needs an
entry in the chain of heads too (:mod:`cloudconnect.content.heads`).
"""

from __future__ import annotations

from typing import Any

import attrs

from cloudconnect.content.description import (
    PREVIOUS_MAX,
    REVISION_MAX,
    SLOTS_MAX,
    VERSION,
    PreviousMaster,
    RepositoryDescription,
)
from cloudconnect.content.slots import KeySlot
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import NotFound, StoredDataDamaged, UsageError
from cloudconnect.keys import MasterKey


def keys_of(description: RepositoryDescription, master: MasterKey) -> RepositoryKeys:
    """The newest generation's keys, with those of all earlier ones (``older``).

    :param master: the newest master key
    :raises StoredDataDamaged: the description is not this master key's, or was changed
    """
    newest = RepositoryKeys(master, description.repository, description.mode)
    description.verify(newest)
    older = []
    for previous in description.previous:
        opened = newest.open_previous(previous.wrapped, previous.public_key)
        keys = RepositoryKeys(opened, description.repository, description.mode)
        if (keys.public_key, keys.id_check) != (previous.public_key, previous.id_check):
            raise StoredDataDamaged("an earlier master key in the description is another one")
        older.append(keys)
    return RepositoryKeys(master, description.repository, description.mode, older)


def add_slot(
    description: RepositoryDescription, keys: RepositoryKeys, slot: KeySlot
) -> RepositoryDescription:
    """One more way to the same master key.

    :param keys: the newest generation's
    :raises UsageError: there are as many slots as there can be
    """
    if len(description.slots) >= SLOTS_MAX:
        raise UsageError(f"a repository has at most {SLOTS_MAX} key slots: remove one first")
    return _next(description, keys, slots=(*description.slots, slot))


def remove_slot(
    description: RepositoryDescription, keys: RepositoryKeys, identifier: str
) -> RepositoryDescription:
    """One way fewer. Who has seen the master key, or an old description, still has it.

    :param keys: the newest generation's
    :param identifier: of the slot, or the digits that it begins with
    :raises NotFound: no slot, or several, begin so
    :raises UsageError: it is the last one: nobody could read anything any more
    """
    slot = find_slot(description, identifier)
    if len(description.slots) == 1:
        raise UsageError("this is the last key slot: without it nothing could be read any more")
    return _next(description, keys, slots=tuple(s for s in description.slots if s is not slot))


def replace_slot(
    description: RepositoryDescription, keys: RepositoryKeys, old: KeySlot, new: KeySlot
) -> RepositoryDescription:
    """The same master key under another passphrase, in the place of the slot ``old``.

    :param keys: the newest generation's
    :raises NotFound: there is no slot ``old``
    """
    place = description.slots.index(find_slot(description, old.identifier))
    slots = (*description.slots[:place], new, *description.slots[place + 1 :])
    return _next(description, keys, slots=slots)


def new_master(
    description: RepositoryDescription,
    master: MasterKey,
    fresh: MasterKey,
    slots: tuple[KeySlot, ...],
) -> RepositoryDescription:
    """A new generation: later data is named, sealed and signed by ``fresh``.

    No slot of the old master key stays: what opened it does not open the new one.

    :param master: the newest master key so far
    :param fresh: the new one
    :param slots: ways to ``fresh``
    :raises UsageError: there were as many master keys as there can be
    :raises StoredDataDamaged: ``description`` is not that of ``master``
    """
    if len(description.previous) >= PREVIOUS_MAX:
        raise UsageError(
            f"this repository has had {PREVIOUS_MAX + 1} master keys, as many as there can be: "
            "connect to a new repository"
        )
    old = RepositoryKeys(master, description.repository, description.mode)
    description.verify(old)
    keys = RepositoryKeys(fresh, description.repository, description.mode)
    masters = [old.open_previous(p.wrapped, p.public_key) for p in description.previous]
    checks = [(p.public_key, p.id_check) for p in description.previous]
    previous = tuple(
        PreviousMaster(public_key, id_check, keys.seal_previous(earlier, public_key))
        for earlier, (public_key, id_check) in zip(
            (*masters, master), (*checks, (old.public_key, old.id_check)), strict=True
        )
    )
    return _next(
        description,
        keys,
        public_key=keys.public_key,
        id_check=keys.id_check,
        slots=slots,
        previous=previous,
    )


def find_slot(description: RepositoryDescription, identifier: str) -> KeySlot:
    """The slot whose identifier begins so.

    :raises NotFound: none does, or several do
    """
    found = [slot for slot in description.slots if slot.identifier.startswith(identifier)]
    exact = [slot for slot in found if slot.identifier == identifier]
    if len(exact or found) != 1 or not identifier:
        several = "several key slots begin" if len(found) > 1 else "no key slot begins"
        raise NotFound(f"{several} with {identifier!r}: list them with cloudconnect key list")
    return (exact or found)[0]


def _next(
    description: RepositoryDescription, keys: RepositoryKeys, **changes: Any
) -> RepositoryDescription:
    if description.revision >= REVISION_MAX:
        raise UsageError("this repository's description was changed too often")
    changed = attrs.evolve(
        description, version=VERSION, revision=description.revision + 1, **changes
    )
    return changed.signed(keys)
