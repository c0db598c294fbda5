"""Making files in a process of its own: that process's side."""

from __future__ import annotations

import errno
import marshal
import os
import socket
import stat
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import making
from cloudconnect.backup.making import ANSWER, BATCH, FAILED, make, serve
from tests.backup.trees import OLD_NS, write


class MakingCase(SynchronousTestCase):
    """A folder."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.folder = os.open(self.top, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, self.folder)

    def read(self, name: bytes) -> bytes:
        with open(self.top + b"/" + name, "rb") as file:
            return file.read()


class MakeTests(MakingCase):
    """One file."""

    def test_make(self) -> None:
        """It has its content, mode and time."""
        self.assertEqual(make(self.folder, b"x", 0o600, OLD_NS, memoryview(b"content")), 0)
        status = os.lstat(self.top + b"/x")
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_mtime_ns), (0o600, OLD_NS))
        self.assertEqual(self.read(b"x"), b"content")

    def test_taken(self) -> None:
        """What has its name is not followed, written to or removed."""
        write(self.top + b"/victim", b"victim")
        os.symlink(b"victim", self.top + b"/x")
        found = make(self.folder, b"x", 0o600, OLD_NS, memoryview(b"evil"))
        self.assertEqual(found, errno.EEXIST)
        self.assertEqual(os.readlink(self.top + b"/x"), b"victim")
        self.assertEqual(self.read(b"victim"), b"victim")

    def test_full(self) -> None:
        """Of what cannot be written nothing is left, and no descriptor."""
        before = len(os.listdir("/proc/self/fd"))

        def full(*arguments: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch(making.os, "write", full)
        found = make(self.folder, b"x", 0o600, OLD_NS, memoryview(b"content"))
        self.assertEqual((found, os.listdir(self.top)), (errno.ENOSPC, []))
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_short_writes(self) -> None:
        """What the system does not take at once it gets again."""
        real = os.write
        self.patch(making.os, "write", lambda descriptor, data: real(descriptor, data[:3]))
        make(self.folder, b"x", 0o600, OLD_NS, memoryview(b"0123456789"))
        self.assertEqual(self.read(b"x"), b"0123456789")


class ServeTests(MakingCase):
    """Batches."""

    def setUp(self) -> None:
        super().setUp()
        self.memory = bytearray(1000)
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(60)
        self.raised: list[BaseException] = []
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        self.addCleanup(self.end)
        self.assertEqual(self.receive(ANSWER.size), ANSWER.pack(0))

    def _serve(self) -> None:
        try:
            serve(self.theirs, memoryview(self.memory))
        except BaseException as error:
            self.raised.append(error)
        finally:
            self.theirs.close()

    def end(self) -> None:
        self.ours.close()
        self.thread.join(60)

    def receive(self, size: int) -> bytes:
        return self.ours.recv(size, socket.MSG_WAITALL)

    def send(self, files: list[Any], content: bytes, cut: int = 0) -> None:
        place = 100
        self.memory[place : place + len(content)] = content
        listed = marshal.dumps(files)
        data = BATCH.pack(len(listed), place) + listed
        sent = socket.send_fds(self.ours, [data[: len(data) - cut]], [self.folder])
        self.assertEqual(sent, len(data) - cut)

    def test_batches(self) -> None:
        """Each batch is answered, with the numbers of what could not be made."""
        for turn in (b"a", b"b"):
            names = [turn + b"1", turn + b"2", b"common", turn + b"3"]
            files = [(0, name, 0o600, OLD_NS, len(name)) for name in names]
            self.send(files, b"".join(names))
            failed = [] if turn == b"a" else [(2, errno.EEXIST)]
            (size,) = ANSWER.unpack(self.receive(ANSWER.size))
            self.assertEqual(list(FAILED.iter_unpack(self.receive(size) if size else b"")), failed)
        self.assertEqual(len(os.listdir(self.top)), 7)
        self.assertEqual(self.read(b"b3"), b"b3")
        before = len(os.listdir("/proc/self/fd"))
        self.end()
        self.assertEqual(len(os.listdir("/proc/self/fd")), before - 2)

    def test_end(self) -> None:
        """It ends with the connection."""
        self.end()
        self.assertEqual(self.raised, [])

    def test_end_in_a_batch(self) -> None:
        """Of a batch that did not come whole nothing is made."""
        self.send([(0, b"x", 0o600, OLD_NS, 10)], b"0123456789", cut=1)
        self.end()
        self.assertEqual([type(error) for error in self.raised], [EOFError])
        self.assertEqual(os.listdir(self.top), [])
