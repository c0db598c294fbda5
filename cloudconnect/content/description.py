"""Layer 1: a repository's description: what the provider keeps of it for any new machine.

Made once at ``connect``, replaced when key slots or the master key are
(:mod:`cloudconnect.content.generations`). The provider hands it out before a tenant can check
anything of it, so everything in it is bounded, and :func:`unlock` believes it only once the master
key has confirmed the signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from cloudconnect.content import subkeys
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.sealing import OVERHEAD
from cloudconnect.content.slots import KeySlot, SlotKind, Stretch, open_slot, stretch
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import (
    ContextMismatch,
    ProtocolViolation,
    StoredDataDamaged,
    WrongPassphrase,
)
from cloudconnect.keys import KEY_SIZE, MasterKey, Password
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical

#: The version that this release writes; it reads every version up to this one.
VERSION: Final = 2
#: Largest encoded description, in bytes.
DESCRIPTION_MAX: Final = 16 << 10
#: Most key slots: each one that does not open costs its Argon2id.
SLOTS_MAX: Final = 16
#: Most earlier master keys: with all slots they still fit into an encoded description.
PREVIOUS_MAX: Final = 64
#: The highest revision: it is written with 8 hexadecimal digits.
REVISION_MAX: Final = (1 << 32) - 1

#: Fields that version 1 does not have.
_SINCE_2: Final = ("revision", "previous")
_WRAPPED_SIZE: Final = KEY_SIZE + OVERHEAD
_PURPOSE: Final = b"description"


@attrs.frozen(repr=False)
class PreviousMaster(Shown):
    """A master key that the repository had before, sealed for whoever has the newest one.

    :ivar public_key: what its restore points are signed with, 32 bytes
    :ivar id_check: 8 bytes, of its chunk ids
    :ivar wrapped: 72 bytes (:meth:`RepositoryKeys.seal_previous`)
    """

    public_key: bytes
    id_check: bytes
    wrapped: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        parts, sizes = attrs.astuple(self), (32, subkeys.ID_CHECK_SIZE, _WRAPPED_SIZE)
        if any(type(part) is not bytes for part in parts) or tuple(map(len, parts)) != sizes:
            raise ValueError("a field of an earlier master key has the wrong size")

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> PreviousMaster:
        """From CBOR values.

        :raises ProtocolViolation: fields missing or too many, or of the wrong size
        """
        try:
            return cls(**fields)
        except (TypeError, ValueError) as error:
            raise ProtocolViolation(f"an earlier master key cannot be used: {error}") from error


@attrs.frozen(kw_only=True, repr=False)
class RepositoryDescription(Shown):
    """What a repository is.

    :ivar repository: its 16 bytes
    :ivar mode: who can read it
    :ivar chunking: how its content is cut
    :ivar id_check: 8 bytes (:attr:`RepositoryKeys.id_check`)
    :ivar public_key: 32 bytes, Ed25519: what its restore points are signed with
    :ivar slots: ways to the master key, at most 16
    :ivar revision: how many descriptions of this repository there were before; 0 in version 1
    :ivar previous: its earlier master keys, the oldest first, at most 64
    :ivar signature: 64 bytes over the rest, or empty before it was signed
    """

    repository: bytes
    mode: EncryptionMode
    chunking: ChunkingParameters
    id_check: bytes
    public_key: bytes
    slots: tuple[KeySlot, ...] = ()
    revision: int = 0
    previous: tuple[PreviousMaster, ...] = ()
    version: int = VERSION
    signature: bytes = attrs.field(default=b"", repr=False)

    def __attrs_post_init__(self) -> None:
        sizes = {
            "repository": (subkeys.IDENTIFIER_SIZE,),
            "id_check": (subkeys.ID_CHECK_SIZE,),
            "public_key": (32,),
            "signature": (0, 64),
        }
        for name, allowed in sizes.items():
            value = getattr(self, name)
            if type(value) is not bytes or len(value) not in allowed:
                raise ValueError(f"the field {name} of a repository's description is wrong")
        if type(self.version) is not int or not 1 <= self.version <= VERSION:
            raise ValueError("a newer release is needed for this repository's description")
        if type(self.revision) is not int or not 0 <= self.revision <= REVISION_MAX:
            raise ValueError("the revision of a repository's description is out of bounds")
        if self.version == 1 and (self.revision or self.previous):
            raise ValueError("version 1 of a repository's description has no revisions")
        if len(self.previous) > PREVIOUS_MAX:
            raise ValueError(f"a repository has at most {PREVIOUS_MAX} earlier master keys")
        if len(set(self.public_keys)) != len(self.public_keys):
            raise ValueError("a repository's description names a master key twice")
        if len(self.slots) > SLOTS_MAX:
            raise ValueError(f"a repository has at most {SLOTS_MAX} key slots")
        if self.mode is EncryptionMode.TENANT and any(
            slot.kind is SlotKind.OPEN for slot in self.slots
        ):
            raise ValueError("a repository that only its tenant can read has an open key slot")

    @property
    def public_keys(self) -> tuple[bytes, ...]:
        """What the repository's restore points are signed with, the oldest first."""
        return (*(master.public_key for master in self.previous), self.public_key)

    def encode(self) -> bytes:
        """As canonical CBOR, at most 16 KiB.

        :raises ValueError: longer
        """
        encoded = canonical.encode(self._map())
        if len(encoded) > DESCRIPTION_MAX:
            raise ValueError(f"a repository's description has at most {DESCRIPTION_MAX} bytes")
        return encoded

    @classmethod
    def decode(cls, encoded: bytes) -> RepositoryDescription:
        """The other way round. Nothing of it is proven yet: see :func:`unlock`.

        :raises ProtocolViolation: not a description, too long, or of a newer version
        """
        if len(encoded) > DESCRIPTION_MAX:
            raise ProtocolViolation(f"a repository's description has over {DESCRIPTION_MAX} bytes")
        fields = canonical.decode_map(encoded, max_depth=4, max_items=1024)
        try:
            named = set(attrs.fields_dict(cls))
            if fields.get("version") == 1:
                named.difference_update(_SINCE_2)
            lists = [type(fields[name]) is list for name in ("slots", "previous") if name in named]
            if set(fields) != named or not all(lists):
                raise ValueError("it has other fields")
            return cls(
                **{
                    **fields,
                    "mode": EncryptionMode(fields["mode"]),
                    "chunking": ChunkingParameters.from_map(fields["chunking"]),
                    "slots": tuple(KeySlot.from_map(slot) for slot in fields["slots"]),
                    "previous": tuple(map(PreviousMaster.from_map, fields.get("previous", ()))),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(
                f"a repository's description cannot be used: {error}"
            ) from error

    def signed(self, keys: RepositoryKeys) -> RepositoryDescription:
        """This description with its signature made anew, after a change."""
        return attrs.evolve(self, signature=keys.sign(self._unsigned(), _PURPOSE))

    def verify(self, keys: RepositoryKeys) -> None:
        """Check that the holder of the master key wrote it as it stands.

        :raises StoredDataDamaged: it does not
        """
        if (keys.public_key, keys.id_check) != (self.public_key, self.id_check):
            raise StoredDataDamaged("the repository's description belongs to another master key")
        self.verify_signature()

    def verify_signature(self) -> None:
        """Check that the holder of its own public key wrote it: all that the provider can see.

        :raises StoredDataDamaged: it did not
        """
        subkeys.verify(self.public_key, self.signature, self._unsigned(), _PURPOSE)

    def _map(self) -> dict[str, Any]:
        fields = {
            "version": self.version,
            "repository": self.repository,
            "mode": self.mode.value,
            "chunking": self.chunking.as_map(),
            "id_check": self.id_check,
            "public_key": self.public_key,
            "slots": [slot.as_map() for slot in self.slots],
            "signature": self.signature,
        }
        if self.version > 1:
            previous = [attrs.asdict(master) for master in self.previous]
            fields.update(revision=self.revision, previous=previous)
        return fields

    def _unsigned(self) -> bytes:
        return canonical.encode({**self._map(), "signature": b""})


def describe(
    master: MasterKey,
    repository: bytes,
    mode: EncryptionMode,
    slots: tuple[KeySlot, ...],
    chunking: ChunkingParameters | None = None,
) -> RepositoryDescription:
    """The signed description of a new repository.

    :param repository: 16 random bytes
    """
    keys = RepositoryKeys(master, repository, mode)
    return RepositoryDescription(
        repository=repository,
        mode=mode,
        chunking=chunking or ChunkingParameters(),
        id_check=keys.id_check,
        public_key=keys.public_key,
        slots=slots,
    ).signed(keys)


def unlock(
    description: RepositoryDescription, mode: EncryptionMode, passphrase: Password | None
) -> MasterKey:
    """The newest master key, once it has confirmed that ``description`` is genuine.

    :param mode: the mode that the tenant chose, from its profile or the recovery kit: a provider
        must not be able to talk a machine out of encryption
    :param passphrase: or the content of a key file; None where no slot needs one
    :raises ContextMismatch: the description says another mode
    :raises WrongPassphrase: no slot opens with it
    :raises StoredDataDamaged: a slot opens, but the description was changed
    """
    return unlock_slot(description, mode, passphrase)[0]


def unlock_slot(
    description: RepositoryDescription,
    mode: EncryptionMode,
    passphrase: Password | None,
    stretch: Stretch = stretch,
) -> tuple[MasterKey, KeySlot]:
    """As :func:`unlock`, and the slot that has opened.

    :param stretch: as for :func:`~cloudconnect.content.slots.open_slot`
    """
    check_mode(description, mode)
    for slot in description.slots:
        try:
            master = open_slot(slot, description.repository, passphrase, stretch)
        except WrongPassphrase:
            continue
        description.verify(RepositoryKeys(master, description.repository, mode))
        return master, slot
    raise WrongPassphrase("the encryption passphrase or key file does not open this repository")


def check_mode(description: RepositoryDescription, mode: EncryptionMode) -> None:
    """Compare the mode that the provider says with the one that the tenant chose.

    :raises ContextMismatch: they differ
    """
    if description.mode is not mode:
        raise ContextMismatch(
            f"the provider says that this repository's encryption is {description.mode.value}, and "
            f"what this machine was told is {mode.value} (by its profile, --encryption, or because "
            "tenant is the default)"
        )
