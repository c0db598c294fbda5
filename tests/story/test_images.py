"""A block device backed up, restored and dumped by real commands."""

from __future__ import annotations

import os
from pathlib import Path

from tests.backup.loops import loop_device
from tests.story.processes import Line, Provider, StoryCase

MIB = 1 << 20


class DeviceTests(StoryCase):
    """What a person types."""

    async def test_there_and_back(self) -> None:
        """The device's content is a file below the target, and what dump writes."""
        content = bytes(3 * MIB) + os.urandom(MIB) + bytes(4 * MIB) + b"end" + bytes(MIB - 3)
        image = self.folder / "image"
        image.write_bytes(content)
        device = os.fsdecode(loop_device(self, os.fsencode(image)))
        provider = Provider(self)
        token = provider.add_tenant()
        await provider.start()
        line = Line(self, provider, provider.port, token)
        self.assertStatus(await line.connect(), 0)
        done = await line.run("backup", device, "--job", "disks")
        self.assertStatus(done, 0)
        self.assertEqual(done.summary["devices"], [device])
        self.assertEqual(done.summary["bytes_source"], len(content))
        self.assertLess(done.summary["bytes_sent"], 2 * MIB)
        target = self.folder / "restored"
        restored = await line.run("restore", "latest", "--job", "disks", "--target", str(target))
        self.assertStatus(restored, 0)
        self.assertTrue(Path(f"{target}{device}").read_bytes() == content)
        dumped = self.command("dump", "latest", device, "--job", "disks", **line.environment)
        self.assertEqual(await dumped.end(), 0)
        self.assertTrue(bytes(dumped.out) == content)
