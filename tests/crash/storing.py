"""A process that stores, and says what was acknowledged; and one that looks whether all is there.

At the level of the repository, without a network: what a power cut or a failing disk does is met
here, and a run takes milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.content.atrest import verify
from cloudconnect.errors import Refused, StoredDataDamaged
from cloudconnect.repository import packs
from cloudconnect.repository.packs import read_entries
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from tests.repository.repositories import DESCRIBED, blob, keys, name_of, record

#: Numbers of blobs that one process may use.
NUMBERS: Final = 10_000
#: What a storing process says that somebody may count on.
_ACKNOWLEDGED: Final = ("stored", "point", "locked", "undeleted")
_SIZES: Final = (1, 100, 100, 5000, 30_000)
#: The bin keeps nothing, and nothing waits to be collected: there is a second for each run.
_RULES: Final = Rules(bin_days=0, grace_hours=0)
#: What a pack of these runs holds at most: several are closed in each.
_PACK_SIZE: Final = 96 << 10


@attrs.define
class Expected:
    """What must be there.

    :ivar stored: numbers of blobs that were acknowledged
    :ivar points: by point that was acknowledged, in hexadecimal: the numbers that it needs
    :ivar asked: likewise, of points that may or may not be there
    :ivar kept: points that may not be taken away, because they are locked
    :ivar collected: whether what no point needs may have been collected
    """

    stored: set[int] = attrs.field(factory=set)
    points: dict[str, list[int]] = attrs.field(factory=dict)
    asked: dict[str, list[int]] = attrs.field(factory=dict)
    kept: set[str] = attrs.field(factory=set)
    collected: bool = False

    def half(self, which: int) -> Expected:
        """As it is for one of two processes that store at once: each has half of the points."""
        points = dict(list(self.points.items())[which::2])
        return attrs.evolve(self, points=points, stored=set(self.stored), collected=False)

    def settle(self) -> None:
        """Two processes have stored at once: what the one collects the other may have stored."""
        if self.collected:
            self.stored &= self.needed()

    def needed(self) -> set[int]:
        """What the points need that are certainly there."""
        return {number for point in self.points.values() for number in point}

    def take(self, said: bytes, heard: int | None = None) -> None:
        """What a storing process has said; a last line may be cut.

        :param heard: bytes of it that were there when the power was cut, where it was: what comes
            behind is no acknowledgement that anybody can have got
        """
        end = 0
        for line in said.splitlines(keepends=True):
            end += len(line)
            if not line.endswith(b"\n"):
                continue
            word, values = json.loads(line)
            if heard is not None and end > heard and word in _ACKNOWLEDGED:
                continue
            if word == "stored":
                self.stored.update(values)
            elif word == "asked":
                self.asked[values[0]] = values[1]
            elif word == "point":
                self.points[values] = self.asked[values]
            elif word == "locked":
                self.kept.add(values)
            elif word in ("withdraws", "deletes"):
                self.points.pop(values, None)
            elif word == "undeleted":
                self.points[values] = self.asked[values]
            elif word == "collects":
                self.collected = True
                self.stored &= self.needed()


def size_of(number: int) -> int:
    """The stored size of the blob with this number."""
    return _SIZES[number % len(_SIZES)] + number % 7


class Storing:
    """Acts on a repository, and says each acknowledgement once it is there.

    :param say: descriptor that takes the lines; it must not lie on the disk that is cut
    :param numbers: of blobs that are its own to store
    :param expected: what the repository has already
    """

    def __init__(
        self, say: int, choose: random.Random, numbers: Sequence[int], expected: Expected
    ) -> None:
        packs.PACK_SIZE = _PACK_SIZE  # type: ignore[misc]
        self._say_to = say
        self._choose = choose
        self._numbers = iter(numbers)
        self._by_name: dict[bytes, int] = {}
        self._durable = sorted(expected.stored)
        self._points = sorted(set(expected.points) - expected.kept)
        self._in_bin: list[str] = []

    def run(self, directory: Path, acts: int) -> None:
        """So many acts, in sessions of a few each."""
        while acts > 0:
            with Repository.open(directory) as repository:
                for _ in range(min(acts, self._choose.randint(2, 8))):
                    self._act(repository)
                    acts -= 1

    def _act(self, repository: Repository) -> None:
        acts = {
            self._add: 10,
            self._publish: 6,
            self._withdraw: 1,
            self._read: 2,
            self._delete: 3,
            self._undelete: 2,
            self._lock: 1,
            self._collect: 2,
            self._scrub: 1,
        }
        self._choose.choices(list(acts), list(acts.values()))[0](repository)

    def _add(self, repository: Repository) -> None:
        choose = self._choose
        chosen = [next(self._numbers) for _ in range(choose.randint(1, 12))]
        if self._durable:
            chosen += choose.sample(self._durable, min(3, len(self._durable)))
        self._by_name.update((name_of(number), number) for number in chosen)
        there = repository.have([name_of(number) for number in chosen])
        for number, stored in zip(chosen, there, strict=True):
            if not stored:
                kind = "manifest" if number % 11 == 0 else "chunk"
                self._stored(repository.add(blob(number, size_of(number)), kind))
        if choose.random() < 0.7:
            self._stored(repository.flush())

    def _publish(self, repository: Repository) -> None:
        self._stored(repository.flush())
        choose = self._choose
        if not self._durable:
            return
        needed = sorted(
            choose.sample(self._durable, choose.randint(1, min(len(self._durable), 40)))
        )
        point = choose.randbytes(16)
        made = record(point)
        encoded = made.encode()
        self._say("asked", [point.hex(), needed])
        names = [name_of(number) for number in needed]
        repository.publish(made, encoded, keys().sign(encoded), names)
        self._say("point", point.hex())
        self._points.append(point.hex())

    def _withdraw(self, repository: Repository) -> None:
        if (point := self._take()) is not None:
            self._say("withdraws", point)
            repository.withdraw([bytes.fromhex(point)])

    def _take(self) -> str | None:
        """A point that may be deleted, while there are some more."""
        if len(self._points) <= 3:
            return None
        return self._points.pop(self._choose.randrange(len(self._points)))

    def _delete(self, repository: Repository) -> None:
        if (point := self._take()) is not None:
            self._say("deletes", point)
            repository.delete([bytes.fromhex(point)])
            self._in_bin.append(point)

    def _undelete(self, repository: Repository) -> None:
        if self._in_bin:
            point = self._in_bin.pop()
            repository.undelete([bytes.fromhex(point)])
            self._say("undeleted", point)
            self._points.append(point)

    def _lock(self, repository: Repository) -> None:
        if (point := self._take()) is not None:
            repository.lock([bytes.fromhex(point)], time.time() + 1000)
            self._say("locked", point)

    def _collect(self, repository: Repository) -> None:
        """Let go what is in the bin, and collect what nobody needs."""
        self._stored(repository.flush())
        repository.expire()
        self._in_bin.clear()
        self._say("collects", None)
        repository.collect()
        names = [name_of(number) for number in self._durable]
        there = repository.have(names)
        self._durable = [n for n, stored in zip(self._durable, there, strict=True) if stored]

    def _scrub(self, repository: Repository) -> None:
        self._stored(repository.flush())
        for finding in repository.scrub().findings:
            raise StoredDataDamaged(str(finding))

    def _read(self, repository: Repository) -> None:
        if self._durable:
            number = self._choose.choice(self._durable)
            [got] = repository.read([name_of(number)])
            assert got == blob(number, size_of(number))

    def _stored(self, ids: list[bytes]) -> None:
        numbers = [self._by_name[name] for name in ids]
        if numbers:
            self._say("stored", numbers)
            self._durable += numbers

    def _say(self, word: str, values: object) -> None:
        # Not write(), into which faults are injected.
        os.writev(self._say_to, [json.dumps([word, values]).encode() + b"\n"])


def warm_up() -> None:
    """Do everything once, so that what is imported and cached by it is there in forks too."""
    with tempfile.TemporaryDirectory(prefix="cloudconnect-warm-") as folder:
        place = Path(folder, "repository")
        create(place)
        say = os.open(os.devnull, os.O_WRONLY)
        for seed in range(3):
            numbers = range(seed * NUMBERS, (seed + 1) * NUMBERS)
            Storing(say, random.Random(seed), numbers, Expected()).run(place, 12)
        os.close(say)
        problems(place, Expected())


def create(directory: Path) -> None:
    """Make the repository, also where making it was interrupted before."""
    with contextlib.suppress(Refused):
        Repository.create(directory, DESCRIBED).close()
    with Repository.open(directory) as repository:
        if repository.rules != _RULES:
            repository.set_rules(_RULES)


def problems(directory: Path, expected: Expected) -> list[str]:
    """What is not as it must be; everything that is stored is read.

    :raises CloudConnectError: the repository cannot even be opened
    """
    found: list[str] = []
    with Repository.open(directory) as repository:
        numbers = sorted(expected.stored)
        found += _unlike(repository, numbers, "acknowledged blob")
        names = [name_of(number) for number in numbers]
        found += [
            f"acknowledged blob {number} is not there"
            for number, there in zip(numbers, repository.have(names), strict=True)
            if not there
        ]
        listed = {row.point.hex() for row in repository.points(limit=100_000)}
        for point in sorted(listed):
            needed = expected.asked.get(point)
            if needed is None:
                found.append(f"point {point} was never made")
                continue
            stored = repository.point(point)
            verify(DESCRIBED.public_key, stored.signature, stored.record)
            kept = [name for batch in repository.references(stored) for name in batch]
            if kept != [name_of(number) for number in needed]:
                found.append(f"point {point} has other references")
            found += _unlike(repository, needed, f"point {point}: blob")
        lost = sorted(set(expected.points) - listed)
        found += [f"acknowledged point {point} is not there" for point in lost]
        found += [
            f"point {point} was locked, and can be deleted"
            for point in sorted(expected.kept & listed)
            if not _is_locked(repository, point)
        ]
        found += _read_packs(repository)
        found += [str(finding) for finding in repository.scrub().findings]
        with repository.catalogue.reading() as connection:
            checked = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        found += [] if checked == ["ok"] else [f"the catalogue: {checked}"]
    return found


def _is_locked(repository: Repository, point: str) -> bool:
    try:
        repository.delete([bytes.fromhex(point)])
    except Refused:
        return True
    return False


def _unlike(repository: Repository, numbers: Sequence[int], what: str) -> list[str]:
    got = repository.read_each([name_of(number) for number in numbers])
    return [
        f"{what} {number}: {found if isinstance(found, Exception) else 'other content'}"
        for number, found in zip(numbers, got, strict=True)
        if found != blob(number, size_of(number))
    ]


def _read_packs(repository: Repository) -> list[str]:
    """Every pack by itself, also those that no row knows."""
    found = []
    for name in repository.store.names("packs/"):
        try:
            for entry in read_entries(repository.store, name, DESCRIBED.repository):
                entry.blob(repository.store.read(name, entry.offset, entry.stored_length), name)
        except StoredDataDamaged as error:
            found.append(f"{name}: {error}")
    return found
