"""Every kept input of every fuzz target, and a few of chance, without a fuzzer."""

from __future__ import annotations

import random
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.every_target import TARGETS
from tests.fuzz.target import SEEDS, Target, kept

#: Inputs made by chance from each one to begin with.
CHANGED = 8


def changed(octets: bytes, draw: random.Random) -> Iterator[bytes]:
    """Some bytes changed, taken away and put in."""
    for _ in range(CHANGED):
        made = bytearray(octets)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(made) + 1)
            made[at : at + draw.choice([0, 0, 1, 1, 8])] = draw.randbytes(draw.choice([0, 1, 1, 4]))
        yield bytes(made)


class TargetTests(SynchronousTestCase):
    """What a target raises is a finding; here nothing does."""

    def run_all(self, target: Target) -> int:
        count = 0
        draw = random.Random(target.name)
        for octets in target.first():
            for one in (octets, octets[: len(octets) // 2], *changed(octets, draw)):
                self.check(target, one)
                count += 1
        for path in kept(target.name):
            self.check(target, path.read_bytes())
            count += 1
        return count

    def check(self, target: Target, octets: bytes) -> None:
        try:
            target.run(octets)
        except BaseException as error:
            raise AssertionError(f"{target.name} of {octets!r}") from error
        self.assertEqual(self.flushLoggedErrors(), [], f"{target.name} of {octets!r}")

    def test_folders(self) -> None:
        """Each folder of seeds belongs to a target."""
        folders = {path.name for path in SEEDS.iterdir() if path.is_dir()}
        self.assertEqual(folders - set(TARGETS), set())


def _add(target: Target) -> None:
    def test(self: TargetTests) -> None:
        self.assertGreater(self.run_all(target), CHANGED)

    test.__doc__ = f"{target.name}: nothing but the named errors comes out."
    setattr(TargetTests, f"test_{target.name}", test)


for _target in TARGETS.values():
    _add(_target)
