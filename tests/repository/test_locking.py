"""Tests for cloudconnect.repository.locking."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import Busy
from cloudconnect.interfaces import ILease
from cloudconnect.repository.blobs import LocalBlobStore
from tests.repository.repositories import failing


class LockingCase(SynchronousTestCase):
    """A test with a store in a directory."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.store = self.another()

    def another(self) -> LocalBlobStore:
        store = LocalBlobStore(str(self.directory))
        self.addCleanup(store.close)
        return store

    def leases(self) -> list[int]:
        return sorted(self.another().leases())

    def child(self, work: Callable[[LocalBlobStore], None]) -> int:
        """A process that does ``work`` with a store of its own, and waits to be killed."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reading)
                signal.alarm(60)
                work(LocalBlobStore(str(self.directory)))
                os.write(writing, b"ready")
                signal.pause()
            finally:
                os._exit(1)
        os.close(writing)
        said = os.read(reading, 5)
        os.close(reading)
        if said != b"ready":
            self.kill(child)
        self.assertEqual(said, b"ready")
        return child

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


class LeaseTests(LockingCase):
    """Who holds a lease is seen by everybody, until it is released or its process dies."""

    def test_held(self) -> None:
        """Several leases, of the same number too; each goes when it is released."""
        made = [self.store.lease(number) for number in (5, 7, 5)]
        verifyObject(ILease, made[0])
        self.assertEqual(self.leases(), [5, 5, 7])
        made[0].release()
        made[0].release()
        self.assertEqual(self.leases(), [5, 7])
        made[1].release()
        made[2].release()
        self.assertEqual(self.leases(), [])
        self.assertEqual(os.listdir(self.directory / "leases"), [])

    def test_other_store_closes(self) -> None:
        """A lease does not end with the store that it was made by."""
        store = LocalBlobStore(str(self.directory))
        lease = store.lease(3)
        store.close()
        self.assertEqual(self.leases(), [3])
        lease.release()
        self.assertEqual(self.leases(), [])

    def test_killed(self) -> None:
        """The lease of a process that was killed is gone, and its file is removed."""
        child = self.child(lambda store: store.lease(9) and None)
        self.assertEqual(self.leases(), [9])
        self.kill(child)
        self.assertEqual(len(os.listdir(self.directory / "leases")), 1)
        self.assertEqual(self.leases(), [])
        self.assertEqual(os.listdir(self.directory / "leases"), [])

    def test_looked_at_before_it_is_locked(self) -> None:
        """Somebody who looks between the making and the locking takes nothing away."""
        import fcntl

        real = fcntl.flock
        looked: list[list[int]] = []

        def flock(descriptor: int, operation: int) -> None:
            if not looked and operation == fcntl.LOCK_EX:
                looked.append([])
                looked[0] = self.leases()
            real(descriptor, operation)

        self.patch(fcntl, "flock", flock)
        lease = self.store.lease(4)
        self.assertEqual(looked, [[]])
        self.assertEqual(self.leases(), [4])
        lease.release()

    def test_full_disk(self) -> None:
        """Where no file can be made there is a lease all the same, older than everything."""
        real = os.open

        def opened(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_CREAT:
                raise OSError(errno.ENOSPC, "full")
            return real(path, flags, *arguments, **options)

        patch = self.patch(os, "open", opened)
        made = [self.store.lease(8), self.store.lease(9)]
        patch.restore()
        self.assertEqual([lease.number for lease in made], [0, 0])
        self.assertEqual(self.leases(), [0])
        made[0].release()
        self.assertEqual(self.leases(), [0])
        made[1].release()
        self.assertEqual(self.leases(), [])

    def test_other_errors(self) -> None:
        """What is wrong otherwise is said."""
        self.patch(os, "open", failing(OSError(errno.EIO, "I/O error"), os.open)[0])
        self.assertRaises(OSError, self.store.lease, 1)

    def test_no_blobs(self) -> None:
        """Leases and locks are no blobs; strange files among them are left alone."""
        lease = self.store.lease(1)
        (self.directory / "leases" / "strange").write_bytes(b"")
        with self.store.exclusive("thing"):
            self.assertEqual(list(self.store.names()), [])
            self.assertEqual(self.leases(), [1])
        lease.release()
        self.assertEqual(os.listdir(self.directory / "leases"), ["strange"])


class LockTests(LockingCase):
    """What only one does at a time."""

    def test_killed(self) -> None:
        """The lock of a process that was killed is free."""
        held: list[AbstractContextManager[None]] = []

        def work(store: LocalBlobStore) -> None:
            held.append(store.exclusive("thing"))
            held[0].__enter__()

        child = self.child(work)
        with self.assertRaises(Busy), self.store.exclusive("thing"):
            self.fail("both are in")
        self.kill(child)
        with self.store.exclusive("thing"):
            pass

    def test_turns(self) -> None:
        """Whoever waits comes in when the other has left; another lock is not in the way."""
        inside: list[int] = []
        most: list[int] = []

        def enter(number: int) -> None:
            store = LocalBlobStore(str(self.directory))
            for _ in range(20):
                with store.exclusive("thing", wait=True), store.exclusive(f"other{number}"):
                    inside.append(number)
                    most.append(len(inside))
                    inside.remove(number)
            store.close()

        threads = [threading.Thread(target=enter, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(most, [1] * 80)

    def test_error(self) -> None:
        """An error inside lets go."""
        with self.assertRaises(KeyError), self.store.exclusive("thing"):
            raise KeyError
        with self.another().exclusive("thing"):
            pass

    def test_name(self) -> None:
        """A name that could lead elsewhere is refused."""
        for name in ("", "../a", "a/b", "A", "a" * 65):
            with self.assertRaises(ValueError), self.store.exclusive(name):
                pass
