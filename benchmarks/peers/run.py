"""cloudconnect beside other backup programs, over the same lines, with the same data.

The other programs, the data, the lines between two network namespaces and the harness are a
comparison of their own, in the folder that ``CLOUDCONNECT_PEERS_BENCH`` names: ``run.py`` (with
``main``), ``peers.py`` (with ``PEERS``, ``R``, ``C`` and ``SRV``) and what they need. What it
makes goes to ``PEERS_ROOT``. This command adds cloudconnect's rows (``rows.py``) to the programs,
lets the harness measure, and prints medians.

    export CLOUDCONNECT_PEERS_BENCH=/path/to/peers PEERS_ROOT=/path/to/work
    python benchmarks/peers/run.py --shape wan20 --data w2 --phases initial,incr \
        --peers restic-0.14,rsync-3.5.0,cloudconnect-wan --reps 3

Wants root and what the other programs want. Words that are not explained by ``--help`` go to the
harness: ``--reps N``, ``--limit SECONDS``, ``--cc cubic|bbr``. Each repetition begins with a fresh
repository and takes the programs in turn, so that noise hits all of them alike. In the tables:
seconds of wall time with the least and the most, megabytes (10^6) at the client's interface,
seconds of processor time and peak memory of the client and of the server, their children included,
and the wall time in terms of the first program's. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from rows import ROWS, Row

Measured = dict[str, Any]
_FIGURES = ("wall", "cli_cpu", "srv_cpu", "cli_rss", "srv_rss", "up", "down", "repo")


def load_harness(folder: Path) -> Any:
    """The comparison's ``run.py`` as a module, with our rows in it."""
    if not (folder / "wanem").exists():
        sys.exit(f"{folder}/wanem is missing: gcc -O2 -o wanem wanem.c")
    spec = importlib.util.spec_from_file_location("peers_harness", folder / "run.py")
    if spec is None or spec.loader is None:
        sys.exit(f"{folder}/run.py is no module")
    harness = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(harness)
    peers = harness.peers
    for name in ROWS:
        peers.PEERS[name] = Row(name, peers.R, peers.C, peers.SRV)
    return harness


def summed(rows: list[Measured]) -> list[Measured]:
    """Medians over the repetitions: one for each data set, phase and program, in order."""
    groups: dict[tuple[str, str, str], list[Measured]] = {}
    for row in rows:
        if row["phase"] != "init":
            groups.setdefault((row["data"], row["phase"], row["peer"]), []).append(row)
    out: list[Measured] = []
    for (data, phase, peer), same in groups.items():
        total: Measured = {"data": data, "phase": phase, "peer": peer, "reps": len(same)}
        total |= {name: statistics.median(row[name] for row in same) for name in _FIGURES}
        walls = [row["wall"] for row in same]
        total |= {"wall_least": min(walls), "wall_most": max(walls)}
        total["ok"] = all(row["ok"] and row.get("exact", True) for row in same)
        if phase == "restore":
            total["differ"] = max(row["differ"] for row in same)
        out.append(total)
    return out


def table(rows: list[Measured]) -> str:
    """The medians of one data set and phase as a table."""
    first = rows[0]["wall"]
    lines = [
        "| program | wall s | times the first | up; down MB | CPU s | peak MiB | result |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        result = "ok" if row["ok"] else "FAILED"
        if row.get("differ"):
            result += f", {row['differ']} differ"
        cells = (
            row["peer"],
            f"{row['wall']:.2f} ({row['wall_least']:.2f} to {row['wall_most']:.2f})",
            f"{row['wall'] / first:.2f}" if first else "",
            f"{row['up'] / 1e6:.2f}; {row['down'] / 1e6:.2f}",
            f"{row['cli_cpu']:.2f} + {row['srv_cpu']:.2f}",
            f"{row['cli_rss']:.0f} + {row['srv_rss']:.0f}",
            result,
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--shape", default="lan", help="lan, wan100, wan20 or wan20c")
    parser.add_argument("--data", default="w2", help="data sets, with commas")
    parser.add_argument("--phases", default="initial,nochange,incr,shift,restore,verify")
    parser.add_argument(
        "--peers", default="restic-0.14,rsync-3.5.0,cloudconnect-tenant", help="with commas"
    )
    parser.add_argument("--out", help="file that gets one JSON line for each phase")
    asked, others = parser.parse_known_args()
    folder = os.environ.get("CLOUDCONNECT_PEERS_BENCH")
    if not folder:
        sys.exit("CLOUDCONNECT_PEERS_BENCH must name the folder of the comparison")
    harness = load_harness(Path(folder).resolve())
    unknown = set(asked.peers.split(",")) - set(harness.peers.PEERS)
    if unknown:
        known = ", ".join(sorted(harness.peers.PEERS))
        sys.exit(f"there is no program {', '.join(sorted(unknown))}; there are {known}")
    with tempfile.TemporaryDirectory() as place:
        out = Path(asked.out or Path(place, "results.jsonl"))
        begins = out.stat().st_size if out.exists() else 0
        given = {k: getattr(asked, k) for k in ("shape", "data", "phases", "peers")}
        words = [f"--{name}={value}" for name, value in given.items()]
        sys.argv = ["run.py", *words, f"--out={out}", *others]
        harness.main()
        written = out.read_bytes()[begins:].decode()
    totals = summed([json.loads(line) for line in written.splitlines()])
    for data, phase in dict.fromkeys((row["data"], row["phase"]) for row in totals):
        same = [row for row in totals if (row["data"], row["phase"]) == (data, phase)]
        print(f"\n{data} over {asked.shape}, {phase}, medians of {same[0]['reps']}\n")
        print(table(same))
    print(json.dumps({"benchmark": "peers", "shape": asked.shape, "rows": totals}))


if __name__ == "__main__":
    main()
