"""Power cuts: a repository on ext4 and xfs whose disk stops at a random moment.

``xfs_io -x -c shutdown`` makes a file system forget what it has not written, as a power cut does;
with ``-f`` it writes its log first. Then it is unmounted and mounted again, which replays the log,
and everything that was acknowledged must be there.

Needs root, a free loop device, ``mkfs.ext4``, ``mkfs.xfs`` and ``xfs_io``.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.crash.forks import Child, import_everything
from tests.crash.stage import PATIENCE, Failed
from tests.crash.storing import NUMBERS, Expected, Storing, create, problems, warm_up

#: The commands that are needed beside mount and umount.
TOOLS: Final = ("mkfs.ext4", "mkfs.xfs", "xfs_io", "mount", "umount")
#: By file system: how it is made.
_MADE: Final = {
    "ext4": ("mkfs.ext4", "-q", "-F"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
#: Size of a file system in bytes: xfs wants 300 MiB, a repository keeps 64 MiB free.
_SIZE: Final = 320 << 20
#: Cuts of one file system before a new one is made.
_CUTS: Final = 25
#: Seconds after which the power is cut at the latest.
_LONGEST: Final = 0.25


def missing() -> str:
    """Why there can be no power cuts here; empty where there can."""
    if os.geteuid() != 0:
        return "power cuts need root"
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"power cuts need {', '.join(lacking)}"
    try:
        with _folder() as folder, _Disk("ext4", folder).mounted():
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        return f"power cuts need loop devices: {error}"
    return ""


class _Disk:
    """A file system in a file.

    :param kind: ``ext4`` or ``xfs``
    :param folder: where the file and the mount point lie
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.image = folder / f"{kind}.image"
        self.place = folder / f"{kind}.mounted"
        self.place.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(_SIZE)
        _call(*_MADE[kind], str(self.image))

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount it, which replays its log; and unmount it."""
        _call("mount", "-o", "loop", str(self.image), str(self.place))
        try:
            yield self.place
        finally:
            _call("umount", str(self.place))

    def cut(self, flush_log: bool) -> None:
        """Stop it."""
        flags = "shutdown -f" if flush_log else "shutdown"
        _call("xfs_io", "-x", "-c", flags, str(self.place))


def _call(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cloudconnect-cuts-") as folder:
        yield Path(folder)


def run(seed: int, seconds: float, counts: Counter[str], cuts: int | None = None) -> None:
    """The campaign: file systems one after the other, each cut some times.

    :param seed: of every choice; the moments depend on the machine too
    :param seconds: begin no cut after so many
    :param counts: what happened is counted there
    :param cuts: most cuts
    :raises Failed: what was found
    """
    import_everything()
    warm_up()
    ends = time.monotonic() + seconds
    number = 0
    while time.monotonic() < ends and (cuts is None or counts["cuts"] < cuts):
        choose = random.Random(f"cuts {seed} {number}")
        kind = ("ext4", "xfs")[number % 2]
        most = _CUTS if cuts is None else min(_CUTS, (cuts + 1) // 2, cuts - counts["cuts"])
        with _folder() as folder:
            disk = _Disk(kind, folder)
            expected = Expected()
            for cut in range(most):
                if time.monotonic() > ends:
                    break
                try:
                    _one(disk, folder, choose, cut, expected, counts)
                except Failed as failure:
                    kept = shutil.copy(disk.image, tempfile.mkdtemp())
                    where = f"seed {seed}, {kind} {number}, cut {cut}, the disk is {kept}"
                    raise Failed(f"{where}: {failure}") from failure
                counts[f"cuts of {kind}"] += 1
        number += 1


def _one(
    disk: _Disk,
    folder: Path,
    choose: random.Random,
    number: int,
    expected: Expected,
    counts: Counter[str],
) -> None:
    """One cut, and a look at what is there behind it."""
    flush_log = choose.random() < 0.5
    fresh = not (number and expected.asked)
    two = not fresh and choose.random() < 0.3
    with disk.mounted() as place:
        repository = place / "repository"
        if not fresh or choose.random() < 0.7:
            create(repository)  # or its making is what is cut
        storing = [
            _Storing(folder, repository, choose, 2 * number + which, known)
            for which, known in enumerate(
                [expected.half(0), expected.half(1)] if two else [expected]
            )
        ]
        if choose.random() < 0.8:  # some cuts come while it is being opened
            for each in storing:
                each.wait_until_begun()
        if choose.random() < 0.5:
            storing[0].wait_until_heard()
        storing[0].child.wait(choose.random() * _LONGEST)
        # A call that is under way while the file system is being shut down may succeed without
        # having done anything (fdatasync on ext4, seen); of a real power cut nobody hears that.
        heard = [each.size for each in storing]
        disk.cut(flush_log)
        for each in storing:
            each.end()
    expected.collected = False
    for each, size in zip(storing, heard, strict=True):
        expected.take(each.said.read_bytes(), size)
    if two:
        counts["cuts of two at once"] += 1
        expected.settle()
    log = folder / "log"
    log.unlink(missing_ok=True)
    counts["cuts"] += 1
    counts["cuts with the log written"] += flush_log
    with disk.mounted() as place:
        child = Child(lambda: _look(place / "repository", expected), log)
        if not child.wait(PATIENCE) or child.status != 0:
            raise Failed(child.text())
    counts["acknowledged blobs compared"] += len(expected.stored)
    counts["points compared"] += len(expected.points)


class _Storing:
    """A process that stores, from its start to its end.

    :param folder: takes what it says
    :param directory: of the repository
    :param number: gives it its numbers of blobs
    :param expected: what is there already
    """

    def __init__(
        self, folder: Path, directory: Path, choose: random.Random, number: int, expected: Expected
    ) -> None:
        self.said = folder / f"said-{number % 2}"
        self.said.write_bytes(b"")
        log = folder / f"log-{number % 2}"
        log.unlink(missing_ok=True)
        acts = random.Random(choose.getrandbits(64))
        self._ready, begun = os.pipe()

        def store() -> None:
            say = os.open(self.said, os.O_WRONLY | os.O_APPEND)
            create(directory)
            os.close(begun)
            numbers = range((number + 1) * NUMBERS, (number + 2) * NUMBERS)
            Storing(say, acts, numbers, expected).run(directory, 10_000)

        self.child = Child(store, log)
        os.close(begun)

    @property
    def size(self) -> int:
        """How many bytes it has said."""
        return self.said.stat().st_size

    def wait_until_begun(self) -> None:
        """Wait until it has opened the repository, or has ended."""
        select.select([self._ready], [], [], PATIENCE)

    def wait_until_heard(self) -> None:
        """Wait until it has acknowledged something, or has ended: a while on a busy machine."""
        ends = time.monotonic() + PATIENCE
        while not self.size and not self.child.wait(0.01) and time.monotonic() < ends:
            pass

    def end(self) -> None:
        """See it ended, as a process ends whose disk has failed.

        :raises Failed: it met a bug
        """
        os.close(self._ready)
        if not self.child.wait(1.0):
            self.child.kill()
        last = (self.child.text().strip().splitlines() or [""])[-1]
        clear = last.startswith(("OSError", "cloudconnect.errors.", "PermissionError"))
        # SQLite maps a file, whose pages end in SIGBUS when the file system is gone: killed too.
        if self.child.status not in (-signal.SIGKILL, -signal.SIGBUS) and not clear:
            raise Failed(f"the process ended with {self.child.status}: {self.child.text()}")


def _look(directory: Path, expected: Expected) -> int:
    create(directory)
    found = problems(directory, expected)
    print("\n".join(found))
    return 1 if found else 0
