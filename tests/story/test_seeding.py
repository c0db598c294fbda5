"""Seeded caches at both ends make a first backup from another machine small; real processes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

from cloudconnect.backup.comparison import compare_trees
from tests.story.processes import Line, Provider, StoryCase

#: Bytes of the image: enough that what a session costs by itself does not count.
IMAGE = 8 << 20


class SeedingTests(StoryCase):
    """``provider wan seed`` and ``wan seed``."""

    async def setUpStory(self, mode: str = "provider") -> None:
        """A provider that runs, and a tenant with a repository in this mode."""
        self.provider = Provider(self)
        token = self.provider.add_tenant("acme", modes=["tenant", "provider"])
        await self.provider.start()
        self.line = Line(self, self.provider, self.provider.port, token)
        self.line.environment["CLOUDCONNECT_ENCRYPTION"] = mode
        if mode != "tenant":
            del self.line.environment["CLOUDCONNECT_PASSPHRASE_FILE"]
        self.assertStatus(await self.line.connect(), 0)

    def machine(self, name: str) -> dict[str, str]:
        """The environment of a machine of its own, as which the tenant connects."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        return {"HOME": str(home), "CLOUDCONNECT_HOST": name, "CLOUDCONNECT_WAN_CACHE_GB": "1"}

    async def admin(self, *words: str) -> Any:
        """An act of the provider's admin."""
        return await self.run_command(
            "provider", "wan", *words, "--json", "--directory", str(self.provider.directory)
        )

    async def test_seeded(self) -> None:
        """Machine A backs up an image directly, the provider seeds its cache from it, machine B its
        own from the same image: B's first backup of a later state sends little of it, restores
        exactly, and what the caches hold can be seen and cleared."""
        await self.setUpStory()
        first, later = self.folder / "v1", self.folder / "v2"
        changed = make_states(first, later)
        a, b, c = (self.machine(name) for name in "abc")
        for machine in (a, b, c):
            here = self.line.environment["CLOUDCONNECT_PROVIDER"]
            self.assertStatus(await self.line.run("connect", here, **machine), 0)
        self.assertStatus(await self.line.run("backup", str(first), "--wan", "off", **a), 0)

        seeded = await self.admin("seed", "acme")
        self.assertStatus(seeded, 0)
        self.assertEqual((1, 1), (seeded.summary["points"], seeded.summary["points_total"]))
        self.assertTrue(seeded.summary["complete"])
        self.assertGreater(seeded.summary["bytes_added"], IMAGE)
        own = await self.line.run("wan", "seed", str(first), **b)
        self.assertStatus(own, 0)
        self.assertTrue(own.summary["complete"])
        self.assertGreater(own.summary["bytes_added"], IMAGE)

        warm = await self.line.run("backup", str(later), "--wan", "on", **b)
        self.assertStatus(warm, 0)
        self.assertTrue(warm.summary["wan"]["used"])
        self.assertGreater(warm.summary["wan"]["saved_by_delta"], changed)
        self.assertLess(warm.summary["bytes_sent"], IMAGE // 20)
        self.assertLess(warm.summary["bytes_sent"], 3 * changed + 100_000)

        target = self.folder / "restored"
        words = ("restore", warm.summary["point"], "--target", str(target), "--wan", "on")
        restored = await self.line.run(*words, **c)
        self.assertStatus(restored, 0)
        self.assertEqual([], compare_trees(os.fsencode(later), os.fsencode(f"{target}{later}")))

        listed = await self.admin("show")
        self.assertEqual(["acme"], [row["tenant"] for row in listed.records])
        self.assertGreater(listed.records[0]["bytes"], IMAGE)
        events = [row["name"] for row in await self.provider.listed("events")]
        self.assertIn("cache_seeded", events)
        (held,) = (await self.line.run("wan", "show", **b)).records
        self.assertGreater(held["bytes"], IMAGE)
        cleared = await self.line.run("wan", "clear", **b)
        self.assertEqual(held["bytes"], cleared.summary["bytes_removed"])
        (held,) = (await self.line.run("wan", "show", **b)).records
        self.assertEqual((0, 0), (held["bytes"], held["blocks"]))

    async def test_what_cannot_be_read(self) -> None:
        """In mode ``tenant`` neither end can be seeded, and both say why."""
        await self.setUpStory("tenant")
        done = await self.line.run("wan", "seed", str(self.folder))
        self.assertStatus(done, 2)
        self.assertIn("sealed", done.error["message"])
        done = await self.admin("seed", "acme")
        self.assertStatus(done, 1)
        self.assertIn("encryption mode 'tenant'", done.error["message"])


def make_states(first: Path, later: Path) -> int:
    """Two states of a folder with an image that nothing compresses; bytes that differ."""
    chance = random.Random(6)
    image = bytearray(chance.randbytes(IMAGE))
    changed = 0
    for folder in (first, later):
        folder.mkdir()
        (folder / "image").write_bytes(image)
        for number in range(20):
            (folder / f"file {number}").write_bytes(b"%d in every state" % number * 100)
        for _ in range(10):  # what is different in the later one
            at, new = chance.randrange(IMAGE - 1000), chance.randbytes(500)
            image[at : at + len(new)] = new
            changed += len(new)
    return changed // 2
