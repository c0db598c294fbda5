"""The units under a systemd that runs: all processes of a provider, and a tenant's agent.

What they may do is what the units allow them. ``python -m tests.test_units_running FOLDER`` is what
goes on inside the machine (:mod:`tests.machine`).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from cloudconnect.agent.jobs import Job, save_job
from cloudconnect.agent.schedule import Schedule
from cloudconnect.config import gateway, wan
from cloudconnect.config.mover import CONFIGURATION as MOVER_CONFIGURATION
from cloudconnect.config.mover import MoverSettings
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.provider import CONFIGURATION, initialize
from cloudconnect.transports.nodes import MOVER
from tests.attacks.stage import add_tenant
from tests.machine import Machine, why_not
from tests.test_units import UNITS

NODES: Final = ("gateway", "datamover", "wan")
SERVICES: Final = ("provider", *NODES, "agent")
LAN, BACK, PUBLIC, MOVES, WAN = 7001, 7002, 7003, 7004, 7005
#: A file that only root may read, and what it holds.
SECRET: Final = "content of a file that only root may read\n"


class RunningTests(SynchronousTestCase):
    """On a machine of their own."""

    def setUp(self) -> None:
        why = why_not()
        if why:
            raise SkipTest(why)
        temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        if Machine(self.folder / "tried").run("/bin/true", seconds=60) != 0:
            raise SkipTest("systemd does not start in namespaces here")
        self.machine = Machine(self.folder / "machine")
        for name in SERVICES:
            unit = UNITS / f"cloudconnect-{name}.service"
            user = re.search(r"^User=(.*)$", unit.read_text(), re.MULTILINE)
            assert user is not None
            self.machine.add_user(user[1])
            self.machine.add_unit(unit)
        self.machine.add_unit(UNITS / "cloudconnect-provider.socket")

    def make_provider(self) -> None:
        """The directories of a provider and of its nodes, and what its tenant must know."""
        home = self.machine.lib / "cloudconnect"
        settings = initialize(home, ("localhost",))
        settings = attrs.evolve(
            settings,
            lan_listen=f"tcp:{LAN}:interface=127.0.0.1",
            backend_listen=f"tcp:{BACK}:interface=127.0.0.1",
            backend_address=f"127.0.0.1:{BACK}",
        )
        (home / CONFIGURATION).write_text(settings.to_toml())
        service = f"127.0.0.1:{LAN}"
        for name in NODES:
            (self.machine.lib / f"cloudconnect-{name}").rmdir()
        edge = self.machine.lib / "cloudconnect-gateway"
        gateway.enroll(settings, "edge", edge, service, f"tcp:{PUBLIC}", "")
        place = f"127.0.0.1:{WAN}"
        far = self.machine.lib / "cloudconnect-wan"
        wan.enroll(settings, "wan", far, service, f"tcp:{WAN}", place)
        store = self.machine.lib / "cloudconnect-datamover"
        store.mkdir(mode=0o700)
        issue_node_certificate(settings.node_authority, "store", MOVER, store)
        mover = MoverSettings(
            directory=store,
            listen=f"tcp:{MOVES}",
            service=service,
            backend=f"127.0.0.1:{MOVES}",
        )
        (store / MOVER_CONFIGURATION).write_text(mover.to_toml())
        agent = self.machine.lib / "cloudconnect-agent"
        (agent / "token").write_bytes(add_tenant(settings, "acme") + b"\n")
        (agent / "passphrase").write_bytes(b"passphrase of the machine\n")
        (agent / "pin").write_text(settings.identity.fingerprints()[0])
        only_root = self.machine.lib / "root"
        only_root.mkdir(mode=0o700)
        (only_root / "file").write_text(SECRET)
        job = Job(
            name="nightly",
            schedule=Schedule("@daily"),
            words=("/var/lib/root",),
            created=time.time() - 2 * 86400,
            post="/bin/sh -c 'echo $CLOUDCONNECT_STATUS > $HOME/done'",
        )
        save_job({"HOME": str(agent)}, job)

    def test_provider(self) -> None:
        """The first connection to the socket starts the provider; gateway, mover and accelerator
        register; the agent makes its missed backup of what only root may read; certificates are
        read again; and all of them stop as they should."""
        self.make_provider()
        folder = self.machine.folder
        words = (sys.executable, "-m", "tests.test_units_running", str(folder))
        status = self.machine.run(*words)
        logs = "\n".join(f"--- {p.name}\n{p.read_text()}" for p in sorted(folder.glob("*.log")))
        self.assertEqual(0, status, logs)
        found = json.loads((folder / "found.json").read_text())
        self.assertEqual("0", found["status of the backup"], logs)
        (point,) = found["points"]
        self.assertEqual(("acme", "nightly"), (point["tenant"], point["job"]))
        self.assertEqual(
            {"edge": "connected", "store": "connected", "wan": "connected"}, found["nodes"]
        )
        for name in SERVICES:
            self.assertEqual("Result=success", found[name], logs)
        for word in ("Traceback", "Unhandled", "bug in", "Operation not permitted"):
            self.assertNotIn(word, logs)


# --- inside the machine --------------------------------------------------------------------------


def _run(*words: str, **more: Any) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def _as(user: str, *words: str) -> str:
    """Run ``cloudconnect`` as a user."""
    home = f"/var/lib/{user}"
    environment = {**os.environ, "HOME": home}
    line = ("runuser", "-u", user, "--", sys.executable, "-m", "cloudconnect", *words)
    return _run(*line, env=environment)


def _wait_for(folder: Path, name: str, text: str) -> None:
    """Wait until a service's log has a line with ``text``."""
    path = folder / f"cloudconnect-{name}.log"
    with subprocess.Popen(
        ["timeout", "60", "tail", "-n", "+1", "-F", path], stdout=subprocess.PIPE, text=True
    ) as tail:
        assert tail.stdout is not None
        seen = any(text in line for line in tail.stdout)
        tail.kill()
    if not seen:
        raise AssertionError(f"{name} does not say {text!r}")


def _story(folder: Path) -> dict[str, Any]:
    agent = Path("/var/lib/cloudconnect-agent")
    found: dict[str, Any] = {}
    _run("systemctl", "start", "cloudconnect-provider.socket")
    connect = ("connect", "localhost:6180", "--tenant", "acme")
    files = ("--password-file", f"{agent}/token", "--passphrase-file", f"{agent}/passphrase")
    pin = (agent / "pin").read_text()
    _run("systemctl", "start", *(f"cloudconnect-{name}" for name in NODES))
    _as("cloudconnect-agent", *connect, *files, "--fingerprint", pin)
    for name in NODES:
        _wait_for(folder, name, "registered with the service, ")
    os.mkfifo(agent / "done", 0o622)
    (agent / "done").chmod(0o622)
    _run("systemctl", "start", "cloudconnect-agent")
    found["status of the backup"] = _run("timeout", "60", "cat", f"{agent}/done").strip()
    for name in ("provider", *NODES):
        _run("systemctl", "reload", f"cloudconnect-{name}")
        _wait_for(folder, name, "were read again")
    where = ("--directory", "/var/lib/cloudconnect", "--json")
    listed = _as("cloudconnect", "provider", "points", *where)
    found["points"] = [json.loads(line) for line in listed.splitlines()]
    nodes = _as("cloudconnect", "provider", "node", "list", *where)
    rows = [json.loads(line) for line in nodes.splitlines()]
    found["nodes"] = {row["name"]: row["state"] for row in rows}
    _run("systemctl", "stop", "cloudconnect-provider.socket")
    for name in reversed(SERVICES):
        _run("systemctl", "stop", f"cloudconnect-{name}")
        unit = f"cloudconnect-{name}.service"
        found[name] = _run("systemctl", "show", "-p", "Result", unit).strip()
    return found


if __name__ == "__main__":
    (Path(sys.argv[1]) / "found.json").write_text(json.dumps(_story(Path(sys.argv[1]))))
