"""Silent, slow and malformed connections against a provider in a process of its own.

1,000 silent and 500 slow connections (a byte a second of what may be) must be gone within 12 s and
30 s, and the provider's memory bounded. Then a backup of a tenant is timed several times, by turns
alone and beside malformed connections from another process: first one of 256 MiB over a line of 100
Mbit/s, with 10,000 malformed connections meanwhile, then one of 64 MiB as fast as the processors
allow, beside malformed connections as fast as they allow. What was backed up is restored and
compared, and the provider's log is searched for what a bug of ours looks like. The last line is one
JSON object; the exit status is 1 where a limit was missed. How much slower the second kind is says
mostly how many processors the tenant, the provider and the attacker share.

    python -m benchmarks.security.exhaustion
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.security.tls_scan import provider
from tests.attacks.malformed import KINDS, client_hello

#: Limits in seconds, in MiB, and as a part of the time alone.
SILENT, SLOW, MEMORY, SLOWER = 12.0, 30.0, 64, 0.1
#: The tenant's line, and so many seconds during which malformed connections come over another one.
LINE, SPREAD = "12.5MB", 18
_BUGS: Final = ("Traceback", "Unhandled", "bug in")


def connect(port: int) -> socket.socket:
    """A connection that does not block."""
    made = socket.create_connection(("127.0.0.1", port), 10)
    made.setblocking(False)
    return made


def gone(port: int, count: int, says: bytes) -> tuple[float, float]:
    """Open so many, say a byte a second of ``says``; when the first and the last one were cut."""
    watch = selectors.DefaultSelector()
    began = time.monotonic()
    lines = [connect(port) for _ in range(count)]
    for line in lines:
        watch.register(line, selectors.EVENT_READ)
    opened, said, first, last = time.monotonic(), 0, 0.0, 0.0
    while watch.get_map() and time.monotonic() - opened < 120:
        for key, _ in watch.select(0.2):
            line: Any = key.fileobj
            try:
                ended = not line.recv(4096)
            except OSError:
                ended = True
            if ended:
                last = time.monotonic()
                first = first or last
                watch.unregister(line)
                line.close()
        if says and time.monotonic() - opened >= said:
            for key in list(watch.get_map().values()):
                with contextlib.suppress(OSError):
                    key.fileobj.send(says[said : said + 1])  # type: ignore[union-attr]
            said += 1
    if watch.get_map():
        raise SystemExit(f"{len(watch.get_map())} connections are still there")
    print(f"{count} opened in {opened - began:.1f} s, cut after {first - began:.1f} s and more")
    return first - began, last - began


def storm(port: int, count: int, seed: int, seconds: int) -> None:
    """So many malformed connections, a hundred at once, spread over so many seconds."""
    draw, began = random.Random(seed), time.monotonic()
    names = sorted(set(KINDS) - {"nothing"})
    held: list[socket.socket] = []
    for number in range(count):
        try:
            line = connect(port)
            line.send(KINDS[names[number % len(names)]](draw))
            held.append(line)
        except OSError:
            pass
        if len(held) >= 100:
            for line in held:
                line.close()
            held.clear()
            time.sleep(max(0.0, began + seconds * number / count - time.monotonic()))


def rss(pid: int, field: str = "VmRSS") -> int:
    """MiB of a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith(field)).split()[1]) >> 10


class Tenant:
    """A tenant's command line."""

    def __init__(self, folder: Path, target: str, directory: Path) -> None:
        where = ("--directory", str(directory))
        made = self._run("provider", "tenant", "add", "acme", *where, "--json")
        token = next(json.loads(line) for line in made.splitlines() if "token" in line)["token"]
        pin = self._run("provider", "fingerprint", *where).split()[0]
        for name, text in (("password", token), ("passphrase", "of this benchmark")):
            (folder / name).write_text(text + "\n")
        os.environ |= {
            "HOME": str(folder),
            "CLOUDCONNECT_PROVIDER": target,
            "CLOUDCONNECT_TENANT": "acme",
            "CLOUDCONNECT_FINGERPRINT": pin,
            "CLOUDCONNECT_PASSWORD_FILE": str(folder / "password"),
            "CLOUDCONNECT_PASSPHRASE_FILE": str(folder / "passphrase"),
        }
        self._run("connect", target)

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cloudconnect", *words], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{words}: {done.stderr}")
        return done.stdout

    def back_up(self, source: Path, size: int, *options: str) -> float:
        """Seconds of a backup of so many MiB of new content."""
        for number in range(8):
            (source / f"{number}").write_bytes(os.urandom(size << 17))
        began = time.monotonic()
        self._run("backup", str(source), "--wan", "off", *options)
        return time.monotonic() - began

    def is_exact(self, source: Path, target: Path) -> bool:
        """Whether the newest point restores to what is there."""
        target.mkdir()
        self._run("restore", "latest", "--target", str(target))
        there = target / str(source)[1:]
        return all(_digest(p) == _digest(there / p.name) for p in source.iterdir())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--malformed", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--storm", nargs=4, type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.storm:
        storm(*chosen.storm)
        return 0
    hello = client_hello()
    with tempfile.TemporaryDirectory() as home, provider() as (target, directory, pid, log):
        folder = Path(home)
        port = int(target.rpartition(":")[2])
        before = rss(pid)
        _, silent = gone(port, 1000, b"")
        _, slow_tls = gone(port, 250, hello)
        _, slow_preamble = gone(port, 250, b"CCN1\x01" + bytes(100))
        grown = rss(pid, "VmHWM") - before
        tenant = Tenant(folder, target, directory)
        source = folder / "source"
        source.mkdir()
        tenant.back_up(source, 64)

        def by_turns(size: int, malformed: int, seconds: int, *words: str) -> dict[str, Any]:
            """A backup alone and beside malformed connections, several times."""
            alone, beside = [], []
            for turn in range(chosen.turns):
                alone.append(tenant.back_up(source, size, *words))
                numbers = map(str, (port, malformed, turn, seconds))
                command = [sys.executable, "-m", __spec__.name, "--storm", *numbers]
                with subprocess.Popen(command):
                    beside.append(tenant.back_up(source, size, *words))
            slower = statistics.median(beside) / statistics.median(alone) - 1
            return {
                "malformed beside each": malformed,
                "alone s": [round(s, 2) for s in alone],
                "beside s": [round(s, 2) for s in beside],
                "slower": round(slower, 3),
            }

        line = by_turns(256, chosen.malformed, SPREAD, "--limit-upload", LINE)
        flat = by_turns(64, chosen.malformed // chosen.turns, 0)
        exact = tenant.is_exact(source, folder / "target")
        bugs = [line for line in log.read_text().splitlines() if any(b in line for b in _BUGS)]
    found = {
        "benchmark": "exhaustion",
        "silent gone after s": round(silent, 1),
        "slow gone after s": round(max(slow_tls, slow_preamble), 1),
        "MiB grown": grown,
        "over 100 Mbit/s": line,
        "as fast as can be": flat,
        "exact": exact,
        "bugs in the log": len(bugs),
        "processors": os.cpu_count(),
    }
    print(json.dumps(found))
    good = silent <= SILENT and max(slow_tls, slow_preamble) <= SLOW and grown <= MEMORY
    good = good and line["slower"] < SLOWER
    return int(not (good and exact and not bugs))


if __name__ == "__main__":
    sys.exit(main())
