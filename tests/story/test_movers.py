"""Data movers in processes of their own, beside a provider that has none, and a gateway's."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.commands.admin import ChangeNode, List, ListNodes
from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.config.gateway import enroll
from cloudconnect.config.mover import CONFIGURATION as MOVER_CONFIGURATION
from cloudconnect.config.mover import MoverSettings
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.provider import CONFIGURATION
from cloudconnect.transports.nodes import MOVER
from tests.attacks.proxy import LOOPBACK
from tests.attacks.stage import make_files
from tests.story.processes import (
    ANY_PORT,
    Done,
    Line,
    Process,
    Provider,
    StoryCase,
    free_port,
    reactor,
)

MB = 1_000_000
#: Eight files of content that does not get smaller.
SIZE = 40 * MB
#: Some of them is through, and much is not, at a rate at which all take some seconds.
MIDDLE = re.compile(rb'"bytes_moved": ([1-9]\d{6,7}),')
RATE = "4MB"
REGISTERED = re.compile(rb"registered with the service, ")
INTERRUPTED = re.compile(rb'"session_interrupted"')


class MoverTests(StoryCase):
    """A provider's process with a service and nothing else; everything else joins it."""

    timeout = 180

    async def set_up(self) -> None:
        """A provider, a gateway, and two movers that share their storage."""
        self.provider = Provider(self)
        lan, back = free_port(), free_port()
        self.service = f"{LOOPBACK}:{lan}"
        settings = attrs.evolve(
            self.provider.settings,
            listen=ANY_PORT,
            roles=("service",),
            lan_listen=f"tcp:{lan}:interface={LOOPBACK}",
            backend_listen=f"tcp:{back}:interface={LOOPBACK}",
            backend_address=f"{LOOPBACK}:{back}",
        )
        (self.provider.directory / CONFIGURATION).write_text(settings.to_toml())
        token = self.provider.add_tenant()
        self.provider.process = self.start_process("provider", self.provider.directory)
        self.addCleanup(self.provider.stop)
        await self.provider.process.wrote(re.compile(rb"provider is ready"))
        self.port = free_port()
        listen = f"tcp:{self.port}:interface={LOOPBACK}"
        enroll(settings, "edge", self.folder / "edge", self.service, listen, "")
        await self.start_node("edge", "gateway")
        self.movers = {}
        for name in ("one", "two"):
            await self.make_mover(name)
            self.movers[name] = await self.start_node(name, "datamover")
        self.line = Line(self, self.provider, self.port, token)
        self.assertStatus(await self.line.connect(), 0)
        self.files = str(self.folder / "files")

    async def administer(self, *words: str) -> Done:
        done = await self.run_command(
            "provider", "node", *words, "--directory", str(self.provider.directory), "--json"
        )
        self.assertStatus(done, 0)
        return done

    async def join(self, name: str, role: str, **place: str) -> None:
        """Have the provider make a token, and a host become a node by it."""
        enrolled = await self.administer("enroll", name, "--role", role, "--service", self.service)
        token = self.folder / f"{name}.node-token"
        token.write_text(enrolled.records[-1]["token"])
        done = await self.joined(name, token, **place)
        self.assertStatus(done, 0)
        made = done.records[-1]
        self.assertEqual(
            ("node", name, str(self.folder / name)),
            (made["message_type"], made["name"], made["directory"]),
        )

    async def joined(self, name: str, token: Path, **place: str) -> Done:
        words = [word for key, value in place.items() for word in (f"--{key}", value)]
        directory = ("--directory", str(self.folder / name))
        return await self.run_command(
            "node", "join", *directory, "--token-file", str(token), *words, "--json"
        )

    def start_process(self, kind: str, directory: Path) -> Process:
        arguments = ("-m", "twisted", "--log-format=text", f"cloudconnect-{kind}", "--directory")
        return self.start(*arguments, str(directory))

    async def start_node(self, name: str, kind: str) -> Process:
        process = self.start_process(kind, self.folder / name)
        await process.wrote(REGISTERED)
        return process

    async def make_mover(self, name: str) -> None:
        """Make a mover over the one storage: the first one as an admin does, with a token."""
        place = f"{LOOPBACK}:{free_port()}"
        listen = f"tcp:{place.rpartition(':')[2]}:interface={LOOPBACK}"
        where = {
            "repositories": str(self.folder / "storage" / "repositories"),
            "keys": str(self.folder / "storage" / "keys"),
        }
        if name == "one":
            await self.join(name, "mover", backend=place, listen=listen, **where)
            return
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        issue_node_certificate(self.provider.settings.node_authority, name, MOVER, folder)
        made = MoverSettings(
            directory=folder, service=self.service, backend=place, listen=listen, **where
        )
        (folder / MOVER_CONFIGURATION).write_text(made.to_toml())

    async def asked(self, command: type[BoundedCommand], **values: Any) -> dict[str, Any]:
        """Ask at the admin socket, as the admin's commands do."""
        path = str(self.provider.settings.admin_socket)
        link = await connectProtocol(UNIXClientEndpoint(reactor, path), BoundedAMP(reactor))
        try:
            answer: dict[str, Any] = await link.call(command, **values)
        finally:
            link.transport.loseConnection()
        return answer

    async def busy(self) -> tuple[str, str]:
        """The mover that has a session, and the other one."""
        rows = (await self.asked(ListNodes))["rows"]
        has = {r["name"]: r["sessions"] for r in rows if r["role"] == "mover"}
        (name,) = [name for name, sessions in has.items() if sessions]
        return name, "two" if name == "one" else "one"

    async def in_the_middle(self) -> Process:
        """A backup that is under way."""
        make_files(self.files, 8, SIZE // 8)
        command = self.line.start("backup", self.files, "--limit-upload", RATE)
        await command.wrote(MIDDLE)
        return command

    def check_one_job(self, done: Done) -> None:
        """A command was one job over several sessions, with new keys in each, and one point.

        There are two sessions, and a third one where the point had been offered already: it looks
        whether that is there.
        """
        self.assertStatus(done, 0)
        self.assertEqual(set(done.warnings) - {"truncated"}, set())
        named = [r["fields"]["key"] for r in done.records if r.get("name") == "key_b_made"]
        sessions = len(named)
        self.assertTrue(2 <= sessions <= 3, named)
        self.assertEqual(len(set(named)), sessions)
        rows = self.provider.rows("session", tenant="acme")[-sessions:]
        self.assertEqual(len({row["job_id"] for row in rows}), 1)
        self.assertEqual(len({row["key_a"] for row in rows}), sessions)

    async def restored(self) -> None:
        target = str(self.folder / "restored")
        done = await self.line.run("restore", "latest", "--target", target)
        self.assertStatus(done, 0)
        here, there = os.fsencode(self.files), os.fsencode(target + self.files)
        self.assertEqual(compare_trees(here, there), [])

    async def points(self) -> list[str]:
        return [row["point"] for row in (await self.line.run("points")).records if "point" in row]

    async def test_killed(self) -> None:
        """The mover of a backup is killed: it goes on at the other one, as one job with one point;
        a token cannot be used twice, and a removed mover does not come back."""
        await self.set_up()
        command = await self.in_the_middle()
        name, other = await self.busy()
        await self.movers[name].stop(signal.SIGKILL)
        await command.wrote(INTERRUPTED)
        done = await self.done(command)
        self.check_one_job(done)
        sent = done.summary["bytes_sent"]
        self.assertTrue(SIZE <= sent < 1.9 * SIZE, sent)
        self.assertEqual(await self.points(), [done.summary["point"]])
        await self.restored()
        listed = await self.asked(List, what="point", filters={"tenant": "acme"}, after=0, limit=9)
        self.assertEqual([row["point"] for row in listed["rows"]], [done.summary["point"]])
        again = await self.joined("again", self.folder / "one.node-token", backend="h:1")
        self.assertStatus(again, 1)
        self.assertFalse((self.folder / "again").exists())
        await self.asked(ChangeNode, role="mover", name=name, act="remove")
        expelled = self.start_process("datamover", self.folder / name)
        await expelled.wrote(re.compile(rb"not registered with the service"))
        rows = (await self.administer("list")).records
        states = {row["name"]: row["state"].partition(" ")[0] for row in rows}
        self.assertEqual(states, {"edge": "connected", name: "removed", other: "connected"})

    async def test_drained(self) -> None:
        """The mover of a backup is drained: the job moves on to the other one and succeeds, the
        next ones go there too, and it stops without anything to end. Both movers have renewed
        their certificates before, while they ran."""
        await self.set_up()
        keys = {}
        for mover in self.movers:
            where = ("--directory", str(self.folder / mover), "--json")
            renewed = await self.run_command("node", "renew", *where)
            self.assertStatus(renewed, 0)
            keys[mover] = renewed.records[0]["spki"]
        command = await self.in_the_middle()
        name, other = await self.busy()
        drained = await self.asked(ChangeNode, role="mover", name=name, act="drain")
        self.assertEqual(drained["sessions"], 1)
        done = await self.done(command)
        self.check_one_job(done)
        self.assertIn(b"moved_on", done.out)
        self.assertNotIn("truncated", done.warnings)
        rows = {row["name"]: row for row in (await self.administer("list")).records}
        self.assertEqual((rows[name]["state"], rows[name]["sessions"]), ("drained", 0))
        self.assertEqual({mover: rows[mover]["spki"] for mover in keys}, keys)
        await self.movers[name].stop()
        await self.restored()
        self.assertEqual(await self.points(), [done.summary["point"]])
