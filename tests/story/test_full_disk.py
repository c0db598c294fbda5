"""The provider's disk without a free byte, and read-only: on a real file system of its own.

Needs root and loop devices; skipped with the reason where there are none.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.data_mover.reserve import SIZE as RESERVE
from tests.story.processes import Line, Provider, StoryCase

#: Bytes of the file system: room for the reserve, for what must stay free, and for some backups.
SIZE = 800 << 20
#: Bytes of a backup that is to become garbage.
LARGE = 80 << 20


class FullDiskTests(StoryCase):
    """What people can still do."""

    timeout = 600

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("a file system of its own needs root")
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        image = self.folder / "image"
        with image.open("wb") as file:
            file.truncate(SIZE)
        try:
            self.run_tool("mkfs.ext4", "-q", "-m", "0", str(image))
            self.run_tool("mount", "-o", "loop", str(image), str(self.disk))
        except (OSError, subprocess.CalledProcessError) as error:
            raise SkipTest(f"no loop-mounted file system here: {error}") from None
        self.addCleanup(self.run_tool, "umount", "-l", str(self.disk))
        self.source = self.folder / "source"
        self.source.mkdir()
        (self.source / "file").write_bytes(os.urandom(2_000_000))

    def run_tool(self, *words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    @property
    def filler(self) -> Path:
        return self.disk / "filler"

    def free(self) -> int:
        found = os.statvfs(self.disk)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Leave not one byte."""
        with self.filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), file.tell(), max(1, self.free() - (1 << 20)))
        with self.filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        self.assertLess(self.free(), 4096)

    async def restores(self, line: Line, point: str, name: str) -> None:
        """Points are listed, files too, and a restore is exact."""
        self.assertStatus(await line.run("points"), 0)
        self.assertStatus(await line.run("ls", point), 0)
        target = self.folder / name
        self.assertStatus(await line.run("restore", point, "--target", str(target)), 0)
        came_back = os.fsencode(f"{target}{self.source}")
        self.assertEqual([], compare_trees(os.fsencode(self.source), came_back))

    async def admin(self, *words: str, status: int = 0) -> list[dict[str, object]]:
        where = ("--json", "--directory", str(self.provider.directory))
        done = await self.run_command("provider", *words, *where)
        self.assertStatus(done, status)
        return done.records

    async def test_full_and_read_only(self) -> None:
        """Restores, listings and a freeze work; backups end with 11; gc makes room again."""
        self.provider = provider = Provider(self, "disk/provider")
        token = provider.add_tenant()
        accounts = Accounts(provider.settings.accounts_url)
        # What is deleted may go at once, and what nobody needs with it.
        accounts.change_tenant("acme", {"rules": {"bin_days": 0, "grace_hours": 0}})
        accounts.close()
        await provider.start()
        self.assertEqual(provider.settings.reserve.stat().st_size, RESERVE)
        line = Line(self, provider, provider.port, token)
        self.assertStatus(await line.connect(), 0)
        kept = (await line.run("backup", str(self.source))).summary["point"]
        large = self.folder / "large"
        large.write_bytes(os.urandom(LARGE))
        gone = (await line.run("backup", str(large), "--job", "large")).summary["point"]
        await self.admin("gc")  # what is there now may be garbage at the next one
        self.assertStatus(await line.run("delete", gone, "--yes"), 0)

        self.fill()
        await self.restores(line, kept, "full")
        self.assertStatus(await line.run("backup", str(self.source)), 11)
        await self.admin("tenant", "freeze", "acme")
        (row,) = await self.admin("tenant", "list")
        self.assertTrue(row["frozen"])
        self.assertStatus(await line.run("delete", kept, "--yes"), 1)
        await self.admin("tenant", "thaw", "acme")

        # With room again the reserve is made at the next start, and helps once more.
        await provider.stop()
        self.filler.unlink()
        await provider.start()
        self.assertEqual(provider.settings.reserve.stat().st_size, RESERVE)
        await provider.stop()
        self.fill()
        await provider.start()
        line = Line(self, provider, provider.port, token)
        await self.restores(line, kept, "full-from-the-start")

        before = self.free()
        await self.admin("gc")
        self.assertGreater(self.free() - before, LARGE * 3 // 4)
        await self.restores(line, kept, "collected")

        await provider.stop()
        self.filler.unlink()
        self.run_tool("mount", "-o", "remount,ro", str(self.disk))
        await provider.start()
        line = Line(self, provider, provider.port, token)
        await self.restores(line, kept, "read-only")
        self.assertStatus(await line.run("backup", str(self.source)), 11)
        await self.admin("tenant", "freeze", "acme")
        self.assertEqual(1, len(await self.admin("points")))
        await provider.stop()
        self.run_tool("mount", "-o", "remount,rw", str(self.disk))
        await provider.start()
        line = Line(self, provider, provider.port, token)
        self.assertStatus(await line.run("backup", str(self.source)), 0)
        self.assertEqual(provider.settings.reserve.stat().st_size, RESERVE)
