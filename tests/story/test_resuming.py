"""A tenant's machine that is killed, sleeps, or is cut off in the middle: one job, one point."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

from cloudconnect.backup.comparison import compare_trees
from tests.attacks.stage import make_files
from tests.story.processes import Done, Line, Process, Provider, StoryCase, in_front_of

MB = 1_000_000
#: Ten files of content that does not get smaller.
SIZE = 40 * MB
#: Some of them is through, and much is not, at a rate at which all take some seconds.
MIDDLE = re.compile(rb'"bytes_moved": ([1-9]\d{6,7}),')
RATE = "5MB"
#: What may be under way, and not durable, when it is interrupted.
UNDER_WAY = 36 * MB


class ResumingTests(StoryCase):
    """A backup through a proxy that can be cut."""

    timeout = 240

    async def set_up(self) -> Process:
        """A backup in its middle."""
        self.provider = Provider(self)
        token = self.provider.add_tenant(max_tasks=1)
        await self.provider.start()
        self.proxy = in_front_of(self, self.provider.port)
        self.line = Line(self, self.provider, self.proxy.port, token)
        self.source = str(self.folder / "source")
        make_files(self.source, 10, SIZE // 10)
        self.assertStatus(await self.line.connect(), 0)
        command = self.line.start("backup", self.source, "--limit-upload", RATE)
        await command.wrote(MIDDLE)
        return command

    async def one_point(self, done: Done) -> None:
        """It has succeeded, there is one point, and it restores to what was backed up."""
        self.assertStatus(done, 0)
        points = self.provider.rows("point", tenant="acme")
        self.assertEqual([row["point"] for row in points], [done.summary["point"]])
        target = str(self.folder / "target")
        self.assertStatus(await self.line.run("restore", "latest", "--target", target), 0)
        here, there = os.fsencode(self.source), os.fsencode(target + self.source)
        self.assertEqual(compare_trees(here, there), [])

    def sessions(self) -> list[dict[str, Any]]:
        return [row for row in self.provider.rows("session") if row["kind"] == "backup"]

    async def test_killed(self) -> None:
        """It is killed, and the same command is run again at once: the tenant's one task is free,
        and what was durable is not sent again."""
        command = await self.set_up()
        await command.stop(signal.SIGKILL)
        done = await self.line.run("backup", self.source, "--wait", "60s")
        await self.one_point(done)

    async def test_slept(self) -> None:
        """It sleeps, and meanwhile its lines are gone as those of a machine that was away for long:
        when it wakes it goes on by itself, in a new session of the same job, with new keys."""
        command = await self.set_up()
        command.send(signal.SIGSTOP)
        for relayed in self.proxy.connections:
            relayed.close(reset=True)
        command.send(signal.SIGCONT)
        done = await self.done(command)
        self.assertEqual(len({row["job_id"] for row in self.sessions()}), 1)
        self.assertEqual(len({row["key_a"] for row in self.sessions()}), len(self.sessions()))
        self.assertGreaterEqual(len(self.sessions()), 2)
        await self.one_point(done)
        self.assertLess(done.summary["bytes_sent"], SIZE + UNDER_WAY)

    async def test_half_cut(self) -> None:
        """Only its own end of the lines is gone, and the provider takes them for alive: the new
        session takes the place of the old one, though the tenant may have one task only."""
        command = await self.set_up()
        for relayed in self.proxy.connections:
            relayed.forsake()
        done = await self.done(command)
        await self.one_point(done)
        self.assertNotIn("busy", {row.get("reason") for row in done.records})
