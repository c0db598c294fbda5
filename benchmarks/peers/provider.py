"""A fresh provider with one tenant, for the comparison with other programs: made, then served.

    python provider.py FOLDER HOST PORT

FOLDER gets ``provider`` (the provider's directory), ``token`` (the tenant's login) and ``pin``
(what the provider sends its tenants beforehand). The process becomes the provider itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TENANT = "bench"


def call(*words: str) -> dict[str, Any]:
    """Run one of the provider's commands, and return the last thing that it says."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cloudconnect", "provider", *words, "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Make the provider, and become it."""
    folder, host, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    directory = str(folder / "provider")
    listen = f"tcp:{port}:interface={host}"
    made = call("init", "--directory", directory, "--host", host, "--listen", listen)
    modes = "tenant,provider,none"
    added = call("tenant", "add", TENANT, "--directory", directory, "--encryption", modes)
    (folder / "token").write_text(added["token"])
    (folder / "pin").write_text(made["spki"])
    words = ["-P", "-m", "cloudconnect", "provider", "serve", "--directory", directory]
    os.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
