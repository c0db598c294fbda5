"""Tests of :mod:`cloudconnect.repository.removal`."""

from __future__ import annotations

import shutil

from cloudconnect.errors import Busy, Refused
from cloudconnect.repository.removal import REMOVING, remove_repository
from tests.repository.repositories import RepositoryCase, blob, name_of

YEAR = 365 * 86400.0


class RemovalTests(RepositoryCase):
    """A repository that is removed, or held."""

    def setUp(self) -> None:
        super().setUp()
        self.repository = self.created()
        self.repository.add(blob(0))
        self.repository.flush()
        self.point = self.published(self.repository, b"p" * 16, 1)

    def remove(self) -> None:
        self.repository.close()
        remove_repository(self.directory, self.time)

    def test_removed(self) -> None:
        """All of it goes; once more does nothing."""
        self.remove()
        self.assertFalse(self.directory.exists())
        self.assertEqual([], list(self.directory.parent.glob(f"*{self.directory.name}*")))
        remove_repository(self.directory, self.time)

    def test_locked(self) -> None:
        """A locked point holds it, until the lock is over by the expiry clock too."""
        self.repository.lock([self.point], self.time + 10)
        text = str(self.assertRaises(Refused, self.remove))
        self.assertIn("1 restore point(s) are locked", text)
        self.time += YEAR  # a clock that jumps
        remove_repository(self.directory, self.time)  # it counts a day at most: more than 10 s
        self.assertFalse(self.directory.exists())

    def test_locked_for_long(self) -> None:
        """A clock that jumps forward takes no lock away."""
        self.repository.lock([self.point], self.time + YEAR)
        self.time += 2 * YEAR
        self.assertRaises(Refused, self.remove)
        self.assertEqual([name_of(0)], [b.id for b in self.opened().read([name_of(0)])])

    def test_frozen(self) -> None:
        """So does a freeze."""
        self.repository.freeze()
        self.assertIn("frozen", str(self.assertRaises(Refused, self.remove)))
        self.assertTrue(self.directory.exists())

    def test_in_use(self) -> None:
        """And whoever has it open."""
        self.opened()
        self.assertRaises(Busy, self.remove)
        self.assertTrue(self.directory.exists())

    def test_killed_before(self) -> None:
        """What a process that was killed has left under its last name is removed."""
        self.repository.close()
        going = self.directory.with_name(REMOVING + self.directory.name)
        shutil.move(self.directory, going)
        remove_repository(self.directory, self.time)
        self.assertFalse(going.exists())
