"""Stored objects changed, one at a time: found by a scrub or a check, and named, with status 20.

A small repository is made by real processes: some backups, a point in the bin, one with a lock.
Then, again and again, one stored object of a fresh copy is flipped in one bit, cut, made longer,
removed, exchanged with another one, or put back to what it was earlier; and ``provider scrub``
looks at it, or, where that has found nothing, ``check --read-data``, as a tenant sees it.

The catalogue is an object like others, but not every byte of a data base means something: what is
found nowhere must restore exactly.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import attrs

from tests.crash.forks import Child, import_everything
from tests.crash.looking import look
from tests.crash.stage import PATIENCE, Command, Failed, Stage
from tests.crash.trees import tree_digest

_FOUND: Final = 20
#: Objects up to so many bytes are flipped in each of them, larger ones in samples.
_SMALL: Final = 1024
_SAMPLES: Final = 40
#: One in so many damages is judged by what can still be restored, too.
_LOOK_EVERY: Final = 4
_CATALOGUE: Final = "catalogue.sqlite"


@attrs.frozen
class Damage:
    """What is done to an object.

    :ivar kind: for the counts
    :ivar name: of the object, below the repository's directory
    :ivar how: does it, given the repository's directory
    """

    kind: str
    name: str
    how: Callable[[Path], object]


def run(seed: int, seconds: float, counts: Counter[str], most: int | None = None) -> None:
    """The campaign: every object of a repository, every damage, in an order that the seed gives.

    :param seed: of the repository and the order
    :param seconds: begin no damage after so many
    :param counts: what happened is counted there
    :param most: most damages
    :raises Failed: what was found; the folder stays, and is named
    """
    import_everything()
    ends = time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="cloudconnect-flips-"))
    house = _House(folder / "house", random.Random(f"flips {seed}"))
    try:
        for number, damage in enumerate(house.damages()):
            if time.monotonic() > ends or number == most:
                break
            try:
                house.judge(damage, number, counts)
            except Failed as failure:
                where = f"seed {seed}, everything is in {folder}"
                raise Failed(f"{where}: {damage.kind} of {damage.name}: {failure}") from failure
        else:
            counts["whole rounds"] += 1
    finally:
        house.stage.stop()
    shutil.rmtree(folder)


class _House:
    """A provider, a tenant, and a copy of a repository that nobody has touched.

    :param folder: is made
    :param choose: where every choice comes from
    """

    def __init__(self, folder: Path, choose: random.Random) -> None:
        self._choose = choose
        self.stage = stage = Stage(folder)
        self._source = folder / "source"
        self._digests: dict[str, str] = {}
        self._early = folder / "early"  # the repository before its last backup
        self._whole = folder / "whole"
        points = []
        for number in range(4):
            self._make(number)
            if number == 2:
                rotate = self._done(stage.rotate(fresh=True))
                stage.passphrase = Path(rotate.arguments[-1])
            if number == 3:
                stage.kill_provider()
                shutil.copytree(stage.repository, self._early)
                stage.start_provider()
            summary = self._done(stage.command("backup", str(self._source))).summary
            assert summary is not None
            points.append(summary["point"])
            self._digests[summary["point"]] = tree_digest(self._source)
        self._done(stage.command("delete", points[0], "--yes"))
        self._done(stage.command("lock", points[1], "--until", "2099-01-01"))
        stage.kill_provider()
        shutil.copytree(stage.repository, self._whole)

    def _make(self, number: int) -> None:
        """Some files, half of which stay as they were."""
        self._source.mkdir(exist_ok=True)
        for name in range(8):
            if number == 0 or name % 4 == number:
                size = self._choose.choice((100, 3000, 20_000))
                (self._source / f"file-{name}").write_bytes(self._choose.randbytes(size))

    @staticmethod
    def _done(command: Command) -> Command:
        if command.finish() != 0:
            raise Failed(f"{command.arguments}: {command.child.text()}")
        return command

    # --- what is done -----------------------------------------------------------------------------

    def damages(self) -> Iterator[Damage]:
        """Every damage to every object, some of each kind first."""
        by_kind: dict[str, list[Damage]] = {}
        for damage in self._all():
            by_kind.setdefault(f"{damage.kind} {_group(damage.name)}", []).append(damage)
        ordered = []
        for found in by_kind.values():
            self._choose.shuffle(found)
            ordered += [(at + self._choose.random(), damage) for at, damage in enumerate(found)]
        for _, damage in sorted(ordered, key=lambda pair: pair[0]):
            yield damage

    def _all(self) -> Iterator[Damage]:
        paths = [path for path in self._whole.rglob("*") if path.is_file()]
        names = sorted(str(path.relative_to(self._whole)) for path in paths)
        names = [name for name in names if not name.startswith(("leases/", "locks/", "temporary/"))]
        for name in names:
            size = (self._whole / name).stat().st_size
            offsets: list[int] = list(range(size))
            if size > _SMALL:
                offsets = sorted(self._choose.sample(offsets, _SAMPLES))
            for offset in offsets:
                bit = 1 << self._choose.randrange(8)
                yield Damage(
                    "flip", name, lambda top, n=name, o=offset, b=bit: _flip(top / n, o, b)
                )
            for cut in {0, size // 2, max(size - 1, 0), self._choose.randrange(size + 1)} - {size}:
                yield Damage("cut", name, lambda top, n=name, c=cut: os.truncate(top / n, c))
            yield Damage("longer", name, lambda top, n=name: _longer(top / n))
            yield Damage("removal", name, lambda top, n=name: (top / n).unlink())
            others = [o for o in names if o != name and _group(o) == _group(name)]
            for other in self._choose.sample(others, min(2, len(others))):
                yield Damage("exchange", name, lambda top, n=name, o=other: _exchange(top, n, o))
            before = self._early / name
            if before.exists() and before.read_bytes() != (self._whole / name).read_bytes():
                yield Damage("rollback", name, lambda top, n=name: self._roll_back(top, n))
        yield Damage("rollback", "everything", self._roll_all_back)

    def _roll_back(self, top: Path, name: str) -> None:
        shutil.copy2(self._early / name, top / name)

    def _roll_all_back(self, top: Path) -> None:
        shutil.rmtree(top)
        shutil.copytree(self._early, top)

    # --- how it is judged -------------------------------------------------------------------------

    def judge(self, damage: Damage, number: int, counts: Counter[str]) -> None:
        """One damage.

        :raises Failed: nobody has found it, or what was said of it is wrong
        """
        stage = self.stage
        self._damage(damage)
        counts["damages"] += 1
        counts[f"{damage.kind} of {_group(damage.name)}"] += 1
        scrub = stage.administer("scrub")
        status = scrub.finish()
        if status == _FOUND:
            counts["found by scrub"] += 1
            said = scrub.child.text()
        elif damage.name == _CATALOGUE and "newer release" in scrub.child.text():
            counts["taken for a newer release's"] += 1
            return
        elif status != 0:
            raise Failed(f"scrub ended with {status}: {scrub.child.text()}")
        elif damage.kind == "removal" and (stage.repository / damage.name).exists():
            # A killed deletion leaves no marker either: that is put back, and is no finding.
            counts["put back"] += 1
            said = ""
        else:
            self._damage(damage)
            said = self._check(damage, counts)
        if said and not _names(damage.name, said):
            raise Failed(f"it is not named: {said}")
        if number % _LOOK_EVERY == 0 and damage.name not in (_CATALOGUE, "everything"):
            self._look_at_rest(damage, said)
            counts["looks at the rest"] += 1

    def _damage(self, damage: Damage) -> None:
        """A fresh copy, damaged."""
        shutil.rmtree(self.stage.repository)
        shutil.copytree(self._whole, self.stage.repository)
        damage.how(self.stage.repository)

    def _check(self, damage: Damage, counts: Counter[str]) -> str:
        """What a scrub does not find a check does; of the catalogue only what means something."""
        stage = self.stage
        stage.start_provider()
        try:
            check = stage.command("check", "--read-data")
            status = check.finish()
        finally:
            stage.kill_provider()
        if status == _FOUND:
            counts["found by check"] += 1
            return check.child.text()
        if status == 0 and damage.name == _CATALOGUE and damage.kind != "rollback":
            self._look_at_rest(damage, "")
            counts["means nothing"] += 1
            return ""
        raise Failed(f"nobody finds it: check ended with {status}: {check.child.text()}")

    def _look_at_rest(self, damage: Damage, said: str) -> None:
        """What can be restored now is exact, and what cannot was named."""
        stage = self.stage
        log = stage.folder / "look.log"
        log.unlink(missing_ok=True)
        looking = Child(self._look, log, stage.environment())
        if not looking.wait(PATIENCE) or looking.status != 0:
            if "StoredDataDamaged" in looking.text():
                return  # it cannot be opened at all, and says why
            raise Failed(f"the rest cannot be looked at: {looking.text()}")
        for record in map(json.loads, looking.text().splitlines()):
            if record["digest"] == self._digests[record["point"]]:
                continue
            if not record["error"]:
                raise Failed(f"a point restores to something else: {record}")
            if record["point"] not in said:
                raise Failed(f"a point does not restore and was not named: {record}, {said}")

    def _look(self) -> None:
        stage = self.stage
        look(stage.repository, stage.passphrase, stage.folder / "seen", [self._source])


def _group(name: str) -> str:
    """What kind of object it is."""
    folder, _, last = name.rpartition("/")
    if folder == "points":
        return "point's " + (last[33:].split("-")[0] or "record")
    return folder or last


def _names(name: str, said: str) -> bool:
    """Whether a text names an object: itself, or the point that it is about."""
    last = name.rpartition("/")[2]
    if name in (_CATALOGUE, "everything"):
        return True
    return last in said or (name.startswith("points/") and last[:32] in said)


def _flip(path: Path, offset: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        octet = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((octet ^ bit,)))


def _longer(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\0")


def _exchange(top: Path, one: str, two: str) -> None:
    (top / one).rename(top / "exchanged")
    (top / two).rename(top / one)
    (top / "exchanged").rename(top / two)
