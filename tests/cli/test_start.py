"""What a tenant's command imports: every module is time before the first byte leaves."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.profile import Profile, save

ROOT = Path(__file__).resolve().parent.parent.parent

#: What no command of a tenant has a use for: distributions, parts of Python and of Twisted (which
#: itself imports asyncio), and the provider's rooms.
NEVER = (
    "alembic",
    "asn1crypto",
    "cloudconnect.accelerator",
    "cloudconnect.cache",
    "cloudconnect.config.provider",
    "cloudconnect.content.kit",
    "cloudconnect.dedup",
    "cloudconnect.provider.accounts",
    "cloudconnect.provider.service",
    "cloudconnect.repository",
    "csv",
    "email.parser",
    "http.client",
    "importlib.metadata",
    "multiprocessing",
    "rich",
    "scramp",
    "segno",
    "sqlalchemy",
    "twisted.application",
    "twisted.names",
    "twisted.persisted",
    "twisted.plugins",
    "twisted.trial",
    "twisted.web",
    "urllib.request",
    "xml",
)
#: What is wanted only once the line to the provider stands.
LATER = (
    "automat",
    "cloudconnect.backup.check",
    "cloudconnect.backup.heads",
    "cloudconnect.backup.reader",
    "cloudconnect.backup.restore",
    "cloudconnect.backup.upload",
    "cloudconnect.tenant.run",
    "cloudconnect.transports.blocking",
    "cloudconnect.transports.stream",
    "cloudconnect.transports.tunnel",
    "cloudconnect.wire.noise",
    "cloudconnect.wire.records",
    "sqlite3",
    "twisted.internet.endpoints",
    "twisted.plugin",
)
#: Modules of ours that a command imports before it connects, at most.
OURS_MAX = 108

#: Runs a command that is hung up on; prints what was imported when it began to connect, and at the
#: end, when what it imports beside the waiting is there too.
RUN = """
import json, sys
from cloudconnect.cli import main as commands

before = []

def spare(spare=commands.spare):
    spare()
    from cloudconnect.cli import line  # not earlier: it imports Twisted

    def noticed(reactor, names, import_beside=line.import_beside):
        before.extend(sys.modules)
        return import_beside(reactor, names)

    line.import_beside = noticed

commands.spare = spare
try:
    commands.main()
except SystemExit as ended:
    print(json.dumps([ended.code, before, list(sys.modules)]))
"""


class StartTests(SynchronousTestCase):
    """The commands that are run most often."""

    def setUp(self) -> None:
        top = Path(self.mktemp()).absolute()
        top.mkdir()
        (top / "secret").write_text("secret\n")
        (top / "secret").chmod(0o600)
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("CLOUDCONNECT_", "XDG_"))},
            "HOME": str(top),
        }
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.listening.close)
        profile = Profile(
            provider=f"127.0.0.1:{self.listening.getsockname()[1]}",
            tenant="t",
            fingerprints=("SPKI-SHA256:" + "0" * 64,),
            password_file=str(top / "secret"),
            passphrase_file=str(top / "secret"),
            encryption="tenant",
        )
        save(self.environment, "default", profile)

    def imported(self, *arguments: str) -> tuple[set[str], set[str]]:
        """What a command has imported when it connects, and at its end."""
        threading.Thread(target=self.hang_up, daemon=True).start()
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        status, before, after = json.loads(done.stdout)
        self.assertEqual(22, status, done.stderr)
        return set(before), set(after)

    def hang_up(self) -> None:
        """Close the next connection as soon as something comes."""
        with self.listening.accept()[0] as accepted:
            accepted.recv(1)

    def unwanted(self, modules: set[str], names: tuple[str, ...]) -> list[str]:
        """Those of ``modules`` that ``names`` has, or a package of theirs."""
        return sorted(m for m in modules if any(m == n or m.startswith(f"{n}.") for n in names))

    def test_commands(self) -> None:
        """They import little before they connect, and the rest of what they want beside that."""
        for wanted, *arguments in (
            ("upload", "backup", "/"),
            ("restore", "restore", "latest", "--target", "/nowhere"),
            ("check", "check", "--read-data", "--at-provider"),
        ):
            before, after = self.imported(*arguments)
            self.assertIn("twisted.internet.reactor", before)
            self.assertEqual([], self.unwanted(after, NEVER), arguments)
            self.assertEqual([], self.unwanted(before, LATER), arguments)
            self.assertIn(f"cloudconnect.backup.{wanted}", after)
            self.assertIn("cloudconnect.tenant.run", after)
            ours = [name for name in before if name.startswith("cloudconnect.")]
            self.assertLessEqual(len(ours), OURS_MAX, sorted(ours))
