"""The story in the encryption modes in which the provider may read, with real processes."""

from __future__ import annotations

import os

from cloudconnect.backup.comparison import compare_trees
from tests.story.processes import Line, Provider, StoryCase


class ModeTests(StoryCase):
    """No passphrase anywhere, an exact restore, and no way from one mode into another."""

    async def test_provider_and_none(self) -> None:
        """Connect, back up, list, restore; another mode than the chosen one is a warning."""
        source = self.folder / "source"
        source.mkdir()
        (source / "file").write_bytes(os.urandom(300_000))
        provider = Provider(self)
        tokens = {
            mode: provider.add_tenant(f"with-{mode}", modes=["tenant", mode])
            for mode in ("provider", "none")
        }
        await provider.start()
        for mode, token in tokens.items():
            line = Line(self, provider, provider.port, token)
            line.environment.pop("CLOUDCONNECT_PASSPHRASE_FILE")
            here = ("connect", line.environment["CLOUDCONNECT_PROVIDER"])
            self.assertStatus(await line.run(*here, "--profile", mode, "--encryption", mode), 0)
            environment = {"CLOUDCONNECT_PROFILE": mode}
            self.assertStatus(await line.run("backup", str(source), **environment), 0)
            listed = await line.run("ls", "latest", **environment)
            self.assertIn(str(source / "file"), {row.get("path") for row in listed.records})
            target = self.folder / f"restored-{mode}"
            restored = await line.run("restore", "latest", "--target", str(target), **environment)
            self.assertStatus(restored, 0)
            came_back = os.fsencode(f"{target}{source}")
            self.assertEqual([], compare_trees(os.fsencode(source), came_back))
            # Another profile than the one that chose the mode believes nobody.
            phrase = self.folder / "phrase"
            phrase.write_bytes(b"a passphrase for another mode\n")
            for words in (("ls", "latest"), ("backup", str(source)), here):
                done = await line.run(*words, "--passphrase-file", str(phrase))
                self.assertStatus(done, 20)
                self.assertIn(mode, done.error["message"])
