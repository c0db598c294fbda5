"""Tests for cloudconnect.repository.committing, by itself and in a repository."""

from __future__ import annotations

import errno
import os
import threading

from cloudconnect.errors import Refused
from cloudconnect.repository import packs
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.committing import COMMITS_MAX, PackCommits
from cloudconnect.repository.packs import PackBuilder
from tests.repository.repositories import REPOSITORY, RepositoryCase, blob, failing, name_of

#: Seconds after which a thread that should have gone on has not.
PATIENCE = 60


class Gate:
    """Stands before every fsync: none returns before it is opened."""

    def __init__(self, case: RepositoryCase) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()
        real = os.fsync

        def fsync(descriptor: int) -> None:
            self.entered.release()
            assert self.opened.wait(PATIENCE)
            real(descriptor)

        case.patch(os, "fsync", fsync)
        case.addCleanup(self.opened.set)


class CommitsTests(RepositoryCase):
    """Packs become durable beside the thread that fills them, in their order."""

    def setUp(self) -> None:
        super().setUp()
        self.store = LocalBlobStore(str(self.directory))
        self.addCleanup(self.store.close)
        self.commits = PackCommits()
        self.addCleanup(self.commits.drop)

    def builder(self, number: int) -> PackBuilder:
        builder = PackBuilder(self.store.begin(), REPOSITORY, b"%016d" % number)
        builder.add(blob(number), 0)
        return builder

    def test_at_once(self) -> None:
        """Without threads a pack is durable when begin() has returned."""
        builder = self.builder(1)
        self.commits.begin(builder)
        self.assertEqual(len(self.commits), 1)
        self.assertEqual(len(self.files("packs")), 1)
        (taken,) = self.commits.take(COMMITS_MAX)
        self.assertIs(taken.builder, builder)
        self.assertEqual(taken.size, self.store.size(taken.name))
        self.assertEqual(len(self.commits), 0)

    def test_beside(self) -> None:
        """begin() does not wait for the disk; take() does for as many as it is told, in order."""
        self.commits.beside = True
        builders = [self.builder(number) for number in range(2)]
        gate = Gate(self)
        for builder in builders:
            self.commits.begin(builder)
        self.assertEqual(self.commits.take(COMMITS_MAX), [])
        gate.opened.set()
        self.assertEqual([taken.builder for taken in self.commits.take(0)], builders)

    def test_error(self) -> None:
        """What went wrong is raised by take(), also with threads; nothing is left of the pack."""
        for beside in (False, True):
            self.commits.beside = beside
            builder = self.builder(1)
            patch = self.patch(os, "fsync", failing(OSError(errno.EIO, "I/O error"), os.fsync)[0])
            self.commits.begin(builder)
            self.assertRaises(OSError, self.commits.take, 0)
            patch.restore()
            self.assertEqual(self.commits.drop(), [])
            self.assertEqual(self.files("temporary"), [])

    def test_drop(self) -> None:
        """What is dropped on its way to the disk is waited for, and named where it is durable."""
        self.commits.beside = True
        self.commits.begin(self.builder(1))
        (name,) = self.commits.drop()
        self.assertGreater(self.store.size(name), 0)
        self.assertEqual(len(self.commits), 0)


class BesideTests(RepositoryCase):
    """A repository that does not wait for its packs."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(packs, "PACK_ENTRIES_MAX", 2)
        self.repository = self.created()
        self.repository.commit_beside()

    def test_ids_once_in_order(self) -> None:
        """Every id is returned once, in order, and only when other sessions can read it."""
        other, ids = self.opened(), []
        for number in range(9):
            ids += self.repository.add(blob(number))
            self.assertEqual(other.have(ids), [True] * len(ids))
        ids += self.repository.flush()
        self.assertEqual(ids, [name_of(number) for number in range(9)])
        self.assertEqual(list(other.read(ids)), [blob(number) for number in range(9)])

    def test_goes_on(self) -> None:
        """While a pack is on its way to the disk the next is filled; its blobs are not in the
        index, and need not be sent again."""
        other = self.opened()
        self.repository.add(blob(0), "manifest")  # files are made with fsyncs too
        gate = Gate(self)
        self.repository.add(blob(1), "manifest")
        self.assertTrue(gate.entered.acquire(timeout=PATIENCE))
        self.assertEqual(other.have([name_of(1)]), [False])
        self.assertEqual(self.repository.have([name_of(1)]), [True])
        self.assertEqual(self.repository.add(blob(1), "manifest"), [])
        gate.opened.set()
        self.assertEqual(self.repository.flush(), [name_of(0), name_of(1)])
        self.assertEqual(other.have([name_of(1)]), [True])

    def test_error(self) -> None:
        """An error of the disk is raised by a later call; nothing more is stored after it."""
        self.repository.add(blob(0))
        patch = self.patch(os, "fsync", failing(OSError(errno.EIO, "I/O error"), os.fsync)[0])
        self.assertRaises(OSError, self._until_it_fails)
        patch.restore()
        self.assertRaises(Refused, self.repository.add, blob(9))
        self.assertRaises(Refused, self.repository.flush)
        self.assertEqual(self.opened().have([name_of(0), name_of(1)]), [False, False])
        self.assertEqual(self.files("temporary"), [])

    def _until_it_fails(self) -> None:
        self.repository.add(blob(1))
        self.repository.flush()

    def test_closed(self) -> None:
        """A pack that is on its way when the repository is closed is forgotten as a whole."""
        self.repository.add(blob(0))
        gate = Gate(self)
        self.repository.add(blob(1))
        self.assertTrue(gate.entered.acquire(timeout=PATIENCE))
        gate.opened.set()
        self.repository.close()
        self.assertEqual(self.files("packs"), [])
        self.assertEqual(self.files("temporary"), [])
        self.assertEqual(self.opened().have([name_of(0)]), [False])

    def test_collection_waits(self) -> None:
        """What is on its way has to be flushed before a collection, as what was only added."""
        self.repository.add(blob(0))
        gate = Gate(self)
        self.repository.add(blob(1))
        self.assertTrue(gate.entered.acquire(timeout=PATIENCE))
        self.assertRaises(Refused, self.repository.collect)
        gate.opened.set()
        self.repository.flush()
        self.repository.collect()
