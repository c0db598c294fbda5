"""Looking into restore points, and restoring in steps, with real processes."""

from __future__ import annotations

import io
import os
import shutil
import tarfile

from cloudconnect.backup.comparison import compare_trees
from tests.backup.trees import age_tree, write
from tests.story.processes import Line, Provider, StoryCase


class LookingTests(StoryCase):
    """Two restore points of a tree that has changed."""

    async def test_diff_find_and_restore_again(self) -> None:
        """What changed is told, a file is found in both, and a restore that is run again fetches
        what is missing or wrong only."""
        source = os.fsencode(self.folder) + b"/source"
        write(source + b"/docs/letter.odt", b"dear")
        write(source + b"/docs/old", b"old")
        write(source + b"/large", os.urandom(3_000_000))
        age_tree(source)
        provider = Provider(self)
        token = provider.add_tenant()
        await provider.start()
        line = Line(self, provider, provider.port, token)
        self.assertStatus(await line.connect(), 0)
        first = await line.run("backup", os.fsdecode(source))
        write(source + b"/docs/letter.odt", b"dear you")
        os.unlink(source + b"/docs/old")
        age_tree(source)
        second = await line.run("backup", os.fsdecode(source))
        points = [str(done.summary["point"]) for done in (first, second)]

        changes = await line.run("diff", points[0], "latest", os.fsdecode(source))
        self.assertStatus(changes, 0)
        found = {
            (r["kind"], r["path"]) for r in changes.records if r.get("message_type") == "change"
        }
        letter, old = (os.fsdecode(source + name) for name in (b"/docs/letter.odt", b"/docs/old"))
        self.assertEqual(
            {("content", letter), ("removed", old)}, {one for one in found if one[0] != "metadata"}
        )
        self.assertEqual(changes.summary["bytes_added"], 4)

        letters = await line.run("find", "*.odt")
        self.assertStatus(letters, 0)
        entries = [r for r in letters.records if r["message_type"] == "entry"]
        self.assertEqual(
            [(r["point"], r["size"]) for r in entries], [(points[0], 4), (points[1], 8)]
        )
        self.assertStatus(await line.run("find", "*.none"), 10)

        target = os.fsencode(self.folder) + b"/target"
        options = ("latest", "--target", os.fsdecode(target))
        whole = await line.run("restore", *options)
        self.assertStatus(whole, 0)
        shutil.rmtree(target + source + b"/docs")
        again = await line.run("restore", *options, "--verify")
        self.assertStatus(again, 0)
        self.assertLess(again.summary["bytes_received"] * 20, whole.summary["bytes_received"])
        self.assertEqual(again.summary["unchanged"], 1)
        self.assertEqual(compare_trees(source, target + source), [])
        none = await line.run("restore", *options, "--include", "*.none")
        self.assertStatus(none, 10)
        listed = await line.run("restore", *options, "--dry-run", "--verbose")
        paths = [r["path"] for r in listed.records if r["message_type"] == "entry"]
        self.assertIn(letter, paths)

        dumped = self.command("dump", "latest", "--tar", "/", **line.environment)
        self.assertEqual(await dumped.end(), 0)
        with tarfile.open(fileobj=io.BytesIO(bytes(dumped.out))) as archive:
            file = archive.extractfile(letter[1:])
            assert file is not None
            self.assertEqual(b"dear you", file.read())
        refused = self.command("dump", "latest", os.fsdecode(source), **line.environment)
        self.assertEqual((await refused.end(), bytes(refused.out)), (2, b""))
