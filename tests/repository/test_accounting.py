"""Tests for cloudconnect.repository.accounting."""

from __future__ import annotations

from cloudconnect.repository import accounting, packs
from cloudconnect.repository.accounting import PackRow, pack_use
from cloudconnect.repository.packs import ENTRY_SIZE
from tests.repository.repositories import RepositoryCase, blob, name_of


class UseTests(RepositoryCase):
    """What of each pack is used is counted in pieces."""

    def use(self, rows_at_a_time: int) -> list[PackRow]:
        self.patch(accounting, "_ROWS", rows_at_a_time)
        return pack_use(self.repository.catalogue, lambda: None)

    def test_counted(self) -> None:
        """Rows, bytes, and bytes that are not damaged; in one piece or in many."""
        self.patch(packs, "PACK_ENTRIES_MAX", 4)
        self.repository = self.created()
        self.assertEqual(self.use(100), [])
        for number in range(10):
            self.repository.add(blob(number, 100 + number))
        self.repository.flush()
        self.repository.catalogue.mark_damaged([name_of(5)])
        found = self.use(100)
        self.assertEqual(found, self.use(1))
        self.assertEqual(found, self.use(3))
        self.assertEqual([pack.rows for pack in found], [4, 4, 2])
        second = 4 * (100 + ENTRY_SIZE) + 4 + 5 + 6 + 7
        self.assertEqual((found[1].used, found[1].sound), (second, second - 105 - ENTRY_SIZE))
