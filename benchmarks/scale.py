"""How many tenants one provider carries: idle ones, silent strangers, then many sessions at once.

A provider and a gateway of its own process; tenants that log in and stay; strangers that connect
and say nothing, all at once; then tenants with a session each. It prints how long log-ins took,
what the two processes hold in memory, how long strangers stayed, and whether anybody was refused::

    .venv/bin/python benchmarks/scale.py
    .venv/bin/python benchmarks/scale.py --idle 200 --silent 100 --active 20

Everything runs over loopback on one machine, so the tenants' own work (a key derivation and a TLS
handshake each) is in the times. ``--rate`` says how many log-ins begin in a second: what comes
faster than the processors can derive keys only waits.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

from twisted.internet import reactor as _reactor  # noqa: E402
from twisted.internet.defer import Deferred, DeferredList  # noqa: E402
from twisted.internet.task import deferLater  # noqa: E402
from twisted.internet.threads import deferToThread  # noqa: E402

from cloudconnect.backup.dialogue import greet  # noqa: E402
from cloudconnect.commands.control import SessionKind  # noqa: E402
from cloudconnect.config.gateway import enroll  # noqa: E402
from cloudconnect.config.provider import CONFIGURATION, initialize  # noqa: E402
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys  # noqa: E402
from cloudconnect.content.description import describe  # noqa: E402
from cloudconnect.keys import MasterKey, Password  # noqa: E402
from cloudconnect.provider.accounts import Accounts  # noqa: E402
from cloudconnect.provider.admin.administration import Administration  # noqa: E402
from cloudconnect.settings import PREAMBLE_SECONDS  # noqa: E402
from cloudconnect.tenant.jobmanager import JobManager, new_job_id  # noqa: E402
from cloudconnect.transports.trust import TrustPolicy  # noqa: E402
from cloudconnect.wire.channel import FrameChannel  # noqa: E402

reactor: Any = _reactor

#: A silent stranger is closed within so many seconds.
SILENT_SECONDS = PREAMBLE_SECONDS + 2
#: A burst of connections is accepted within so many seconds.
BURST_SECONDS = 0.5
#: Sessions wait for each other for at most so many seconds, so that all are open at the same time.
TOGETHER_SECONDS = 300.0


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def memory_of(pid: int) -> float:
    """Resident 10^6 bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Stage:
    """A provider and its gateway, as processes, with tenants.

    :param folder: where they keep everything
    :param tenants: how many
    """

    def __init__(self, folder: Path, tenants: int) -> None:
        lan, back, self.port = free_port(), free_port(), free_port()
        many = "connections = 20000\naddress_connections = 20000\ntenant_connections = 20000\n"
        settings = initialize(
            folder / "provider", ("localhost",), listen="tcp:0:interface=127.0.0.1"
        )
        text = settings.to_toml()
        for name, value in (
            ("lan_listen", f"tcp:{lan}:interface=127.0.0.1"),
            ("backend_listen", f"tcp:{back}:interface=127.0.0.1"),
            ("backend_address", f"127.0.0.1:{back}"),
        ):
            text = text.replace(f'{name} = ""', f'{name} = "{value}"')
        (folder / "provider" / CONFIGURATION).write_text(text)
        self.pin = settings.identity.fingerprints()[0]
        accounts = Accounts(settings.accounts_url)
        administration = Administration(accounts, settings.repositories)
        self.tokens: dict[str, Password] = {}
        for number in range(tenants):
            name = f"tenant-{number}"
            token = administration.add_tenant(name, None, {})
            assert token is not None
            self.tokens[name] = token
        accounts.close()
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        enroll(settings, "edge", folder / "edge", f"127.0.0.1:{lan}", listen, "")
        toml = folder / "edge" / "gateway.toml"
        toml.write_text(toml.read_text() + many)
        self.processes = {
            "provider": self.start("provider", folder / "provider", b"provider is ready"),
            "gateway": self.start("gateway", folder / "edge", b"registered with the service"),
        }

    def start(self, kind: str, directory: Path, ready: bytes) -> subprocess.Popen[bytes]:
        """Start a process, and wait until it says that it is ready."""
        log = directory / "log"
        words = ["-m", "twisted", "--log-format=text", f"cloudconnect-{kind}", "--directory"]
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, *words, str(directory)], cwd=TOP, stdout=out, stderr=out
            )
        while ready not in log.read_bytes():
            if process.poll() is not None:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        return process

    def memory(self) -> dict[str, float]:
        """What each process holds, in 10^6 bytes."""
        return {name: round(memory_of(p.pid), 1) for name, p in self.processes.items()}

    def close(self) -> None:
        """End the processes."""
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
            process.wait()

    def manager(self) -> JobManager:
        """A tenant's job manager."""
        trust = TrustPolicy("localhost", fingerprints=(self.pin,))
        return JobManager(reactor, "127.0.0.1", self.port, trust)


async def log_in(stage: Stage, name: str, times: list[float]) -> JobManager | None:
    """One tenant logs in; None where it was refused."""
    manager = stage.manager()
    began = time.monotonic()
    try:
        await manager.log_in(name, stage.tokens[name])
    except Exception as error:
        print(f"{name}: {error}", file=sys.stderr)
        return None
    times.append(time.monotonic() - began)
    return manager


async def paced(work: list[Any], rate: float) -> list[Any]:
    """Begin these, so many in a second, and wait for all."""
    begun = []
    for number, make in enumerate(work):
        begun.append(Deferred.fromCoroutine(make()))
        if number % max(1, int(rate / 20)) == 0:
            await deferLater(reactor, max(1, int(rate / 20)) / rate)
    results: Any = await DeferredList(begun, fireOnOneErrback=True, consumeErrors=True)
    return [value for _, value in results]


def burst(port: int, count: int) -> dict[str, float]:
    """So many connections at once, which say nothing: how long until each is up, and closed."""
    limit = time.monotonic() + SILENT_SECONDS + 10
    began = time.monotonic()
    sockets = {}
    poll = select.epoll()
    for _ in range(count):
        stranger = socket.socket()
        stranger.setblocking(False)
        stranger.connect_ex(("127.0.0.1", port))
        sockets[stranger.fileno()] = stranger
        poll.register(stranger, select.EPOLLOUT)
    waiting = set(sockets)
    while waiting and time.monotonic() < limit:
        for descriptor, _ in poll.poll(0.1):
            if descriptor in waiting:
                waiting.discard(descriptor)
                poll.modify(descriptor, select.EPOLLIN)
    accepted = time.monotonic() - began
    connected = count - len(waiting)
    closed = 0.0
    while sockets and time.monotonic() < limit:
        for descriptor, _ in poll.poll(0.1):
            if descriptor in sockets:
                poll.unregister(descriptor)
                sockets.pop(descriptor).close()
                closed = time.monotonic() - began
    return {
        "connected": connected,
        "connected_seconds": round(accepted, 3),
        "closed": count - len(sockets),
        "closed_seconds": round(closed, 3),
    }


def percentile(times: list[float], part: float) -> float:
    """The time within which so large a part of them was over."""
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 3)


class Together:
    """Lets sessions go on once all of them are there, or will not come.

    :param count: how many there are to be
    :ivar most: how many were there at the same time
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._all = threading.Event()
        self._lock = threading.Lock()
        self._here = self.most = 0

    def one_less(self) -> None:
        """One is there, or will not come."""
        with self._lock:
            self._left -= 1
            if self._left <= 0:
                self._all.set()

    def wait(self) -> None:
        """One is there: wait for the others."""
        with self._lock:
            self._here += 1
            self.most = max(self.most, self._here)
        self.one_less()
        self._all.wait(TOGETHER_SECONDS)
        with self._lock:
            self._here -= 1


async def session(stage: Stage, name: str, times: list[float], together: Together) -> bool:
    """One tenant makes its repository, and holds a session with the movers until all are there."""
    held: list[bool] = []
    manager = await log_in(stage, name, times)
    if manager is None:
        together.one_less()
        return False
    master, repository = MasterKey.generate(), os.urandom(16)
    keys = RepositoryKeys(master, repository)
    description = describe(master, repository, EncryptionMode.TENANT, ())

    def dialogue(channel: FrameChannel, session: bytes) -> None:
        greet(channel, keys, description, "read")
        held.append(True)
        together.wait()
        channel.finish()
        channel.expect_end()

    try:
        await manager.create_repository(description.encode())
        await manager.session(SessionKind.READ, repository, new_job_id(), "host", "job", dialogue)
    except Exception as error:
        print(f"{name}: {error}", file=sys.stderr)
        if not held:
            together.one_less()
        return False
    finally:
        await manager.close()
    return True


async def measure(stage: Stage, options: argparse.Namespace) -> dict[str, Any]:
    """All three acts."""
    found: dict[str, Any] = {"memory_before": stage.memory()}
    names = list(stage.tokens)
    times: list[float] = []
    idle = await paced(
        [lambda name=name: log_in(stage, name, times) for name in names[: options.idle]],
        options.rate,
    )
    await deferLater(reactor, 2.0)
    found["idle"] = {
        "tenants": sum(manager is not None for manager in idle),
        "refused": sum(manager is None for manager in idle),
        "login_median": percentile(times, 0.5),
        "login_p99": percentile(times, 0.99),
    }
    found["memory_idle"] = stage.memory()
    found["silent"] = await deferToThread(burst, stage.port, options.silent)
    found["memory_after_silent"] = stage.memory()
    active_times: list[float] = []
    together = Together(options.active)
    active = await paced(
        [
            lambda name=name: session(stage, name, active_times, together)
            for name in names[options.idle :]
        ],
        options.active_rate,
    )
    found["active"] = {
        "tenants": sum(active),
        "at_once": together.most,
        "refused": sum(not done for done in active),
        "login_p99": percentile(active_times, 0.99) if active_times else None,
    }
    found["memory_active"] = stage.memory()
    still = sum(manager is not None and manager.control.transport is not None for manager in idle)
    found["idle_still_there"] = still
    for manager in idle:
        if manager is not None:
            await manager.close()
    return found


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--silent", type=int, default=1000)
    parser.add_argument("--active", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20.0, help="log-ins that begin in a second")
    parser.add_argument(
        "--active-rate", type=float, default=4.0, help="sessions that begin in a second"
    )
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    outcome: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), options.idle + options.active)

        def run() -> None:
            done = Deferred.fromCoroutine(measure(stage, options))
            done.addBoth(lambda result: (outcome.append(result), reactor.stop()))

        reactor.callWhenRunning(run)
        reactor.run()
        stage.close()
    (found,) = outcome
    if not isinstance(found, dict):
        found.raiseException()
    print(json.dumps(found, indent=2))
    silent = found["silent"]
    wrong = [
        text
        for text, holds in (
            ("somebody was refused", not found["idle"]["refused"] + found["active"]["refused"]),
            ("an idle tenant was lost", found["idle_still_there"] == options.idle),
            (
                f"a burst took more than {BURST_SECONDS} s",
                silent["connected"] == options.silent
                and silent["connected_seconds"] <= BURST_SECONDS,
            ),
            (
                f"a silent one stayed for more than {SILENT_SECONDS} s",
                silent["closed"] == options.silent and silent["closed_seconds"] <= SILENT_SECONDS,
            ),
        )
        if not holds
    ]
    for text in wrong:
        print(text, file=sys.stderr)
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
