"""A tenant's machine that is killed, sleeps, or is cut off in the middle: one job, one point."""

from __future__ import annotations

import os
import re
import signal

from cloudconnect.backup.comparison import compare_trees
from tests.attacks.stage import make_files
from tests.story.processes import Done, Line, Process, Provider, StoryCase, in_front_of

MB = 1_000_000
#: Six files of content that does not get smaller.
SIZE = 18 * MB
#: Some of them is through, and much is not, at a rate at which all take some seconds.
MIDDLE = re.compile(rb'"bytes_moved": ([1-9]\d{6,7}),')
RATE = "4MB"


class ResumingTests(StoryCase):
    """Backups through a proxy that can be cut."""

    timeout = 240

    async def set_up(self) -> None:
        self.provider = Provider(self)
        token = self.provider.add_tenant(max_tasks=1)
        await self.provider.start()
        self.proxy = in_front_of(self, self.provider.port)
        self.line = Line(self, self.provider, self.proxy.port, token)
        self.assertStatus(await self.line.connect(), 0)

    async def middle(self, name: str) -> tuple[str, Process]:
        """A backup of a new folder, in its middle."""
        source = str(self.folder / name)
        make_files(source, 6, SIZE // 6)
        words = ("backup", source, "--job", name, "--limit-upload", RATE)
        command = self.line.start(*words)
        await command.wrote(MIDDLE)
        return source, command

    async def one_point(self, name: str, done: Done) -> None:
        """It has succeeded, and there is one point, which restores to what was backed up."""
        self.assertStatus(done, 0)
        points = self.provider.rows("point", tenant="acme", job=name)
        self.assertEqual([row["point"] for row in points], [done.summary["point"]])
        source, target = str(self.folder / name), str(self.folder / f"restored-{name}")
        words = ("restore", done.summary["point"], "--target", target)
        self.assertStatus(await self.line.run(*words), 0)
        here, there = os.fsencode(source), os.fsencode(target + source)
        self.assertEqual(compare_trees(here, there), [])

    def check_one_job(self, name: str) -> None:
        """Several sessions of one job, each with keys of its own."""
        sessions = [
            row
            for row in self.provider.rows("session")
            if row["job"] == name and row["kind"] == "backup"
        ]
        self.assertGreaterEqual(len(sessions), 2)
        self.assertEqual(len({row["job_id"] for row in sessions}), 1)
        self.assertEqual(len({row["key_a"] for row in sessions}), len(sessions))

    async def test_interrupted(self) -> None:
        """It sleeps, and its lines are gone as those of a machine that was away for long; only its
        own end of them is gone, and the provider takes them for alive; it is killed, and the same
        command is run at once: each time there is one point, though the tenant may have one task
        only, and by itself it goes on as one job with new keys."""
        await self.set_up()
        _, command = await self.middle("slept")
        command.send(signal.SIGSTOP)
        for relayed in self.proxy.connections:
            relayed.close(reset=True)
        command.send(signal.SIGCONT)
        done = await self.done(command)
        await self.one_point("slept", done)
        self.check_one_job("slept")

        _, command = await self.middle("cut")
        for relayed in self.proxy.connections:
            relayed.forsake()
        done = await self.done(command)
        await self.one_point("cut", done)
        self.check_one_job("cut")
        self.assertNotIn("busy", {row.get("reason") for row in done.records})

        source, command = await self.middle("killed")
        await command.stop(signal.SIGKILL)
        words = ("backup", source, "--job", "killed", "--wait", "60s")
        await self.one_point("killed", await self.line.run(*words))
