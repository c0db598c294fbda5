"""Layer 3: the file in which a machine remembers a repository's heads.

A map in canonical CBOR, and behind it an HMAC-SHA256 under the repository's subkey ``head``: the
file is worth changing to whoever wants a machine to forget a point. It is written whole or not at
all, and never goes back: of two commands at once the one that has seen more decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import hmac
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.content.heads import Chain
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import StoredDataDamaged, UsageError
from cloudconnect.shown import Shown
from cloudconnect.wire import canonical

#: Largest file, in bytes: of some 5 million points.
FILE_MAX: Final = 256 << 20
#: Pairs of host and job whose newest own point is remembered.
OWN_MAX: Final = 1000

#: The version that is written; version 1 has no digests.
_VERSION: Final = 2
_LABEL: Final = b"cloudconnect/1 known heads"
_MAC_SIZE: Final = 32


@attrs.frozen(repr=False)
class Known(Shown):
    """What is remembered.

    :ivar chain: how far it was seen
    :ivar points: the points of the heads 1 to ``chain.number``, 16 bytes each; zeros where a head
        is of a description
    :ivar live: bit n - 1: the point of head n was published when this machine last looked
    :ivar own: by host and job the number of the newest head that this machine itself made
    :ivar digests: those of the heads, 32 bytes each; zeros where the file did not have them
    """

    chain: Chain
    points: bytes = b""
    live: int = 0
    own: Mapping[tuple[str, str], int] = attrs.field(factory=dict)
    digests: bytes = b""


class HeadFile:
    """The file.

    :param path: where it is
    :param keys: of the repository, all generations: what is written has the MAC of the newest
    """

    def __init__(self, path: Path, keys: RepositoryKeys) -> None:
        self.path = path
        self._keys = keys

    def load(self) -> Known | None:
        """What it says; None where there is none.

        :raises StoredDataDamaged: it was changed, or is of other keys
        :raises UsageError: it cannot be read, or a newer release wrote it
        """
        try:
            with self.path.open("rb") as file:
                octets = file.read(FILE_MAX + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{self.path} cannot be read: {error.strerror}") from None
        encoded, mac = octets[:-_MAC_SIZE], octets[-_MAC_SIZE:]
        known = [_mac(keys, encoded) for keys in (self._keys, *self._keys.older)]
        if len(octets) > FILE_MAX or not any(hmac.compare_digest(mac, one) for one in known):
            raise StoredDataDamaged(
                f"{self.path}, in which this machine remembers the repository's newest head, was "
                "changed. Compare the newest restore point with what you know, then remove the file"
            )
        fields = canonical.decode_map(encoded, max_depth=3, max_items=8 * OWN_MAX)
        if fields.pop("version", None) not in range(1, _VERSION + 1):
            raise UsageError(f"a newer release is needed for {self.path}")
        points, live = fields.pop("points"), int.from_bytes(fields.pop("live"), "little")
        digests = fields.pop("digests", bytes(2 * len(points)))
        own = {(host, job): number for host, job, number in fields.pop("own")}
        chain = Chain(**fields)
        if chain.repository != self._keys.repository:
            raise StoredDataDamaged(f"{self.path} is of another repository")
        return Known(chain, points, live, own, digests)

    def save(self, known: Known) -> None:
        """Remember ``known``, unless another command of this machine has seen more by now.

        :raises UsageError: it cannot be written
        """
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(folder):
                there = self.load()
                if there is None or there.chain.number <= known.chain.number:
                    self._write(folder, known)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}") from None

    def _write(self, folder: Path, known: Known) -> None:
        live = known.live.to_bytes((known.chain.number + 7) // 8, "little")
        own = sorted(known.own.items(), key=lambda item: item[1])[-OWN_MAX:]
        fields = {
            **attrs.asdict(known.chain),
            "points": known.points,
            "digests": known.digests,
            "live": live,
            "own": [[*labels, number] for labels, number in own],
            "version": _VERSION,
        }
        encoded = canonical.encode(fields)
        temporary = folder / f".{self.path.name}.{os.getpid()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(encoded + _mac(self._keys, encoded))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)


def _mac(keys: RepositoryKeys, encoded: bytes) -> bytes:
    return hmac.digest(keys.head.reveal(), _LABEL + encoded, "sha256")


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
