"""Layer 1: key slots: a repository's master key, wrapped (``docs/repository-format.rst``).

A passphrase or the content of a key file goes through Argon2id (RFC 9106) to 64 bytes. The first
half is the AES-256-GCM key that wraps the master key; the second half is stored beside it as a
commitment, because AES-GCM alone could be made to open under several passphrases at once, which
would let whoever stores the slot test many guesses with one of the tenant's logins.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from cloudconnect.errors import ProtocolViolation, WrongPassphrase
from cloudconnect.keys import KEY_SIZE, MasterKey, Password
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical

#: Most iterations of Argon2id that are computed for a slot that somebody else stored.
ITERATIONS_MAX: Final = 64
#: Most lanes, likewise.
LANES_MAX: Final = 64
#: Most memory, likewise, in KiB: 1 GiB.
MEMORY_KIB_MAX: Final = 1 << 20

_SALT_SIZE: Final = 16
_NONCE_SIZE: Final = 12
_WRAPPED_SIZE: Final = _NONCE_SIZE + KEY_SIZE + 16
_LABEL: Final = b"cloudconnect/1 slot"


class SlotKind(StrEnum):
    """What opens a slot."""

    PASSPHRASE = "passphrase"  # noqa: S105 - a word, not one of them
    KEY_FILE = "key-file"
    #: Nothing: the master key stands there in clear. Only where the provider may read (``provider``
    #: and ``none``), where the keys name and sign chunks but seal no content.
    OPEN = "open"


@attrs.frozen(repr=False)
class Argon2Costs(Shown):
    """What one guess at a passphrase costs; the defaults are RFC 9106's second recommendation.

    :ivar iterations: passes over the memory, 1 to 64
    :ivar lanes: parallel lanes, 1 to 64
    :ivar memory_kib: memory in KiB, 8 for each lane to 1 GiB
    """

    iterations: int = 3
    lanes: int = 4
    memory_kib: int = 65536

    def __attrs_post_init__(self) -> None:
        if not all(type(value) is int for value in attrs.astuple(self)):
            raise ValueError("the costs of Argon2id are integers")
        if not (1 <= self.iterations <= ITERATIONS_MAX and 1 <= self.lanes <= LANES_MAX):
            raise ValueError("a key slot asks for too many or no iterations or lanes of Argon2id")
        if not 8 * self.lanes <= self.memory_kib <= MEMORY_KIB_MAX:
            raise ValueError(f"a key slot asks for {self.memory_kib} KiB of memory for Argon2id")


@attrs.frozen(repr=False)
class KeySlot(Shown):
    """One way to a repository's master key.

    :ivar identifier: 16 hexadecimal digits, random: what ``key remove`` names
    :ivar kind: what opens it
    :ivar argon2: the costs; None for an open slot
    :ivar salt: 16 bytes; empty for an open slot
    :ivar commitment: 32 bytes that only the right passphrase gives; empty for an open slot
    :ivar wrapped: nonce 12, ciphertext 32, tag 16; for an open slot the master key
    """

    identifier: str
    kind: SlotKind
    argon2: Argon2Costs | None
    salt: bytes
    commitment: bytes
    wrapped: bytes = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        sizes = (_SALT_SIZE, KEY_SIZE, _WRAPPED_SIZE)
        if self.kind is SlotKind.OPEN:
            sizes = (0, 0, KEY_SIZE)
        octets = (self.salt, self.commitment, self.wrapped)
        if any(type(part) is not bytes for part in octets) or sizes != tuple(map(len, octets)):
            raise ValueError("a field of a key slot has the wrong size")
        if (self.argon2 is None) != (self.kind is SlotKind.OPEN):
            raise ValueError("a key slot has Argon2id costs unless it is open")
        if not isinstance(self.identifier, str) or not 1 <= len(self.identifier) <= 32:
            raise ValueError("a key slot's identifier has 1 to 32 characters")

    def as_map(self) -> dict[str, Any]:
        """The fields as CBOR values."""
        fields = attrs.asdict(self)
        fields["kind"] = self.kind.value
        return fields

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> KeySlot:
        """The other way round; the costs are bounded before anything is computed.

        :raises ProtocolViolation: fields missing or too many, or values out of bounds
        """
        try:
            costs = fields["argon2"]
            if costs is not None:
                if set(costs) != set(attrs.fields_dict(Argon2Costs)):
                    raise ValueError("its costs are incomplete")
                costs = Argon2Costs(**costs)
            return cls(**{**fields, "kind": SlotKind(fields["kind"]), "argon2": costs})
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolViolation(f"a key slot cannot be used: {error}") from error


def stretch(passphrase: Password, salt: bytes, costs: Argon2Costs) -> tuple[bytes, bytes]:
    """The key that wraps a slot's master key, and the commitment to it, 32 bytes each.

    Takes about a quarter of a second with usual costs.
    """
    octets = Argon2id(
        salt=salt,
        length=2 * KEY_SIZE,
        iterations=costs.iterations,
        lanes=costs.lanes,
        memory_cost=costs.memory_kib,
    ).derive(passphrase.reveal())
    return octets[:KEY_SIZE], octets[KEY_SIZE:]


#: What :func:`stretch` does, or somebody who may know the result.
Stretch = Callable[[Password, bytes, Argon2Costs], tuple[bytes, bytes]]


def make_slot(
    master: MasterKey,
    repository: bytes,
    passphrase: Password,
    kind: SlotKind = SlotKind.PASSPHRASE,
    costs: Argon2Costs | None = None,
) -> KeySlot:
    """Wrap ``master`` under ``passphrase``; takes about a quarter of a second with usual costs.

    :param repository: the repository's 16 bytes
    :param passphrase: what a person types, or the content of a key file
    :param costs: other costs than the default ones
    """
    _check_master(master)
    costs = costs or Argon2Costs()
    identifier, salt, nonce = os.urandom(8).hex(), os.urandom(_SALT_SIZE), os.urandom(_NONCE_SIZE)
    key, commitment = stretch(passphrase, salt, costs)
    associated = _associated(identifier, kind, costs, salt, commitment, repository)
    wrapped = nonce + AESGCM(key).encrypt(nonce, master.reveal(), associated)
    return KeySlot(identifier, kind, costs, salt, commitment, wrapped)


def make_open_slot(master: MasterKey) -> KeySlot:
    """A slot that anybody opens who can read it: for modes in which the provider may read."""
    _check_master(master)
    return KeySlot(os.urandom(8).hex(), SlotKind.OPEN, None, b"", b"", master.reveal())


def open_slot(
    slot: KeySlot, repository: bytes, passphrase: Password | None, stretch: Stretch = stretch
) -> MasterKey:
    """The master key in ``slot``.

    :param repository: the repository's 16 bytes
    :param passphrase: not needed for an open slot
    :param stretch: may know already what the function of this name would return
    :raises WrongPassphrase: this passphrase or key file does not open it
    """
    if slot.argon2 is None:
        return MasterKey(slot.wrapped)
    if passphrase is None:
        raise WrongPassphrase("this repository needs its encryption passphrase or key file")
    key, commitment = stretch(passphrase, slot.salt, slot.argon2)
    associated = _associated(
        slot.identifier, slot.kind, slot.argon2, slot.salt, slot.commitment, repository
    )
    try:
        if not hmac.compare_digest(commitment, slot.commitment):
            raise InvalidTag
        nonce, wrapped = slot.wrapped[:_NONCE_SIZE], slot.wrapped[_NONCE_SIZE:]
        return MasterKey(AESGCM(key).decrypt(nonce, wrapped, associated))
    except InvalidTag:
        raise WrongPassphrase(
            f"the encryption passphrase or key file does not open key slot {slot.identifier}"
        ) from None


def _check_master(master: MasterKey) -> None:
    if not isinstance(master, MasterKey):
        raise TypeError("a key slot holds a repository's master key, and no other key")


def _associated(
    identifier: str,
    kind: SlotKind,
    costs: Argon2Costs,
    salt: bytes,
    commitment: bytes,
    repository: bytes,
) -> bytes:
    """What the wrapping is bound to: the other fields of the slot, and the repository."""
    fields = {
        "identifier": identifier,
        "kind": kind.value,
        "argon2": attrs.asdict(costs),
        "salt": salt,
        "commitment": commitment,
        "repository": repository,
    }
    return _LABEL + canonical.encode(fields)
