"""Day two, with real processes: an agent's backup, a monitor's check, and a change of keys."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from cloudconnect.agent.jobs import Job, save_job
from cloudconnect.agent.schedule import Schedule
from tests.certificates import EXPIRED, self_signed
from tests.story.processes import Line, Provider, StoryCase, free_port


class DayTwoTests(StoryCase):
    """A provider, a tenant's agent and its commands."""

    async def expire(self, provider: Provider) -> None:
        """The provider's certificate has ended: one for the same key takes its place."""
        identity = provider.settings.identity
        key = load_pem_private_key(Path(identity.key_path).read_bytes(), None)
        issued = self_signed(("localhost",), key=key, days=EXPIRED)
        pem = issued.certificate.public_bytes(Encoding.PEM)
        Path(identity.certificate_path).write_bytes(pem)
        directory = ("--directory", str(provider.directory))
        self.assertStatus(await self.run_command("provider", "reload", *directory), 0)

    async def test_agent_and_rotation(self) -> None:
        """A missed job is made up when the agent starts; the monitor is content; the provider's
        key changes under a profile that follows by itself, and who held which key is shown. When
        its certificate has expired a restore goes on, by the fingerprint, where that is asked for.
        """
        source = self.folder / "source"
        source.mkdir()
        (source / "file").write_bytes(b"content")
        provider = Provider(self)
        await provider.start()
        line = Line(self, provider, provider.port, provider.add_tenant())
        self.assertStatus(await line.connect(), 0)
        environment = self.environment()
        job = Job(
            name="nightly",
            schedule=Schedule("@daily"),
            words=(str(source),),
            created=time.time() - 2 * 86400,
        )
        save_job(environment, job)

        agent = self.start("-m", "twisted", "--log-format=text", "cloudconnect-agent")
        done = await agent.wrote(re.compile(rb"job nightly is done: ([0-9a-f]{32})"))
        point = done[1].decode()
        self.assertEqual(-signal.SIGTERM, await agent.stop())
        self.assertEqual([point], [row["point"] for row in provider.rows("point", tenant="acme")])

        pin = (await provider.listed("certificate", "next"))[0]["spki"]
        # Only the profile from here on: no option says which fingerprint holds.
        only = {"CLOUDCONNECT_PROFILE": "default"}
        status = await self.run_command("status", "--max-age", "26h", "--json", **only)
        self.assertStatus(status, 0)
        self.assertIn("pin_added", [record.get("name") for record in status.records])
        renewed = await provider.listed("certificate", "renew", "--next")
        self.assertEqual(pin, renewed[0]["spki"])
        events = await self.run_command("session", "list", "--json", **only)
        self.assertStatus(events, 0)
        sessions = [r for r in events.records if r["message_type"] == "session"]
        session = sessions[0]["session"]
        shown = await self.run_command("session", "show", session[:8], "--json", **only)
        self.assertStatus(shown, 0)
        names = [record.get("name") for record in shown.records]
        self.assertIn("key_a_made", names)
        self.assertIn("key_b_received", names)
        # The provider has moved, as it had announced: the old address is not reachable any more.
        profile = self.home / ".config" / "cloudconnect" / "default.toml"
        address = f"localhost:{provider.port}"
        moved = profile.read_text().replace(address, f"localhost:{free_port()}")
        profile.write_text(f'{moved}next_provider = "{address}"\n')
        status = await self.run_command("status", "--max-age", "26h", "--json", **only)
        self.assertStatus(status, 0)
        self.assertIn(f'provider = "{address}"', profile.read_text())

        (status,) = await provider.listed("status")
        self.assertEqual([], status["needs"])
        self.assertEqual((True, 1), (status["ok"], status["tenants"]["repositories"]))
        await self.expire(provider)
        directory = ("--directory", str(provider.directory))
        expired = await self.run_command("provider", "status", *directory)
        self.assertStatus(expired, 1)
        self.assertIn(b"ATTENTION  the provider's certificate has expired", expired.out)
        target = ("--target", str(self.folder / "restored"), "--json")
        refused = await self.run_command("restore", "latest", *target, **only)
        self.assertStatus(refused, 21)
        done = await self.run_command("restore", "latest", *target, "--accept-expired", **only)
        self.assertStatus(done, 0)
        restored = self.folder / "restored" / str(source / "file").lstrip("/")
        self.assertEqual(b"content", restored.read_bytes())

        audit = await provider.listed("audit", "--verify")
        self.assertTrue(audit[0]["intact"])
        self.assertGreater(audit[0]["lines"], 5)
