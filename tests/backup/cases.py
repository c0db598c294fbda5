"""What the tests of whole backups and restores have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.options import (
    RestoreResult,
)
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.repository.store import Repository
from tests.backup.support import Place
from tests.backup.trees import OLD_NS, write


class BackupCase(SynchronousTestCase):
    """A tree and a repository."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.place = Place(self.mktemp())
        self.cache = Path(os.path.abspath(self.mktemp()))

    def tree(self, count: int = 30) -> None:
        """Some files of all sizes."""
        for number in range(count):
            size = (number % 7) * 3000 + (300_000 if number % 10 == 0 else 0)
            write(self.top + b"/d%d/f%03d" % (number % 3, number), os.urandom(size))

    def entries(self, point: bytes) -> dict[bytes, Entry]:
        """What is in a point, by path below the top."""
        with self.place.reader(point) as reader:
            return {
                entry.path[len(self.top) :]: entry
                for entry in reader.entries()
                if entry.path.startswith(self.top)
            }

    def content(self, point: bytes, name: bytes) -> bytes:
        with self.place.reader(point) as reader:
            return b"".join(reader.read(reader.find(self.top + name)))

    def points(self) -> int:
        with Repository.open(self.place.directory) as repository:
            return repository.statistics()["points"]


class RestoreCase(SynchronousTestCase):
    """A tree, a repository and a target."""

    def setUp(self) -> None:
        self.base = os.path.abspath(self.mktemp()).encode()
        self.top = self.base + b"/source"
        self.target = self.base + b"/target"
        self.outside = self.base + b"/outside"
        os.makedirs(self.top)
        os.makedirs(self.outside)
        write(self.outside + b"/secret", b"secret", 0o600, OLD_NS)
        self.place = Place(self.mktemp())

    def tearDown(self) -> None:
        with open(self.outside + b"/secret", "rb") as file:
            self.assertEqual(file.read(), b"secret")
        self.assertEqual(os.listdir(self.outside), [b"secret"])
        status = os.stat(self.outside + b"/secret")
        self.assertEqual((status.st_mode, status.st_mtime_ns), (0o100600, OLD_NS))

    def restore(self, point: bytes, **options: Any) -> RestoreResult:
        """Restore so that the tree lies directly in the target."""
        chosen = {"strip_components": self.base.count(b"/"), **options}
        return self.place.restore(point, self.target, **chosen)

    def names(self) -> list[bytes]:
        """All names below the target."""
        found = []
        for folder, folders, files in os.walk(self.target):
            for name in folders + files:
                found.append(os.path.join(folder, name)[len(self.target) :])
        return sorted(found)

    def read(self, name: bytes) -> bytes:
        with open(self.target + name, "rb") as file:
            return file.read()

    def assertClean(self, result: RestoreResult) -> None:
        """Nothing went wrong, and no temporary file is left."""
        self.assertEqual(result.problems.listed, [])
        self.assertEqual(result.damaged.listed, [])
        self.assertEqual([name for name in self.names() if b".cloudconnect-" in name], [])


def entry_of(path: bytes, kind: EntryType, **fields: Any) -> Entry:
    values: dict[str, Any] = {
        "mode": 0o644,
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "user": "",
        "group": "",
        "mtime_ns": OLD_NS + 1,
    }
    return Entry(path=path, type=kind, **{**values, **fields})


def file_of(path: bytes, **fields: Any) -> Entry:
    if fields.get("size") and "runs" not in fields:
        fields["runs"] = (Run(None, 0, fields["size"]),)
    return entry_of(path, EntryType.FILE, **fields)
