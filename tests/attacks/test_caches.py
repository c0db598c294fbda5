"""Block caches that somebody, or a disk, has changed: found by hash, healed, never believed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from twisted.internet.threads import deferToThreadPool

from cloudconnect.accelerator.caches import KEEP_SECONDS
from tests.dedup.pairs import noise
from tests.provider.stage import StageCase, Tenant

#: Bytes of the file that is backed up again and again.
SIZE = 600_000


class CacheCase(StageCase):
    """A tenant whose backups and restores go through accelerators with caches on disk."""

    def setUp(self) -> None:
        super().setUp()
        self.tenant_ = self.accelerated()
        self.folder = self.source()
        self.content = bytearray(noise(SIZE))
        self.number = 0

    def sides(self) -> tuple[Path, Path]:
        """The folders of the caches, the provider's first."""
        return self.provider.caches, self.directory / "acme-caches"

    def round(self, tenant: Tenant | None = None) -> int:
        """Change something, back up, restore and compare; bytes that it took on the line."""
        tenant = tenant or self.tenant_
        before = int(tenant.manager.saved.get("bytes_after", 0))
        self.number += 1
        # A new chunk each time, so that it is sent, of blocks that were sent before.
        self.content[300_000 : 300_000 + 8] = self.number.to_bytes(8, "big")
        Path(self.folder, "image").write_bytes(self.content)
        result = self.reactor.result_of(tenant.back_up(self.folder))
        target = self.mktemp()
        os.mkdir(target)
        self.reactor.result_of(tenant.restore(result.point, target))
        restored = Path(target, os.path.abspath(self.folder)[1:], "image")
        self.assertEqual(bytes(self.content), restored.read_bytes())
        self.assertEqual([], tenant.warnings)
        after = int(tenant.manager.saved["bytes_after"])
        # Caches are closed some time after the last session, and opened again for the next one.
        self.reactor.pass_time(KEEP_SECONDS + 1, 10)
        for accelerator in (self.provider.accelerator, tenant.accelerator):
            assert accelerator is not None
            while accelerator._caches.open:
                self.reactor.result_of(deferToThreadPool(self.reactor, accelerator._pool, int))
        return after - before

    def damage(self, side: Path, change: Callable[[Path], object]) -> None:
        """Change every file of a side's cache."""
        files = [path for path in side.rglob("*") if path.is_file()]
        self.assertGreater(len(files), 2)
        for path in files:
            change(path)


class DamageTests(CacheCase):
    """What may happen to the files of a cache between two backups."""

    def heals(self, change: Callable[[Path], object]) -> None:
        """After ``change`` at either side a backup and a restore are exact, and the ones after
        them are as cheap as if nothing had been."""
        self.round()
        cheap = self.round()
        self.assertLess(cheap, SIZE // 2)
        for side in self.sides():
            self.damage(side, change)
            self.round()
            self.assertLess(self.round(), SIZE // 2)
        for side in self.sides():
            self.damage(side, change)
        self.round()
        self.assertLess(self.round(), SIZE // 2)

    def test_flips(self) -> None:
        """A byte changed in every file: at its beginning, in its middle, near its end."""
        for where in (0.0, 0.1, 0.5, 0.9, 1.0):

            def flip(path: Path, where: float = where) -> None:
                octets = bytearray(path.read_bytes())
                if octets:
                    octets[int(where * (len(octets) - 1))] ^= 0x10
                    path.write_bytes(octets)

            self.heals(flip)

    def test_many_flips(self) -> None:
        """A byte changed in every 4096."""

        def flip(path: Path) -> None:
            octets = bytearray(path.read_bytes())
            for at in range(7, len(octets), 4096):
                octets[at] ^= 0x01
            path.write_bytes(octets)

        self.heals(flip)

    def test_cut(self) -> None:
        """Every file cut to its half, or to nothing."""
        for part in (2, 10**9):
            self.heals(lambda path, part=part: os.truncate(path, path.stat().st_size // part))

    def test_longer(self) -> None:
        """Bytes behind the end of every file."""

        def append(path: Path) -> None:
            path.write_bytes(path.read_bytes() + noise(5000, 9))

        self.heals(append)

    def test_gone(self) -> None:
        """Every file removed."""
        self.heals(lambda path: path.unlink())


class ForeignTests(CacheCase):
    """Caches of somebody else in the place of a tenant's own."""

    def test_other_tenants(self) -> None:
        """Two tenants' folders exchanged: neither gets a byte of the other's, and both go on."""
        other = self.accelerated("other")
        self.round()
        self.round(other)
        first, second = sorted(self.provider.caches.iterdir())
        kept = self.directory / "kept"
        for one, two in ((first, kept), (second, first), (kept, second)):
            shutil.move(one, two)
        for tenant in (self.tenant_, other):
            self.round(tenant)
            self.assertLess(self.round(tenant), SIZE // 2)

    def test_earlier_state(self) -> None:
        """A cache that is put back to an earlier state, at either side."""
        self.round()
        for side in self.sides():
            kept = self.directory / f"kept-{side.name}"
            shutil.copytree(side, kept)
            self.round()
            shutil.rmtree(side)
            shutil.copytree(kept, side)
            self.round()
            self.assertLess(self.round(), SIZE // 2)

    def test_sides_exchanged(self) -> None:
        """The files of one side's cache in the place of the other's."""
        self.round()
        (ours,), (theirs,) = (list(side.iterdir()) for side in self.sides())
        kept = self.directory / "kept"
        shutil.copytree(ours, kept)
        for name in ours.iterdir():
            if name.is_file():
                name.unlink()
        shutil.copytree(theirs, ours, dirs_exist_ok=True)
        self.round()
        self.assertLess(self.round(), SIZE // 2)
