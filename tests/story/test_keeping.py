"""The story of what is deleted, locked and kept, with real processes."""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

from cloudconnect.backup.comparison import compare_trees
from tests.story.processes import Done, Line, Provider, StoryCase


class KeepingTests(StoryCase):
    """A tenant deletes, takes back, locks and sets what is kept; the provider freezes and cares."""

    async def admin(self, *words: str, status: int = 0) -> Done:
        done = await self.run_command(
            "provider", *words, "--json", "--directory", str(self.provider.directory)
        )
        self.assertStatus(done, status)
        return done

    async def listed(self, line: Line, *words: str) -> list[dict[str, Any]]:
        done = await line.run("points", *words)
        self.assertStatus(done, 0)
        return [record for record in done.records if record["message_type"] == "point"]

    async def test_story(self) -> None:
        """From three backups to what becomes of each."""
        source = self.folder / "source"
        source.mkdir()
        self.provider = provider = Provider(self)
        line = Line(self, provider, 0, provider.add_tenant())
        await provider.start()
        line.environment["CLOUDCONNECT_PROVIDER"] = f"localhost:{provider.port}"
        self.assertStatus(await line.connect(), 0)
        points = []
        for number in range(3):
            (source / f"file-{number}").write_bytes(os.urandom(50_000))
            points.append((await line.run("backup", str(source))).summary["point"])
        first, second, third = points

        # Into the bin, restorable from there, and out of it again.
        deleted = await line.run("delete", first[:10], "--yes")
        self.assertStatus(deleted, 0)
        (row,) = await self.listed(line, "--deleted")
        self.assertEqual((first, "tenant"), (row["point"], row["deleted_by"]))
        self.assertTrue(13.9 < (row["bin_until"] - time.time()) / 86400 < 14.1)
        self.assertEqual([second, third], [row["point"] for row in await self.listed(line)])
        self.assertStatus(await line.run("ls", first[:10]), 0)
        target = self.folder / "from-the-bin"
        self.assertStatus(await line.run("restore", first, "--target", str(target)), 0)
        self.assertEqual(["file-0"], os.listdir(f"{target}{source}"))
        self.assertStatus(await line.run("undelete", first[:10]), 0)
        self.assertEqual(points, [row["point"] for row in await self.listed(line)])

        # A lock holds against its owner.
        self.assertStatus(await line.run("lock", "latest", "--until", "2099-12-31"), 0)
        refused = await line.run("delete", third, "--yes")
        self.assertStatus(refused, 1)
        self.assertIn("locked until", refused.error["message"])
        self.assertStatus(await line.run("delete", "ffffffffffff", "--yes"), 10)

        # What would be kept, and what is set takes force later.
        tried = await line.run("retention", "dry-run", "--keep-last", "1")
        kept = {r["point"]: r["keep"] for r in tried.records if r["message_type"] == "decision"}
        self.assertEqual({first: False, second: False, third: True}, kept)
        done = await line.run("retention", "set", "--keep-last", "1")
        self.assertTrue(done.summary["has_pending"])
        self.assertEqual(3, len(await self.listed(line)))

        # Frozen, nothing goes; what the provider does needs no key and finds nothing.
        await self.admin("tenant", "freeze", "acme")
        refused = await line.run("delete", first, "--yes")
        self.assertStatus(refused, 1)
        self.assertIn("frozen", refused.error["message"])
        await self.admin("gc", status=1)
        await self.admin("tenant", "thaw", "acme")
        self.assertStatus(await line.run("delete", first, "--yes"), 0)
        await self.admin("gc")
        (scrubbed,) = (await self.admin("scrub")).records
        self.assertEqual(0, scrubbed["found"])
        (row,) = (await self.admin("points", "--deleted")).records
        self.assertEqual((first, "acme"), (row["point"], row["tenant"]))

        # After the lease it is only looked at and restored.
        ended = (datetime.date.today() - datetime.timedelta(days=10)).isoformat()
        await self.admin("tenant", "set", "acme", "--lease", ended)
        self.assertStatus(await line.run("delete", second, "--yes"), 14)
        self.assertStatus(await line.run("undelete", first), 0)
        target = self.folder / "restored"
        self.assertStatus(await line.run("restore", third, "--target", str(target)), 0)
        came_back = os.fsencode(f"{target}{source}")
        self.assertEqual([], compare_trees(os.fsencode(source), came_back))

        # And when the time of grace is over too, not even that.
        await self.admin("tenant", "set", "acme", "--lease", "2020-01-31")
        self.assertStatus(await line.run("points"), 14)
        await self.admin("tenant", "set", "acme", "--lease", "none")

        # Another token, and the old one does not log in any more.
        (shown, _) = (await self.admin("tenant", "set", "acme", "--new-token")).records
        self.assertStatus(await line.run("points"), 12)
        (self.folder / "acme.token").write_text(shown["token"] + "\n")
        self.assertEqual(3, len(await self.listed(line)))
