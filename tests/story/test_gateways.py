"""Two gateways in processes of their own; one is killed, and one drained, under a running job."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import attrs
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.commands.admin import ChangeNode
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.config.gateway import enroll
from cloudconnect.config.provider import CONFIGURATION
from cloudconnect.transports.nodes import GATEWAY
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
    stop_cleanly,
)

MB = 1_000_000
#: Eight files of content that does not get smaller.
SIZE = 16 * MB
#: Some of them is through, and much is not, at a rate at which all take some seconds.
MIDDLE = re.compile(rb'"bytes_moved": ([1-9]\d{6}),')
RATE = "3MB"
REGISTERED = re.compile(rb"registered with the service, ")
AGAIN = re.compile(rb"(?s)registered with the service, .*registered with the service, ")
LEAVING = re.compile(rb"gateway is leaving")
INTERRUPTED = re.compile(rb'"session_interrupted"')
#: Of ``/proc/net/tcp``: the connection is up.
ESTABLISHED = "01"


def connections_at(port: int) -> int:
    """How many connections a port on loopback has accepted and not closed."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1] == f"0100007F:{port:04X}" and line[3] == ESTABLISHED for line in lines)


class GatewaysTests(StoryCase):
    """A provider without a public port of its own, and two gateways that are."""

    timeout = 180

    async def set_up(self) -> None:
        provider = self.provider = Provider(self)
        lan, back = free_port(), free_port()
        settings = attrs.evolve(
            provider.settings,
            listen=ANY_PORT,
            roles=("service", "mover"),
            lan_listen=f"tcp:{lan}:interface={LOOPBACK}",
            backend_listen=f"tcp:{back}:interface={LOOPBACK}",
            backend_address=f"{LOOPBACK}:{back}",
        )
        (provider.directory / CONFIGURATION).write_text(settings.to_toml())
        token = provider.add_tenant()
        provider.process = self.start_role("provider", provider.directory)
        self.addCleanup(provider.stop)
        await provider.process.wrote(re.compile(rb"provider is ready"))
        self.ports = {name: free_port() for name in ("one", "two")}
        self.gateways: dict[str, Process] = {}
        for name, port in self.ports.items():
            place = f"{LOOPBACK}:{port}"
            listen = f"tcp:{port}:interface={LOOPBACK}"
            enroll(settings, name, self.folder / name, f"{LOOPBACK}:{lan}", listen, place)
            self.gateways[name] = self.start_role("gateway", self.folder / name)
            await self.gateways[name].wrote(REGISTERED)
        self.line = Line(self, provider, self.ports["one"], token)
        self.assertStatus(await self.line.connect(), 0)
        self.files = str(self.folder / "files")
        make_files(self.files, 8, SIZE // 8)

    def start_role(self, kind: str, directory: Path) -> Process:
        arguments = ("-m", "twisted", "--log-format=text", f"cloudconnect-{kind}", "--directory")
        return self.start(*arguments, str(directory))

    async def in_the_middle(self) -> tuple[Process, str]:
        """A backup that is under way, and the gateway that its data goes through."""
        command = self.line.start("backup", self.files, "--limit-upload", RATE)
        await command.wrote(MIDDLE)
        return command, max(self.ports, key=lambda name: connections_at(self.ports[name]))

    async def administer(self, *words: str) -> Done:
        done = await self.run_command(
            "provider", "gateway", *words, "--directory", str(self.provider.directory), "--json"
        )
        self.assertStatus(done, 0)
        return done

    async def change(self, name: str, act: str) -> None:
        """As the admin's commands do, which take their time to start."""
        path = str(self.provider.settings.admin_socket)
        link = await connectProtocol(UNIXClientEndpoint(reactor, path), BoundedAMP(reactor))
        try:
            await link.call(ChangeNode, role=GATEWAY, name=name, act=act)
        finally:
            link.transport.loseConnection()

    async def check(self, done: Done) -> None:
        """It was one job over two sessions with new keys, and left one point."""
        self.assertStatus(done, 0)
        keys = [r["fields"]["key"] for r in done.records if r.get("name") == "key_b_made"]
        self.assertEqual(len(keys), len(set(keys)))
        self.assertGreaterEqual(len(keys), 2)
        self.assertLess(done.summary["bytes_sent"], 1.9 * SIZE)
        points = [r["point"] for r in (await self.line.run("points")).records if "point" in r]
        self.assertEqual([done.summary["point"]], points)

    async def restored(self) -> None:
        target = str(self.folder / "restored")
        self.assertStatus(await self.line.run("restore", "latest", "--target", target), 0)
        here, there = os.fsencode(self.files), os.fsencode(target + self.files)
        self.assertEqual([], compare_trees(here, there))

    async def test_killed(self) -> None:
        """The gateway of a backup's data is killed: the job goes on through the other one, also
        where it is the one that the tenant was given; so do the next commands."""
        await self.set_up()
        command, name = await self.in_the_middle()
        await self.gateways[name].stop(signal.SIGKILL)
        await command.wrote(INTERRUPTED)
        await self.check(await self.done(command))
        await self.restored()
        if name != "one":  # what the tenant was given still was there
            await self.gateways["one"].stop(signal.SIGKILL)
            self.gateways["two"] = self.start_role("gateway", self.folder / "two")
            await self.gateways["two"].wrote(REGISTERED)
            self.assertStatus(await self.line.run("points"), 0)

    async def test_hangs(self) -> None:
        """The gateway of a backup's data is stopped in the middle, and keeps its port and all its
        connections: within a minute the job goes on through the other one, and so does what comes
        next, also where it was the way of the control channel."""
        await self.set_up()
        command, name = await self.in_the_middle()
        self.gateways[name].send(signal.SIGSTOP)
        self.addCleanup(self.gateways[name].send, signal.SIGCONT)
        done = await self.done(command)
        await self.check(done)
        self.assertIn(b"moved_on", done.out)
        if name == "two":  # now the one that the tenant was given
            self.gateways["two"].send(signal.SIGCONT)
            await self.gateways["two"].wrote(AGAIN)
            self.gateways["one"].send(signal.SIGSTOP)
            self.addCleanup(self.gateways["one"].send, signal.SIGCONT)
        await self.restored()

    async def test_drained(self) -> None:
        """A gateway is drained: it takes nothing new, the job moves on through the other one, and
        once its last connection is over it is stopped without anything to end; undrained it is
        used again."""
        await self.set_up()
        command, name = await self.in_the_middle()
        await self.change(name, "drain")
        await self.gateways[name].wrote(LEAVING)
        done = await self.done(command)
        await self.check(done)
        self.assertIn(b"moved_on", done.out)
        self.assertEqual([], done.warnings)
        rows = {row["name"]: row for row in (await self.administer("list")).records}
        other = "two" if name == "one" else "one"
        self.assertEqual("connected", rows[other]["state"])
        self.assertIn(rows[name]["state"], ("draining", "drained"))
        self.assertEqual(0, connections_at(self.ports[name]))
        await self.change(name, "undrain")
        await self.change(other, "drain")
        self.assertStatus(await self.line.run("points"), 0)
        await stop_cleanly(self, self.gateways[other])
