"""Real processes: a provider, a gateway, and a tenant's commands, each with a home of its own.

Whatever is started here is ended by the test that started it, by its process id.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cloudconnect.config.provider import ProviderSettings, initialize, load
from tests.attacks.proxy import LOOPBACK, Proxy
from tests.attacks.stage import add_tenant, rows
from tests.story.forked import fork

reactor: Any = _reactor

#: Where the code of these tests lies, which processes are to run: their current folder is another.
ROOT = Path(__file__).resolve().parent.parent.parent
#: Lets the system choose the port; the log says which one it was.
ANY_PORT = f"tcp:0:interface={LOOPBACK}"
#: What can be forked off.
_FORKED = (("-m", "cloudconnect"), ("-m", "twisted"))
_READY = re.compile(rb"provider is ready on .*?(\d+)\)")
_REGISTERED = re.compile(rb"registered with the service, ")


class Process(ProcessProtocol):
    """A child process.

    :param arguments: the command line
    :param environment: all of its environment
    :param forked: it is forked off a process that has imported everything, which takes far less
        time than a new interpreter; the second of ``arguments`` is ``-m``
    :ivar out: what it has written to standard output
    :ivar err: and to standard error
    :ivar status: its exit status, or minus the signal that ended it; None while it runs
    """

    def __init__(
        self, arguments: list[str], environment: dict[str, str], cwd: str, forked: bool = False
    ) -> None:
        self.out = bytearray()
        self.err = bytearray()
        self.status: int | None = None
        self._waiting: list[Deferred[int]] = []
        self._awaited: list[tuple[re.Pattern[bytes], Deferred[re.Match[bytes]]]] = []
        if forked:
            fork(reactor, ROOT, self, arguments[1:], environment, cwd)
        else:
            reactor.spawnProcess(self, arguments[0], arguments, environment, cwd)

    def connectionMade(self) -> None:
        self.transport.closeStdin()  # type: ignore[union-attr]

    def outReceived(self, data: bytes) -> None:
        self.out += data
        self._look()

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def _look(self) -> None:
        for pattern, found in list(self._awaited):
            match = pattern.search(bytes(self.out))
            if match is not None:
                self._awaited.remove((pattern, found))
                found.callback(match)

    def wrote(self, pattern: re.Pattern[bytes]) -> Deferred[re.Match[bytes]]:
        """Fires when its standard output has what ``pattern`` says; fails when it ends before."""
        found: Deferred[re.Match[bytes]] = Deferred()
        self._awaited.append((pattern, found))
        self._look()
        return found

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.status = value.exitCode if value.signal is None else -value.signal
        for _, found in self._awaited:
            found.errback(AssertionError(f"ended with {self.status}: {self.text()}"))
        self._awaited.clear()
        for waiter in self._waiting:
            waiter.callback(self.status)

    def end(self) -> Deferred[int]:
        """Fires with its status when it has ended."""
        if self.status is not None:
            return succeed(self.status)
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def send(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)  # type: ignore[union-attr]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for its end; after a while, kill it."""
        if self.status is None:
            self.send(number)
            late = reactor.callLater(20, self.send, signal.SIGKILL)
            await self.end()
            if late.active():
                late.cancel()
        assert self.status is not None
        return self.status

    def text(self) -> str:
        """All it has said."""
        return (bytes(self.out) + bytes(self.err)).decode("utf-8", "backslashreplace")


@attrs.frozen
class Done:
    """How a command ended.

    :ivar records: the JSON lines of its standard output, where they are such
    :ivar error: the JSON line of its standard error, where it is one
    """

    status: int
    out: bytes
    err: bytes

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        last = self.records[-1]
        assert last["message_type"] == "summary", last
        return last

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.err.splitlines()[-1])
        return found

    @property
    def warnings(self) -> list[str]:
        """The kinds of the security warnings that it told of."""
        told = [r for r in self.records if r.get("name") == "security_warning"]
        return [record["kind"] for record in told]


class StoryCase(TestCase):
    """A test with processes."""

    timeout = 600
    #: Whether commands and services are forked off, in place of new interpreters.
    forked = True

    def setUp(self) -> None:
        # Not below trial's own folder: the path of a socket has at most 107 bytes.
        temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)

    def environment(self) -> dict[str, str]:
        """A home with nothing in it, and nothing of cloudconnect from outside."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CLOUDCONNECT_", "XDG_"))
        }
        own = {"HOME": str(self.home), "CLOUDCONNECT_HOST": "story-host", "PYTHONPATH": str(ROOT)}
        return {**kept, **own}

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start ``python ARGUMENTS``; it is killed at the end of the test."""
        line = [sys.executable, *arguments]
        every = {**self.environment(), **environment}
        forked = self.forked and arguments[:2] in _FORKED and every["PYTHONPATH"] == str(ROOT)
        process = Process(line, every, str(self.folder), forked)
        self.addCleanup(process.stop, signal.SIGKILL)
        return process

    def command(self, *arguments: str, **environment: str) -> Process:
        """Start a ``cloudconnect`` command."""
        return self.start("-m", "cloudconnect", *arguments, **environment)

    async def run_command(self, *arguments: str, **environment: str) -> Done:
        """Run a ``cloudconnect`` command to its end."""
        return await self.done(self.command(*arguments, **environment))

    async def all_done(self, *processes: Process) -> list[Done]:
        """Wait for the end of commands that run at the same time."""
        return [await self.done(process) for process in processes]

    async def done(self, process: Process) -> Done:
        """Wait for a command's end."""
        status = await process.end()
        return Done(status, bytes(process.out), bytes(process.err))

    def assertStatus(self, done: Done, status: int) -> None:
        self.assertEqual(done.status, status, (done.out + done.err).decode("utf-8", "replace"))


class Provider:
    """A provider's directory, made here unless it is there, and its process.

    :param case: the test
    :ivar pin: the fingerprint to hand to tenants
    :ivar port: of the running process
    """

    def __init__(self, case: StoryCase, name: str = "provider") -> None:
        self._case = case
        self.directory = case.folder / name
        self.settings: ProviderSettings = (
            load(self.directory)
            if self.directory.exists()
            else initialize(self.directory, ("localhost",), listen=ANY_PORT)
        )
        self.pin = self.settings.identity.fingerprints()[0]
        self.process: Process | None = None
        self.port = 0

    def add_tenant(self, name: str = "acme", **limits: Any) -> Path:
        """Make a tenant; returns the file with its login token."""
        path = self._case.folder / f"{name}.token"
        path.write_bytes(add_tenant(self.settings, name, **limits) + b"\n")
        return path

    async def start(self, *lie: str) -> None:
        """Start the process, and wait until it is ready.

        :param lie: how its accelerator lies (:mod:`tests.attacks.lying`)
        """
        directory = str(self.directory)
        honest = ("-m", "twisted", "--log-format=text", "cloudconnect-provider", "--directory")
        lying = ("-m", "tests.attacks.lying", "provider", directory, *lie)
        self.process = self._case.start(*(lying if lie else (*honest, directory)))
        self._case.addCleanup(self.stop)
        match = await self.process.wrote(_READY)
        self.port = int(match.group(1))

    async def stop(self) -> None:
        """Stop the process as an admin does."""
        assert self.process is not None
        await stop_cleanly(self._case, self.process)

    def rows(self, what: str, **filters: str) -> list[dict[str, Any]]:
        """The rows of a listing, without a process."""
        return rows(self.settings, what, **filters)

    async def listed(self, *arguments: str) -> list[dict[str, Any]]:
        """The rows of a listing as the admin gets them, through the admin socket."""
        done = await self._case.run_command(
            "provider", *arguments, "--json", "--directory", str(self.directory)
        )
        self._case.assertStatus(done, 0)
        return done.records


class SeparateGateway:
    """A gateway in a process of its own.

    :param directory: as ``provider gateway enroll`` made it
    :ivar port: of the running process
    """

    def __init__(self, case: StoryCase, directory: Path) -> None:
        self._case = case
        self._directory = directory
        self.port = 0

    async def start(self) -> None:
        """Start the process, and wait until it has registered."""
        arguments = ("-m", "twisted", "--log-format=text", "cloudconnect-gateway", "--directory")
        process = self._case.start(*arguments, str(self._directory))
        self._case.addCleanup(stop_cleanly, self._case, process)
        await process.wrote(_REGISTERED)
        self.port = listens(process, "gateway")


class SeparateAccelerator:
    """A WAN accelerator in a process of its own, of either side.

    :param directory: as ``provider wan enroll`` or ``wan init`` made it
    """

    def __init__(self, case: StoryCase, directory: Path) -> None:
        self._case = case
        self._directory = directory
        self.process: Process | None = None

    async def start(self, ready: re.Pattern[bytes]) -> None:
        """Start the process, and wait until it has said that it is ready."""
        arguments = ("-m", "twisted", "--log-format=text", "cloudconnect-wan", "--directory")
        self.process = process = self._case.start(*arguments, str(self._directory))
        await process.wrote(ready)

    async def kill(self) -> None:
        """Kill it: there is no end of anything."""
        assert self.process is not None
        await self.process.stop(signal.SIGKILL)

    async def stop(self) -> None:
        """Stop it as an admin does."""
        assert self.process is not None
        await stop_cleanly(self._case, self.process)


def listens(process: Process, listener: str) -> int:
    """The port of one of a process's listeners, by the name that its log gives it."""
    pattern = rb"%s listens on .*?(\d+)\)" % listener.encode()
    match = re.search(pattern, bytes(process.out))
    assert match is not None, process.text()
    return int(match.group(1))


def free_port() -> int:
    """A port that nobody listens on now: for what must be written down before it is opened.

    None of those that the system gives to whoever asks for any, or connects: it could be gone
    before it is opened.
    """
    given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(10_000, max(given, 20_000))
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind((LOOPBACK, port))
            return port


async def stop_cleanly(case: StoryCase, process: Process) -> None:
    """Stop a long-running process; it has met no bug of ours."""
    status = await process.stop()
    case.assertEqual(status, -signal.SIGTERM, process.text())
    for word in ("Traceback", "Unhandled", "bug in"):
        case.assertNotIn(word, process.text())


class Line:
    """What a tenant's commands need to know, as their environment.

    :param port: where they connect to
    """

    def __init__(self, case: StoryCase, provider: Provider, port: int, token: Path) -> None:
        self._case = case
        phrase = case.folder / "passphrase"
        if not phrase.exists():
            phrase.write_bytes(b"passphrase of the story\n")
        self.environment = {
            "CLOUDCONNECT_PROVIDER": f"localhost:{port}",
            "CLOUDCONNECT_TENANT": token.stem,
            "CLOUDCONNECT_PASSWORD_FILE": str(token),
            "CLOUDCONNECT_FINGERPRINT": provider.pin,
            "CLOUDCONNECT_PASSPHRASE_FILE": str(phrase),
        }

    def start(self, *arguments: str, **environment: str) -> Process:
        """Start a command of the tenant's, with ``--json``."""
        return self._case.command(*arguments, "--json", **{**self.environment, **environment})

    async def run(self, *arguments: str, **environment: str) -> Done:
        """Run a command of the tenant's, with ``--json``."""
        return await self._case.done(self.start(*arguments, **environment))

    async def connect(self) -> Done:
        """Make the tenant's repository."""
        return await self.run("connect", self.environment["CLOUDCONNECT_PROVIDER"])


def in_front_of(case: StoryCase, port: int, address: str = LOOPBACK) -> Proxy:
    """A proxy before a port; it is closed at the end of the test."""
    proxy = Proxy(reactor, port, address)
    case.addCleanup(proxy.close)
    return proxy
