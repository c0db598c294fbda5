"""``python -m tests.fuzz TARGET --seconds N --seed S``: one target or, one by one, ``all`` of them.

Wants atheris (``make fuzz`` installs it, in an environment of its own). The fuzzer runs in a
process of its own with at most 256 MiB; what it finds new is kept in a corpus outside of the tree
from one run to the next. ``--keep`` puts a part of a corpus into ``tests/fuzz/seeds``, and a
finding goes there at once: the suite replays them. Each run is a line of the ledger: executions,
CPU seconds, edges reached, and the seconds since the last input that reached something new.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tests.crash.ledger import LEDGER, ROOT, append, code
from tests.fuzz.target import SEEDS, kept

#: Memory of the fuzzer's process with the target in it, in MiB.
MEMORY: Final = 256
#: One input may take this long, in seconds.
PATIENCE: Final = 10
#: Most kept inputs of a target, and bytes of one: the suite replays all of them.
KEPT_MAX: Final = 20
KEPT_SIZE: Final = 2048


def child(name: str, arguments: list[str]) -> None:
    """Fuzz in this process, until libFuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=["cloudconnect"]):
        from tests.fuzz.every_target import TARGETS
    import logging

    logging.disable(logging.CRITICAL)
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name].run)
    atheris.Fuzz()


def fuzz(name: str, seconds: float, seed: int, corpus: Path, ledger: Path) -> int:
    """One run of one target; the exit status."""
    from tests.fuzz.every_target import TARGETS

    target = TARGETS[name]
    folder = corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(target.first()):
        (folder / f"first-{number:02}").write_bytes(octets)
    (SEEDS / name).mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz", "--child", name, str(folder), str(SEEDS / name)),
        *(f"-max_total_time={seconds:.0f}", f"-seed={seed}", f"-max_len={target.longest}"),
        *(f"-rss_limit_mb={MEMORY}", f"-timeout={PATIENCE}", "-print_final_stats=1"),
        f"-artifact_prefix={SEEDS / name}/finding-",
    ]
    ran, begun, used = code(), time.monotonic(), children()
    with tempfile.NamedTemporaryFile("w+", suffix=".log", prefix=f"fuzz-{name}-") as log:
        running = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        newest, edges = begun, 0
        assert running.stdout is not None
        for line in running.stdout:
            log.write(line)
            # NEW is also said of an edge that was taken another number of times.
            reached = re.search(r"\t(?:INITED|NEW) +cov: (\d+)", line)
            if reached and int(reached[1]) > edges:
                newest, edges = time.monotonic(), int(reached[1])
        status = running.wait()
        log.flush()
        text = Path(log.name).read_text()
    counts: Counter[str] = Counter()
    for what, pattern in (
        ("executions", r"stat::number_of_executed_units: +(\d+)"),
        ("MiB at most", r"stat::peak_rss_mb: +(\d+)"),
    ):
        counts[what] = int((re.findall(pattern, text) or [0])[-1])
    counts["edges"] = int((re.findall(r"cov: (\d+)", text) or [0])[-1])
    counts["CPU seconds"] = round(children() - used)
    counts["seconds since the last new edge"] = round(time.monotonic() - newest)
    found = "" if status == 0 else text.replace(f"{ROOT}/", "")[-1800:]
    line = append(f"fuzz {name}", seed, time.monotonic() - begun, counts, found, ledger, ran)
    print(json.dumps(line), flush=True)
    return int(bool(found))


def children() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def keep(name: str, corpus: Path) -> None:
    """Keep some of what reached something new when it was found, spread over all sizes."""
    paths = [path for path in (corpus / name).iterdir() if not path.name.startswith("first-")]
    small = sorted((path.stat().st_size, path.name) for path in paths)
    small = [(size, found) for size, found in small if 0 < size <= KEPT_SIZE]
    step = max(1, len(small) / KEPT_MAX)
    chosen = [small[int(at * step)][1] for at in range(min(KEPT_MAX, len(small)))]
    (SEEDS / name).mkdir(parents=True, exist_ok=True)
    for path in kept(name):
        if path.name.startswith("kept-"):
            path.unlink()
    for number, found in enumerate(chosen):
        shutil.copy(corpus / name / found, SEEDS / name / f"kept-{number:02}")
    print(f"{name}: kept {len(chosen)} of {len(paths)}", flush=True)


def main(arguments: list[str]) -> int:
    """Run it; the exit status."""
    if arguments[:1] == ["--child"]:
        child(arguments[1], arguments[2:])
        return 0
    from tests.fuzz.every_target import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", type=Path, default=ROOT / ".venv-fuzz" / "corpus")
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--keep", action="store_true", help="keep seeds and run nothing")
    chosen: Any = parser.parse_args(arguments)
    names = list(TARGETS) if chosen.target == "all" else [chosen.target]
    status = 0
    for name in names:
        if chosen.keep:
            keep(name, chosen.corpus)
        else:
            status |= fuzz(name, chosen.seconds, chosen.seed, chosen.corpus, chosen.ledger)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
