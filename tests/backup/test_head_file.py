"""The file in which a machine remembers a repository's heads."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.head_file import OWN_MAX, HeadFile, Known
from cloudconnect.content.heads import first_chain
from cloudconnect.content.subkeys import RepositoryKeys
from cloudconnect.errors import StoredDataDamaged, UsageError
from cloudconnect.keys import MasterKey

OLD = RepositoryKeys(MasterKey(b"o" * 32), b"r" * 16)
KEYS = RepositoryKeys(MasterKey(b"n" * 32), b"r" * 16, older=[OLD])


def known(number: int) -> Known:
    """What is known after so many points."""
    chain = attrs.evolve(first_chain(KEYS), number=number, value=bytes([number]) * 32)
    return Known(chain, b"p" * 16 * number, (1 << number) - 1, {("host", "job"): number})


class FileTests(SynchronousTestCase):
    """What is written comes back, and nothing else does."""

    def setUp(self) -> None:
        self.path = Path(os.path.abspath(self.mktemp())) / "a" / "b" / "heads"
        self.file = HeadFile(self.path, KEYS)

    def test_there_and_back(self) -> None:
        """Readable by nobody else, in folders that are made for it."""
        self.assertIsNone(self.file.load())
        self.file.save(known(9))
        self.assertEqual(self.file.load(), known(9))
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.path.parent), ["heads"])

    def test_most_labels(self) -> None:
        """Of very many hosts and jobs the newest are remembered."""
        own = {("host", str(number)): number for number in range(OWN_MAX + 5)}
        self.file.save(attrs.evolve(known(9), own=own))
        loaded = self.file.load()
        assert loaded is not None
        self.assertEqual(sorted(loaded.own.values()), list(range(5, OWN_MAX + 5)))

    def test_never_back(self) -> None:
        """Who has seen less does not write over more; who has seen as much does."""
        self.file.save(known(9))
        self.file.save(known(8))
        self.assertEqual(self.file.load(), known(9))
        less_live = attrs.evolve(known(9), live=0)
        self.file.save(less_live)
        self.assertEqual(self.file.load(), less_live)

    def test_older_generation(self) -> None:
        """What was written under an earlier master key is believed, under another one not."""
        HeadFile(self.path, OLD).save(known(3))
        self.assertEqual(self.file.load(), known(3))
        self.file.save(known(4))
        self.assertRaises(StoredDataDamaged, HeadFile(self.path, OLD).load)

    def test_changed(self) -> None:
        """Each byte counts."""
        self.file.save(known(2))
        octets = self.path.read_bytes()
        for at in range(len(octets)):
            changed = bytearray(octets)
            changed[at] ^= 0x10
            self.path.write_bytes(changed)
            error = self.assertRaises(StoredDataDamaged, self.file.load)
            self.assertIn(str(self.path), str(error))
        for length in (0, 1, 31, 32, len(octets) - 1):
            self.path.write_bytes(octets[:length])
            self.assertRaises(StoredDataDamaged, self.file.load)
        self.path.write_bytes(octets + b"\0")
        self.assertRaises(StoredDataDamaged, self.file.load)

    def test_another_repository(self) -> None:
        """Keys of another repository do not fit."""
        self.file.save(known(2))
        other = RepositoryKeys(MasterKey(b"n" * 32), b"x" * 16)
        self.assertRaises(StoredDataDamaged, HeadFile(self.path, other).load)

    def test_unusable(self) -> None:
        """What cannot be read or written is named."""
        self.path.mkdir(parents=True)
        self.assertRaises(UsageError, self.file.load)
        file = HeadFile(self.path.parent / "heads" / "x" / "y", KEYS)
        self.path.rmdir()
        self.path.write_bytes(b"")
        self.assertRaises(UsageError, file.save, known(1))

    def test_no_link(self) -> None:
        """A symbolic link in the place of the temporary file is not followed."""
        self.path.parent.mkdir(parents=True)
        outside = Path(self.mktemp())
        (self.path.parent / f".heads.{os.getpid()}").symlink_to(outside.absolute())
        self.assertRaises(UsageError, self.file.save, known(1))
        self.assertFalse(outside.exists())
