"""One changed bit on the way of a backup between real processes: provider, attacker, tenant.

The processes are those of ``make crash`` (:mod:`tests.crash.stage`), and the proxy runs in one of
its own. What counts is what an operator sees: the exit status, the warnings at both ends, the
restore points.
"""

from __future__ import annotations

import json
import os
import random
import select
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from cloudconnect.errors import ExitCode, WarningKind
from tests.attacks.fields import Line, Way
from tests.crash.forks import Child, import_everything
from tests.crash.stage import PATIENCE, TENANT, Failed, Stage

#: Files of one backup, and bytes of each.
FILES: Final = (4, 9000)
#: Changes at one provider, before the next one is made.
LIFE: Final = 60
#: A warning of a change.
CHANGES: Final = {kind.value for kind in WarningKind} - {"truncated", "authentication_failed"}


#: A place that TLS says is to be ignored, and does not authenticate.
MEANINGLESS: Final = "version in the header of a TLS record that is not encrypted"


def means_nothing(octets: bytes, at: int) -> bool:
    """Whether a byte of a TLS connection is to be ignored, and so is not protected by anything.

    It is one of ``legacy_record_version`` of a record in clear (RFC 8446, section 5.1).
    """
    start = 0
    while start + 5 <= len(octets):
        size = 5 + int.from_bytes(octets[start + 3 : start + 5], "big")
        if start <= at < start + size:
            return octets[start] in (0x14, 0x16) and at - start in (1, 2)
        start += size
    return False


def be_proxy(target: int, says: int, flip: tuple[str, str, int, int] | None, notes: Path) -> None:
    """Relay to ``target``; say the port; note how much passed, or where it was struck."""
    from twisted.internet import reactor

    from tests.attacks.proxy import Proxy
    from tests.attacks.rules import Flip, at_offset

    proxy = Proxy(reactor, target)
    if flip is not None:
        line, way, offset, mask = flip
        rule = Flip(Line(line), Way(way), at_offset(offset), mask=mask)
        proxy.rules = [rule]

    def note() -> None:
        sizes = {
            f"{relayed.line.value} {way.value}": len(relayed.came_in[way])
            for relayed in proxy.connections
            for way in Way
        }
        hit = flip is None or rule.hit is not None
        part = rule.hit.field.part.value if flip is not None and rule.hit is not None else ""
        if part == "tls" and any(
            means_nothing(bytes(relayed.came_in[rule.way]), rule.at)
            for relayed in proxy.connections
            if relayed.line is rule.line
        ):
            part = MEANINGLESS
        notes.write_text(json.dumps({"sizes": sizes, "hit": hit, "part": part}))

    reactor.addSystemEventTrigger("before", "shutdown", note)  # type: ignore[attr-defined]
    os.write(says, b"%d" % proxy.port)
    reactor.run()  # type: ignore[attr-defined]


class Attacked:
    """A provider, and a tenant whose connections pass the attacker.

    :param folder: is made
    """

    def __init__(self, folder: Path, draw: random.Random, counts: Counter[str]) -> None:
        self._draw = draw
        self._counts = counts
        self.stage = Stage(folder)
        self._port = self.stage.port
        self._numbers = 0
        self.points = self._points()
        self.sizes = self._through(None)[1]["sizes"]
        self.points = self._points()
        if len(self.points) != 1:
            raise Failed("an honest backup through the proxy made no restore point")

    def _points(self) -> set[str]:
        return {row["point"] for row in self._listed("points", "--tenant", TENANT)}

    def _listed(self, *words: str) -> list[dict[str, Any]]:
        done = self.stage.administer(*words)
        if done.finish() != 0:
            raise Failed(done.child.text())
        return [row for row in done.records if row["message_type"] != "summary"]

    def _through(self, flip: tuple[str, str, int, int] | None) -> tuple[Any, dict[str, Any]]:
        """A backup of new files through a new proxy; the command, and what the proxy noted."""
        self._numbers += 1
        source = self.stage.folder / f"source-{self._numbers}"
        source.mkdir()
        for number in range(FILES[0]):
            (source / f"{number}").write_bytes(self._draw.randbytes(FILES[1]))
        notes = self.stage.folder / f"proxy-{self._numbers}.json"
        ready, says = os.pipe()
        proxy = Child(lambda: be_proxy(self._port, says, flip, notes), notes.with_suffix(".log"))
        os.close(says)
        try:
            readable, _, _ = select.select([ready], [], [], PATIENCE)
            self.stage.port = int(os.read(ready, 20)) if readable else 0
            command = self.stage.command("backup", str(source))
            command.finish()
        finally:
            os.close(ready)
            self.stage.port = self._port
            proxy.send(15)
            if not proxy.wait(PATIENCE):
                proxy.kill()
        return command, json.loads(notes.read_text())

    def strike(self) -> None:
        """Change one bit of a connection of the next backup, and judge.

        :raises Failed: it was not noticed, or something was published
        """
        draw = self._draw
        places = sorted(place for place in self.sizes if not place.startswith("other"))
        line, _, way = draw.choice(places).partition(" ")
        # The control channel's last bytes are close_notify, behind everything that counts.
        size = self.sizes[f"{line} {way}"] - (300 if line == "control" else 400)
        flip = (line, way, draw.randrange(max(size, 64)), 1 << draw.randrange(8))
        command, noted = self._through(flip)
        where = f"{flip}, in {noted['part']}: {command.child.text()[-1500:]}"
        if not noted["hit"]:
            self._counts["did not come by"] += 1
            if command.child.status == 0:
                self.points = self._points()
            return
        self._counts["flips"] += 1
        self._counts[f"on the {line} line"] += 1
        self._counts[f"exit status {command.child.status}"] += 1
        if noted["part"] == MEANINGLESS and command.child.status == 0:
            self._counts["bits that mean nothing"] += 1
            self.points = self._points()
            return
        codes = {int(ExitCode.SECURITY_WARNING)}
        if line == "control" or noted["part"] in ("preamble", "length"):
            codes.add(int(ExitCode.NOT_REACHABLE))
        if line == "control":  # in its handshake, before there is a provider to trust
            codes.add(int(ExitCode.PROVIDER_NOT_TRUSTED))
        if command.child.status not in codes:
            raise Failed(f"exit status {command.child.status} for {where}")
        if self._points() != self.points:
            raise Failed(f"a restore point was published: {where}")
        if line == "control":
            return  # what is changed before a session begins belongs to none
        session = next((r["session"] for r in command.records if r.get("session")), "")
        told = self._listed("events", "--warnings", "--tenant", TENANT)
        kinds = [row["name"] for row in told if row["session"] == session]
        changes = [kind for kind in kinds if kind in CHANGES]
        if len(changes) > 1 or not kinds:
            raise Failed(f"the provider's warnings are {kinds}: {where}")
        if command.child.status == ExitCode.SECURITY_WARNING and len(changes) != 1:
            raise Failed(f"the provider's warnings are {kinds}: {where}")

    def finish(self) -> None:
        """Behind it all an honest backup succeeds, and the store is whole.

        :raises Failed: it does not
        """
        command, _ = self._through(None)
        if command.child.status != 0:
            raise Failed(f"an honest backup failed: {command.child.text()}")
        if len(self._points() - self.points) != 1:
            raise Failed("an honest backup made no restore point")
        done = self.stage.command("check", "--read-data")
        if done.finish() != 0:
            raise Failed(f"the store is not whole: {done.child.text()}")


def run(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """Changes of one bit between real processes.

    :raises Failed: one was not noticed at both ends, or left a restore point
    """
    import_everything()
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end and (most is None or counts["flips"] < most):
        draw = random.Random(seed * 1_000_000 + number)
        number += 1
        with tempfile.TemporaryDirectory(prefix="cloudconnect-") as folder:
            attacked = Attacked(Path(folder, "life"), draw, counts)
            try:
                for _ in range(LIFE):
                    if time.monotonic() >= end or (most is not None and counts["flips"] >= most):
                        break
                    attacked.strike()
                attacked.finish()
            finally:
                attacked.stage.stop()
