"""Tests of :mod:`cloudconnect.config.rebuilding`: a catalogue from what lies in the repository."""

from __future__ import annotations

from cloudconnect.config.rebuilding import rebuild_all
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.store import Repository
from tests.config.test_catalogue import CatalogueCase


class RebuildTests(CatalogueCase):
    """What comes back."""

    def test_packs_alone(self) -> None:
        """A catalogue that is lost is made again from the packs alone, and serves every point."""
        for path in self.repository.glob(f"{CATALOGUE}*"):
            path.unlink()
        (rebuilt,) = rebuild_all(self.settings, read_data=True)
        self.assertEqual((2, 0, ()), (rebuilt.points, rebuilt.policies, rebuilt.damaged))
        self.assert_restores()

    def test_damaged(self) -> None:
        """One that is damaged is put aside."""
        path = self.repository / CATALOGUE
        for leftover in self.repository.glob(f"{CATALOGUE}-*"):
            leftover.unlink()
        path.write_bytes(b"nonsense" * 1000)
        (rebuilt,) = rebuild_all(self.settings)
        self.assertEqual(2, rebuilt.points)
        aside = [
            p for p in self.repository.glob(f"{CATALOGUE}.*") if p.read_bytes()[:8] == b"nonsense"
        ]
        self.assertEqual(1, len(aside))
        self.assert_restores()

    def test_policies_stay(self) -> None:
        """Where the catalogue can be read its policies stay."""
        with Repository.open(self.repository) as opened:
            opened.set_retention("some-host", "", RetentionPolicy(keep_last=100))
        (rebuilt,) = rebuild_all(self.settings, lambda name: True)
        self.assertEqual(1, rebuilt.policies)
        self.assertEqual([], rebuild_all(self.settings, lambda name: False))
