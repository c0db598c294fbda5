"""Layer 6: ``quickstart``: a provider and a tenant on loopback, and a real folder there and back.

Everything is done by the commands that people type, each in a process of its own; this module only
calls them, tells the session's story from their events, and compares what came back.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import click

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.cli.console import size
from cloudconnect.errors import CloudConnectError, NotReachable, StoredDataDamaged, UsageError

#: The provider says this when tenants may connect.
_READY: Final = re.compile(r"provider is ready on .*port=(\d+)")
#: The provider must be ready by then, in seconds.
_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 20
#: The tenant whose key nobody else has, and the one whose accelerators see content.
SEALED, OPEN = "acme", "acme-open"


@click.command()
@click.argument("source", required=False)
@click.option("--directory", metavar="DIR", help="Where to put everything; a new folder.")
def quickstart(source: str | None, directory: str | None) -> None:
    """Try the whole story: back up SOURCE (this folder by default) and restore it, on loopback."""
    folder = Path(source or ".").resolve()
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    place = _place(directory)
    if place.is_relative_to(folder):
        raise UsageError(f"{place} is inside {folder}: name another --directory")
    began = time.monotonic()
    Story(folder, place).tell()
    click.echo(f"\nAll of it took {time.monotonic() - began:.1f} s.")


def _place(directory: str | None) -> Path:
    if directory is None:
        return Path(tempfile.mkdtemp(prefix="cloudconnect-quickstart-"))
    place = Path(directory).resolve()
    if place.exists() and any(place.iterdir()):
        raise UsageError(f"{place} is not empty: name a new folder")
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    return place


class Story:
    """One run of the quickstart.

    :param source: the folder to back up
    :param place: an empty folder for provider, tenant and what is restored
    """

    def __init__(self, source: Path, place: Path) -> None:
        self._source = source
        self._place = place
        self._provider = place / "provider"
        self._restored = {SEALED: place / "restored", OPEN: place / "restored-open"}
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("CLOUDCONNECT_")},
            "XDG_CONFIG_HOME": str(place / "tenant" / "config"),
            "XDG_CACHE_HOME": str(place / "tenant" / "cache"),
            "XDG_STATE_HOME": str(place / "tenant" / "state"),
            # The source may be this very installation: it must not change while it is compared.
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def tell(self) -> None:
        """Do it all.

        :raises CloudConnectError: a step failed, or what came back is not what went up
        """
        click.echo(f"Provider, tenant and restored files go to {self._place}.\n")
        pin = self._make_provider()
        process, port = self._start_provider()
        try:
            events, _ = self._use(SEALED, port, pin)
            backup = _last(events, "summary")
            accelerated, restored = self._use(OPEN, port, pin)
            provider_events = self._call(
                "provider", "events", "--directory", str(self._provider), "--json"
            )
        finally:
            self._stop_provider(process)
        self._timeline(events, provider_events, backup["session"])
        for tenant in (SEALED, OPEN):
            self._compare(tenant)
        click.echo(
            f"\nTenant {SEALED}, encryption mode tenant, which only it can read:\n"
            f"  {saved_text(backup)}\n"
            f"Tenant {OPEN}, encryption mode provider, in which WAN accelerators see content:\n"
            f"  {saved_text(_last(accelerated, 'summary'))}\n"
            f"  restored with {size(_last(restored, 'summary')['bytes_received'])} on the line: "
            "what went up is in this machine's cache"
        )
        self._next_steps(port)

    # --- steps -----------------------------------------------------------------------------------

    def _make_provider(self) -> str:
        directory = str(self._provider)
        made = self._call(
            "provider",
            "init",
            "--directory",
            directory,
            "--host",
            "localhost",
            "--listen",
            "tcp:0:interface=127.0.0.1",
            "--json",
        )
        tenant = self._place / "tenant"
        tenant.mkdir(mode=0o700)
        for name, modes in ((SEALED, ()), (OPEN, ("--encryption", "provider"))):
            added = self._call(
                "provider", "tenant", "add", name, *modes, "--directory", directory, "--json"
            )
            _write_secret(tenant / f"login-token-{name}", _last(added, "tenant")["token"])
        _write_secret(tenant / "passphrase", os.urandom(16).hex())
        spki: str = _last(made, "fingerprint")["spki"]
        return spki

    def _start_provider(self) -> tuple[subprocess.Popen[str], int]:
        log = (self._place / "provider.log").open("w")
        process = subprocess.Popen(  # noqa: S603
            [*_PROGRAM, "provider", "serve", "--directory", str(self._provider)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        deadline = time.monotonic() + _START_SECONDS
        os.set_blocking(process.stdout.fileno(), True)
        for line in process.stdout:
            log.write(line)
            log.flush()
            found = _READY.search(line)
            if found:
                _drain(process, log)
                return process, int(found[1])
            if time.monotonic() > deadline:
                break
        self._stop_provider(process)
        raise NotReachable(f"the provider did not start: see {log.name}")

    def _use(
        self, name: str, port: int, pin: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Connect, back up and restore as one tenant; what the last two have said."""
        tenant = self._place / "tenant"
        if name == SEALED:
            words = ("--passphrase-file", str(tenant / "passphrase"))
            profile: tuple[str, ...] = ()
        else:
            words = ("--encryption", "provider")
            profile = ("--profile", name)
        self._call(
            "connect",
            f"localhost:{port}",
            "--tenant",
            name,
            "--password-file",
            str(tenant / f"login-token-{name}"),
            "--fingerprint",
            pin,
            *words,
            *profile,
            "--json",
        )
        backup = self._call("backup", str(self._source), "--wan", "on", *profile, "--json")
        target = str(self._restored[name])
        restored = self._call(
            "restore", "latest", "--target", target, "--wan", "on", *profile, "--json"
        )
        return backup, restored

    def _stop_provider(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _call(self, *words: str) -> list[dict[str, Any]]:
        """Run one command and return its JSON lines."""
        shown = " ".join(word for word in words if word != "--json")
        click.echo(f"$ cloudconnect {shown}")
        done = subprocess.run(  # noqa: S603
            [*_PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=self._environment,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise CloudConnectError(f"this ended with status {done.returncode}: {lines[-1]}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    # --- what is shown ---------------------------------------------------------------------------

    def _timeline(
        self,
        events: list[dict[str, Any]],
        provider_events: list[dict[str, Any]],
        session: str,
    ) -> None:
        """Both sides' steps of the backup session in one order."""
        here = [e for e in events if e["message_type"] == "event"]
        there = [e for e in provider_events if e["session"] == session]
        steps = [("tenant", e) for e in here] + [("provider", e) for e in there]
        steps.sort(key=lambda step: step[1]["time"])
        if not steps:
            return
        click.echo(f"\nThe story of session {session}:")
        began = steps[0][1]["time"]
        for side, event in steps:
            click.echo(f"  {event['time'] - began:7.3f} s  {side:8}  {event['text']}")

    def _compare(self, tenant: str) -> None:
        came_back = Path(f"{self._restored[tenant]}{self._source}")
        differences = compare_trees(os.fsencode(self._source), os.fsencode(came_back))
        if differences:
            for difference in differences[:20]:
                click.echo(f"  {difference}", err=True)
            raise StoredDataDamaged(
                f"{len(differences)} differences between {self._source} and {came_back} (was the "
                "folder in use meanwhile? then try SOURCE with one that is not)"
            )
        click.echo(
            f"\nCompared {self._source} with {came_back}: content, types, modes, owners, times, "
            "links and attributes are the same."
        )

    def _next_steps(self, port: int) -> None:
        tenant = self._place / "tenant"
        click.echo(
            "\nThe provider is stopped. To go on with it:\n"
            f"  export XDG_CONFIG_HOME={tenant}/config XDG_CACHE_HOME={tenant}/cache "
            f"XDG_STATE_HOME={tenant}/state\n"
            f"  {' '.join(_PROGRAM)} provider serve --directory {self._provider} "
            f"--listen tcp:{port}:interface=127.0.0.1\n"
            "and in another terminal, with the same three variables:\n"
            f"  {' '.join(_PROGRAM)} points\n"
            f"  {' '.join(_PROGRAM)} restore latest --target {self._place}/again\n"
            f"To remove all of it: rm -r {self._place}"
        )


def saved_text(backup: dict[str, Any]) -> str:
    """What a backup has moved, and what it did not have to.

    :param backup: its summary
    """
    source, new = backup["bytes_source"], backup["bytes_new"]
    wan = backup["wan"] or {}
    # The mover compresses for the store, or else the accelerators do for the line.
    compressed = max(0, new - backup["bytes_stored"]) + max(0, wan.get("saved_by_compression", 0))
    text = (
        f"{backup['files']} files, {size(source)} in clear; {size(backup['bytes_sent'])} on the "
        f"line; saved by dedup {size(max(0, source - new))}, by compression {size(compressed)}"
    )
    for word in ("reference", "delta"):
        count = wan.get(f"saved_by_{word}", 0)
        if count > 0:
            text += f", by WAN {word} {size(count)}"
    return text


_PROGRAM: Final = [sys.executable, "-m", "cloudconnect"]


def _last(lines: list[dict[str, Any]], message_type: str) -> dict[str, Any]:
    return next(line for line in reversed(lines) if line["message_type"] == message_type)


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")


def _drain(process: subprocess.Popen[str], log: Any) -> None:
    """Keep the provider's further output, so that its pipe never fills."""
    import threading

    def copy() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            log.flush()
        log.close()

    threading.Thread(target=copy, daemon=True).start()
