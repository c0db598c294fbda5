"""Streams both ways over small caches that lose, mix up and damage what they hold.

For as long as one likes::

    python -m tests.dedup.storm --seconds 600 --seed 7

Each round is one seed, and is the same each time: a failure names it.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from cloudconnect.dedup import encoder
from cloudconnect.dedup.cutting import ContentCutter, FrameCutter
from cloudconnect.dedup.memory import MemoryCache
from tests.dedup.pairs import Pair, noise, text


def damage(cache: MemoryCache) -> None:
    """Change a byte of every block, as a disk might."""
    for segment in cache._segments.values():
        for index, block in enumerate(segment.blocks):
            if block is not None:
                changed = bytes([block.data[0] ^ 1]) + block.data[1:]
                segment.blocks[index] = type(block)(block.name, changed, block.features)


@contextmanager
def small_batches() -> Iterator[None]:
    """Batches are so small that a short stream has many."""
    before = encoder.BATCH_LITERAL, encoder.BATCH_PLAIN
    encoder.BATCH_LITERAL, encoder.BATCH_PLAIN = 60_000, 150_000  # type: ignore[misc]
    try:
        yield
    finally:
        encoder.BATCH_LITERAL, encoder.BATCH_PLAIN = before  # type: ignore[misc]


def stream(draw: random.Random, known: bytes) -> bytes:
    """A stream of parts of ``known``, as they are or changed, and of other things."""
    parts = []
    for _ in range(draw.randint(1, 9)):
        what = draw.random()
        start = draw.randrange(len(known))
        if what < 0.5:
            parts.append(known[start : start + draw.randint(1000, 200_000)])
        elif what < 0.6:
            parts.append(bytes(draw.randint(1, 300_000)))
        elif what < 0.7:
            parts.append(draw.randbytes(draw.randint(1, 60_000)))
        elif what < 0.9:
            changed = bytearray(known[start : start + 150_000])
            for _ in range(draw.randint(1, 5)):
                at = draw.randrange(len(changed) + 1)
                changed[at : at + draw.randint(0, 9)] = draw.randbytes(draw.randint(0, 9))
            parts.append(bytes(changed))
        else:
            parts.append(text(draw.randint(10, 100_000), draw.randint(1, 3)))
    return b"".join(parts)


def small_cache(draw: random.Random) -> MemoryCache:
    """A cache of some size."""
    limit = draw.choice([100_000, 400_000, 3_000_000])
    return MemoryCache(limit, draw.choice([20_000, 60_000, 300_000]))


def storm(seed: int) -> Counter[str]:
    """One round: some connections over the same two caches; what was counted.

    :raises AssertionError: what came out of one was not what went in
    """
    draw = random.Random(seed)
    caches = [small_cache(draw), small_cache(draw)]
    known = noise(200_000, seed)
    counts: Counter[str] = Counter()

    def meanwhile() -> None:
        what = draw.random()
        if what < 0.02:
            draw.choice(caches).evict()
        elif what < 0.03:
            damage(draw.choice(caches))

    for _ in range(draw.randint(1, 4)):
        cutter = draw.choice([ContentCutter, FrameCutter])
        step = draw.choice([0, 5000, 50_000])
        pair = Pair(*caches, cutter, draw.choice([1, 3, 9]), step, meanwhile)
        datas = [stream(draw, known), stream(draw, known)]
        for at in range(0, max(map(len, datas)), 100_000):
            for end, data in enumerate(datas):
                pair.put(end, pair.ends[end].send(data[at : at + 100_000]))
            if draw.random() < 0.2:
                pair.put(0, pair.ends[0].flush())
            if draw.random() < 0.6:
                pair.settle()
        pair.finish()
        if [bytes(pair.out[1]), bytes(pair.out[0])] != datas:
            raise AssertionError(f"storm {seed}: what came out is not what went in")
        for one in pair.ends:
            counts.update(one.sent.as_map())
            counts["damaged"] += one.received.damaged
            one.close()
        known = (known + datas[0])[-600_000:]
        if draw.random() < 0.15:
            caches[draw.randint(0, 1)] = small_cache(draw)
        if draw.random() < 0.3:
            caches.reverse()
    return counts


def main() -> None:
    """Storms until the time is over."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    counts: Counter[str] = Counter()
    seed = arguments.seed
    with small_batches():
        while time.monotonic() < end:
            try:
                counts += storm(seed)
            except Exception:
                print(f"storm {seed}")
                raise
            seed += 1
    print(f"{seed - arguments.seed} storms from {arguments.seed} on, none failed: {dict(counts)}")


if __name__ == "__main__":
    main()
