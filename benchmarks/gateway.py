"""What relaying costs: the gateway beside haproxy, socat and Twisted's own port forward.

Each relay is a process of its own, run by a user without privileges (such a user gets few large
pipes), between a sender and a receiver that cost as little as they can: ``sendfile`` from memory,
and ``recv`` with ``MSG_TRUNC``. CPU seconds are the relay's alone, its children's included.

Needs haproxy and socat (Debian: ``apt-get install haproxy socat``); a row whose program is missing
is left out and named. Run by root it drops to ``--user``, and stays what it is otherwise::

    .venv/bin/python benchmarks/gateway.py
    .venv/bin/python benchmarks/gateway.py --connections 200 --gigabytes 8 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import pwd
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP))

ROUTE = b"r" * 16
_BLOCK = 1 << 20
_START_SECONDS = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")

HAPROXY = """
global
    nbthread 1
    maxconn 4096
defaults
    mode tcp
    timeout connect 10s
    timeout client 100s
    timeout server 100s
    {splice}
frontend front
    bind 127.0.0.1:{front}
    default_backend back
backend back
    server one 127.0.0.1:{back}
"""
SPLICE = "option splice-request\n    option splice-response"


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def become(user: str) -> None:
    """Drop root's privileges for good, after every import: that user may not read our files."""
    if os.geteuid() == 0 and user:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)


# --- the relays ---------------------------------------------------------------------------------


def serve_gateway(front: int, back: int, user: str) -> None:
    """The gateway, with one route."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint

    from cloudconnect.provider.gateway.gateway import Gateway
    from cloudconnect.provider.gateway.relay import Relays, RelayTo
    from cloudconnect.tap.processes import harden

    harden()
    become(user)
    relays = Relays(reactor)  # type: ignore[arg-type]
    gateway = Gateway(
        reactor,  # type: ignore[arg-type]
        TCP4ServerEndpoint(reactor, front, 1024, "127.0.0.1"),
        lambda name: RelayTo(TCP4ClientEndpoint(reactor, "127.0.0.1", back), name, relays),
    )
    gateway.publish(ROUTE, "back", b"g" * 16, 0, 3_600_000)
    gateway.startService()
    gateway.listen()
    reactor.run()  # type: ignore[attr-defined]


def serve_twisted(front: int, back: int, user: str) -> None:
    """Twisted's port forward."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.protocols.portforward import ProxyFactory

    become(user)
    factory = ProxyFactory("127.0.0.1", back)
    factory.noisy = False
    reactor.listenTCP(front, factory, 1024, "127.0.0.1")  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


SERVED: dict[str, Callable[[int, int, str], None]] = {
    "gateway": serve_gateway,
    "twisted": serve_twisted,
}


def command(row: str, front: int, back: int, user: str, place: Path) -> list[str]:
    """What starts a relay."""
    if row in SERVED:
        return [sys.executable, __file__, "--serve", row, str(front), str(back), "--user", user]
    if row == "socat":
        return [
            "socat",
            "-b1048576",
            f"TCP4-LISTEN:{front},bind=127.0.0.1,reuseaddr,fork,backlog=1024",
            f"TCP4:127.0.0.1:{back}",
        ]
    config = place / f"{row}.cfg"
    splice = SPLICE if row == "haproxy-splice" else ""
    config.write_text(HAPROXY.format(front=front, back=back, splice=splice))
    config.chmod(0o644)
    return ["haproxy", "-f", str(config), "-db", "-q"]


ROWS = ("gateway", "haproxy-splice", "haproxy", "socat", "twisted")
_PROGRAM = {"haproxy-splice": "haproxy", "haproxy": "haproxy", "socat": "socat"}


def cpu_of(pid: int) -> float:
    """CPU seconds of a process, its threads, the children that it waited for and those it has."""
    total = 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total += sum(map(int, fields[11:15])) / _TICKS
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    for child in children:
        try:
            total += cpu_of(int(child))
        except OSError:
            continue
    return total


def memory_of(pid: int) -> int:
    """Resident bytes of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- the ends -----------------------------------------------------------------------------------


def receive(listener: socket.socket, connections: int, done: int) -> None:
    """Take all that comes over so many connections; then say how many bytes that were."""
    poll = select.epoll()
    peers: dict[int, socket.socket] = {}
    buffer = bytearray(_BLOCK)
    listener.setblocking(False)
    poll.register(listener, select.EPOLLIN)
    ended = moved = 0
    while ended < connections:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                peer, _ = listener.accept()
                peer.setblocking(False)
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            try:
                count = peers[descriptor].recv_into(buffer, _BLOCK, socket.MSG_TRUNC)
            except BlockingIOError:
                continue
            moved += count
            if not count:
                poll.unregister(descriptor)
                peers.pop(descriptor).close()
                ended += 1
    os.write(done, str(moved).encode())
    os._exit(0)


def send(front: int, connections: int, size: int) -> None:
    """Send so many bytes over so many connections at once, each with a preamble in front."""
    from cloudconnect.wire.preamble import ConnectionKind, Preamble

    preamble = Preamble(ConnectionKind.KEY_B_STREAM, ROUTE).encode()
    payload = os.memfd_create("payload")
    os.truncate(payload, _BLOCK)
    each = size // connections
    left: dict[int, int] = {}
    peers: dict[int, socket.socket] = {}
    poll = select.epoll()
    for _ in range(connections):
        peer = socket.create_connection(("127.0.0.1", front))
        peer.sendall(preamble)
        peer.setblocking(False)
        peers[peer.fileno()] = peer
        left[peer.fileno()] = each
        poll.register(peer, select.EPOLLOUT)
    while peers:
        for descriptor, _ in poll.poll():
            try:
                sent = os.sendfile(descriptor, payload, 0, min(_BLOCK, left[descriptor]))
            except BlockingIOError:
                continue
            left[descriptor] -= sent
            if not left[descriptor]:
                poll.unregister(descriptor)
                peers.pop(descriptor).close()
    os._exit(0)


def forked(call: Callable[..., None], *arguments: Any) -> int:
    """Run ``call`` in a child."""
    pid = os.fork()
    if pid == 0:
        try:
            call(*arguments)
        finally:
            os._exit(1)
    return pid


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until something listens on ``port``."""
    ends = time.monotonic() + _START_SECONDS
    while f"0100007F:{port:04X} 00000000:0000 0A" not in Path("/proc/net/tcp").read_text():
        if process.poll() is not None or time.monotonic() > ends:
            raise RuntimeError("the relay does not listen")
        time.sleep(0.02)


def measure(row: str, connections: int, size: int, user: str, place: Path) -> dict[str, float]:
    """Run one row once.

    :param size: bytes of payload, over all connections
    :raises RuntimeError: not every byte arrived
    """
    front = free_port()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    back = listener.getsockname()[1]
    drop: dict[str, Any] = {}
    if row not in SERVED and os.geteuid() == 0 and user:
        entry = pwd.getpwnam(user)
        drop = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    process = subprocess.Popen(command(row, front, back, user, place), **drop)
    try:
        wait_for(front, process)
        before = cpu_of(process.pid)
        read, write = os.pipe()
        began = time.monotonic()
        receiver = forked(receive, listener, connections, write)
        sender = forked(send, front, connections, size)
        os.close(write)
        arrived = os.read(read, 100)
        wall = time.monotonic() - began
        os.close(read)
        for child in (sender, receiver):
            os.waitpid(child, 0)
        time.sleep(0.2)  # a process that ends is counted once it has
        cpu = cpu_of(process.pid) - before
        memory = memory_of(process.pid)
    finally:
        listener.close()
        process.send_signal(signal.SIGTERM)
        process.wait()
    expected = size // connections * connections
    if not arrived or int(arrived) < expected:
        raise RuntimeError(f"{row}: {arrived!r} of {expected} bytes arrived")
    return {"cpu": cpu / expected * 1e9, "rate": expected / wall / 1e9, "memory": memory / 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, nargs="*", default=[1, 200])
    parser.add_argument("--gigabytes", type=float, default=8.0, help="10^9 bytes of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is printed")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--user", default="nobody", help="who runs the relays, if root may choose")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        row, front, back = options.serve
        SERVED[row](int(front), int(back), options.user)
        return
    absent = [row for row in options.rows if row in _PROGRAM and not shutil.which(_PROGRAM[row])]
    for row in absent:
        print(f"{row}: {_PROGRAM[row]} is not installed", file=sys.stderr)
    rows = [row for row in options.rows if row not in absent]
    size = int(options.gigabytes * 1e9)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for connections in options.connections:
            runs: dict[str, list[dict[str, float]]] = {row: [] for row in rows}
            for _ in range(options.rounds):  # in turn, so that a busy moment meets all of them
                for row in rows:
                    part = size // 4 if row == "twisted" else size
                    runs[row].append(measure(row, connections, part, options.user, Path(folder)))
            for row in rows:
                median = {
                    name: statistics.median(run[name] for run in runs[row])
                    for name in ("cpu", "rate", "memory")
                }
                found.append({"row": row, "connections": connections, **median})
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'relay':16}{'connections':>12}{'CPU s/GB':>10}{'GB/s':>8}{'MB':>7}")
    for entry in found:
        print(
            f"{entry['row']:16}{entry['connections']:12}{entry['cpu']:10.3f}"
            f"{entry['rate']:8.2f}{entry['memory']:7.0f}"
        )


if __name__ == "__main__":
    main()
