"""cloudconnect as rows of a comparison of backup programs.

A row has the members that the comparison's harness asks of a program: ``name``, ``note``,
``at_rest``, ``repo``, ``up_env``, and ``server``, ``init``, ``backup``, ``restore``, ``verify`` and
``version``, which return the program's server as a list of words and everything else as the text of
a shell. Both sides share one file system, in place of the mail in which a provider sends a tenant
its login and its fingerprint.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

#: The top of this project's tree.
TOP = Path(__file__).resolve().parent.parent.parent
PORT = 6180
#: Row -> encryption mode at rest, and whether there is WAN acceleration.
ROWS = {
    "cloudconnect-tenant": ("tenant", False),
    "cloudconnect-provider": ("provider", False),
    "cloudconnect-none": ("none", False),
    "cloudconnect-wan": ("provider", True),
    "cloudconnect-wan-tenant": ("tenant", True),
    "cloudconnect-wan-none": ("none", True),
}
_AT_REST = {
    "tenant": "AES-256-GCM, the tenant's key",
    "provider": "AES-256-GCM, the provider's key",
    "none": "none",
}
_PROGRAM = f"PYTHONPATH={shlex.quote(str(TOP))} {shlex.quote(sys.executable)} -P -m cloudconnect"


class Row:
    """One way of using cloudconnect.

    :param name: one of :data:`ROWS`
    :param repositories: folder on the server that is emptied before each repetition
    :param client: the same of the client
    :param host: the server's address
    """

    def __init__(self, name: str, repositories: str, client: str, host: str) -> None:
        self.name = name
        self._mode, wan = ROWS[name]
        self._wan = "on" if wan else "off"
        self.note = f"this tree, mode {self._mode}, --wan {self._wan}"
        self.at_rest = _AT_REST[self._mode]
        self.repo = f"{repositories}/cloudconnect"
        self.up_env: dict[str, str] = {}
        self._client = client
        self._host = host
        self._source = ""

    def version(self) -> str:
        """Nothing: the tree is the version."""
        return ""

    def server(self) -> list[str]:
        """The provider, made when it starts."""
        script = str(Path(__file__).with_name("provider.py"))
        words = [sys.executable, script, self.repo, self._host, str(PORT)]
        return ["env", f"PYTHONPATH={TOP}", *words]

    def init(self) -> str:
        """Wait until the provider listens, then connect."""
        port = f"/dev/tcp/{self._host}/{PORT}"
        secrets = f"--password-file {self.repo}/token --fingerprint $(cat {self.repo}/pin)"
        if self._mode == "tenant":
            secrets += f" --passphrase-file {self._client}/passphrase"
        return (
            f"until (exec 3<>{port}) 2>/dev/null; do sleep 0.1; done; "
            f"echo a passphrase of the comparison >{self._client}/passphrase; "
            f"{_PROGRAM} connect {self._host}:{PORT} --tenant bench {secrets} "
            f"--encryption {self._mode} --quiet"
        )

    def backup(self, n: int, src: str) -> str:
        """The n-th backup of a folder; its session's steps and summary go to the log."""
        self._source = src
        return f"{_PROGRAM} backup {src} --tag n{n} --wan {self._wan} --json"

    def restore(self, n: int, dst: str) -> str:
        """The newest restore point, without the folders above the source."""
        strip = len(Path(self._source).parts) - 1
        words = f"restore latest --target {dst} --strip-components {strip}"
        return f"{_PROGRAM} {words} --wan {self._wan} --json"

    def verify(self, n: int, src: str) -> str:
        """Every stored chunk read and compared by the provider: nothing of them is on the line."""
        return f"{_PROGRAM} check --read-data --at-provider --json"
