"""Layer 4: the mover's own keys of repositories in encryption mode ``provider``.

One file of 32 random bytes and mode 0600 for each repository, in a folder beside the repositories:
who has a copy of the repositories alone can read nothing in them. The file is durable before the
repository is made. What tells one key from another, and nothing of the key itself, stands in the
repository; a key that is missing or another one is an error, and nothing is stored without a seal.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
from pathlib import Path
from typing import Final

from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys
from cloudconnect.errors import NotFound, Refused
from cloudconnect.keys import KEY_SIZE, MasterKey
from cloudconnect.repository.store import Repository

#: The blob in a repository that says which key of the provider's its blobs are sealed under: the
#: public key of the signing key that is derived from it, 32 bytes.
CHECK: Final = "provider-key"
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class KeyFolder:
    """The keys of the repositories of one mover.

    :param folder: where they lie; is made, with mode 0700, when the first key is
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, repository: bytes) -> None:
        """Make the key of a repository that is about to be made; one that is there stays.

        :param repository: its 16 bytes
        :raises Refused: there is a file that is no key
        :raises OSError: it cannot be written
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(self._folder.parent)
        temporary = self._folder / f".{repository.hex()}.{os.urandom(8).hex()}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(MasterKey.generate().reveal())
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path(repository))
        finally:
            temporary.unlink()
        _sync(self._folder)
        self._read(repository)

    def remove(self, repository: bytes) -> None:
        """Remove the key of a repository that is gone; nothing happens where there is none."""
        if self._path(repository).exists():
            self._path(repository).unlink()
            _sync(self._folder)

    def note(self, opened: Repository) -> None:
        """Write into a new repository which key it has.

        :raises Refused: it has another one already
        """
        check = self._keys(opened.description.repository).public_key
        with contextlib.suppress(FileExistsError):
            opened.store.put(CHECK, [check])
        self.keys(opened)

    def keys(self, opened: Repository) -> RepositoryKeys | None:
        """The provider's keys of a repository, or None in a mode in which it has none.

        :raises Refused: the key is missing, cannot be used, or is not this repository's
        """
        description = opened.description
        if description.mode is not EncryptionMode.PROVIDER:
            return None
        found = self._keys(description.repository)
        try:
            known = opened.store.read(CHECK, 0, KEY_SIZE)
        except NotFound:
            known = b""
        if not hmac.compare_digest(found.public_key, known):
            raise Refused(
                f"the provider's key file {self._path(description.repository).name} is not the one "
                "of this repository: the provider must put the right one back"
            )
        return found

    def _keys(self, repository: bytes) -> RepositoryKeys:
        return RepositoryKeys(self._read(repository), repository, EncryptionMode.PROVIDER)

    def _read(self, repository: bytes) -> MasterKey:
        path = self._path(repository)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
        except OSError as error:
            raise Refused(
                f"the provider's key file {path.name} of this repository cannot be read "
                f"({error.strerror}): the provider must put it back; nothing is stored without it"
            ) from None
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            octets = file.read(KEY_SIZE + 1) if stat.S_ISREG(mode) else b""
        if len(octets) != KEY_SIZE or stat.S_IMODE(mode) & 0o077:
            raise Refused(
                f"the provider's key file {path.name} is damaged, or open to others: it has "
                f"{KEY_SIZE} bytes and mode 0600"
            )
        return MasterKey(octets)

    def _path(self, repository: bytes) -> Path:
        return self._folder / f"{repository.hex()}.key"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
