"""What the tests of the repository share: keys, blobs and repositories in temporary directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.points import PointRecord
from cloudconnect.keys import MasterKey
from cloudconnect.repository.store import Repository
from cloudconnect.wire.frames import Coding, StoredBlob

REPOSITORY = b"r" * 16
SESSION = b"s" * 16
MASTER = bytes(range(32))


def keys(mode: EncryptionMode = EncryptionMode.TENANT, master: bytes = MASTER) -> RepositoryKeys:
    """The tenant's keys of the test repository."""
    return RepositoryKeys(MasterKey(master), REPOSITORY, mode)


DESCRIBED = describe(MasterKey(MASTER), REPOSITORY, EncryptionMode.TENANT, ())


def name_of(number: int) -> bytes:
    """A made-up id."""
    return blake3(b"id %d" % number).digest()


def blob(number: int, size: int = 100) -> StoredBlob:
    """A made-up sealed blob of ``size`` stored bytes."""
    data = blake3(b"data %d" % number).digest(size)
    coding = Coding.SEALED
    return StoredBlob(name_of(number), size, coding, blake3(data).digest(), data)


def record(point: bytes, **changes: Any) -> PointRecord:
    """A restore point's record."""
    fields: dict[str, Any] = {
        "point": point,
        "repository": REPOSITORY,
        "session": SESSION,
        "job_id": b"j" * 16,
        "host": "host",
        "job": "job",
        "tags": (),
        "started_ns": 1,
        "finished_ns": 2,
        "mode": EncryptionMode.TENANT,
        "manifest": (),
        "manifest_length": 0,
        "statistics": {"files": 1},
    }
    return PointRecord(**{**fields, **changes})


class RepositoryCase(SynchronousTestCase):
    """A test with a directory, and repositories that are closed at its end."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.time = 1000.0

    def clock(self) -> float:
        return self.time

    def created(self) -> Repository:
        """A new repository in the directory."""
        repository = Repository.create(self.directory, DESCRIBED, clock=self.clock)
        self.addCleanup(repository.close)
        return repository

    def opened(self, **options: Any) -> Repository:
        """The repository in the directory, opened once more."""
        repository = Repository.open(self.directory, clock=self.clock, **options)
        self.addCleanup(repository.close)
        return repository

    def published(
        self, repository: Repository, point: bytes, count: int = 3, **changes: Any
    ) -> bytes:
        """Publish a point of ``count`` references, numbered from 0, which must be stored."""
        made = record(point, **changes)
        encoded = made.encode()
        references = [name_of(number) for number in range(count)]
        repository.publish(made, encoded, keys().sign(encoded), references)
        return point

    def files(self, below: str) -> list[Path]:
        """The files in one folder of the directory."""
        return sorted((self.directory / below).iterdir())


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    with open(path, "r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        octet = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((octet[0] ^ 0x40,)))


def failing(
    error: BaseException, real: Callable[..., Any], after: int = 0
) -> tuple[Callable[..., Any], list[tuple[Any, ...]]]:
    """``real``, which raises ``error`` from its call number ``after`` on; and the calls so far."""
    calls: list[tuple[Any, ...]] = []

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) > after:
            raise error
        return real(*arguments, **options)

    return call, calls
