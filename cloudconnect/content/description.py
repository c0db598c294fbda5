"""Layer 1: a repository's description: what the provider keeps of it for any new machine.

Made once at ``connect``, changed only when key slots are. The provider hands it out before a
tenant can check anything of it, so everything in it is bounded, and :func:`unlock` believes it only
once the master key has confirmed the signature.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from cloudconnect.content import subkeys
from cloudconnect.content.chunking import ChunkingParameters
from cloudconnect.content.slots import KeySlot, SlotKind, open_slot
from cloudconnect.content.subkeys import EncryptionMode, RepositoryKeys
from cloudconnect.errors import (
    ContextMismatch,
    ProtocolViolation,
    StoredDataDamaged,
    WrongPassphrase,
)
from cloudconnect.keys import MasterKey, Password
from cloudconnect.wire import canonical

#: The version that this release writes and reads.
VERSION: Final = 1
#: Largest encoded description, in bytes.
DESCRIPTION_MAX: Final = 16 << 10
#: Most key slots: each one that does not open costs its Argon2id.
SLOTS_MAX: Final = 16

_PURPOSE: Final = b"description"


@attrs.frozen(kw_only=True)
class RepositoryDescription:
    """What a repository is.

    :ivar repository: its 16 bytes
    :ivar mode: who can read it
    :ivar chunking: how its content is cut
    :ivar id_check: 8 bytes (:attr:`RepositoryKeys.id_check`)
    :ivar public_key: 32 bytes, Ed25519: what its restore points are signed with
    :ivar slots: ways to the master key, at most 16
    :ivar signature: 64 bytes over the rest, or empty before it was signed
    """

    repository: bytes
    mode: EncryptionMode
    chunking: ChunkingParameters
    id_check: bytes
    public_key: bytes
    slots: tuple[KeySlot, ...] = ()
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
        if self.version != VERSION or type(self.version) is not int:
            raise ValueError("a newer release is needed for this repository's description")
        if len(self.slots) > SLOTS_MAX:
            raise ValueError(f"a repository has at most {SLOTS_MAX} key slots")
        if self.mode is EncryptionMode.TENANT and any(
            slot.kind is SlotKind.OPEN for slot in self.slots
        ):
            raise ValueError("a repository that only its tenant can read has an open key slot")

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
        fields = canonical.decode_map(encoded, max_depth=4, max_items=512)
        try:
            if set(fields) != set(attrs.fields_dict(cls)) or type(fields["slots"]) is not list:
                raise ValueError("it has other fields")
            return cls(
                **{
                    **fields,
                    "mode": EncryptionMode(fields["mode"]),
                    "chunking": ChunkingParameters.from_map(fields["chunking"]),
                    "slots": tuple(KeySlot.from_map(slot) for slot in fields["slots"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(
                f"a repository's description cannot be used: {error}"
            ) from error

    def signed(self, keys: RepositoryKeys) -> RepositoryDescription:
        """This description with its signature made anew, after a change of slots."""
        return attrs.evolve(self, signature=keys.sign(self._unsigned(), _PURPOSE))

    def verify(self, keys: RepositoryKeys) -> None:
        """Check that the holder of the master key wrote it as it stands.

        :raises StoredDataDamaged: it does not
        """
        if (keys.public_key, keys.id_check) != (self.public_key, self.id_check):
            raise StoredDataDamaged("the repository's description belongs to another master key")
        subkeys.verify(self.public_key, self.signature, self._unsigned(), _PURPOSE)

    def _map(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "repository": self.repository,
            "mode": self.mode.value,
            "chunking": self.chunking.as_map(),
            "id_check": self.id_check,
            "public_key": self.public_key,
            "slots": [slot.as_map() for slot in self.slots],
            "signature": self.signature,
        }

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
    """The master key, once it has confirmed that ``description`` is genuine.

    :param mode: the mode that the tenant chose, from its profile or the recovery kit: a provider
        must not be able to talk a machine out of encryption
    :param passphrase: or the content of a key file; None where no slot needs one
    :raises ContextMismatch: the description says another mode
    :raises WrongPassphrase: no slot opens with it
    :raises StoredDataDamaged: a slot opens, but the description was changed
    """
    if description.mode is not mode:
        raise ContextMismatch(
            f"the provider says that this repository's encryption is {description.mode.value},"
            f" but it was made as {mode.value}"
        )
    for slot in description.slots:
        try:
            master = open_slot(slot, description.repository, passphrase)
        except WrongPassphrase:
            continue
        description.verify(RepositoryKeys(master, description.repository, mode))
        return master
    raise WrongPassphrase("the encryption passphrase or key file does not open this repository")
