"""A scan of a provider's real port by sslyze, against Mozilla's modern configuration.

A provider is made and run on loopback for it; ``--target HOST:PORT`` scans one that runs. sslyze is
only called, as a program in an environment of its own (``make tls-scan``). What it says is printed,
and compared with what ``docs/security/tls.rst`` has judged: the exit status is 1 where it says
anything else. The last line is one JSON object.

    python -m benchmarks.security.tls_scan --sslyze .venv-sslyze/bin/sslyze
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: What Mozilla's checks may say, and why that is as it must be: see docs/security/tls.rst.
JUDGED: Final = {
    "certificate_path_validation": "a certificate of its own, which tenants know by its pin",
    "maximum_certificate_lifespan": "as above: a pin survives renewal, and nobody renews unasked",
}
_READY: Final = re.compile(r"provider is ready on .*port=(\d+)")
_SECONDS: Final = 60


@contextmanager
def provider() -> Iterator[tuple[str, Path, int, Path]]:
    """A provider that runs on loopback: HOST:PORT, its directory, its process, its log."""
    with tempfile.TemporaryDirectory(prefix="cloudconnect-scan-") as folder:
        directory, log = Path(folder, "provider"), Path(folder, "log")
        words = [sys.executable, "-m", "cloudconnect", "provider"]
        where = ["--directory", str(directory)]
        made = ["init", "--host", "localhost", "--listen", "tcp:0:interface=127.0.0.1"]
        subprocess.run([*words, *made, *where], check=True, capture_output=True)
        with log.open("w") as output:
            running = subprocess.Popen([*words, "serve", *where], stdout=output, stderr=output)
        try:
            yield f"localhost:{_port(log, running)}", directory, running.pid, log
        finally:
            running.terminate()
            running.wait(_SECONDS)


def _port(log: Path, running: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and running.poll() is None:
        found = _READY.search(log.read_text())
        if found:
            return found[1]
        time.sleep(0.2)
    raise SystemExit(f"the provider does not start: {log.read_text()}")


def scan(sslyze: str, target: str) -> int:
    """Scan, print, judge; the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        done = subprocess.run(
            [sslyze, "--mozilla_config=modern", "--json_out", str(report), target],
            capture_output=True,
            text=True,
        )
        print(done.stdout)
        results = json.loads(report.read_text())["server_scan_results"]
    said = dict(re.findall(r"^\s+\* ([a-z_]+): (.*)$", done.stdout, re.MULTILINE))
    if not results or results[0]["scan_status"] != "COMPLETED":
        raise SystemExit(f"{target} could not be scanned: {done.stdout}{done.stderr}")
    accepted = {
        name: len((results[0]["scan_result"][name]["result"] or {})["accepted_cipher_suites"])
        for name in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1", "tls_1_2", "tls_1_3")
        for name in [f"{name}_cipher_suites"]
    }
    unjudged = {check: text for check, text in said.items() if check not in JUDGED}
    old = sum(count for name, count in accepted.items() if "1_3" not in name)
    line = {"benchmark": "tls scan", "suites": accepted, "said": said, "unjudged": unjudged}
    print(json.dumps(line))
    return int(bool(unjudged) or old > 0 or accepted["tls_1_3_cipher_suites"] != 1)


def main() -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sslyze", default="sslyze", help="the program")
    parser.add_argument("--target", metavar="HOST:PORT", help="a provider that runs already")
    chosen = parser.parse_args()
    if chosen.target:
        return scan(chosen.sslyze, chosen.target)
    with provider() as (target, *_):
        return scan(chosen.sslyze, target)


if __name__ == "__main__":
    sys.exit(main())
