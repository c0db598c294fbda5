"""What a gateway's process has in its memory after a session: no key, nothing of the payload."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import Any

from twisted.internet.defer import inlineCallbacks

from cloudconnect import keys
from cloudconnect.backup.dialogue import greet
from cloudconnect.commands.admin import AddTenant
from cloudconnect.commands.control import SessionKind
from cloudconnect.config.gateway import enroll, lan_tls
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.keys import MasterKey, Password
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.trust import TrustPolicy
from tests.provider.test_assembly import LOOPBACK, AssemblyCase, _run, loopback
from tests.story.processes import ROOT, Process, free_port

#: What the tenant says in its session, and nobody else.
CANARY = "canary-" + "tweets" * 4
REGISTERED = re.compile(rb"registered with the service")


def memory_of(pid: int) -> bytes:
    """All that a process has in its memory and could read there."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if found is None or "[v" in line:
                continue
            begins, ends = (int(number, 16) for number in found.groups())
            try:
                memory.seek(begins)
                parts.append(memory.read(ends - begins))
            except OSError:
                continue
    return b"".join(parts)


class MemoryTests(AssemblyCase):
    """A provider and a tenant in this process, whose keys are known, and a gateway in another."""

    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        self.secrets: set[bytes] = set()
        self.kinds: set[str] = set()
        original = keys.Secret.__init__

        def init(secret: Any, octets: Any) -> None:
            original(secret, octets)
            self.secrets.add(secret.reveal())
            self.kinds.add(type(secret).__name__)

        self.patch(keys.Secret, "__init__", init)

    @inlineCallbacks
    def test_no_key(self) -> Any:
        """Key A, Key B, the integrity key, the master key and any other secret, the login token,
        what the tenant said: none of it is there. (The address of the back end is: the search does
        find.)"""
        lan, backend = free_port(), free_port()
        provider = self.made(
            lan=(loopback(lan), lan_tls(self.settings.node_authority / "service", "gateway")),
            backend=loopback(backend),
            backend_address=f"{LOOPBACK}:{backend}",
        )
        yield _run(provider.listen())
        port = free_port()
        listen = f"tcp:{port}:interface={LOOPBACK}"
        enroll(self.settings, "edge", self.top / "edge", f"{LOOPBACK}:{lan}", listen, "")
        words = ["-m", "twisted", "--log-format=text", "cloudconnect-gateway", "--directory"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        gateway = Process(
            [sys.executable, *words, str(self.top / "edge")], environment, str(self.top)
        )
        self.addCleanup(gateway.stop, signal.SIGKILL)
        yield gateway.wrote(REGISTERED)
        token = yield _run(self.session(port))
        memory = memory_of(gateway.transport.pid)  # type: ignore[union-attr]
        self.assertIn(f"{LOOPBACK}:{backend}".encode(), memory)
        self.assertLessEqual({"KeyA", "KeyB", "IntegrityKey", "MasterKey"}, self.kinds)
        for secret in [*self.secrets, token.reveal(), CANARY.encode()]:
            self.assertNotIn(secret, memory)

    async def session(self, port: int) -> Password:
        """A tenant's session through the gateway; the token that it logged in with."""
        admin = await self.admin()
        answer = await admin.call(AddTenant, name="acme", password=None, settings={})
        assert admin.transport is not None
        admin.transport.loseConnection()
        trust = TrustPolicy("localhost", fingerprints=self.settings.identity.fingerprints()[:1])
        manager = JobManager(self.reactor(), "localhost", port, trust)
        master, repository = MasterKey.generate(), os.urandom(16)
        made = RepositoryKeys(master, repository)
        description = describe(master, repository, EncryptionMode.TENANT, ())

        def dialogue(channel: Any, session: bytes) -> None:
            greet(channel, made, description, "read")
            channel.finish()
            channel.expect_end()

        try:
            await manager.log_in("acme", answer["token"])
            await manager.create_repository(description.encode())
            await manager.session(
                SessionKind.READ, repository, new_job_id(), "host", CANARY, dialogue
            )
        finally:
            await manager.close()
        token: Password = answer["token"]
        return token

    def reactor(self) -> Any:
        from twisted.internet import reactor

        return reactor
