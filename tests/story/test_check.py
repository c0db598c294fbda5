"""Damage at the provider, with real processes: found, named, healed by the next backup."""

from __future__ import annotations

import os
from pathlib import Path

from cloudconnect.backup.comparison import compare_trees
from tests.backup.trees import make_odd_tree, write
from tests.story.processes import Done, Line, Provider, StoryCase


class CheckTests(StoryCase):
    """A provider whose disk changes bytes, and a tenant who checks."""

    async def test_found_and_healed(self) -> None:
        """A stored byte of a file, and then one of a manifest, are flipped: each time the check
        ends with 20 and names what is hit; the next backup sends it again, and comes back."""
        source = os.fsencode(self.folder) + b"/source"
        make_odd_tree(source + b"/odd")
        write(
            source + b"/one-of-many", os.urandom(24_000_000)
        )  # the middle of its pack, whatever the order
        provider = Provider(self)
        token = provider.add_tenant()
        await provider.start()
        line = Line(self, provider, provider.port, token)
        self.assertStatus(await line.connect(), 0)
        backup = await line.run("backup", os.fsdecode(source))
        self.assertStatus(backup, 0)
        clean = await line.run("check", "--read-data")
        self.assertStatus(clean, 0)
        self.assertEqual(clean.summary["chunks_read"], clean.summary["chunks"])

        data, *others = sorted(self.packs(provider), key=lambda pack: -pack.stat().st_size)
        self.assertEqual(await self.damaged(line, data), {os.fsdecode(source + b"/one-of-many")})
        self.assertStatus(await line.run("backup", os.fsdecode(source)), 0)
        self.assertStatus(await line.run("check", "--read-data"), 0)
        await self.restored(line, backup, source)

        # A manifest's chunks are in a pack of their own. It holds the times of the folders above
        # the source, too, so that it comes again cannot be relied on here.
        for pack in others:
            self.assertEqual(await self.damaged(line, pack), {None})
        again = await line.run("backup", os.fsdecode(source))
        self.assertStatus(again, 0)
        self.assertStatus(await line.run("check", "--read-data", str(again.summary["point"])), 0)
        await self.restored(line, again, source)

    async def damaged(self, line: Line, pack: Path) -> set[str | None]:
        """Flip a byte of a pack; the paths that a check then names."""
        flip(pack)
        done = await line.run("check", "--read-data", "--at-provider")
        self.assertStatus(done, 20)
        self.assertEqual(done.summary["chunks_read"], 0)
        return {r["path"] for r in done.records if r["message_type"] == "damage"}

    async def restored(self, line: Line, backup: Done, source: bytes) -> None:
        """A restore point comes back exactly."""
        point = str(backup.summary["point"])
        target = os.fsencode(self.folder) + b"/target-" + point.encode()
        done = await line.run("restore", point, "--target", os.fsdecode(target))
        self.assertStatus(done, 0)
        self.assertEqual(compare_trees(source, target + source), [])

    def packs(self, provider: Provider) -> list[Path]:
        """Files with stored chunks."""
        found = [path for path in provider.directory.rglob("packs/**/*") if path.is_file()]
        self.assertGreaterEqual(len(found), 2)
        return found


def flip(pack: Path) -> None:
    """Change one byte in the middle of a file."""
    octets = bytearray(pack.read_bytes())
    octets[len(octets) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(octets)
