"""Faults of the system, injected by ``strace``: the nth call of a kind fails, or does only a part.

A process that stores (:mod:`tests.crash.storing`) is forked, waits until ``strace`` has attached
itself, and goes through the same acts as each time; at one of its calls the system says EIO or
ENOSPC, once or from then on, or takes fewer bytes than it was given. Then either the run succeeds,
or it ends with a named error, and without faults everything that was acknowledged is there and the
same acts can go on.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import subprocess
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.errors import CloudConnectError
from tests.crash.forks import Child, import_everything
from tests.crash.stage import PATIENCE, Failed
from tests.crash.storing import NUMBERS, Expected, Storing, create, problems, warm_up

#: Calls into which faults are injected, by what they do.
CALLS: Final = {
    "open": ("openat",),
    "write": ("write", "pwrite64"),
    "sync": ("fsync", "fdatasync"),
    "rename": ("linkat", "renameat", "rename"),
    "remove": ("unlinkat", "unlink"),
    "make": ("mkdirat", "mkdir", "ftruncate"),
    "read": ("pread64",),
}
_GROUP: Final = {call: group for group, calls in CALLS.items() for call in calls}
_ERRORS: Final = ("EIO", "ENOSPC")
#: What ``strace`` cannot do: the system takes some bytes of a write, and says so.
HALF: Final = "half"
#: What it can: the system takes none, and says so. (It would not write what it says it has.)
NOTHING: Final = "nothing"
_WHATS: Final = {"write": (*_ERRORS, HALF, NOTHING), "read": ("EIO",)}
#: Acts of one run.
_ACTS: Final = 12
_LINE: Final = re.compile(r"^\d+\s+(\w+)\(", re.MULTILINE)


@attrs.frozen
class Fault:
    """What is injected.

    :ivar call: into which call
    :ivar number: from 1: at which one of them
    :ivar what: an error's name, :data:`HALF` or :data:`NOTHING`
    :ivar on: whether it goes on from there
    """

    call: str
    number: int
    what: str
    on: bool

    @property
    def words(self) -> tuple[str, ...]:
        """As ``strace`` wants it."""
        if self.what == HALF:
            return ()
        action = "retval=0" if self.what == NOTHING else f"error={self.what}"
        return ("-e", f"inject={self.call}:{action}:when={self.number}{'+' if self.on else ''}")


def missing() -> str:
    """Why there can be no faults here; empty where there can."""
    if shutil.which("strace") is None:
        return "faults need strace"
    done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True)
    return "strace may not trace here" if done.returncode else ""


def run(seed: int, seconds: float, counts: Counter[str], faults: int | None = None) -> None:
    """The campaign: every call of a story with each fault, in an order that the seed gives.

    :param seed: of the story and the order
    :param seconds: begin no run after so many
    :param counts: what happened is counted there
    :param faults: most faults
    :raises Failed: what was found
    """
    import_everything()
    warm_up()
    ends = time.monotonic() + seconds
    story = 0
    while time.monotonic() < ends and (faults is None or counts["faults"] < faults):
        name = f"faults {seed} {story}"
        with tempfile.TemporaryDirectory(prefix="cloudconnect-faults-") as folder:
            campaign = _Story(Path(folder), name)
            for fault in campaign.faults():
                if time.monotonic() > ends or counts["faults"] == faults:
                    break
                try:
                    campaign.inject(fault, counts)
                except Failed as failure:
                    raise Failed(f"{name}: {fault}: {failure}") from failure
        story += 1
        counts["stories"] += 1


class _Story:
    """Some acts on a repository that has something in it already."""

    def __init__(self, folder: Path, seed: str) -> None:
        self._folder = folder
        self._seed = seed
        self._choose = random.Random(seed)
        self._begin = folder / "begin"
        self._said = folder / "said"
        self._trace = folder / "trace"
        self._log = folder / "log"
        child = Child(
            lambda: self._act(self._begin, "first", Expected(), self._open_said()), self._log
        )
        if not child.wait(PATIENCE) or child.status != 0:
            raise Failed(child.text())
        self._before = self._said.read_bytes()

    def faults(self) -> list[Fault]:
        """Every fault that can be injected into this story."""
        self._traced(None)
        calls = Counter(_LINE.findall(self._trace.read_text()))
        kinds: list[list[Fault]] = []
        for call, count in sorted(calls.items()):
            group = _GROUP.get(call)
            for what in _WHATS.get(group or "", _ERRORS) if group else ():
                one = [Fault(call, number, what, False) for number in range(1, count + 1)]
                kinds.append(one)
                if what in _ERRORS:
                    kinds.append([attrs.evolve(fault, on=True) for fault in one])
        # Some of every kind come first, wherever the campaign ends.
        ordered = []
        for kind in kinds:
            self._choose.shuffle(kind)
            ordered += [(at + self._choose.random(), fault) for at, fault in enumerate(kind)]
        return [fault for _, fault in sorted(ordered, key=lambda pair: pair[0])]

    def inject(self, fault: Fault, counts: Counter[str]) -> None:
        """One run with a fault, judged.

        :raises Failed: it was silent or has damaged something
        """
        child, expected = self._traced(fault)
        halved = self._folder / "halved"
        if "(INJECTED" not in self._trace.read_text() and not halved.exists():
            counts["not met"] += 1
            return
        halved.unlink(missing_ok=True)
        counts["faults"] += 1
        counts[f"faults in {_GROUP[fault.call]}"] += 1
        counts[f"{fault.what}"] += 1
        if child.status not in (0, 1):
            raise Failed(f"ended with {child.status}: {child.text()}")
        counts["succeeded all the same" if child.status == 0 else "ended with a named error"] += 1
        looking = Child(lambda: self._look(expected), self._folder / "look.log")
        if not looking.wait(PATIENCE) or looking.status != 0:
            raise Failed(f"{looking.text()}\nafter: {child.text()}")
        counts["acknowledged blobs compared"] += len(expected.stored)
        (self._folder / "look.log").unlink()

    def _traced(self, fault: Fault | None) -> tuple[Child, Expected]:
        """Run the story on a copy, under strace; what it must have left."""
        place = self._folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self._begin, place)
        for path in (self._said, self._trace, self._log):
            path.unlink(missing_ok=True)
        expected = Expected()
        expected.take(self._before)
        ready, go = os.pipe()

        def story() -> int:
            os.close(go)
            say = self._open_said()
            os.read(ready, 1)
            if fault is not None and fault.what == HALF:
                self._halve(fault.number)
            return self._act(place, "second", expected, say)

        child = Child(story, self._log)
        os.close(ready)
        calls = ",".join(_GROUP)
        words = () if fault is None else fault.words
        trace = ["strace", "-f", "-o", str(self._trace), "-e", f"trace={calls}", *words]
        strace = subprocess.Popen([*trace, "-p", str(child.pid)], stderr=subprocess.PIPE)
        assert strace.stderr is not None
        attached = strace.stderr.readline()  # says that it has attached itself
        os.close(go)
        if not child.wait(PATIENCE):
            child.kill()
        strace.stderr.close()
        strace.wait()
        if b"attached" not in attached:
            raise Failed(f"strace did not attach itself: {attached!r}")
        expected.take(self._said.read_bytes() if self._said.exists() else b"")
        return child, expected

    def _halve(self, number: int) -> None:
        """From here on, call number ``number`` of os.write() takes half of what it is given."""
        write, calls = os.write, itertools.count(1)

        def halving(descriptor: int, data: bytes | memoryview) -> int:
            if next(calls) != number:
                return write(descriptor, data)
            (self._folder / "halved").touch()
            return write(descriptor, data[: len(data) // 2])

        os.write = halving  # type: ignore[assignment]

    def _open_said(self) -> int:
        return os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def _act(self, place: Path, part: str, expected: Expected, say: int) -> int:
        """The acts; 0 when they are done, 1 after an error that has a name."""
        first = 1 if part == "first" else 2
        choose = random.Random(f"{self._seed} {part}")
        try:
            create(place)
            numbers = range(first * NUMBERS, (first + 1) * NUMBERS)
            Storing(say, choose, numbers, expected).run(place, _ACTS)
        except (CloudConnectError, OSError) as error:
            os.writev(1, [f"{type(error).__name__}: {error}".encode()])
            return 1
        except Exception:
            os.writev(1, [traceback.format_exc().encode()])
            return 70
        return 0

    def _look(self, expected: Expected) -> int:
        place = self._folder / "place"
        create(place)
        found = problems(place, expected)
        # And storing goes on as if nothing had been.
        self._said.unlink(missing_ok=True)
        say = self._open_said()
        numbers = range(3 * NUMBERS, 4 * NUMBERS)
        Storing(say, random.Random(self._seed), numbers, expected).run(place, 3)
        expected.take(self._said.read_bytes())
        found += problems(place, expected)
        print("\n".join(found))
        return 1 if found else 0
