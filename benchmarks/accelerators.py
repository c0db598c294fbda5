"""The memory of WAN accelerators that serve many sessions at once.

A provider, a target accelerator in a process of its own, a source accelerator that tenants'
machines share, and so many tenants that back up at the same time, then restore at the same time
through a source accelerator whose caches are empty. What it prints is the largest resident memory
of each accelerator (``VmHWM``, MiB) when it is idle, and after each of the two. Encryption mode
``provider``. The last line is one JSON object.

    python benchmarks/accelerators.py --sessions 10 --megabytes 64
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MB = 1_000_000
TOP = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-m", "cloudconnect"]
WORDS = [f"{number:x}-word".encode() for number in range(5000)]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


class Stage:
    """Everything in one folder.

    :param place: the folder
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.environment = {**os.environ, "PYTHONPATH": str(TOP), "HOME": str(place)}
        self.processes: list[subprocess.Popen[bytes]] = []

    def call(self, *words: str, **more: str) -> str:
        """Run a command to its end; what it prints."""
        done = subprocess.run(
            [*PROGRAM, *words],
            env={**self.environment, **more},
            stdout=subprocess.PIPE,
            check=True,
        )
        return done.stdout.decode()

    def begin(self, *words: str, **more: str) -> subprocess.Popen[bytes]:
        """Start a command."""
        return subprocess.Popen(
            [*PROGRAM, *words], env={**self.environment, **more}, stdout=subprocess.PIPE
        )

    def serve(self, name: str, ready: str, words: list[str]) -> subprocess.Popen[bytes]:
        """Start something that goes on, and wait until it says so."""
        log = self.place / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(words, env=self.environment, stdout=out, stderr=out)
        self.processes.append(process)
        for _ in range(300):
            if re.search(ready, log.read_text()):
                return process
            time.sleep(0.1)
        raise SystemExit(f"{name} did not start: {log.read_text()}")

    def stop(self) -> None:
        """End what goes on."""
        for process in self.processes:
            process.terminate()
            process.wait()


def peak(process: subprocess.Popen[bytes]) -> float:
    """The largest resident memory of a process so far, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def make(path: Path, megabytes: int, seed: int) -> None:
    """Content that gets to about a third by compression, the same for the same seed."""
    chance = random.Random(seed)
    with path.open("wb") as out:
        for _ in range(megabytes * 2):
            words = b" ".join(chance.choices(WORDS, k=40_000))[: MB // 4]
            out.write(words + chance.randbytes(MB // 2 - len(words)))


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sessions", type=int, default=10)
    parser.add_argument("--megabytes", type=int, default=64)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as held:
        stage = Stage(Path(folder))
        held.callback(stage.stop)
        print(json.dumps(measure(stage, asked.sessions, asked.megabytes)))


def measure(stage: Stage, sessions: int, megabytes: int) -> dict[str, object]:
    """Start everything, back up, restore."""
    place, local = stage.place, "interface=127.0.0.1"
    public, lan, back, target_port, source_port = (free_port() for _ in range(5))
    directory = place / "provider"
    stage.call("provider", "init", "--directory", str(directory), "--host", "localhost")
    settings = (directory / "provider.toml").read_text()
    for name, value in (
        ("lan_listen", f"tcp:{lan}:{local}"),
        ("backend_listen", f"tcp:{back}:{local}"),
        ("backend_address", f"127.0.0.1:{back}"),
        ("listen", f"tcp:{public}:{local}"),
    ):
        settings = re.sub(rf'(?m)^{name} = ".*"$', f'{name} = "{value}"', settings)
    settings = re.sub(r"(?m)^wan_cache_gb = .*$", "wan_cache_gb = 0", settings)
    (directory / "provider.toml").write_text(settings)
    stage.serve(
        "provider.out", "is ready", [*PROGRAM, "provider", "serve", "--directory", str(directory)]
    )
    pin = json.loads(
        stage.call("provider", "fingerprint", "--directory", str(directory), "--json").splitlines()[
            0
        ]
    )["spki"]
    at = f"127.0.0.1:{target_port}"
    stage.call(
        "provider", "wan", "enroll", "one", "--directory", str(directory), "--output",
        str(place / "target"), "--service", f"127.0.0.1:{lan}", "--backend", at, "--listen",
        f"tcp:{target_port}:{local}",
    )  # fmt: skip
    twist = [sys.executable, "-m", "twisted", "cloudconnect-wan", "--directory"]
    target = stage.serve("target.out", "registered", [*twist, str(place / "target")])
    branch = ("--directory", str(place / "branch"))
    stage.call("wan", "init", *branch, "--listen", f"tcp:{source_port}:{local}")
    stage.call("wan", "client", "machine", *branch, "--output", str(place / "machine"))
    source = stage.serve("source.out", "listens", [*twist, str(place / "branch")])
    shared = {
        "CLOUDCONNECT_WAN_ACCELERATOR": f"127.0.0.1:{source_port}",
        "CLOUDCONNECT_WAN_NODE": str(place / "machine"),
    }
    tenants = [f"tenant{number}" for number in range(sessions)]
    for number, name in enumerate(tenants):
        added = stage.call(
            "provider", "tenant", "add", name, "--directory", str(directory), "--encryption",
            "provider", "--json",
        )  # fmt: skip
        home = place / name
        home.mkdir()
        token = home / "token"
        token.touch(0o600)
        token.write_text(json.loads(added.splitlines()[-1])["token"])
        (home / "files").mkdir()
        make(home / "files/image", megabytes, number)
        stage.call(
            "connect", f"localhost:{public}", "--tenant", name, "--password-file", str(token),
            "--fingerprint", pin, "--encryption", "provider", HOME=str(home),
        )  # fmt: skip
    found: dict[str, object] = {"benchmark": "accelerators", "sessions": sessions}
    found["idle"] = [peak(source), peak(target)]
    begun = [
        stage.begin(
            "backup",
            str(place / n / "files"),
            "--wan",
            "on",
            "--json",
            HOME=str(place / n),
            **shared,
        )
        for n in tenants
    ]
    finish(begun)
    found["backup"] = [peak(source), peak(target)]
    stage.processes.remove(source)
    source.terminate()
    source.wait()
    shutil.rmtree(place / "branch" / "wan", ignore_errors=True)
    source = stage.serve("source.again", "listens", [*twist, str(place / "branch")])
    begun = [
        stage.begin(
            "restore", "latest", "--target", str(place / n / "back"), "--wan", "on", "--json",
            HOME=str(place / n), **shared,
        )
        for n in tenants
    ]  # fmt: skip
    finish(begun)
    found["restore"] = [peak(source), peak(target)]
    for name in tenants:
        there = Path(f"{place / name / 'back'}{place / name / 'files'}") / "image"
        if there.read_bytes() != (place / name / "files/image").read_bytes():
            raise SystemExit(f"{name} got something else back")
    print("MiB of the source accelerator, of the target accelerator:", found)
    return found


def finish(begun: list[subprocess.Popen[bytes]]) -> None:
    """Wait for commands, each of which must succeed, through the accelerators."""
    for process in begun:
        out, _ = process.communicate()
        summary = json.loads(out.splitlines()[-1])
        if process.returncode or not summary["wan"]["used"]:
            raise SystemExit(f"a command ended with {process.returncode}: {summary}")


if __name__ == "__main__":
    main()
