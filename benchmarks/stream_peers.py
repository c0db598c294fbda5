"""What a byte costs other programs that protect a stream: openssl, stunnel and ssh.

Rows of ``benchmarks/stream.py``. Each is two processes of the peer's own over loopback TCP with
AES-256-GCM. They are given as little else to do as they allow: openssl and ssh read a file in
memory, what they write is taken from them with ``splice``, and stunnel's plain ends are sockets of
this process. CPU seconds are those of the peer's processes, with the children that they waited for.

Needs ``openssl``, ``stunnel`` and ``sshd`` (Debian: openssl stunnel4 openssh-server
openssh-client), and root for ``sshd``; a row whose programs are missing is left out and named.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: What each row is.
PEERS = {
    "openssl": "openssl s_client to s_server, TLS 1.3 AES-256-GCM",
    "stunnel": "stunnel to stunnel, TLS 1.3 AES-256-GCM",
    "ssh": "ssh to sshd, aes256-gcm@openssh.com",
}
_PROGRAMS = {
    "openssl": ("openssl",),
    "stunnel": ("stunnel",),
    "ssh": ("ssh", "/usr/sbin/sshd", "ssh-keygen"),
}
_BLOCK = 1 << 20
_START_SECONDS = 10.0


def missing(row: str) -> list[str]:
    """The programs of a row that are not there."""
    return [program for program in _PROGRAMS[row] if shutil.which(program) is None]


def measure_peer(row: str, size: int, directory: str) -> dict[str, float]:
    """Run one row once.

    :param size: bytes of payload
    :param directory: with ``certificate.pem``, key and certificate in one file
    :return: CPU seconds for each 10^9 bytes of each side, wall seconds; no memory (0)
    :raises RuntimeError: not every byte arrived
    """
    place = Path(directory)
    sender, receiver, wall, moved = {"openssl": _openssl, "stunnel": _stunnel, "ssh": _ssh}[row](
        size, place
    )
    if moved != size:
        raise RuntimeError(f"{row}: {moved} of {size} bytes arrived")
    billions = size / 1e9
    return {
        "send_cpu": sender / billions,
        "receive_cpu": receiver / billions,
        "wall": wall,
        "send_memory": 0.0,
        "receive_memory": 0.0,
    }


def _cpu_of(process: subprocess.Popen[Any]) -> float:
    """Wait for ``process``; its CPU seconds, with those of the children that it waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    """Until something listens on ``port``."""
    ends = time.monotonic() + _START_SECONDS
    while True:
        table = Path("/proc/net/tcp").read_text()
        if f"0100007F:{port:04X} 00000000:0000 0A" in table:
            return
        if time.monotonic() > ends:
            raise RuntimeError(f"nothing listens on port {port}")
        time.sleep(0.02)


@contextlib.contextmanager
def _payload(size: int) -> Iterator[int]:
    """A file of ``size`` bytes in memory."""
    descriptor = os.memfd_create("payload")
    try:
        os.truncate(descriptor, size)
        yield descriptor
    finally:
        os.close(descriptor)


class _Drain(threading.Thread):
    """Takes what comes out of a pipe or socket, without looking at it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self.moved = 0

    def run(self) -> None:
        nothing = os.open(os.devnull, os.O_WRONLY)
        while count := os.splice(self._descriptor, nothing, _BLOCK):
            self.moved += count
        os.close(nothing)


def _openssl(size: int, place: Path) -> tuple[float, float, float, int]:
    port, pem = _free_port(), str(place / "certificate.pem")
    suite = ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"]
    server = subprocess.Popen(
        [
            "openssl",
            "s_server",
            "-accept",
            f"127.0.0.1:{port}",
            "-cert",
            pem,
            "-quiet",
            *suite,
            "-naccept",
            "1",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    _wait_for(port)
    drain = _Drain(server.stdout.fileno())
    drain.start()
    with _payload(size) as payload:
        began = time.monotonic()
        client = subprocess.Popen(
            [
                "openssl",
                "s_client",
                "-connect",
                f"127.0.0.1:{port}",
                "-quiet",
                "-no_ign_eof",
                *suite,
            ],
            stdin=payload,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        sent = _cpu_of(client)
    received = _cpu_of(server)
    drain.join()
    wall = time.monotonic() - began
    server.stdin.close()
    server.stdout.close()
    return sent, received, wall, drain.moved


def _stunnel(size: int, place: Path) -> tuple[float, float, float, int]:
    plain, tls = _free_port(), _free_port()
    with socket.create_server(("127.0.0.1", 0)) as sink:
        common = "foreground = yes\npid =\ndebug = err\nsslVersion = TLSv1.3\n"
        common += "ciphersuites = TLS_AES_256_GCM_SHA384\n"
        far = place / "stunnel-server.conf"
        far.write_text(
            f"{common}cert = {place / 'certificate.pem'}\n[far]\naccept = 127.0.0.1:{tls}\n"
            f"connect = 127.0.0.1:{sink.getsockname()[1]}\n"
        )
        near = place / "stunnel-client.conf"
        near.write_text(
            f"{common}client = yes\n[near]\naccept = 127.0.0.1:{plain}\nconnect = 127.0.0.1:{tls}\n"
        )
        server, client = (
            subprocess.Popen(["stunnel", str(path)], stderr=subprocess.DEVNULL)
            for path in (far, near)
        )
        _wait_for(tls)
        _wait_for(plain)
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", plain)) as source:
            writing = threading.Thread(target=_write, args=(source, size), daemon=True)
            writing.start()
            accepted, _ = sink.accept()
            with accepted:
                buffer, moved = bytearray(_BLOCK), 0
                while moved < size and (count := accepted.recv_into(buffer)):
                    moved += count
            writing.join()
        wall = time.monotonic() - began
    client.terminate()
    server.terminate()
    return _cpu_of(client), _cpu_of(server), wall, moved


def _write(source: socket.socket, size: int) -> None:
    block = bytes(_BLOCK)
    for _ in range(size // _BLOCK):
        source.sendall(block)
    source.shutdown(socket.SHUT_WR)


def _ssh(size: int, place: Path) -> tuple[float, float, float, int]:
    port = _free_port()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        if not (place / name).exists():
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
            subprocess.run(command, check=True)
    (place / "authorized").write_bytes((place / "user.pub").read_bytes())
    configuration = place / "sshd.conf"
    configuration.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {place / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {place / 'authorized'}\nStrictModes no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nCiphers aes256-gcm@openssh.com\n"
    )
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-f", str(configuration)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for(port)
    with _payload(size) as payload:
        began = time.monotonic()
        client = subprocess.Popen(
            [
                "ssh",
                "-F",
                "none",
                "-p",
                str(port),
                "-i",
                str(place / "user"),
                "-T",
                "-c",
                "aes256-gcm@openssh.com",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "LogLevel=ERROR",
                "127.0.0.1",
                "wc -c",
            ],
            stdin=payload,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert client.stdout is not None
        counted = client.stdout.read()
        sent = _cpu_of(client)
        wall = time.monotonic() - began
    client.stdout.close()
    time.sleep(0.2)  # sshd waits for its child once that has gone; only then is it accounted for
    server.terminate()
    return sent, _cpu_of(server), wall, int(counted or 0)
