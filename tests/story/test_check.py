"""Damage at the provider, with real processes: found, named, healed by the next backup."""

from __future__ import annotations

import os
from pathlib import Path

from cloudconnect.backup.comparison import compare_trees
from tests.backup.trees import make_odd_tree, write
from tests.story.processes import Line, Provider, StoryCase


class CheckTests(StoryCase):
    """A provider whose disk changes bytes, and a tenant who checks."""

    async def test_found_and_healed(self) -> None:
        """A stored byte of a file, and then one of a manifest, are flipped: each time the check
        ends with 20 and names what is hit, the next backup sends it again, and then all is well
        and comes back."""
        # Not below the folder that all programs make temporary files in: the folders on the way to
        # a source are in the manifest, and of a changed one the old chunk does not come again.
        source = os.fsencode(os.path.abspath(self.mktemp())) + b"/source"
        make_odd_tree(source + b"/odd")
        write(source + b"/one-of-many", os.urandom(9_000_000))
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

        paths = set()
        for pack in self.packs(provider):
            flip(pack)
            damaged = await line.run("check", "--read-data")
            self.assertStatus(damaged, 20)
            hit = [r for r in damaged.records if r["message_type"] == "damage"]
            self.assertIn(backup.summary["point"], {r["point"] for r in hit})
            paths |= {r["path"] for r in hit}
            self.assertStatus(await line.run("backup", os.fsdecode(source)), 0)
            healed = await line.run("check", "--read-data")
            self.assertStatus(healed, 0)
        # A manifest's chunk, which has no path of a file, is in a pack of its own.
        self.assertEqual(paths, {os.fsdecode(source + b"/one-of-many"), None})

        target = os.fsencode(self.folder) + b"/target"
        point = str(backup.summary["point"])
        restored = await line.run("restore", point, "--target", os.fsdecode(target))
        self.assertStatus(restored, 0)
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
