"""``make attack SECONDS=n SEED=s``: every campaign for its share of the time.

As ``make crash`` (:mod:`tests.crash.__main__`): each campaign prints one JSON line, which is
appended to the ledger as well, and the exit status is 1 where something was found.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.attacks import campaigns, processes, recorded_campaigns
from tests.crash.__main__ import Campaigns, always, main

CAMPAIGNS: Final[Campaigns] = {
    "codec": (always, campaigns.run_codec),
    "accelerator": (always, campaigns.run_accelerator),
    "recorded flips": (always, recorded_campaigns.run_flips),
    "recorded cuts": (always, recorded_campaigns.run_cuts),
    "recorded splices": (always, recorded_campaigns.run_splices),
    "recorded prefixes": (always, recorded_campaigns.run_prefixes),
    "nonces": (always, recorded_campaigns.run_nonces),
    "processes": (always, processes.run),
}
SHARES: Final = {
    "codec": 0.2,
    "accelerator": 0.25,
    "recorded flips": 0.15,
    "recorded cuts": 0.08,
    "recorded splices": 0.05,
    "recorded prefixes": 0.03,
    "nonces": 0.04,
    "processes": 0.2,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], CAMPAIGNS, SHARES, "python -m tests.attacks"))
