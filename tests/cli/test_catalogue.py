"""Tests of :mod:`cloudconnect.cli.catalogue`."""

from __future__ import annotations

import shutil

from cloudconnect.config.provider import load, running
from cloudconnect.content.atrest import EncryptionMode, RepositoryDescription
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.store import Repository
from tests.cli.test_provider import VERIFIER, DirectoryCase
from tests.repository.repositories import DESCRIBED, REPOSITORY


class CatalogueTests(DirectoryCase):
    """What an admin types."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = load(self.directory)
        self.folder = self.settings.repositories / REPOSITORY.hex()
        Repository.create(self.folder, described()).close()
        accounts = self.accounts()
        accounts.add_tenant("acme", VERIFIER)
        accounts.set_repository("acme", REPOSITORY)

    def test_all(self) -> None:
        """Backed up while the provider runs, lost, and brought back; each act is written down."""
        backup = str(self.home / "backup")
        with running(self.settings):
            words = ("provider", "catalogue", "backup", "--output", backup)
            self.assertEqual(0, self.call(*words, *self.where).status)
            words = ("provider", "catalogue", "restore", backup)
            self.assertEqual(15, self.call(*words, *self.where).status)
        shutil.move(self.settings.repositories, self.home / "kept")
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        shutil.move(self.home / "kept", self.settings.repositories)
        done = self.call("provider", "catalogue", "restore", backup, "--json", *self.where)
        self.assertEqual(0, done.status, done.err)
        self.assertEqual([REPOSITORY.hex()], [line["repository"] for line in done.lines()])
        acts = [x["act"] for x in self.call("provider", "audit", "--json", *self.where).lines()]
        self.assertEqual("catalogue_restore", acts[-1])
        self.assertEqual(0, self.call("provider", "audit", "--verify", *self.where).status)

    def test_rebuild(self) -> None:
        """One tenant's, or all of them."""
        for path in self.folder.glob(f"{CATALOGUE}*"):
            path.unlink()
        for words in (("--tenant", "acme"), ()):
            done = self.call("provider", "catalogue", "rebuild", *words, *self.where)
            self.assertIn("1 catalogue(s) were made again", done.out)
        done = self.call("provider", "catalogue", "rebuild", "--tenant", "none", *self.where)
        self.assertEqual(10, done.status)

    def test_attach(self) -> None:
        """A repository whose accounts are lost becomes a new tenant's, once."""
        self.call("provider", "tenant", "add", "newer", *self.where)
        words = ("provider", "catalogue", "attach")
        taken = self.call(*words, "newer", REPOSITORY.hex(), *self.where)
        self.assertEqual(2, taken.status)
        other = b"o" * 16
        Repository.create(self.settings.repositories / other.hex(), described(other)).close()
        done = self.call(*words, "newer", other.hex(), *self.where)
        self.assertEqual(0, done.status, done.err)
        self.assertEqual(other, self.accounts().tenant("newer").repository)
        self.assertEqual(2, self.call(*words, "newer", "nonsense", *self.where).status)


def described(repository: bytes = REPOSITORY) -> RepositoryDescription:
    """A description that needs no passphrase to make."""
    if repository == REPOSITORY:
        return DESCRIBED
    from cloudconnect.content.atrest import describe
    from cloudconnect.keys import MasterKey

    return describe(MasterKey.generate(), repository, EncryptionMode.TENANT, ())
