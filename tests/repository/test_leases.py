"""Tests for cloudconnect.repository.leases."""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import NoSpace, Refused
from cloudconnect.repository.leases import Leases
from cloudconnect.repository.store import Repository
from tests.repository.repositories import RepositoryCase, blob, name_of


class LeasesTests(RepositoryCase):
    """Every session holds a lease of the epoch in which it began."""

    def setUp(self) -> None:
        super().setUp()
        self.first = self.created()
        self.leases = Leases(self.first.store, self.first.catalogue)

    def test_fence(self) -> None:
        """A fence raises the epoch; who comes behind it has the new number."""
        self.assertEqual(self.leases.oldest(), 0)
        self.assertEqual(self.leases.fence(), 1)
        second = self.opened()
        self.assertEqual(self.leases.oldest(), 0)
        self.first._release()
        self.assertEqual(self.leases.oldest(), 1)
        self.assertEqual(self.leases.fence(), 2)
        self.assertEqual(self.leases.oldest(), 1)
        second.close()
        self.assertEqual(self.leases.oldest(), 2)

    def test_closed(self) -> None:
        """A lease ends when its repository is closed, or could not be opened."""
        self.first.close()
        self.assertEqual(self.files("leases"), [])
        for how in (Repository.open, lambda d: Repository.open(d, lease=False)):
            with how(self.directory):
                pass
            self.assertEqual(self.files("leases"), [])

    def test_lease_of_meanwhile(self) -> None:
        """Who comes while the leases are looked at does not make anything reachable again."""
        self.leases.fence()
        self.first._release()
        real = self.first.store.leases

        def leases() -> Any:
            self.leases.fence()
            return real()

        self.patch(self.first.store, "leases", leases)
        self.assertEqual(self.leases.oldest(), 1)

    def test_read_only(self) -> None:
        """Who only reads where nothing can be written has none."""
        self.first.close()
        self.opened(read_only=True)
        self.assertEqual(self.files("leases"), [])

    def test_nothing_stored_without(self) -> None:
        """Without a lease nothing can be stored, and everything can be read."""
        self.first.add(blob(1))
        self.first.flush()
        other = self.opened(lease=False)
        self.assertEqual(other.have([name_of(1)]), [True])
        self.assertEqual(list(other.read([name_of(1)])), [blob(1)])
        self.assertRaises(Refused, other.add, blob(2))
        self.assertRaises(Refused, other.begin_references)

    def test_failing(self) -> None:
        """Where no lease can be had nothing stays open."""
        self.patch(Leases, "take", lambda _: (_ for _ in ()).throw(NoSpace("full")))
        self.assertRaises(NoSpace, self.opened)
