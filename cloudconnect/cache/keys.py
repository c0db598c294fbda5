"""Layer 3: the keys of a block cache (``docs/wan.rst``, at rest).

A random cache key, which no session key derives or opens, lies beside the cache, sealed under a
node key that is kept off that disk. From it come one key for each segment, by the segment's random
salt, and the keys under which the index hides names: a stolen disk does not even say what is known.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloudconnect.content.sealing import OVERHEAD, Opener, Sealer
from cloudconnect.errors import StoredDataDamaged, UsageError
from cloudconnect.keys import KEY_SIZE, Secret, Subkey, hkdf, lp

#: Bytes of a name in the index.
MASKED_SIZE: Final = 16
#: Bytes of a segment's salt.
SALT_SIZE: Final = 32

_MAGIC: Final = b"CCWKEY01"
_SIZE: Final = len(_MAGIC) + OVERHEAD + KEY_SIZE
_LABEL: Final = b"cloudconnect/1 wan-cache "


class NodeKey(Secret):
    """The key of one host under which its caches' keys are sealed; kept off the caches' disk."""

    __slots__ = ()


class CacheKey(Secret):
    """The random key of one tenant's cache on one host."""

    __slots__ = ()


def read_node_key(path: Path, make: bool = False) -> NodeKey:
    """The node key in a file of exactly 32 bytes.

    :param path: the file
    :param make: make it, with mode 0600, where it is missing
    :raises UsageError: it is missing, cannot be read, has another size, or others may read it
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        if make and not os.path.lexists(path):  # to make one takes an fsync
            with contextlib.suppress(FileExistsError):
                _write(path, NodeKey.generate().reveal())
        descriptor = os.open(path, flags)
        try:
            octets = os.read(descriptor, KEY_SIZE + 1)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"the node key in {path} cannot be read: {error.strerror}") from error
    if status.st_mode & 0o077:
        raise UsageError(f"the node key in {path} can be read by others: chmod 600 {path}")
    if len(octets) != KEY_SIZE:
        raise UsageError(f"the node key in {path} does not have {KEY_SIZE} bytes")
    return NodeKey(octets)


def _write(path: Path, octets: bytes) -> None:
    """Make a file with these bytes; whole, or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(descriptor, octets)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(temporary, path)
    finally:
        temporary.unlink()


class CacheKeys:
    """What is derived from a cache key; safe to use from several threads.

    :param key: the cache key; not kept
    :param tenant: the tenant's name: what is sealed for one does not open for another
    """

    def __init__(self, key: CacheKey, tenant: str) -> None:
        self._tenant = lp(tenant.encode())
        self._segments = Subkey(hkdf(key.reveal(), _LABEL + b"segments" + self._tenant))
        self._names = Subkey(hkdf(key.reveal(), _LABEL + b"names" + self._tenant))
        self._features = Subkey(hkdf(key.reveal(), _LABEL + b"features" + self._tenant))

    def cipher(self, salt: bytes) -> AESGCM:
        """The cipher of the segment with this salt, 32 random bytes."""
        return AESGCM(hkdf(self._segments.reveal(), _LABEL + b"segment", salt=salt))

    def associated(self, name: bytes) -> bytes:
        """What a block is bound to: tenant and name."""
        return self._tenant + name

    def masked(self, name: bytes) -> bytes:
        """How the index calls a block: 16 bytes that say nothing of its name."""
        return blake3(name, key=self._names.reveal()).digest(MASKED_SIZE)

    def masked_feature(self, feature: int) -> int:
        """How the index calls a feature: 63 bits that say nothing of it."""
        octets = blake3(feature.to_bytes(8, "big"), key=self._features.reveal()).digest(8)
        return int.from_bytes(octets, "big") >> 1


def open_keys(directory: Path, tenant: str, node: NodeKey) -> CacheKeys | None:
    """The keys of the cache in ``directory``.

    :return: None where there are none, or they are another tenant's, another host's, or damaged
    """
    try:
        octets = (directory / "key").read_bytes()
        if len(octets) != _SIZE or not octets.startswith(_MAGIC):
            return None
        sealed = octets[len(_MAGIC) :]
        key = CacheKey(Opener(Subkey(node.reveal())).open(sealed, _associated(tenant)))
    except (OSError, StoredDataDamaged):
        return None
    return CacheKeys(key, tenant)


def make_keys(directory: Path, tenant: str, node: NodeKey) -> CacheKeys:
    """New keys for a cache in ``directory`` that has none.

    :raises OSError: they cannot be written
    """
    key = CacheKey.generate()
    sealed = Sealer(Subkey(node.reveal())).seal(key.reveal(), _associated(tenant))
    _write(directory / "key", _MAGIC + bytes(sealed))
    return CacheKeys(key, tenant)


def _associated(tenant: str) -> bytes:
    return _LABEL + b"key" + lp(tenant.encode())
