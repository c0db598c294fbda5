"""Having small files made by a process: the restore's side, with real processes."""

from __future__ import annotations

import errno
import os
import signal
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import maker as maker_module
from cloudconnect.backup.maker import FileMaker
from cloudconnect.errors import LocalError
from tests.backup.trees import OLD_NS, write


class FileMakerTests(SynchronousTestCase):
    """The object by itself."""

    def setUp(self) -> None:
        self.patch(maker_module, "READY_SECONDS", 60.0)
        self.top = os.path.abspath(self.mktemp()).encode()
        self.before = len(os.listdir("/proc/self/fd"))
        self.told: list[tuple[str, int]] = []
        self.maker: FileMaker[str] = FileMaker(
            lambda whose, failed: self.told.append((whose, failed))
        )
        self.addCleanup(self.maker.close)
        self.assertTrue(self.maker.ready)

    def add(self, folder: int, name: str, *pieces: bytes) -> None:
        """A file in the folder of this number."""
        path = self.top + b"/%d" % folder
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        encoded = name.encode()
        self.maker.add(folder, descriptor, encoded, 0o600, OLD_NS, list(pieces), name)
        os.close(descriptor)

    def content(self, name: str) -> bytes:
        with open(self.top + b"/" + name.encode(), "rb") as file:
            return file.read()

    def test_many(self) -> None:
        """Many files in many folders, small and as large as a batch."""
        large = os.urandom(maker_module.BATCH_BYTES)
        for number in range(1500):
            self.add(number // 5, f"{number}", b"%d" % number, b"" if number % 2 else b"x")
        self.add(7, "large", large)
        self.add(8, "pieces", *[b"piece"] * 2000)
        self.maker.finish()
        self.assertEqual([failed for _, failed in self.told], [0] * 1502)
        self.assertEqual(self.content("299/1499"), b"1499")
        self.assertEqual(self.content("298/1490"), b"1490x")
        self.assertEqual(self.content("7/large"), large)
        self.assertEqual(self.content("8/pieces"), b"piece" * 2000)
        status = os.lstat(self.top + b"/0/0")
        self.assertEqual((stat.S_IMODE(status.st_mode), status.st_mtime_ns), (0o600, OLD_NS))

    def test_memory_is_used_again(self) -> None:
        """There may be more content than memory, and none takes the place of another."""
        count = 3 * maker_module.BATCHES
        for number in range(count):
            self.add(1, f"{number}", bytes([number]) * (maker_module.BATCH_BYTES // 2 + number))
        self.maker.finish()
        self.assertEqual([failed for _, failed in self.told], [0] * count)
        for number in range(count):
            content = self.content(f"1/{number}")
            self.assertEqual(content, bytes([number]) * (maker_module.BATCH_BYTES // 2 + number))

    def test_too_large(self) -> None:
        """A file that has no room in a batch is refused, and the others are made."""
        self.add(1, "one", b"x")
        content = bytes(maker_module.BATCH_BYTES + 1)
        self.assertRaises(ValueError, self.add, 1, "large", content)
        self.maker.finish()
        self.assertEqual(self.told, [("one", 0)])
        self.assertEqual(os.listdir(self.top + b"/1"), [b"one"])

    def test_failures(self) -> None:
        """What cannot be made is told of, and the rest is made."""
        write(self.top + b"/1/taken", b"old")
        for name in ("one", "taken", "n" * 300, "two"):
            self.add(1, name, b"new")
        self.maker.finish()
        failed = [failed for _, failed in self.told]
        self.assertEqual(failed, [0, errno.EEXIST, errno.ENAMETOOLONG, 0])
        self.assertEqual((self.content("1/taken"), self.content("1/two")), (b"old", b"new"))

    def test_afterwards(self) -> None:
        """What is to be done afterwards is done when everything before it was made."""
        seen: list[list[bytes]] = []
        self.add(1, "one", b"x")
        self.assertTrue(self.maker.has(1))
        self.assertFalse(self.maker.has(2))
        self.maker.afterwards(lambda: seen.append(os.listdir(self.top + b"/1")))
        self.assertEqual(seen, [])
        self.maker.finish()
        self.assertEqual(seen, [[b"one"]])
        self.assertFalse(self.maker.has(1))
        self.maker.afterwards(lambda: seen.append([]))
        self.maker.finish()
        self.assertEqual(len(seen), 2)

    def test_closed_early(self) -> None:
        """When it is closed nothing is left behind, and what was to be done afterwards is done."""
        seen: list[int] = []
        self.add(1, "one", b"x")
        self.maker.afterwards(lambda: seen.append(1))
        self.maker.close()
        self.assertEqual((seen, self.told), ([1], []))
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.before)
        self.assertEqual(self.maker._process.returncode, 0)

    def test_interrupt(self) -> None:
        """An interrupt of the terminal is not for the process."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(self.maker._process.pid, number)
        self.add(1, "one", b"x")
        self.maker.finish()
        self.assertEqual(self.told, [("one", 0)])

    def test_killed(self) -> None:
        """A process that was killed is an error, not a restore that waits for ever."""
        self.maker._process.kill()
        self.maker._process.wait()
        self.add(1, "one", b"x")
        self.assertRaises(LocalError, self.maker.finish)
        self.maker.close()
        self.assertEqual(len(os.listdir("/proc/self/fd")), self.before)
