"""``make attack SECONDS=n SEED=s``: every campaign for its share of the time.

As ``make crash`` (:mod:`tests.crash.__main__`): each campaign prints one JSON line, which is
appended to the ledger as well, and the exit status is 1 where something was found.
"""

from __future__ import annotations

import sys
from typing import Final

from tests.attacks import campaigns
from tests.crash.__main__ import Campaigns, always, main

CAMPAIGNS: Final[Campaigns] = {
    "codec": (always, campaigns.run_codec),
    "accelerator": (always, campaigns.run_accelerator),
}
SHARES: Final = {"codec": 0.5, "accelerator": 0.5}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], CAMPAIGNS, SHARES, "python -m tests.attacks"))
