"""Tests of :mod:`cloudconnect.provider.data_mover.key_folder`:
the provider's own keys of repositories.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cloudconnect.content.atrest import EncryptionMode, describe
from cloudconnect.errors import Refused
from cloudconnect.keys import MasterKey
from cloudconnect.provider.data_mover.key_folder import KeyFolder
from cloudconnect.repository.store import Repository
from tests.repository.repositories import DESCRIBED, REPOSITORY, RepositoryCase

PROVIDED = describe(MasterKey(bytes(range(32))), REPOSITORY, EncryptionMode.PROVIDER, ())


class KeyFolderTests(RepositoryCase):
    """Keys are made once, and nothing goes on without the right one."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.keys = KeyFolder(self.folder)
        self.path = self.folder / f"{REPOSITORY.hex()}.key"

    def made(self) -> Repository:
        """A repository in mode provider, with its key."""
        self.keys.make(REPOSITORY)
        repository = Repository.create(self.directory, PROVIDED)
        self.addCleanup(repository.close)
        self.keys.note(repository)
        return repository

    def refused(self, repository: Repository) -> str:
        return str(self.assertRaises(Refused, self.keys.keys, repository))

    def test_file(self) -> None:
        """A key is 32 bytes that nobody else can read, in a folder that nobody else can open."""
        self.keys.make(REPOSITORY)
        self.assertEqual(32, self.path.stat().st_size)
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.assertEqual(0o700, stat.S_IMODE(self.folder.stat().st_mode))
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_made_once(self) -> None:
        """A key that is there is never written over."""
        self.keys.make(REPOSITORY)
        octets = self.path.read_bytes()
        self.keys.make(REPOSITORY)
        self.assertEqual(octets, self.path.read_bytes())

    def test_same_keys(self) -> None:
        """Every opening gives the same keys, of mode provider."""
        repository = self.made()
        found = self.keys.keys(repository)
        again = KeyFolder(self.folder).keys(self.opened())
        assert found is not None and again is not None
        self.assertEqual(
            (found.public_key, EncryptionMode.PROVIDER), (again.public_key, again.mode)
        )
        self.assertNotEqual(PROVIDED.public_key, found.public_key)

    def test_no_key_in_the_repository(self) -> None:
        """Nothing of the key is in the repository's own folder."""
        self.made()
        octets = self.path.read_bytes()
        for path in self.directory.rglob("*"):
            if path.is_file():
                self.assertNotIn(octets, path.read_bytes(), path)

    def test_other_modes(self) -> None:
        """In a mode in which the provider has no key none is looked for."""
        with Repository.create(self.directory, DESCRIBED) as repository:
            self.assertIsNone(self.keys.keys(repository))
        self.assertFalse(self.folder.exists())

    def test_missing(self) -> None:
        """A key that is missing is named by its file."""
        repository = self.made()
        self.path.unlink()
        self.assertIn(self.path.name, self.refused(repository))

    def test_another(self) -> None:
        """Another key, also one that was made later under this name, is refused."""
        repository = self.made()
        self.path.unlink()
        self.keys.make(REPOSITORY)
        self.assertIn("not the one", self.refused(repository))

    def test_unusable(self) -> None:
        """A key file of another size, that others can read, or that is none, is refused."""
        repository = self.made()
        octets = self.path.read_bytes()
        for content in (b"", octets[:-1], octets + b"\n"):
            self.path.write_bytes(content)
            self.assertIn("damaged", self.refused(repository))
        self.path.write_bytes(octets)
        self.path.chmod(0o640)
        self.assertIn("open to others", self.refused(repository))
        self.path.unlink()
        elsewhere = self.folder / "elsewhere"
        elsewhere.write_bytes(octets)
        self.path.symlink_to(elsewhere)
        self.refused(repository)
        self.path.unlink()
        os.mkfifo(self.path, 0o600)
        self.assertIn("damaged", self.refused(repository))

    def test_without_a_check(self) -> None:
        """A repository that does not say which key it has is not written to with any."""
        self.keys.make(REPOSITORY)
        with Repository.create(self.directory, PROVIDED) as repository:
            self.refused(repository)
