"""The campaigns of ``make attack``: the codec under storms, and accelerators of every bad kind."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import time
import traceback
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cloudconnect.accelerator.caches import KEEP_SECONDS
from cloudconnect.cache.blocks import SEGMENT_SIZE_MIN, SEGMENTS_MIN, BlockCache
from cloudconnect.cache.keys import NodeKey
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    FrameMismatch,
    KeyARejected,
    SecurityError,
    Truncated,
)
from cloudconnect.wire.frames import FrameKind
from tests.accelerator.hostile import ATTACKS, session
from tests.attacks.fields import Way
from tests.attacks.liar_case import BACKUP, LiarCase
from tests.attacks.liars import Ending, Instead, Lie, Swap, flipped
from tests.crash.stage import Failed
from tests.dedup.pairs import Pair, noise
from tests.dedup.storm import small_batches, storm, stream

#: Seeds of one run of a campaign follow each other from ``seed`` times this.
SEEDS = 1_000_000
#: Attacks on one provider, before the next one is made.
LIFE = 12
#: The size of a cache on disk, in bytes: small, so that it evicts.
CACHE = SEGMENTS_MIN * SEGMENT_SIZE_MIN


def until(seconds: float, most: int | None) -> Iterator[int]:
    """Numbers from 0 on, for so long, and at most so many."""
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end and (most is None or number < most):
        yield number
        number += 1


@contextlib.contextmanager
def in_a_folder() -> Iterator[Path]:
    """With a folder of its own as the current one."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="cloudconnect-") as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


# --- codec ---------------------------------------------------------------------------------------


def run_codec(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """``decode(encode(x)) == x`` whatever happens to the caches, in memory and on disk.

    :raises Failed: it is not, or something was raised
    """
    with small_batches(), in_a_folder() as folder:
        for number in until(seconds, most):
            one = seed * SEEDS + number
            try:
                if number % 4 == 3:
                    counts.update(disk_storm(one, folder / str(number)))
                    counts["storms over caches on disk"] += 1
                else:
                    counts.update(storm(one))
            except Exception as error:
                raise Failed(f"storm {one}: {traceback.format_exc()}") from error
            counts["storms"] += 1


def disk_storm(seed: int, folder: Path) -> Counter[str]:
    """Connections over two caches on disk that are closed, damaged, cut, lost and exchanged.

    :raises AssertionError: what came out of one was not what went in
    """
    draw = random.Random(seed)
    folder.mkdir()
    places = [folder / "here", folder / "there"]
    known = noise(200_000, seed)
    counts: Counter[str] = Counter()
    for _ in range(draw.randint(2, 4)):
        caches = [BlockCache(place, "acme", NodeKey(b"n" * 32), CACHE) for place in places]
        try:
            pair = Pair(*caches, step=draw.choice([0, 50_000]))
            datas = [stream(draw, known), stream(draw, known)]
            for end, data in enumerate(datas):
                pair.put(end, pair.ends[end].send(data))
                if draw.random() < 0.3:
                    draw.choice(caches).evict()
                pair.settle()
            pair.finish()
            if [bytes(pair.out[1]), bytes(pair.out[0])] != datas:
                raise AssertionError("what came out is not what went in")
            for one in pair.ends:
                counts.update(one.sent.as_map())
                one.close()
        finally:
            for cache in caches:
                cache.close()
        known = (known + datas[0])[-600_000:]
        for place in places:
            if draw.random() < 0.5:
                counts[f"files damaged: {spoil(draw, place)}"] += 1
        if draw.random() < 0.2:
            places.reverse()
            counts["caches exchanged"] += 1
    return counts


def spoil(draw: random.Random, folder: Path) -> str:
    """Do something to some files of a cache that is closed; what."""
    what = draw.choice(["flipped", "cut", "removed", "longer"])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if draw.random() < 0.5:
            continue
        octets = bytearray(path.read_bytes())
        if what == "removed":
            path.unlink()
            continue
        if what == "flipped" and octets:
            for _ in range(draw.randint(1, 20)):
                octets[draw.randrange(len(octets))] ^= 1 << draw.randrange(8)
        elif what == "cut":
            del octets[draw.randint(0, len(octets)) :]
        elif what == "longer":
            octets += draw.randbytes(draw.randint(1, 5000))
        path.write_bytes(octets)
    return what


# --- accelerators --------------------------------------------------------------------------------


def run_accelerator(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """Accelerators that lie, that pose as the mover, whose caches are damaged, whose peers attack.

    :raises Failed: something was believed, stored, raised or left behind that must not be
    """
    with in_a_folder():
        lives = until(seconds, None if most is None else -(-most // LIFE))
        for number in lives:
            one = seed * SEEDS + number
            attacks = LIFE if most is None else min(LIFE, most - number * LIFE)
            life = Life(random.Random(one), attacks, counts)
            result = unittest.TestResult()
            life.run(result)
            for _, why in [*result.failures, *result.errors]:
                raise Failed(f"life {one}, {life.doing}: {why}")


class Life(LiarCase):
    """One provider and one tenant, attacked a few times.

    :param draw: where every choice comes from
    :param attacks: how many
    :param counts: what was done is counted there
    """

    def __init__(self, draw: random.Random, attacks: int, counts: Counter[str]) -> None:
        super().__init__("test_life")
        self.draw = draw
        self.attacks = attacks
        self.counts = counts
        self.doing = "setting up"

    def test_life(self) -> None:
        """Nothing is believed, and an honest backup behind it all is exact."""
        kinds: list[Callable[[], None]] = [
            self.change,
            self.change,
            self.invent,
            self.move,
            self.stop,
            self.pose,
            self.damage,
            self.assault,
        ]
        self.reactor.result_of(self.back_up(self.acme))
        for _ in range(self.attacks):
            attack = self.draw.choice(kinds)
            self.doing = attack.__name__
            attack()
            self.counts["attacks"] += 1
            self.counts[attack.__doc__.rstrip(".") if attack.__doc__ else ""] += 1
        self.doing = "the honest end"
        self.compare()

    def compare(self) -> None:
        """An honest backup and restore, byte for byte."""
        source, target = self.source(), self.mktemp()
        content = self.draw.randbytes(self.draw.randint(1, 400_000))
        Path(source, "more").write_bytes(content)
        point = self.reactor.result_of(self.acme.back_up(source)).point
        os.mkdir(target)
        self.reactor.result_of(self.acme.restore(point, target))
        self.assertEqual(content, Path(target, os.path.abspath(source)[1:], "more").read_bytes())

    def lie(self, lie: Lie, *kinds: type[BaseException]) -> None:
        """One session with a lie of a random accelerator; no point comes of it."""
        before = self.stored()[0]
        self.doing = f"{self.doing}: {lie!r}"
        self.found(self.draw.choice(self.liars()), lie, self.back_up, *kinds)
        self.assertEqual(before, self.stored()[0])

    def place(self) -> tuple[Way, FrameKind]:
        """A direction, and a frame in it."""
        way = self.draw.choice(list(Way))
        return way, self.draw.choice(BACKUP[way])

    def change(self) -> None:
        """Bits of a frame changed."""
        draw = self.draw
        way, kind = self.place()

        def make(frame: bytes, lie: Lie) -> bytes:
            at = draw.randrange(len(frame))
            if 8 <= at < 12:  # a length that can be would only be waited for
                return flipped(frame, 8, 0x80)
            return flipped(frame, at, draw.randint(1, 255))

        self.lie(Instead(way, kind, make), FrameMismatch)

    def invent(self) -> None:
        """A frame invented."""
        draw = self.draw
        way, kind = self.place()
        size = draw.randint(1, 200)
        made = bytes([draw.randint(0, 20), draw.choice([0, 0, 0, 1]), 0, 0]) + draw.randbytes(4)
        made += size.to_bytes(4, "big") + draw.randbytes(size + 16)
        self.lie(Instead(way, kind, lambda frame, _: made + frame), FrameMismatch)

    def move(self) -> None:
        """A frame repeated, left out, in another order, or of another session."""
        draw, (liar, _) = self.draw, self.liars()
        earlier = Lie(Way.UP)
        liar.lie = earlier
        self.reactor.result_of(self.back_up(self.acme))
        liar.lie = None
        kind = draw.choice([FrameKind.HELLO, FrameKind.HAVE, FrameKind.POINT])
        old = next(frame for frame in earlier.seen if frame[0] == kind)
        chosen = draw.choice(
            [
                Instead(Way.UP, FrameKind.CHUNK, lambda frame, _: frame * 2),
                Instead(Way.UP, FrameKind.CHUNK, lambda frame, _: b""),
                Instead(Way.DOWN, FrameKind.WANT, lambda frame, _: frame * 2),
                Instead(Way.DOWN, FrameKind.STORED, lambda frame, _: b""),
                Instead(Way.UP, kind, lambda frame, _: old),
                Swap(Way.UP, FrameKind.POINT),
            ]
        )
        self.lie(chosen, FrameMismatch)

    def stop(self) -> None:
        """An accelerator gone, or the end of a direction swallowed."""
        way = self.draw.choice(list(Way))
        kind = self.draw.choice(BACKUP[way][1:4])
        swallowing = Instead(way, FrameKind.TOTALS, lambda frame, _: b"")
        self.lie(self.draw.choice([Ending(way, kind), swallowing]), Truncated, Aborted)

    def pose(self) -> None:
        """An accelerator in the mover's place."""
        provider, before = self.provider, self.stored()
        real = provider.service.starts.start
        accelerator: Any = provider.accelerator

        async def start(*arguments: Any) -> Any:
            answer = await real(*arguments)
            mover, wan = (entry["route"] for entry in answer[1])
            provider.mover._by_route[wan] = provider.mover._by_route.pop(mover)
            accelerator._by_route[mover] = accelerator._by_route.pop(wan)
            return answer

        provider.service.starts.start = start  # type: ignore[method-assign]
        try:
            self.failure_of(self.back_up(self.acme), KeyARejected)
        finally:
            provider.service.starts.start = real  # type: ignore[method-assign]
        for role in (provider.mover, accelerator):
            role._by_route.clear()
        self.assertEqual(before, self.stored())

    def damage(self) -> None:
        """A block cache damaged."""
        self.reactor.pass_time(KEEP_SECONDS + 1, 10)
        self.close_caches()
        for side in (self.provider.caches, self.directory / "acme-caches"):
            if self.draw.random() < 0.7 and side.exists():
                spoil(self.draw, side)
        self.compare()

    def assault(self) -> None:
        """An attack by a peer that has proved Key B."""
        name = self.draw.choice(sorted(set(ATTACKS) - {"silent", "deaf", "asking", "missing"}))
        self.doing = f"assault: {name}"
        ends = session(ATTACKS[name])
        self.assertIsInstance(ends[0][0], (CloudConnectError, SecurityError))
