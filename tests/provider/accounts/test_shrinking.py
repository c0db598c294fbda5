"""Tests of :mod:`cloudconnect.provider.accounts.shrinking`: room of what was forgotten."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from cloudconnect.errors import NoSpace
from cloudconnect.provider.accounts import Accounts, shrinking
from cloudconnect.provider.accounts.shrinking import KEPT_PAGES, SLICE_PAGES
from tests.provider.accounts.case import AccountsCase


class ShrinkingTests(AccountsCase):
    """A data base that had much in it."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(shrinking, "KEPT_PAGES", 40)
        self.patch(shrinking, "SLICE_PAGES", 100)

    def flood(self, values: int = 30) -> None:
        """Much is written, and goes."""
        for number in range(values):
            self.accounts.keep_value(f"flood-{number}", bytes(80_000))
        self.execute("DELETE FROM provider WHERE name LIKE 'flood-%'")

    def pages(self) -> int:
        """How many pages the file has, in use and not."""
        return int(self.execute("PRAGMA page_count")[0][0])

    def test_constants(self) -> None:
        """What stays free is more than one slice."""
        self.assertGreater(KEPT_PAGES, SLICE_PAGES)

    def test_gives_back(self) -> None:
        """What is free is given back in slices, but for what will be wanted again."""
        self.accounts.keep_value("stays", b"here")
        self.flood()
        before = self.pages()
        self.assertGreater(before, 600)
        slices = []
        while count := self.accounts.give_back():
            slices.append(count)
        self.assertGreater(len(slices), 3)
        self.assertEqual(100, max(slices))
        self.assertEqual(before - sum(slices), self.pages())
        self.assertLess(self.pages(), 200)
        self.assertEqual(b"here", self.accounts.value("stays"))
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.assertLess(self.path.stat().st_size, 200 * 4096)

    def test_little(self) -> None:
        """Little is not worth while; nor is what is a small part of all."""
        self.flood(1)
        self.assertEqual(0, self.accounts.give_back())
        for number in range(60):
            self.accounts.keep_value(f"stays-{number}", bytes(80_000))
        self.flood(10)
        self.assertEqual(0, self.accounts.give_back())

    def older(self) -> None:
        """A data base as an older release has made it."""
        self.accounts.close()
        connection = sqlite3.connect(self.path)
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("VACUUM")
        connection.close()
        self.assertEqual([(0,)], self.execute("PRAGMA auto_vacuum"))
        self.accounts = self.opened()

    def test_of_an_older_release(self) -> None:
        """One that cannot give pages back is written anew once, and can from then on."""
        self.older()
        self.accounts.keep_value("stays", b"here")
        self.flood()
        self.assertGreater(self.accounts.give_back(), 500)
        self.assertEqual(0, self.accounts.give_back())
        self.assertLess(self.path.stat().st_size, 200 * 4096)
        self.assertEqual(b"here", self.accounts.value("stays"))
        self.assertEqual([(2,)], self.execute("PRAGMA auto_vacuum"))
        self.flood()
        self.assertEqual(100, self.accounts.give_back())

    def test_too_much_in_use(self) -> None:
        """Not where so much is in use that others would wait for long."""
        self.older()
        self.patch(shrinking, "ANEW_PAGES", 5)
        self.flood()
        self.assertEqual(0, self.accounts.give_back())

    def test_read_only(self) -> None:
        """A disk that is full or read-only is said to be that."""
        self.flood()
        self.accounts.close()
        accounts = Accounts(f"sqlite:///file:{Path(self.path).absolute()}?mode=ro&uri=true")
        self.addCleanup(accounts.close)
        self.assertRaises(NoSpace, accounts.give_back)
