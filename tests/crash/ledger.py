"""The ledger of campaigns: one JSON line for each run, which add up while the code is the same.

``benchmarks/ledger.jsonl`` has ``campaign``, ``commit``, ``code`` (the identifier that git gives to
the folder ``cloudconnect/``, so that two commits with the same code can be told from two that
differ), ``seed``, ``seconds``, ``counts``, and ``found`` where the campaign has found something.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent.parent
LEDGER: Final = ROOT / "benchmarks" / "ledger.jsonl"


def _git(*words: str) -> str:
    try:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def code() -> tuple[str, str]:
    """The commit, and the identifier of the code; the latter ends with a plus where it has changes
    that are not committed, and both are empty where there is no git."""
    changed = "+" if _git("status", "--porcelain", "--", "cloudconnect") else ""
    tree = _git("rev-parse", "HEAD:cloudconnect")
    return _git("rev-parse", "--short=12", "HEAD"), tree[:12] + changed if tree else ""


def append(
    campaign: str,
    seed: int,
    seconds: float,
    counts: Counter[str],
    found: str = "",
    path: Path = LEDGER,
    run: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Write one run down; returns its line.

    :param seconds: how long it took
    :param run: commit and code when it began, where they are not those of now
    :param found: what it found; empty where all was as it must be
    """
    commit, tree = run or code()
    line: dict[str, Any] = {
        "campaign": campaign,
        "commit": commit,
        "code": tree,
        "seed": seed,
        "seconds": round(seconds, 1),
        "counts": dict(sorted(counts.items())),
    }
    if found:
        line["found"] = found
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def sums(path: Path = LEDGER) -> list[dict[str, Any]]:
    """For each campaign and code: its runs added up, the newest code last."""
    added: dict[tuple[str, str], dict[str, Any]] = {}
    for text in path.read_text().splitlines() if path.exists() else ():
        line = json.loads(text)
        key = (line["campaign"], line["code"])
        total = added.setdefault(
            key,
            {
                "campaign": key[0],
                "code": key[1],
                "runs": 0,
                "seeds": [],
                "seconds": 0.0,
                "found": 0,
                "counts": Counter(),
            },
        )
        total["runs"] += 1
        total["seeds"].append(line["seed"])
        total["seconds"] = round(total["seconds"] + line["seconds"], 1)
        total["found"] += "found" in line
        total["counts"].update(line["counts"])
    return [{**t, "counts": dict(sorted(t["counts"].items()))} for t in added.values()]
