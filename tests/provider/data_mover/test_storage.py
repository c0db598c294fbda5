"""Tests of :mod:`cloudconnect.provider.data_mover.storage`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.data_mover.storage import STORAGE_FILE, host_name, storage_of
from cloudconnect.repository.store import Repository
from tests.repository.repositories import DESCRIBED, blob

ROOT = Path(__file__).resolve().parent.parent.parent
#: Stores blobs in a repository, says so, and waits to be told to go on.
_WRITER = """
import sys
from pathlib import Path
from cloudconnect.repository.store import Repository
from tests.repository.repositories import blob
folder = Path(sys.argv[1])
with Repository.open(folder) as opened:
    for number in range(200):
        opened.add(blob(1000 + number))
        if number % 20 == 0:
            opened.flush()
            print("more", flush=True)
            sys.stdin.readline()
    opened.flush()
print("done", flush=True)
"""


class StorageTests(SynchronousTestCase):
    """The folder of repositories."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())

    def test_name(self) -> None:
        """A folder has one name, whoever asks, and another folder another one."""
        name = storage_of(self.folder)
        self.assertEqual((16, name), (len(name), storage_of(self.folder)))
        self.assertNotEqual(name, storage_of(Path(self.mktemp())))
        self.assertEqual([STORAGE_FILE], os.listdir(self.folder))

    def test_damaged(self) -> None:
        """A name that is damaged is an error: nobody gives the folder another one."""
        storage_of(self.folder)
        (self.folder / STORAGE_FILE).write_text("00ff")
        self.assertRaises(ValueError, storage_of, self.folder)
        self.assertEqual("00ff", (self.folder / STORAGE_FILE).read_text())

    def test_host(self) -> None:
        """A host has one name."""
        self.assertEqual(host_name(), host_name())
        self.assertTrue(host_name())

    def test_two_processes(self) -> None:
        """Two processes store in one repository at once, and all of both is there."""
        Repository.create(self.folder, DESCRIBED).close()
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.addCleanup(writer.wait)
        self.addCleanup(writer.kill)
        assert writer.stdin is not None and writer.stdout is not None
        self.addCleanup(writer.stdin.close)
        self.addCleanup(writer.stdout.close)
        with Repository.open(self.folder) as opened:
            count = 0
            while (said := writer.stdout.readline()) == "more\n":
                opened.add(blob(count))
                count += 1
                opened.flush()
                writer.stdin.write("\n")
                writer.stdin.flush()
            self.assertEqual((10, "done\n"), (count, said))
            ours = [blob(number).id for number in range(count)]
            theirs = [blob(1000 + number).id for number in range(200)]
            self.assertEqual(210, len(list(opened.read(ours + theirs))))
