"""A provider and a tenant as processes that may be killed, and what the tenant was told by then."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs

from tests.crash.forks import Child

TENANT: Final = "acme"
HOST: Final = "crash-host"
JOB: Final = "crash-job"
_PASSPHRASE: Final = b"passphrase of the crashes\n"
_ANY_PORT: Final = "tcp:0:interface=127.0.0.1"
#: Packs are closed, and acknowledged, several times in a backup of a small tree.
_PACK_SIZE: Final = 256 << 10
#: What a log must not have: a bug of ours, by whatever name it shows.
BUGS: Final = ("Traceback", "Unhandled", "bug in")
#: Seconds that a provider may take to be ready again, and a command to end.
PATIENCE: Final = 60.0


class Failed(AssertionError):
    """The campaign has found something."""


@attrs.define
class Told:
    """What one run of a command was told, or did, up to its end.

    :ivar stored: ids that the provider acknowledged as stored
    :ivar pointed: restore points that it acknowledged
    :ivar sent: ids that were sent, each with its stored size in bytes
    """

    stored: set[bytes] = attrs.field(factory=set)
    pointed: list[str] = attrs.field(factory=list)
    sent: list[tuple[bytes, int]] = attrs.field(factory=list)


class Command:
    """A tenant's command that runs, or has ended.

    :param child: its process
    :param notes: where it notes what it is told
    """

    def __init__(self, arguments: tuple[str, ...], child: Child, notes: Path) -> None:
        self.arguments = arguments
        self.child = child
        self._notes = notes

    def finish(self, seconds: float = PATIENCE) -> int:
        """Its exit status.

        :param seconds: it may take so long
        :raises Failed: it hangs, or has met a bug
        """
        if not self.child.wait(seconds):
            self.child.kill()
            raise Failed(f"{self.arguments} did not end: {self.child.text()}")
        status = self.child.status
        assert status is not None
        if status == 70 or any(bug in self.child.text() for bug in BUGS):
            raise Failed(f"{self.arguments} ended with {status}: {self.child.text()}")
        return status

    @property
    def records(self) -> list[dict[str, Any]]:
        """The JSON lines of its output that are whole."""
        lines = self.child.log.read_bytes().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line[:1] == b"{" and line.endswith(b"}\n")]

    @property
    def summary(self) -> dict[str, Any] | None:
        """What it printed at last, if it came to that."""
        found = [record for record in self.records if record["message_type"] == "summary"]
        return found[-1] if found else None

    @property
    def told(self) -> Told:
        """What it was told and did."""
        told = Told()
        if not self._notes.exists():
            return told
        for line in self._notes.read_text().splitlines():
            word, name, *size = line.split()
            if word == "stored":
                octets = bytes.fromhex(name)
                told.stored.update(octets[at : at + 32] for at in range(0, len(octets), 32))
            elif word == "pointed":
                told.pointed.append(name)
            else:
                told.sent.append((bytes.fromhex(name), int(size[0])))
        return told


class Stage:
    """A provider's directory, a tenant with a repository, and their processes.

    :param folder: is made; everything lies in it
    :param hurried: the bin keeps nothing, and garbage is collected at once
    :raises Failed: the provider or ``connect`` fails
    """

    def __init__(self, folder: Path, hurried: bool = False) -> None:
        self.folder = folder
        self.hurried = hurried
        folder.mkdir(mode=0o700)
        self.home = folder / "home"
        self.home.mkdir(mode=0o700)
        self.passphrase = folder / "passphrase"
        self.passphrase.write_bytes(_PASSPHRASE)
        self.directory = folder / "provider"
        self.provider: Child | None = None
        self.port = 0
        self._numbers = 0
        made = Child(self._make, folder / "make.log")
        if not made.wait(PATIENCE) or made.status != 0:
            raise Failed(made.text())
        self.pin = (folder / "pin").read_text()
        try:
            self.start_provider()
            connect = self.command("connect", f"localhost:{self.port}")
            if connect.finish() != 0:
                raise Failed(f"connect failed: {connect.child.text()}")
            if hurried:
                done = self.administer("tenant", "set", TENANT, "--bin-days", "0")
                if done.finish() != 0:
                    raise Failed(done.child.text())
        except BaseException:
            self.stop()
            raise
        there = (self.directory / "repositories").iterdir()
        [self.repository] = [path for path in there if path.is_dir()]

    def _make(self) -> None:
        """In a process of its own: what opens a data base should not be forked."""
        from cloudconnect.config.provider import initialize
        from tests.attacks.stage import add_tenant

        settings = initialize(self.directory, ("localhost",), listen=_ANY_PORT)
        token = add_tenant(settings, TENANT, max_tasks=1000)
        (self.folder / "token").write_bytes(token + b"\n")
        (self.folder / "pin").write_text(settings.identity.fingerprints()[0])

    # --- the provider ----------------------------------------------------------------------------

    def launch_provider(self) -> int:
        """Start it and do not wait; returns the descriptor on which it says its port."""
        assert self.provider is None
        ready, says = os.pipe()
        name = self._numbered("provider.log")
        self.provider = Child(
            lambda: _be_provider(self.directory, says, self.hurried), name, self.environment()
        )
        os.close(says)
        return ready

    def start_provider(self) -> None:
        """Start it, and wait until it is ready.

        :raises Failed: it is not
        """
        ready = self.launch_provider()
        try:
            readable, _, _ = select.select([ready], [], [], PATIENCE)
            said = os.read(ready, 100) if readable else b""
        finally:
            os.close(ready)
        if not said:
            assert self.provider is not None
            self.provider.wait(5)
            raise Failed(f"the provider does not start: {self.provider.text()}")
        self.port = int(said)

    def kill_provider(self) -> None:
        """Kill it.

        :raises Failed: it had met a bug before
        """
        provider, self.provider = self.provider, None
        if provider is not None:
            provider.kill()
            self.check_log(provider)

    def stop(self) -> None:
        """Leave no process behind, however things went."""
        if self.provider is not None:
            self.provider.kill()

    def check_log(self, provider: Child) -> None:
        """Nothing in a provider's log is a bug of ours.

        :raises Failed: something is
        """
        if any(bug in provider.text() for bug in BUGS):
            raise Failed(f"the provider's log: {provider.text()}")

    # --- the tenant ------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """What every process finds around it."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.home),
            "CLOUDCONNECT_HOST": HOST,
            "CLOUDCONNECT_TENANT": TENANT,
            "CLOUDCONNECT_PASSWORD_FILE": str(self.folder / "token"),
            "CLOUDCONNECT_PASSPHRASE_FILE": str(self.passphrase),
        }

    def command(self, *arguments: str) -> Command:
        """Start a tenant's command, with ``--json``."""
        environment = {
            **self.environment(),
            "CLOUDCONNECT_PROVIDER": f"localhost:{self.port}",
            "CLOUDCONNECT_FINGERPRINT": self.pin,
        }
        log = self._numbered("command.log")
        notes = log.with_suffix(".notes")
        # The provider comes back only when the command has ended.
        words = [*arguments, "--retry", "0", "--json"]
        child = Child(lambda: _be_tenant(words, notes), log, environment)
        return Command(arguments, child, notes)

    def rotate(self, fresh: bool) -> Command:
        """Start ``key rotate``; the new passphrase's file is its last argument."""
        new = self._numbered("passphrase")
        new.write_bytes(new.name.encode() + b"\n")
        words = ["--new-master"] if fresh else []
        return self.command("key", "rotate", *words, "--new-passphrase-file", str(new))

    def administer(self, *arguments: str) -> Command:
        """Start a command of the provider's admin, with ``--json``."""
        log = self._numbered("admin.log")
        words = ["provider", *arguments, "--json", "--directory", str(self.directory)]
        child = Child(lambda: _be_tenant(words, None), log, self.environment())
        return Command(arguments, child, log.with_suffix(".notes"))

    def _numbered(self, name: str) -> Path:
        self._numbers += 1
        return self.folder / f"{self._numbers:05}-{name}"


def check_text(name: str, text: str) -> None:
    """Nothing in a process's log is a bug of ours.

    :raises Failed: something is
    """
    if any(bug in text for bug in BUGS):
        raise Failed(f"the log of {name}: {text}")


def _be_provider(directory: Path, says: int, hurried: bool) -> None:
    """Run ``twist cloudconnect-provider``, and say the port when it is ready."""
    from twisted.application.twist._twist import Twist
    from twisted.logger import globalLogPublisher

    from cloudconnect.repository import collect, packs

    if hurried:
        collect._grace_seconds = lambda connection: 0.0  # type: ignore[assignment]

    def ready(event: dict[str, Any]) -> None:
        if str(event.get("log_format", "")).startswith("provider is ready"):
            globalLogPublisher.removeObserver(ready)  # it is called again for what was buffered
            os.write(says, b"%d" % event["where"].port)

    globalLogPublisher.addObserver(ready)
    packs.PACK_SIZE = _PACK_SIZE  # type: ignore[misc]
    words = ["twist", "--log-format=text", "cloudconnect-provider", "--directory", str(directory)]
    Twist.main(words)


def _be_tenant(words: list[str], notes: Path | None) -> None:
    """Run ``cloudconnect``; with notes, of every acknowledgement as soon as it is there."""
    from cloudconnect.cli import connect, key
    from cloudconnect.cli.main import main
    from cloudconnect.content.atrest import Argon2Costs

    if notes is not None:
        _note_frames(notes)
    # Each command opens the slot: cheap here, or most of its life would be Argon2.
    make: Callable[..., Any] = connect.make_slot
    costs = Argon2Costs(iterations=1, lanes=1, memory_kib=8)
    for module in (connect, key):
        module.make_slot = lambda *a, **k: make(*a, **{**k, "costs": costs})  # type: ignore[attr-defined]
    main(words)


def _note_frames(notes: Path) -> None:
    """Note what is sent and acknowledged, in a file that outlives a kill."""
    from cloudconnect.wire.channel import FrameChannel
    from cloudconnect.wire.frames import FrameKind, decode_body

    note = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    receive, send_chunk = FrameChannel.receive, FrameChannel.send_chunk

    def noted_receive(self: Any) -> Any:
        frame = receive(self)
        if frame.kind is FrameKind.STORED:
            os.write(note, b"stored %s\n" % bytes(frame.body).hex().encode())
        elif frame.kind is FrameKind.POINTED:
            os.write(note, b"pointed %s\n" % decode_body(frame)["point"].hex().encode())
        return frame

    def noted_send(self: Any, request: int, blob: Any, manifest: bool = False) -> bool:
        os.write(note, b"sent %s %d\n" % (blob.id.hex().encode(), len(blob.data)))
        return send_chunk(self, request, blob, manifest)

    FrameChannel.receive = noted_receive  # type: ignore[method-assign]
    FrameChannel.send_chunk = noted_send  # type: ignore[method-assign]
