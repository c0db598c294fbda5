"""Layer 1: the chain of heads: what a tenant can hold a repository's past against.

Each restore point, and each new description, appends one signed entry, which names the entry
before it by its hash. Whoever has seen an entry notices when the provider later shows a shorter
chain or another one (``docs/repository-format.rst``, heads). Pure:
:mod:`cloudconnect.repository.heads` keeps a chain, :mod:`cloudconnect.backup.heads` remembers how
far it was seen.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, Final

import attrs

from cloudconnect.content import subkeys
from cloudconnect.content.subkeys import IDENTIFIER_SIZE, RepositoryKeys
from cloudconnect.errors import ProtocolViolation, StoredDataDamaged
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical

#: The version that this release writes and reads.
VERSION: Final = 1
#: Largest encoded entry, in bytes; it has some 250.
HEAD_MAX: Final = 512
#: Bytes of the hash by which an entry is named.
CHAIN_SIZE: Final = 32
#: What the first entry names in the place of one before it.
NOTHING: Final = bytes(CHAIN_SIZE)
#: The highest number: what a signed column of 64 bits, and JSON's numbers, hold.
NUMBER_MAX: Final = (1 << 53) - 1

_PURPOSE: Final = b"head"


class HeadKind(StrEnum):
    """What an entry is about."""

    POINT = "point"
    DESCRIPTION = "description"


@attrs.frozen(kw_only=True, repr=False)
class HeadEntry(Shown):
    """One link of the chain.

    :ivar repository: its 16 bytes
    :ivar number: counts from 1
    :ivar previous: the hash of the entry before it, 32 bytes; zeros in the first one
    :ivar kind: what it is about
    :ivar point: the restore point's 16 bytes, or empty
    :ivar digest: SHA-256 of the encoded record or description, 32 bytes
    :ivar key: the public key that signs what comes next, 32 bytes: of a description; else empty
    """

    repository: bytes
    number: int
    previous: bytes
    kind: HeadKind
    point: bytes = b""
    digest: bytes
    key: bytes = b""
    version: int = VERSION

    def __attrs_post_init__(self) -> None:
        about_point = self.kind is HeadKind.POINT
        sizes = {
            "repository": IDENTIFIER_SIZE,
            "previous": CHAIN_SIZE,
            "point": IDENTIFIER_SIZE if about_point else 0,
            "digest": 32,
            "key": 0 if about_point else 32,
        }
        for name, size in sizes.items():
            value = getattr(self, name)
            if type(value) is not bytes or len(value) != size:
                raise ValueError(f"the field {name} of a head is wrong")
        if type(self.version) is not int or self.version != VERSION:
            raise ValueError("a newer release is needed for this head")
        if type(self.number) is not int or not 1 <= self.number <= NUMBER_MAX:
            raise ValueError("the number of a head is out of bounds")
        if (self.number == 1) is not (self.previous == NOTHING):
            raise ValueError("only the first head has nothing before it")

    def encode(self) -> bytes:
        """As canonical CBOR."""
        return canonical.encode({**attrs.asdict(self), "kind": self.kind.value})

    @classmethod
    def decode(cls, encoded: bytes) -> HeadEntry:
        """The other way round; that it is signed is the caller's to check.

        :raises ProtocolViolation: not a head, too long, or of a newer version
        """
        if len(encoded) > HEAD_MAX:
            raise ProtocolViolation(f"a head has at most {HEAD_MAX} bytes")
        fields = canonical.decode_map(encoded, max_depth=1, max_items=32)
        try:
            if set(fields) != set(attrs.fields_dict(cls)):
                raise ValueError("it has other fields")
            return cls(**{**fields, "kind": HeadKind(fields["kind"])})
        except (TypeError, ValueError) as error:
            raise ProtocolViolation(f"a head cannot be used: {error}") from error


@attrs.frozen(repr=False)
class SignedHead(Shown):
    """An entry as it is sent and stored.

    :ivar encoded: the bytes that were signed
    :ivar signature: 64 bytes
    """

    encoded: bytes
    signature: bytes

    @property
    def entry(self) -> HeadEntry:
        """What it says.

        :raises ProtocolViolation: nothing that can be read
        """
        return HeadEntry.decode(self.encoded)

    @property
    def value(self) -> bytes:
        """The hash by which the next entry names this one: 32 bytes."""
        return hashlib.sha256(self.encoded).digest()


@attrs.frozen(kw_only=True, repr=False)
class Chain(Shown):
    """How far a chain has come.

    :ivar repository: its 16 bytes
    :ivar key: the public key that signs the next entry, 32 bytes
    :ivar number: of the newest entry; 0 where there is none
    :ivar value: its hash, 32 bytes
    :ivar description: SHA-256 of the newest description that an entry is about, or empty
    """

    repository: bytes
    key: bytes
    number: int = 0
    value: bytes = NOTHING
    description: bytes = b""

    def follow(self, head: SignedHead) -> Chain:
        """The chain with ``head`` at its end.

        :raises ProtocolViolation: it cannot be read
        :raises StoredDataDamaged: it does not continue this chain, or has no good signature
        """
        entry = head.entry
        if entry.repository != self.repository:
            raise StoredDataDamaged("a head is of another repository")
        if (entry.number, entry.previous) != (self.number + 1, self.value):
            raise StoredDataDamaged(f"head {entry.number} does not follow head {self.number}")
        subkeys.verify(self.key, head.signature, head.encoded, _PURPOSE)
        changes: dict[str, Any] = {"number": entry.number, "value": head.value}
        if entry.kind is HeadKind.DESCRIPTION:
            changes.update(key=entry.key, description=entry.digest)
        return attrs.evolve(self, **changes)

    def next_point(self, keys: RepositoryKeys, point: bytes, record: bytes) -> SignedHead:
        """The entry of a new restore point.

        :param point: its 16 bytes
        :param record: its encoded record
        """
        digest = hashlib.sha256(record).digest()
        return self._next(keys, kind=HeadKind.POINT, point=point, digest=digest)

    def next_description(self, keys: RepositoryKeys, encoded: bytes, key: bytes) -> SignedHead:
        """The entry of a new description.

        :param keys: those before it: they sign
        :param encoded: the description
        :param key: its public key, which signs what comes next
        """
        digest = hashlib.sha256(encoded).digest()
        return self._next(keys, kind=HeadKind.DESCRIPTION, digest=digest, key=key)

    def _next(self, keys: RepositoryKeys, **fields: Any) -> SignedHead:
        entry = HeadEntry(
            repository=self.repository, number=self.number + 1, previous=self.value, **fields
        )
        encoded = entry.encode()
        return SignedHead(encoded, keys.sign(encoded, _PURPOSE))


def first_chain(keys: RepositoryKeys) -> Chain:
    """A repository's chain before its first entry: the oldest generation signs."""
    oldest = (*keys.older, keys)[0]
    return Chain(repository=keys.repository, key=oldest.public_key)
