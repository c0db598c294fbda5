"""After a full run, with debug logs, an attack and a crash: where is a secret that must not be?

Real processes, a separate gateway among them. Each notes every secret that it makes or gets, in a
file of its own, by a hook that this test puts into its environment; then logs, command lines,
environments, the provider's files and the gateway's memory are searched for them.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from cloudconnect.config.provider import CONFIGURATION
from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Way
from tests.attacks.proxy import LOOPBACK
from tests.attacks.rules import Flip, at_payload
from tests.story.processes import (
    ANY_PORT,
    ROOT,
    Line,
    Process,
    Provider,
    StoryCase,
    free_port,
    in_front_of,
    listens,
)

#: Put in front of every process: notes secrets, and crashes a backup where it is told to.
HOOK = """
import os
from cloudconnect import keys

_made = keys.Secret.__init__

def noted(self, octets):
    _made(self, octets)
    path = os.path.join(os.environ["SECRETS_NOTED"], str(os.getpid()))
    with open(path, "a") as file:
        file.write(f"{type(self).__name__} {bytes(octets).hex()}\\n")

keys.Secret.__init__ = noted

if os.environ.get("SECRETS_CRASH"):
    from cloudconnect.backup.upload import BackupRun

    def run(self):
        passphrase, channel = self._keys, self._channel
        raise RuntimeError("crashed by a test")

    BackupRun.run = run
"""
#: Secrets that belong to one host and lie in a file there, which is theirs alone.
_OF_A_HOST = {"NodeKey", "CacheKey"}
#: From which all others come.
_LARGE = {"KeyA", "KeyB", "IntegrityKey", "MasterKey", "Password"}
#: Ready, in the words of the log.
_READY = re.compile(rb"provider is ready on .*?(\d+)\)")
_REGISTERED = re.compile(rb"registered with the service, ")


class SecretsTests(StoryCase):
    """Whatever a run leaves behind."""

    forked = False  # what the system shows of a process is that of its program

    def setUp(self) -> None:
        super().setUp()
        self.noted = self.folder / "noted"
        self.noted.mkdir()
        hooks = self.folder / "hooks"
        hooks.mkdir()
        (hooks / "sitecustomize.py").write_text(HOOK)
        self.hooks = hooks
        self.processes: list[Process] = []
        self.lines: list[bytes] = []
        self.content = os.urandom(48)

    def environment(self) -> dict[str, str]:
        paths = {"PYTHONPATH": f"{self.hooks}:{ROOT}", "SECRETS_NOTED": str(self.noted)}
        return {**super().environment(), **paths}

    def start(self, *arguments: str, **environment: str) -> Process:
        process = super().start(*arguments, **environment)
        self.processes.append(process)
        self.lines.append(" ".join([*arguments, *environment.values()]).encode())
        return process

    def secrets(self) -> Iterator[tuple[int, str, bytes]]:
        """Process, class and octets of every secret so far."""
        for path in self.noted.iterdir():
            for line in set(path.read_text().splitlines()):
                name, _, digits = line.partition(" ")
                octets = bytes.fromhex(digits)
                # A key of zeros stands for none, and there are zeros everywhere.
                if len(octets) >= 16 and any(octets) and name not in _OF_A_HOST:
                    yield int(path.name), name, octets

    async def run_everything(self) -> tuple[Process, Process, Path]:
        """Provider, gateway, tenant: what goes well, an attack, a refused log-in, a crash."""
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
        loud = ("-m", "twisted", "--log-format=text", "--log-level=debug")
        serving = self.start(*loud, "cloudconnect-provider", "--directory", str(provider.directory))
        self.addCleanup(serving.stop)
        await serving.wrote(_READY)
        front = str(self.folder / "front")
        done = await self.run_command(
            *("provider", "gateway", "enroll", "front", "--directory", str(provider.directory)),
            *("--output", front, "--listen", ANY_PORT),
            *("--service", f"{LOOPBACK}:{listens(serving, 'LAN link')}"),
        )
        self.assertStatus(done, 0)
        relaying = self.start(*loud, "cloudconnect-gateway", "--directory", front)
        self.addCleanup(relaying.stop)
        await relaying.wrote(_REGISTERED)
        proxy = in_front_of(self, listens(relaying, "gateway"))
        line = Line(self, provider, proxy.port, token)
        source = self.folder / "source"
        source.mkdir()
        (source / "file").write_bytes(self.content + os.urandom(400_000))
        self.assertStatus(await line.connect(), 0)
        self.assertStatus(await line.run("backup", str(source), "--debug"), 0)
        (source / "more").write_bytes(os.urandom(100_000))
        proxy.rules = [Flip(Kind.STREAM, Way.UP, at_payload(4000))]
        self.assertStatus(await line.run("backup", str(source), "--debug"), 20)
        proxy.rules = []
        wrong = self.folder / "wrong"
        wrong.write_bytes(b"cct1-" + b"b" * 52 + b"\n")
        denied = await line.run("points", "--debug", CLOUDCONNECT_PASSWORD_FILE=str(wrong))
        self.assertStatus(denied, 12)
        crashed = await line.run("backup", str(source), "--debug", SECRETS_CRASH="1")
        self.assertIn(b"crashed by a test", crashed.err)
        self.assertIn(b"Traceback", crashed.err)
        return serving, relaying, provider.directory

    async def test_nowhere(self) -> None:
        """No key, password, passphrase or content in logs, command lines, environments, the
        provider's files or the gateway's memory; and no process leaves a core file."""
        serving, relaying, directory = await self.run_everything()
        found = list(self.secrets())
        names = {name for _, name, _ in found}
        self.assertLessEqual(_LARGE, names)
        pids = [serving.transport.pid, relaying.transport.pid]  # type: ignore[union-attr]
        memory = b"".join(_memory(pids[1]))
        self.assertIn(
            b"cloudconnect.provider.gateway.gateway", memory, "the search finds nothing at all"
        )
        said = {
            "logs": b"".join(bytes(p.out) + bytes(p.err) for p in self.processes),
            "command lines": b"".join(self.lines),
            "system": b"".join(_around(pid) for pid in pids),
            "files": b"".join(p.read_bytes() for p in directory.rglob("*") if p.is_file()),
        }
        self.assertIn(b"security warning", said["logs"])
        everywhere = []
        for _, name, octets in found:
            forms = (octets, octets.hex().encode(), base64.b64encode(octets)[:-2])
            for where, searched in said.items():
                if any(form in searched for form in forms):
                    everywhere.append(f"a {name} in {where}")
            if name in _LARGE and octets in memory:
                everywhere.append(f"a {name} in the gateway's memory")
        for where, searched in {**said, "the gateway's memory": memory}.items():
            if self.content[:32] in searched:
                everywhere.append(f"content in {where}")
        self.assertEqual([], everywhere)
        for pid in pids:
            limits = Path(f"/proc/{pid}/limits").read_text()
            self.assertRegex(limits, r"Max core file size +0 ")


def _around(pid: int) -> bytes:
    """What anybody on the host sees of a process."""
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


def _memory(pid: int) -> Iterator[bytes]:
    """All that a process can write to, as it is now."""
    with open(f"/proc/{pid}/mem", "rb", 0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, rights, *_ = line.split()
            if not rights.startswith("rw"):
                continue
            start, end = (int(digits, 16) for digits in place.split("-"))
            try:
                file.seek(start)
                yield file.read(end - start)
            except (OSError, ValueError):
                continue
