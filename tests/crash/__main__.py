"""``make crash SECONDS=n SEED=s``: every campaign for its share of the time.

Each campaign prints one JSON line, which is appended to the ledger as well. The exit status is 1
where something was found.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.crash import churn, cuts, faults, flips, kills, states
from tests.crash.ledger import LEDGER, append, code, sums
from tests.crash.stage import Failed

#: Why it cannot run here, or nothing; and what runs it.
Campaign = tuple[Callable[[], str], Callable[..., None]]
Campaigns = Mapping[str, Campaign]


def always() -> str:
    """Nothing is missing."""
    return ""


#: What share of the time each gets when all run: a kill takes longer than a fault.
_SHARES: Final = {
    "kills": 0.35,
    "churn": 0.2,
    "states": 0.2,
    "faults": 0.1,
    "cuts": 0.08,
    "flips": 0.07,
}
CAMPAIGNS: Final[Campaigns] = {
    "kills": (always, kills.run),
    "churn": (always, churn.run),
    "cuts": (cuts.missing, cuts.run),
    "faults": (faults.missing, faults.run),
    "flips": (always, flips.run),
    "states": (always, states.run),
}


def main(
    arguments: list[str],
    campaigns: Campaigns = CAMPAIGNS,
    shares: Mapping[str, float] = _SHARES,
    prog: str = "python -m tests.crash",
) -> int:
    """Run campaigns; the exit status.

    :param campaigns: those that there are
    :param shares: what share of the time each gets when all run
    :param prog: what is run
    """
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--seconds", type=float, default=600.0, help="for all campaigns together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--campaign", choices=[*campaigns, "all"], default="all")
    parser.add_argument("--most", type=int, help="most kills, cuts, faults ... of each campaign")
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    parser.add_argument("--sums", action="store_true", help="add up the ledger and run nothing")
    chosen = parser.parse_args(arguments)
    if chosen.sums:
        for total in sums(chosen.ledger):
            print(json.dumps(total))
        return 0
    names = list(campaigns) if chosen.campaign == "all" else [chosen.campaign]
    whole = len(names) == 1
    results = [
        _one(
            name,
            campaigns[name],
            chosen.seed,
            chosen.seconds * (1.0 if whole else shares[name]),
            chosen.most,
            chosen.ledger,
        )
        for name in names
    ]
    return max(results)


def _one(
    name: str, campaign: Campaign, seed: int, seconds: float, most: int | None, ledger: Path
) -> int:
    missing, run = campaign
    why = missing()
    if why:
        print(json.dumps({"campaign": name, "skipped": why}), flush=True)
        return 0
    counts: Counter[str] = Counter()
    begun, ran = time.monotonic(), code()
    found: Any = ""
    try:
        run(seed, seconds, counts, most)
    except Failed as failure:
        found = str(failure)
        print(f"{name}: {found}", file=sys.stderr, flush=True)
    line = append(name, seed, time.monotonic() - begun, counts, found[:2000], ledger, ran)
    print(json.dumps(line), flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
