"""Interruptions, with real processes: a command goes on by itself, in a new session."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from twisted.internet.task import deferLater

from cloudconnect.backup.comparison import compare_trees
from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Way
from tests.attacks.rules import Stall, at_payload
from tests.attacks.stage import make_files
from tests.story.processes import Done, Line, Process, Provider, StoryCase, in_front_of, reactor

MB = 1_000_000
#: Twelve files of content that does not get smaller.
SIZE = 96 * MB
#: What may be under way, and not durable, when the line breaks, and the rest of a frame.
UNDER_WAY = 52 * MB
INTERRUPTED = re.compile(rb'"session_interrupted"')


class InterruptionTests(StoryCase):
    """A provider that is gone in the middle, and comes back."""

    async def set_up(self, environment: dict[str, str] | None = None, **limits: Any) -> None:
        self.provider = Provider(self)
        token = self.provider.add_tenant(**limits)
        await self.provider.start()
        self.proxy = in_front_of(self, self.provider.port)
        self.line = Line(self, self.provider, self.proxy.port, token)
        self.line.environment.update(environment or {})
        self.source = str(self.folder / "source")
        make_files(self.source, 12, SIZE // 12)
        self.assertStatus(await self.line.connect(), 0)

    async def killed(
        self,
        way: Way,
        *words: str,
        number: int = signal.SIGKILL,
        at: int = SIZE // 2,
        packs: int = 0,
    ) -> Process:
        """Start a command, and end the provider in the middle of it.

        :param packs: once it has made so many durable
        """
        stall = Stall(Kind.STREAM, way, at_payload(at))
        self.proxy.rules = [stall]
        command = self.line.start(*words)
        await stall.happened
        while len(list(self.provider.directory.glob("repositories/*/packs/*"))) < packs:
            await deferLater(reactor, 0.05)
        assert self.provider.process is not None
        self.provider.process.send(number)
        self.proxy.release()  # for one that ends properly, and so says that it stops
        await self.provider.process.stop(number)
        await command.wrote(INTERRUPTED)
        self.assertIsNone(command.status)
        return command

    async def come_back(self) -> None:
        await self.provider.start()
        self.proxy.target = self.provider.port

    def restored(self, target: str) -> None:
        here, there = os.fsencode(self.source), os.fsencode(target + self.source)
        self.assertEqual(compare_trees(here, there), [])

    def names(self, done: Done) -> list[str]:
        return [record["name"] for record in done.records if "name" in record]

    async def test_there_and_back(self) -> None:
        """A killed provider in the middle of a backup, a stopped one in the middle of a restore:
        each command ends with 0, as one job, and little goes over the line twice."""
        await self.set_up()
        # The second one is durable, and not in the index before the next chunk comes.
        command = await self.killed(Way.UP, "backup", self.source, at=SIZE * 5 // 6, packs=2)
        await self.come_back()
        backup = await self.done(command)
        self.assertStatus(backup, 0)
        self.assertEqual(self.names(backup).count("started"), 2)
        made = [r["fields"]["key"] for r in backup.records if r.get("name") == "key_b_made"]
        self.assertEqual(len(set(made)), 2)
        sent = backup.summary["bytes_sent"]
        self.assertTrue(SIZE <= sent <= SIZE + UNDER_WAY, sent)
        points = self.provider.rows("point", tenant="acme")
        self.assertEqual([row["point"] for row in points], [backup.summary["point"]])
        sessions = self.provider.rows("session")
        self.assertEqual(len({row["job_id"] for row in sessions}), 1)
        self.assertEqual(sessions[-1]["state"], "done")

        target = str(self.folder / "target")
        words = ("restore", backup.summary["point"], "--target", target)
        command = await self.killed(Way.DOWN, *words, number=signal.SIGTERM)
        await self.come_back()
        restore = await self.done(command)
        self.assertStatus(restore, 0)
        received = restore.summary["bytes_received"]
        self.assertTrue(SIZE <= received <= SIZE + UNDER_WAY, received)
        self.restored(target)
        self.assertEqual(set(restore.warnings) - {"truncated"}, set())

    async def test_accelerated(self) -> None:
        """With WAN accelerators in between it is the same: a backup whose provider was killed, with
        all its roles, goes on through them."""
        await self.set_up(
            {"CLOUDCONNECT_ENCRYPTION": "none", "CLOUDCONNECT_PASSPHRASE_FILE": ""}, modes=["none"]
        )
        words = ("backup", self.source, "--wan", "on")
        command = await self.killed(Way.UP, *words, at=SIZE // 16)
        await self.come_back()
        backup = await self.done(command)
        self.assertStatus(backup, 0)
        self.assertTrue(backup.summary["wan"]["used"], backup.summary)
        self.assertEqual(self.names(backup).count("started"), 2)
        sent = backup.summary["bytes_sent"]
        self.assertTrue(SIZE <= sent <= SIZE + UNDER_WAY, sent)
        points = self.provider.rows("point", tenant="acme")
        self.assertEqual([row["point"] for row in points], [backup.summary["point"]])
        target = str(self.folder / "target")
        # A machine that has cached nothing: otherwise next to nothing goes over the line.
        self.line.environment["XDG_CACHE_HOME"] = str(self.folder / "empty")
        words = ("restore", backup.summary["point"], "--target", target, "--wan", "on")
        command = await self.killed(Way.DOWN, *words, at=SIZE // 16)
        await self.come_back()
        self.assertStatus(await self.done(command), 0)
        self.restored(target)

    async def test_given_up(self) -> None:
        """An interrupt ends the waiting at once, with 130; --retry 0 does not wait, and what read
        from a command, which cannot be had twice, does not either: 22. None has made a point."""
        await self.set_up()
        command = await self.killed(Way.UP, "backup", self.source)
        command.send(signal.SIGINT)
        self.assertStatus(await self.done(command), 130)
        large = f"{self.source}/large"
        with open(large, "wb") as file:
            file.truncate(0)
            for number in range(12):
                with open(f"{self.source}/file-{number:03}", "rb") as part:
                    file.write(part.read())
        for words in (
            ("--retry", "0", self.source),
            ("--stdin-from-command", "dump", "--", "sh", "-c", f"cat {large}"),
        ):
            await self.come_back()
            stall = Stall(Kind.STREAM, Way.UP, at_payload(MB))
            self.proxy.rules = [stall]
            command = self.line.start("backup", *words)
            await stall.happened
            assert self.provider.process is not None
            await self.provider.process.stop(signal.SIGKILL)
            done = await self.done(command)
            self.assertStatus(done, 22)
            self.assertNotIn("session_interrupted", self.names(done))
        self.assertIn("cannot be read again", done.error["message"])
        await self.come_back()
        self.assertEqual(self.provider.rows("point", tenant="acme"), [])
