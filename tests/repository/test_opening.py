"""Tests for cloudconnect.repository.opening, and of how a repository is opened."""

from __future__ import annotations

import os
from pathlib import Path

from cloudconnect.content.atrest import EncryptionMode, describe
from cloudconnect.errors import (
    NotFound,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.keys import MasterKey
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.store import Repository
from tests.repository.repositories import (
    DESCRIBED,
    RepositoryCase,
    blob,
    name_of,
)


class OpeningTests(RepositoryCase):
    """Repositories are made once, and opened where they are."""

    def test_create_and_open(self) -> None:
        """What was described at its making is known at its opening."""
        self.created().close()
        repository = self.opened()
        self.assertEqual(repository.description, DESCRIBED)
        self.assertEqual(repository.points(), [])
        self.assertEqual(set(repository.statistics().values()), {0})

    def test_create_twice(self) -> None:
        """A repository is not made over another, the same one neither."""
        repository = self.created()
        repository.add(blob(1))
        repository.flush()
        self.assertRaises(Refused, self.created)
        other = describe(MasterKey(b"x" * 32), b"o" * 16, EncryptionMode.TENANT, ())
        self.assertRaises(Refused, Repository.create, self.directory, other)
        self.assertEqual(self.opened().have([name_of(1)]), [True])

    def test_create_after_crash(self) -> None:
        """Making goes on where it was killed between the description and the catalogue."""
        self.created().close()
        for name in os.listdir(self.directory):
            if name.startswith(CATALOGUE):
                (self.directory / name).unlink()
        self.assertEqual(self.created().description, DESCRIBED)

    def test_nothing_there(self) -> None:
        """What is not there is not found, and not made by looking."""
        self.assertRaises(NotFound, Repository.open, self.directory)
        self.assertFalse(self.directory.exists())
        self.directory.mkdir()
        self.assertRaises(NotFound, Repository.open, self.directory)

    def test_symbolic_link(self) -> None:
        """A link to a repository is not one."""
        self.created().close()
        link = Path(self.mktemp())
        link.symlink_to(self.directory.absolute())
        self.assertRaises(NotFound, Repository.open, link)

    def test_newer_format(self) -> None:
        """A repository of a newer release is refused."""
        repository = self.created()
        with repository.catalogue.writing() as connection:
            connection.exec_driver_sql("UPDATE repository SET format_version = 2")
        self.assertRaises(UsageError, self.opened)

    def test_bad_description(self) -> None:
        """A description that cannot be read is an error, not a default."""
        repository = self.created()
        with repository.catalogue.writing() as connection:
            connection.exec_driver_sql("UPDATE repository SET description = x'a0'")
        self.assertRaises(StoredDataDamaged, self.opened)

    def test_catalogue_missing(self) -> None:
        """A repository without its catalogue is damaged, never empty."""
        self.created().close()
        (self.directory / CATALOGUE).unlink()
        error = self.assertRaises(StoredDataDamaged, self.opened)
        self.assertIn("recover", str(error))

    def test_catalogue_in_place_of_another(self) -> None:
        """An empty catalogue in its place is damaged too."""
        self.created().close()
        (self.directory / CATALOGUE).write_bytes(b"")
        self.assertRaises(StoredDataDamaged, self.opened)

    def test_read_only(self) -> None:
        """A repository can be read where nothing can be written, and then is not."""
        repository = self.created()
        repository.add(blob(1))
        repository.flush()
        self.published(repository, b"p" * 16, 0)
        repository.close()
        before = {path: path.stat().st_mtime_ns for path in self.directory.rglob("*")}
        repository = self.opened(read_only=True)
        self.assertEqual(list(repository.read([name_of(1)])), [blob(1)])
        self.assertEqual(repository.point(b"p" * 16).arrival, 1)
        self.assertEqual([], repository.flush())  # there is nothing, and a session asks so
        self.assertRaises(Refused, repository.add, blob(2))
        repository.close()
        after = {path: path.stat().st_mtime_ns for path in self.directory.rglob("*")}
        changed = {path.name for path in before if before[path] != after.get(path)}
        self.assertLessEqual(changed, {f"{CATALOGUE}-shm", f"{CATALOGUE}-wal"})

    def test_context(self) -> None:
        """As a context, it is closed at the end; closed, it stores nothing."""
        with self.created() as repository:
            repository.add(blob(1))
        self.assertRaises(Refused, repository.add, blob(2))
        self.assertEqual(self.files("temporary"), [])
        self.assertEqual(self.opened().have([name_of(1)]), [False])
