"""WAN accelerators in processes of their own, on both sides, behind a separate gateway."""

from __future__ import annotations

import os
import re
import signal
from typing import Any

import attrs

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.config.provider import CONFIGURATION
from tests.attacks.proxy import LOOPBACK
from tests.attacks.stage import make_files
from tests.story.processes import (
    ANY_PORT,
    Done,
    Line,
    Process,
    Provider,
    SeparateAccelerator,
    SeparateGateway,
    StoryCase,
    free_port,
)

MB = 1_000_000
#: Twelve files of content that does not get smaller.
SIZE = 120 * MB
#: Much of them is through, and much is not, at a rate at which all take some seconds.
MIDDLE = re.compile(rb'"bytes_moved": ([4-8]\d{7}),')
RATE = "16MB"
REGISTERED = re.compile(rb"registered with the service, ")
LISTENS = re.compile(rb"WAN accelerator listens on")
INTERRUPTED = re.compile(rb'"session_interrupted"')
#: As a command of somebody whose line is never taken for a short one.
FAR_AWAY = (
    "import sys, cloudconnect.cli.wan as wan; wan.LONG_LINE_SECONDS = 0.0; "
    "from cloudconnect.cli.main import main; main(sys.argv[1:])"
)


class SeparateTests(StoryCase):
    """A provider without an accelerator of its own, a gateway, and an accelerator on each side."""

    async def set_up(self) -> None:
        self.provider = provider = Provider(self)
        back_end, lan = free_port(), free_port()
        self.target_port, self.source_port = free_port(), free_port()
        settings = attrs.evolve(
            provider.settings,
            lan_listen=f"tcp:{lan}:interface={LOOPBACK}",
            backend_listen=f"tcp:{back_end}:interface={LOOPBACK}",
            backend_address=f"{LOOPBACK}:{back_end}",
            wan_cache_gb=0,
        )
        (provider.directory / CONFIGURATION).write_text(settings.to_toml())
        token = provider.add_tenant(modes=["tenant", "provider"])
        await provider.start()
        self.service = f"{LOOPBACK}:{lan}"
        await self.enroll("gateway", "edge", "--listen", ANY_PORT)
        gateway = SeparateGateway(self, self.folder / "edge")
        await gateway.start()
        self.target = await self.start_target("accelerator", self.target_port)
        await self.make_source()
        self.line = Line(self, provider, gateway.port, token)
        self.line.environment.pop("CLOUDCONNECT_PASSPHRASE_FILE")
        self.line.environment["CLOUDCONNECT_ENCRYPTION"] = "provider"
        self.line.environment["CLOUDCONNECT_WAN_ACCELERATOR"] = f"{LOOPBACK}:{self.source_port}"
        self.line.environment["CLOUDCONNECT_WAN_NODE"] = str(self.folder / "laptop")
        self.files = str(self.folder / "files")
        self.assertStatus(await self.line.connect(), 0)

    async def enroll(self, what: str, name: str, *words: str) -> None:
        done = await self.run_command(
            "provider",
            what,
            "enroll",
            name,
            "--directory",
            str(self.provider.directory),
            "--output",
            str(self.folder / name),
            "--service",
            self.service,
            *words,
        )
        self.assertStatus(done, 0)

    async def start_target(self, name: str, port: int) -> SeparateAccelerator:
        """Make and start an accelerator of the provider's."""
        place = f"{LOOPBACK}:{port}"
        listen = f"tcp:{port}:interface={LOOPBACK}"
        await self.enroll("wan", name, "--backend", place, "--listen", listen)
        made = SeparateAccelerator(self, self.folder / name)
        await made.start(REGISTERED)
        return made

    async def make_source(self) -> None:
        """Make and start the tenant's accelerator, and what one machine needs for it."""
        directory = ("--directory", str(self.folder / "branch"))
        listen = f"tcp:{self.source_port}:interface={LOOPBACK}"
        self.assertStatus(await self.run_command("wan", "init", *directory, "--listen", listen), 0)
        output = ("--output", str(self.folder / "laptop"))
        self.assertStatus(await self.run_command("wan", "client", "laptop", *directory, *output), 0)
        self.source = SeparateAccelerator(self, self.folder / "branch")
        await self.source.start(LISTENS)

    async def restored(self) -> Done:
        """Restore the newest point through the accelerators, and compare."""
        target = str(self.folder / "restored")
        done = await self.line.run("restore", "latest", "--target", target, "--wan", "on")
        self.assertStatus(done, 0)
        here, there = os.fsencode(self.files), os.fsencode(target + self.files)
        self.assertEqual(compare_trees(here, there), [])
        return done

    def keys(self, done: Done, name: str) -> list[str]:
        """The identifiers of the keys that steps of this name told of."""
        return [r["fields"]["key"] for r in done.records if r.get("name") == name]

    def check_two_sessions(self, done: Done) -> None:
        """A command went on in a new session, with new keys, and sent little twice."""
        for name, count in (("key_b_made", 2), ("started", 2)):
            self.assertEqual(len([r for r in done.records if r.get("name") == name]), count)
        self.assertEqual(len({row["key_a"] for row in self.provider.rows("session")}), 2)
        self.check_one_job(done)

    def check_one_job(self, done: Done) -> None:
        """A command went on by itself, as one job with one point."""
        self.assertStatus(done, 0)
        self.assertEqual(set(done.warnings) - {"truncated"}, set())
        keys = self.keys(done, "key_a_received") + self.keys(done, "key_b_made")
        self.assertEqual(len(set(keys)), len(keys))
        sent = done.summary["bytes_sent"]
        self.assertTrue(SIZE <= sent < 1.3 * SIZE, sent)
        points = self.provider.rows("point", tenant="acme")
        self.assertEqual([row["point"] for row in points], [done.summary["point"]])
        sessions = self.provider.rows("session")
        self.assertEqual(len({row["job_id"] for row in sessions}), 1)

    async def in_the_middle(self, *words: str, way: str = "on") -> Process:
        """A backup that is under way."""
        make_files(self.files, 12, SIZE // 12)
        arguments = ("backup", self.files, "--limit-upload", RATE, "--wan", way, "--json")
        command = self.start("-c", FAR_AWAY, *arguments, **self.line.environment)
        await command.wrote(MIDDLE)
        return command

    async def test_there_and_back(self) -> None:
        """Backup and restore through all of them are exact; the second backup sends little, what
        the first one has sent is in both caches; each process stops cleanly."""
        await self.set_up()
        make_files(self.files, 20, 400_000)
        first = await self.line.run("backup", self.files, "--wan", "on")
        self.assertStatus(first, 0)
        self.assertTrue(first.summary["wan"]["used"])
        restored = await self.restored()
        wan: dict[str, Any] = restored.summary["wan"]
        self.assertTrue(wan["bytes_before"] > 8_000_000, wan)
        self.assertTrue(wan["bytes_after"] < 800_000, wan)
        self.assertEqual(self.provider.rows("event", type="warning"), [])
        (told,) = (r for r in self.provider.rows("event", name="wan_done")[:1])
        self.assertEqual(told["reported_by"], "target-wan")
        await self.target.stop()
        await self.source.stop()

    async def test_target_killed(self) -> None:
        """The provider's accelerator is killed in mid-backup, and another one is there."""
        await self.set_up()
        await self.start_target("second", free_port())
        command = await self.in_the_middle()
        await self.target.kill()
        await command.wrote(INTERRUPTED)
        done = await self.done(command)
        self.check_two_sessions(done)
        self.assertTrue(done.summary["wan"]["used"])
        await self.restored()

    async def test_source_killed(self) -> None:
        """The tenant's accelerator is killed in mid-backup, and started again."""
        await self.set_up()
        command = await self.in_the_middle()
        await self.source.kill()
        await command.wrote(INTERRUPTED)
        await self.source.start(LISTENS)
        done = await self.done(command)
        self.check_two_sessions(done)
        self.assertTrue(done.summary["wan"]["used"])
        await self.restored()

    async def test_provider_killed(self) -> None:
        """The provider is killed in mid-backup and started again: gateway and accelerator register
        with it by themselves, and the command goes on through them."""
        await self.set_up()
        command = await self.in_the_middle()
        assert self.provider.process is not None and self.target.process is not None
        await self.provider.process.stop(signal.SIGKILL)
        await command.wrote(INTERRUPTED)
        await self.provider.start()
        done = await self.done(command)
        self.check_one_job(done)
        self.assertTrue(done.summary["wan"]["used"])
        self.assertEqual(len(REGISTERED.findall(bytes(self.target.process.out))), 2)
        await self.restored()

    async def test_none_left(self) -> None:
        """Where accelerators were not demanded and there is none left, it goes on directly; here
        the provider's stops as its admin stops it."""
        await self.set_up()
        command = await self.in_the_middle(way="auto")
        await self.target.stop()
        done = await self.done(command)
        self.check_two_sessions(done)
        self.assertFalse(done.summary["wan"]["used"])
        names = [r.get("name") for r in done.records]
        self.assertEqual(names.count("no_accelerator"), 1)
        await self.target.start(REGISTERED)
        await self.restored()
        await self.source.kill()  # and where the own one is not there from the beginning
        arguments = ("backup", self.files, "--json", "--wan")
        there = await self.done(
            self.start("-c", FAR_AWAY, *arguments, "auto", **self.line.environment)
        )
        self.assertStatus(there, 0)
        self.assertFalse(there.summary["wan"]["used"])
        refused = await self.line.run("backup", self.files, "--wan", "on")
        self.assertEqual(refused.error["reason"], "no_accelerator")
