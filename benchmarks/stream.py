"""What a byte costs: the record stream on both paths, Twisted's TLS, TCP, and other programs.

Each row is two processes over loopback TCP. The sender is an ordinary push producer that writes
``bytes`` of 1 MiB through ``transport.write``; the receiver counts what it is given. Repetitions
are interleaved, so that a machine that is busy for a while is so for every row, and each figure is
the median. The last line is one JSON object.

    python benchmarks/stream.py                 # 2 GiB, 5 repetitions
    python benchmarks/stream.py --memory        # peak memory at 1 GiB and at 8 GiB

CPU seconds are user and system time of one process from its connection's first moment to its last,
for each 10^9 bytes of payload. Every row's sockets use the same congestion control, reno, which the
record stream chooses by itself within one machine (BBR's timers would cost each row a little).
Peak memory is the kernel's ``VmHWM`` of the whole process, with the 16 MiB that the sender cycles
through.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stream_peers import PEERS, measure_peer, missing

MIB = 1 << 20
BLOCK = MIB
BLOCKS = 16
SECRET = bytes(range(32))
CONTEXT = b"cloudconnect/1 benchmark"

#: What each row is; the first word of a name says what is measured.
ROWS = {
    "fast": "record stream on the socket, IBufferReceiver",
    "fast-data": "record stream on the socket, dataReceived",
    "plain": "record stream over write(), IBufferReceiver",
    "tls": "Twisted TLS 1.3 AES-256-GCM, limits raised to 1 MiB",
    "tls-256k": "the same, limits raised to 256 KiB",
    "tls-stock": "the same, Twisted's own limits",
    "tcp": "Twisted TCP, no protection",
}
ROWS |= PEERS
LIMITS = {"tls": MIB, "tls-256k": 256 << 10}


# --- one side of one row ------------------------------------------------------------------------


def peak_memory() -> int:
    """VmHWM of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise RuntimeError("no VmHWM in /proc/self/status")


def cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_side(role: str, row: str, size: int, directory: str, record: int) -> None:
    """Send or receive ``size`` bytes and print what it took, as JSON."""
    if os.environ.get("BENCHMARK_REACTOR") == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    from twisted.internet import reactor
    from twisted.internet.endpoints import clientFromString, serverFromString
    from twisted.internet.interfaces import IPushProducer
    from twisted.internet.protocol import Factory, Protocol
    from twisted.internet.tcp import Connection
    from zope.interface import alsoProvides, implementer

    result: dict[str, object] = {"ok": False}

    class Side(Protocol):
        cpu = wall = 0.0
        moved = 0

        def connectionMade(self) -> None:
            below = self.transport
            while not isinstance(below, Connection):
                below = below.transport
            below.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
            if row in LIMITS:
                below.SEND_LIMIT = below.bufferSize = LIMITS[row]
            self.cpu, self.wall = cpu_seconds(), time.monotonic()

        def connectionLost(self, reason: object) -> None:
            result.update(
                ok=self.moved == size,
                cpu=cpu_seconds() - self.cpu,
                wall=time.monotonic() - self.wall,
                memory=peak_memory(),
                reason=str(reason),
            )
            reactor.stop()

    class Receiver(Side):
        def dataReceived(self, data: bytes) -> None:
            self.moved += len(data)

        bufferReceived = dataReceived

    @implementer(IPushProducer)
    class Sender(Side):
        paused = False

        def connectionMade(self) -> None:
            self.blocks = [os.urandom(BLOCK) for _ in range(BLOCKS)]
            super().connectionMade()
            self.transport.registerProducer(self, True)
            self.resumeProducing()

        def pauseProducing(self) -> None:
            self.paused = True

        def resumeProducing(self) -> None:
            self.paused = False
            while not self.paused and self.moved < size:
                block = self.blocks[self.moved // BLOCK % BLOCKS]
                self.moved += len(block)
                self.transport.write(block)
            if self.moved >= size:
                self.transport.unregisterProducer()
                self.transport.loseConnection()

        def stopProducing(self) -> None:
            self.paused = True

    factory = Factory.forProtocol(Sender if role == "send" else Receiver)
    if role == "receive" and row in ("fast", "plain"):
        from cloudconnect.interfaces import IBufferReceiver

        build = factory.buildProtocol

        def building(address: object) -> object:
            protocol = build(address)
            alsoProvides(protocol, IBufferReceiver)
            return protocol

        factory.buildProtocol = building
    if row.startswith(("fast", "plain")):
        from cloudconnect.keys import Secret
        from cloudconnect.transports.stream import RecordStream

        stream = RecordStream(
            Secret(SECRET), CONTEXT, own_socket=row != "plain", payload=record or None
        )
        wrap = stream.client_factory if role == "send" else stream.server_factory
        factory = wrap(factory, reactor)
    elif row.startswith("tls"):
        from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
        from twisted.protocols.tls import TLSMemoryBIOFactory

        pem = Path(directory, "certificate.pem").read_bytes()
        if role == "send":
            options = optionsForClientTLS("localhost", Certificate.loadPEM(pem))
        else:
            options = PrivateCertificate.loadPEM(pem).options()
        factory = TLSMemoryBIOFactory(options, role == "send", factory)

    def failed(failure: object) -> None:
        result["reason"] = str(failure)
        reactor.stop()

    if role == "receive":
        listening = serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(factory)
        listening.addCallback(lambda port: print(port.getHost().port, flush=True))
        listening.addErrback(failed)
    else:
        port = sys.stdin.readline().strip()
        clientFromString(reactor, f"tcp:127.0.0.1:{port}").connect(factory).addErrback(failed)
    reactor.run()
    print(json.dumps(result), flush=True)


# --- both sides ---------------------------------------------------------------------------------


def make_certificate(directory: str) -> None:
    """A key and a certificate for ``localhost`` in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    Path(directory, "certificate.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )


def measure(row: str, size: int, directory: str, record: int) -> dict[str, float]:
    """Run one row once.

    :raises RuntimeError: a side failed, or not every byte arrived
    """
    if row in PEERS:
        return measure_peer(row, size, directory)

    def start(role: str, **pipes: int) -> subprocess.Popen[str]:
        command = [sys.executable, __file__, "--side", role, row, str(size), directory, str(record)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **pipes)

    with start("receive") as receiver, start("send", stdin=subprocess.PIPE) as sender:
        sender.stdin.write(receiver.stdout.readline())
        sender.stdin.close()
        sent = json.loads(sender.stdout.read())
        received = json.loads(receiver.stdout.read())
    if not (sent["ok"] and received["ok"]):
        raise RuntimeError(f"{row}: sender {sent}, receiver {received}")
    billions = size / 1e9
    return {
        "send_cpu": sent["cpu"] / billions,
        "receive_cpu": received["cpu"] / billions,
        "wall": max(sent["wall"], received["wall"]),
        "send_memory": sent["memory"] / MIB,
        "receive_memory": received["memory"] / MIB,
    }


def cipher_alone() -> dict[str, float]:
    """CPU seconds for each 10^9 bytes of AES-256-GCM between two buffers of 1 MiB."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    aead, nonce, rounds = AESGCM(SECRET), bytes(12), 256
    blocks = [os.urandom(BLOCK) for _ in range(BLOCKS)]
    sealed, opened = bytearray(BLOCK + 16), bytearray(BLOCK)
    begin = time.process_time()
    for number in range(rounds):
        aead.encrypt_into(nonce, blocks[number % BLOCKS], b"", sealed)
    middle = time.process_time()
    for _ in range(rounds):
        aead.decrypt_into(nonce, sealed, b"", opened)
    end = time.process_time()
    billions = rounds * BLOCK / 1e9
    return {"seal": (middle - begin) / billions, "open": (end - middle) / billions}


def medians(samples: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(s[name] for s in samples) for name in samples[0]}


def print_table(results: dict[str, dict[str, float]], size: int) -> None:
    """The rows, for people."""
    print(f"{'':12}{'CPU s/GB':>16}{'wall':>9}{'':>9}{'peak RSS MiB':>16}")
    print(f"{'':12}{'send':>8}{'recv':>8}{'s':>9}{'GB/s':>9}{'send':>8}{'recv':>8}")
    for row, m in results.items():
        print(
            f"{row:12}{m['send_cpu']:8.3f}{m['receive_cpu']:8.3f}{m['wall']:9.2f}"
            f"{size / 1e9 / m['wall']:9.2f}{m['send_memory']:8.0f}{m['receive_memory']:8.0f}"
            f"   {ROWS[row]}"
        )


def compare(arguments: argparse.Namespace, directory: str) -> dict[str, object]:
    """All rows at one size."""
    size = int(arguments.gib * (1 << 30)) // BLOCK * BLOCK
    absent = {row: missing(row) for row in arguments.rows if row in PEERS and missing(row)}
    for row, programs in absent.items():
        print(f"{row} is left out: there is no {', '.join(programs)}", file=sys.stderr)
    samples: dict[str, list[dict[str, float]]] = {
        row: [] for row in arguments.rows if row not in absent
    }
    ciphers = []
    for repetition in range(arguments.reps):
        ciphers.append(cipher_alone())
        for row, taken in samples.items():
            taken.append(measure(row, size, directory, arguments.record))
        print(f"repetition {repetition + 1} of {arguments.reps}", file=sys.stderr, flush=True)
    results = {row: medians(taken) for row, taken in samples.items()}
    cipher = medians(ciphers)
    print(f"{size >> 20} MiB, medians of {arguments.reps}")
    print_table(results, size)
    print(f"cipher alone: seal {cipher['seal']:.3f}, open {cipher['open']:.3f} CPU s/GB")
    report: dict[str, object] = {"bytes": size, "reps": arguments.reps, "cipher": cipher}
    tls = [m for row, m in results.items() if row.startswith("tls")]
    ratios = {}
    for row in ("fast", "fast-data", "plain"):
        if row in results and tls:
            ratios[row] = {
                side: min(m[side] for m in tls) / results[row][side]
                for side in ("send_cpu", "receive_cpu")
            }
            print(
                f"the best Twisted TLS costs {ratios[row]['send_cpu']:.2f} times what {row} does "
                f"at the sender, {ratios[row]['receive_cpu']:.2f} times at the receiver"
            )
    if "fast" in results:
        for row in [row for row in PEERS if row in results]:
            peer = {
                side: results[row][side] / results["fast"][side]
                for side in ("send_cpu", "receive_cpu")
            }
            ratios[row] = peer
            print(
                f"{row} costs {peer['send_cpu']:.2f} times what fast does at the sender, "
                f"{peer['receive_cpu']:.2f} times at the receiver"
            )
    report |= {"rows": results, "ratios": ratios, "left_out": absent}
    return report


def compare_memory(arguments: argparse.Namespace, directory: str) -> dict[str, object]:
    """Peak memory of the stream's rows at 1 GiB and at 8 GiB."""
    report: dict[str, object] = {}
    for row in [row for row in arguments.rows if row.startswith(("fast", "plain"))]:
        small, large = (measure(row, gib << 30, directory, arguments.record) for gib in (1, 8))
        growth = {
            side: large[f"{side}_memory"] - small[f"{side}_memory"] for side in ("send", "receive")
        }
        report[row] = {"1 GiB": small, "8 GiB": large, "growth_mib": growth}
        print(
            f"{row}: from 1 to 8 GiB the sender grows by {growth['send']:.1f} MiB to "
            f"{large['send_memory']:.0f}, the receiver by {growth['receive']:.1f} to "
            f"{large['receive_memory']:.0f}"
        )
    return {"memory": report}


def main() -> None:
    """The command."""
    if sys.argv[1:2] == ["--side"]:
        role, row, size, directory, record = sys.argv[2:]
        run_side(role, row, int(size), directory, int(record))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=2, help="payload of each run (default 2)")
    parser.add_argument("--reps", type=int, default=5, help="repetitions (default 5)")
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS))
    parser.add_argument("--record", type=int, default=0, help="payload bytes of one record")
    parser.add_argument("--memory", action="store_true", help="compare peak memory, 1 and 8 GiB")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        make_certificate(directory)
        work = compare_memory if arguments.memory else compare
        report = work(arguments, directory)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
