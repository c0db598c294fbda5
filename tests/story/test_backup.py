"""The story with real processes: what goes up comes back exactly, and nobody reads it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable

from cloudconnect.backup.comparison import compare_trees
from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Way
from tests.backup.trees import make_odd_tree, write
from tests.story.processes import ANY_PORT, Line, Provider, StoryCase, in_front_of

#: Stand in a name and in a file's content, and nowhere else in the world.
CANARY_NAME = b"canary-in-a-name-4d1f0b7c"
CANARY_CONTENT = b"canary-in-a-file-9a63e2d5"
KEY_IDENTIFIER = re.compile(r"[0-9a-f]{16}\Z")


def make_source(top: bytes) -> None:
    """A rich tree, some megabytes of real files among it."""
    make_odd_tree(top)
    library = os.fsencode(os.path.dirname(os.__file__))
    for name in (b"email", b"json", b"encodings"):
        shutil.copytree(library + b"/" + name, top + b"/library/" + name, symlinks=True)
    write(top + b"/" + CANARY_NAME, CANARY_CONTENT * 40)
    write(top + b"/" + CANARY_NAME + b"-folder/inside", CANARY_CONTENT + os.urandom(3_000_000))


class BackupTests(StoryCase):
    """A provider, a tenant, two backups of a rich tree, two restores, an attacker who listens."""

    forked = False  # the one story as it is told, with new interpreters

    async def test_there_and_back(self) -> None:
        """Restores are exact, the second backup sends next to nothing, nobody else reads it."""
        self.source = os.fsencode(self.folder) + b"/source"
        make_source(self.source)
        await self.become_provider()
        await self.provider.start()
        self.proxy = in_front_of(self, self.provider.port)
        line = Line(self, self.provider, self.proxy.port, self.token)
        self.assertStatus(await line.connect(), 0)

        first, first_bytes = await self.back_up(line)
        second, second_bytes = await self.back_up(line)
        self.assertEqual((second["files"], second["bytes_new"]), (first["files"], 0))
        self.assertLess(second_bytes * 100, first_bytes)
        self.assertLess(second["bytes_sent"] * 100, first["bytes_sent"])
        for number, point in enumerate((first["point"], second["point"])):
            await self.restore_exactly(line, point, os.fsencode(self.folder) + b"/%d" % number)

        await self.check_listings(first, second)
        await self.provider.stop()
        self.check_nothing_readable()

    async def become_provider(self) -> None:
        """As an admin does it, by commands."""
        directory = ("--directory", str(self.folder / "provider"))
        init = ("provider", "init", "--host", "localhost", "--listen", ANY_PORT)
        self.assertStatus(await self.run_command(*init, *directory), 0)
        added = await self.run_command("provider", "tenant", "add", "acme", "--json", *directory)
        self.assertStatus(added, 0)
        self.token = self.folder / "acme.token"
        self.token.write_text(added.records[0]["token"])
        shown = await self.run_command("provider", "fingerprint", *directory)
        self.provider = Provider(self)
        self.assertEqual(shown.out.decode().splitlines()[0], self.provider.pin)

    async def back_up(self, line: Line) -> tuple[dict[str, int], int]:
        """The summary of a backup, and the bytes that went up for it, all connections together."""
        before = self.proxy.size(Way.UP)
        done = await line.run("backup", os.fsdecode(self.source))
        self.assertStatus(done, 0)
        self.assertEqual(done.warnings, [])
        self.assertIn("stream_up", [record.get("name") for record in done.records])
        return done.summary, self.proxy.size(Way.UP) - before

    async def restore_exactly(self, line: Line, point: object, target: bytes) -> None:
        """Restore, and compare with the source."""
        done = await line.run("restore", str(point), "--target", os.fsdecode(target))
        self.assertStatus(done, 0)
        self.assertEqual(compare_trees(self.source, target + self.source), [])

    async def check_listings(self, *summaries: dict[str, int]) -> None:
        """What the admin sees: every session, four keys, the points, and no warning."""
        sessions = await self.provider.listed("sessions")
        self.assertEqual(
            [(row["kind"], row["state"], row["host"]) for row in sessions],
            [("backup", "done", "story-host")] * 2 + [("restore", "done", "story-host")] * 2,
        )
        self.assertEqual(
            [row["session"] for row in sessions[:2]], [s["session"] for s in summaries]
        )
        keys = [row[name] for row in sessions for name in ("key_a", "key_b")]
        self.assertEqual(len(set(keys)), 8)
        for key in keys:
            self.assertTrue(KEY_IDENTIFIER.match(key), key)
        points = await self.provider.listed("points")
        self.assertEqual([row["point"] for row in points], [s["point"] for s in summaries])
        self.assertEqual(await self.provider.listed("events", "--warnings"), [])

    def check_nothing_readable(self) -> None:
        """Neither on the wire nor at the provider are names, contents or secrets."""
        kinds = {relayed.line for relayed in self.proxy.connections}
        self.assertEqual(kinds, {Kind.CONTROL, Kind.TUNNEL, Kind.STREAM})
        secrets = [self.token.read_bytes().strip(), b"passphrase of the story"]
        hidden = [CANARY_NAME, CANARY_CONTENT, b"attributes", *secrets]
        self.check_absent([*hidden, b"acme", b"story-host"], self.proxy.recorded())
        self.check_absent(hidden, stored(os.fsencode(self.provider.directory)))

    def check_absent(self, words: list[bytes], octets: Iterable[bytes]) -> None:
        seen = 0
        for part in octets:
            seen += len(part)
            for word in words:
                self.assertNotIn(word, part)
        self.assertGreater(seen, 1 << 20)


def stored(top: bytes) -> Iterable[bytes]:
    """The names and contents of everything below ``top``."""
    for folder, folders, files in os.walk(top):
        yield from folders + files
        for name in files:
            if os.path.isfile(folder + b"/" + name):
                with open(folder + b"/" + name, "rb") as file:
                    yield file.read()
