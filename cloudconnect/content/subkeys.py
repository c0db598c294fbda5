"""Layer 1: everything that stands at rest is named, sealed and signed here.

One random master key for each repository, wrapped in key slots, and from it one subkey for each
purpose (``docs/repository-format.rst``, key hierarchy). None of them is derived from a key of a
session, and no session key opens anything here: the constructor takes a :class:`MasterKey` only.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, Literal, TypeVar

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from cloudconnect.content.compression import compress, decompress
from cloudconnect.content.sealing import Opener, Sealer
from cloudconnect.errors import StoredDataDamaged
from cloudconnect.keys import MasterKey, Subkey, hkdf
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import SEALED, Coding, StoredBlob

#: Bytes that name a repository, a restore point, a session.
IDENTIFIER_SIZE: Final = 16
#: Bytes of the value that tells whether two sides name chunks with the same key.
ID_CHECK_SIZE: Final = 8
#: Most paths in the private part of a restore point: those that were given to one backup.
PATHS_MAX: Final = 4096

_T = TypeVar("_T")

BlobKind = Literal["chunk", "manifest"]
_KIND_OCTETS: Final = {"chunk": b"\x05chunk", "manifest": b"\x08manifest"}
_INFO: Final = b"cloudconnect/1 at-rest "


class EncryptionMode(StrEnum):
    """Who can read what is stored; chosen once, when the repository is made."""

    TENANT = "tenant"
    PROVIDER = "provider"
    NONE = "none"


class RepositoryKeys:
    """The keys of one repository, each for one purpose; safe to use from several threads.

    :param master: the repository's master key; not kept
    :param repository: the repository's 16 bytes
    :param mode: in TENANT mode blobs are sealed, and only sealed ones are opened; in the others
        they are compressed only, and the provider's mover seals them with a key of its own
        (:meth:`seal_stored`) or not at all
    :param older: the keys of this repository's earlier master keys, the oldest first
        (:mod:`cloudconnect.content.generations`); what they signed is read with them
    :ivar head: key for what a tenant keeps of a repository's newest state
    """

    def __init__(
        self,
        master: MasterKey,
        repository: bytes,
        mode: EncryptionMode = EncryptionMode.TENANT,
        older: Sequence[RepositoryKeys] = (),
    ) -> None:
        if not isinstance(master, MasterKey):
            raise TypeError("a repository's keys come from its master key only")
        if len(repository) != IDENTIFIER_SIZE:
            raise ValueError(f"a repository is named by {IDENTIFIER_SIZE} bytes")
        self.repository = bytes(repository)
        self.mode = mode
        self.older = tuple(older)
        self._last: RepositoryKeys | None = None  # the generation that has opened something last

        def subkey(purpose: bytes) -> Subkey:
            return Subkey(hkdf(master.reveal(), _INFO + purpose + self.repository))

        self._name_keys = {"chunk": subkey(b"chunk_ids"), "manifest": subkey(b"manifest_ids")}
        data_keys = {"chunk": subkey(b"chunk_data"), "manifest": subkey(b"manifest_data")}
        self._sealers = {kind: Sealer(key) for kind, key in data_keys.items()}
        self._openers = {kind: Opener(key) for kind, key in data_keys.items()}
        private = subkey(b"private")
        self._private_sealer, self._private_opener = Sealer(private), Opener(private)
        previous = subkey(b"previous")
        self._previous_sealer, self._previous_opener = Sealer(previous), Opener(previous)
        self.head = subkey(b"head")
        self._signing = Ed25519PrivateKey.from_private_bytes(subkey(b"signing").reveal())
        self.public_key = self._signing.public_key().public_bytes_raw()

    @property
    def sealing(self) -> bool:
        """Whether blobs leave this side sealed."""
        return self.mode is EncryptionMode.TENANT

    @property
    def id_check(self) -> bytes:
        """8 bytes that are the same exactly where chunks are named with the same key."""
        return self.blob_id("chunk", b"id-check")[:ID_CHECK_SIZE]

    def chunk_id(self, data: bytes | bytearray | memoryview) -> bytes:
        """The 32 bytes that name a chunk of content: keyed BLAKE3 of its plain bytes."""
        return blake3(data, key=self._name_keys["chunk"].reveal()).digest()

    def manifest_id(self, data: bytes | bytearray | memoryview) -> bytes:
        """The 32 bytes that name a chunk of a manifest, likewise with a key of its own."""
        return blake3(data, key=self._name_keys["manifest"].reveal()).digest()

    def blob_id(self, kind: BlobKind, data: bytes | bytearray | memoryview) -> bytes:
        """:meth:`chunk_id` or :meth:`manifest_id`."""
        return blake3(data, key=self._name_keys[kind].reveal()).digest()

    def seal_blob(
        self,
        kind: BlobKind,
        plain: bytes | memoryview,
        level: int,
        name: bytes,
    ) -> StoredBlob:
        """Compress and, in TENANT mode, seal.

        :param plain: 1 to CHUNK_MAX bytes; without a seal and compression they are in the result
        :param level: of compression, 0 to 19; 0 does not compress
        :param name: what :meth:`blob_id` says, 32 bytes
        """
        frame = compress(plain, level)
        coding = Coding.PLAIN if frame is None else Coding.ZSTD
        blob = StoredBlob(name, len(plain), coding, b"", plain if frame is None else frame)
        return self.seal_stored(kind, blob) if self.sealing else _digested(blob)

    def open_blob(self, kind: BlobKind, blob: StoredBlob, digested: bool = False) -> bytes:
        """The plain bytes, once everything that can be checked was checked.

        What an older generation has sealed is opened too. As the name is checked with the key of
        the same generation, who has an older key cannot put anything in the place of a newer blob.

        :param digested: that its stored bytes have their digest was seen just now, as a frame
            reader sees to it; seal and name are checked all the same
        :raises StoredDataDamaged: the digest, the seal, the compression, the length or the name is
            wrong, or it is sealed where it should not be or the other way round
        """
        if bool(blob.coding & SEALED) is not self.sealing:
            raise StoredDataDamaged(f"a {kind} is not stored in the mode of this repository")
        if not digested:
            _check_digest(kind, blob)
        return self._by_any(lambda keys: keys._open_own(kind, blob))

    def _open_own(self, kind: BlobKind, blob: StoredBlob) -> bytes:
        if self.sealing:
            blob = self._unsealed(kind, blob)
        if blob.coding == Coding.PLAIN:
            plain = bytes(blob.data)
        elif blob.coding == Coding.ZSTD:
            plain = decompress(blob.data, blob.plain_length)
        else:
            raise StoredDataDamaged(f"a {kind} is stored in an unknown coding")
        if len(plain) != blob.plain_length or self.blob_id(kind, plain) != blob.id:
            raise StoredDataDamaged(f"a {kind} does not have the content that its name says")
        return plain

    def _by_any(self, attempt: Callable[[RepositoryKeys], _T]) -> _T:
        """What the first generation that can do it makes; the last one that could is asked first.

        :raises StoredDataDamaged: none can: why the newest cannot
        """
        last = self._last or self
        error: StoredDataDamaged | None = None
        for keys in (last, self, *reversed(self.older)):
            if keys is last and error is not None:
                continue
            try:
                result = attempt(keys)
            except StoredDataDamaged as failed:
                error = failed if error is None or keys is self else error
                continue
            self._last = keys
            return result
        assert error is not None
        raise error

    def seal_stored(self, kind: BlobKind, blob: StoredBlob) -> StoredBlob:
        """``blob`` sealed with the data key of its kind; what it was before is kept inside.

        :raises ValueError: it is sealed already
        """
        if blob.coding & SEALED:
            raise ValueError(f"a {kind} is sealed once only")
        coding = Coding(blob.coding | SEALED)
        data = self._sealers[kind].seal(blob.data, _associated(kind, blob, coding))
        return StoredBlob(blob.id, blob.plain_length, coding, blake3(data).digest(), data)

    def unseal_stored(self, kind: BlobKind, blob: StoredBlob) -> StoredBlob:
        """The blob that :meth:`seal_stored` was given.

        :raises StoredDataDamaged: the digest or the seal is wrong, or it is not sealed
        """
        _check_digest(kind, blob)
        if not blob.coding & SEALED:
            raise StoredDataDamaged(f"a {kind} is stored without a seal")
        return _digested(self._unsealed(kind, blob))

    def _unsealed(self, kind: BlobKind, blob: StoredBlob) -> StoredBlob:
        data = self._openers[kind].open(blob.data, _associated(kind, blob, blob.coding))
        return StoredBlob(blob.id, blob.plain_length, blob.coding & ~SEALED, b"", data)

    def seal_private(self, point: bytes, paths: Sequence[bytes]) -> bytes:
        """What of a restore point's record is nobody's business: the paths that were asked for.

        Sealed in every mode, bound to the point and the repository.

        :param point: the point's 16 bytes
        :raises ValueError: more than 4096 paths
        """
        if len(paths) > PATHS_MAX:
            raise ValueError(f"a backup is given at most {PATHS_MAX} paths")
        inside = canonical.encode({"paths": list(paths)})
        return bytes(self._private_sealer.seal(inside, point + self.repository))

    def open_private(self, point: bytes, private: bytes) -> tuple[bytes, ...]:
        """The paths that :meth:`seal_private` sealed.

        :raises StoredDataDamaged: it was not sealed for this point with this key
        """
        bound = point + self.repository
        inside = self._by_any(lambda keys: keys._private_opener.open(private, bound))
        paths = canonical.decode_map(inside, max_depth=2, max_items=PATHS_MAX + 3).get("paths")
        if not isinstance(paths, list) or not all(isinstance(path, bytes) for path in paths):
            raise StoredDataDamaged("the private part of a restore point is not a list of paths")
        return tuple(paths)

    def seal_previous(self, master: MasterKey, public_key: bytes) -> bytes:
        """An earlier master key, for whoever has this one: 72 bytes.

        :param public_key: what restore points of that master key are signed with, 32 bytes
        """
        if not isinstance(master, MasterKey):
            raise TypeError("an earlier master key is a master key, and no other key")
        return bytes(self._previous_sealer.seal(master.reveal(), self.repository + public_key))

    def open_previous(self, wrapped: bytes, public_key: bytes) -> MasterKey:
        """The master key that :meth:`seal_previous` sealed.

        :raises StoredDataDamaged: it was not sealed for this repository and public key by this one
        """
        return MasterKey(self._previous_opener.open(wrapped, self.repository + public_key))

    def sign(self, data: bytes, purpose: bytes = b"point") -> bytes:
        """Ed25519 (RFC 8032) over ``data`` for one purpose: 64 bytes."""
        return self._signing.sign(_signed(data, purpose))

    def signer(self, data: bytes, signature: bytes, purpose: bytes = b"point") -> RepositoryKeys:
        """The keys, these or older ones, that signed ``data``: with them it is read.

        :raises StoredDataDamaged: none of them did
        """
        generations = (*self.older, self)
        public_keys = [keys.public_key for keys in generations]
        return generations[public_keys.index(verify_any(public_keys, signature, data, purpose))]

    def __repr__(self) -> str:
        return f"<RepositoryKeys of {self.repository.hex()}, {self.mode.value}>"


def verify(public_key: bytes, signature: bytes, data: bytes, purpose: bytes = b"point") -> None:
    """Check what :meth:`RepositoryKeys.sign` made; returns nothing where it holds.

    :param public_key: 32 bytes
    :raises StoredDataDamaged: the signature is not that of this key over this data
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed(data, purpose))
    except (InvalidSignature, ValueError):
        raise StoredDataDamaged(f"the signature of a {purpose.decode()} does not hold") from None


def verify_any(
    public_keys: Sequence[bytes], signature: bytes, data: bytes, purpose: bytes = b"point"
) -> bytes:
    """Which of ``public_keys``, 32 bytes each, has signed ``data``.

    :raises StoredDataDamaged: none of them
    """
    for public_key in reversed(public_keys):  # most often the newest
        try:
            verify(public_key, signature, data, purpose)
        except StoredDataDamaged:
            continue
        return public_key
    raise StoredDataDamaged(f"the signature of a {purpose.decode()} does not hold")


def _signed(data: bytes, purpose: bytes) -> bytes:
    return b"cloudconnect/1 " + purpose + b"\x00" + data


def _associated(kind: BlobKind, blob: StoredBlob, coding: int) -> bytes:
    """What a seal is bound to, beside its key: kind, name, plain length, coding."""
    return _KIND_OCTETS[kind] + blob.id + blob.plain_length.to_bytes(4, "big") + bytes((coding,))


def _digested(blob: StoredBlob) -> StoredBlob:
    digest = blake3(blob.data).digest()
    return StoredBlob(blob.id, blob.plain_length, blob.coding, digest, blob.data)


def _check_digest(kind: BlobKind, blob: StoredBlob) -> None:
    if not hmac.compare_digest(blake3(blob.data).digest(), blob.digest):
        raise StoredDataDamaged(f"the stored bytes of a {kind} do not have their digest")
