"""A gateway in a process of its own: tenants reach nothing else of the provider."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.config.provider import CONFIGURATION
from tests.attacks.proxy import LOOPBACK
from tests.attacks.stage import make_files
from tests.story.processes import (
    ANY_PORT,
    Line,
    Provider,
    SeparateGateway,
    StoryCase,
    free_port,
    in_front_of,
    listens,
)

#: Where the tenant comes from: not the address from which the gateway reaches the provider.
ELSEWHERE = "127.0.0.77"


class GatewayTests(StoryCase):
    """A provider with a LAN and a back end, and a gateway that was enrolled there."""

    async def enroll(self, provider: Provider) -> Path:
        assert provider.process is not None
        done = await self.run_command(
            "provider",
            "gateway",
            "enroll",
            "front",
            "--directory",
            str(provider.directory),
            "--output",
            str(self.folder / "front"),
            "--service",
            f"{LOOPBACK}:{listens(provider.process, 'LAN link')}",
            "--listen",
            ANY_PORT,
        )
        self.assertStatus(done, 0)
        return self.folder / "front"

    async def test_there_and_back(self) -> None:
        """Backup and restore through it are exact, and the provider knows who really came."""
        provider = Provider(self)
        port = free_port()
        settings = attrs.evolve(
            provider.settings,
            lan_listen=ANY_PORT,
            backend_listen=f"tcp:{port}:interface={LOOPBACK}",
            backend_address=f"{LOOPBACK}:{port}",
        )
        (provider.directory / CONFIGURATION).write_text(settings.to_toml())
        token = provider.add_tenant()
        await provider.start()
        gateway = SeparateGateway(self, await self.enroll(provider))
        await gateway.start()
        proxy = in_front_of(self, gateway.port, ELSEWHERE)
        line = Line(self, provider, proxy.port, token)

        source, target = str(self.folder / "source"), str(self.folder / "target")
        make_files(source, count=30, size=40_000)
        self.assertStatus(await line.connect(), 0)
        self.assertStatus(await line.run("backup", source), 0)
        restored = await line.run("restore", "latest", "--target", target)
        self.assertStatus(restored, 0)
        self.assertEqual(compare_trees(os.fsencode(source), os.fsencode(target + source)), [])

        sessions = provider.rows("session")
        self.assertEqual([row["state"] for row in sessions], ["done", "done"])
        self.assertEqual({row["peer"] for row in sessions}, {ELSEWHERE})
        self.assertEqual(provider.rows("event", type="warning"), [])
