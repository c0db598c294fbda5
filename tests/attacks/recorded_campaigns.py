"""Campaigns over recorded sessions: flips, cuts, splices, replays, and what nonces were used."""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any, Final

from cloudconnect.keys import KeyB
from cloudconnect.wire import protection
from cloudconnect.wire.records import RecordConnection, RecordHandshake, RecordType
from tests.attacks.fields import Dissector, Way
from tests.attacks.recorded import HOPS, Judgement, Leg, Recorded
from tests.crash.stage import Failed

#: A session of so many bytes, both directions of a stream together, is cut at every offset.
CUT_SIZE: Final = 64 << 10


def check(
    leg: Leg, way: Way, octets: bytes, counts: Counter[str], fresh: bool = False
) -> Judgement:
    """Let a receiver judge bytes that are not what was sent.

    :raises Failed: it took them for it, or delivered what was not sent
    """
    verdict = leg.receive(way, octets)
    complaints = leg.judge(way, octets, verdict)
    if complaints:
        raise Failed("; ".join(complaints))
    counts[verdict.judgement.value] += 1
    return verdict.judgement


def over(end: float, most: int | None, done: int) -> bool:
    """Whether time or number are used up."""
    return time.monotonic() >= end or (most is not None and done >= most)


def run_flips(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """One bit changed at every position of a recorded session, in an order of chance.

    :raises Failed: one was not refused
    """
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    recorded = Recorded(draw)
    positions = list(recorded.positions())
    counts["positions that there are"] = len(positions)
    draw.shuffle(positions)
    for leg, way, at in positions:
        if over(end, most, counts["positions"]):
            break
        octets = bytearray(leg.sent[way])
        octets[at] ^= 1 << draw.randrange(8)
        check(leg, way, bytes(octets), counts)
        counts["positions"] += 1


def run_cuts(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """A session of 64 KiB cut at every offset: never anything but truncated.

    :raises Failed: it was called anything else
    """
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    [leg] = [leg for leg in Recorded(draw, CUT_SIZE // 2, 1500).legs if leg.name == f"{HOPS[0]} 0"]
    offsets = [(way, at) for way in Way for at in range(len(leg.sent[way]))]
    counts["offsets that there are"] = len(offsets)
    draw.shuffle(offsets)
    for way, at in offsets:
        if over(end, most, counts["offsets"]):
            break
        judgement = check(leg, way, leg.sent[way][:at], counts)
        counts["offsets"] += 1
        if judgement is Judgement.REFUSED:
            raise Failed(f"a cut of {way.value} at {at} was taken for a change")
        if judgement is Judgement.STRANGER and at >= 21:
            raise Failed(f"a cut of {way.value} at {at} was not told")


def units(leg: Leg, way: Way) -> list[bytes]:
    """The records or messages of a direction, with what stands before the first in parts too."""
    octets = leg.sent[way]
    found: dict[Any, bytearray] = defaultdict(bytearray)
    for piece in Dissector(leg.line, way).feed(octets):
        key = piece.field.number if piece.field.number >= 0 else piece.field.part.value
        found[str(key)] += octets[piece.start : piece.start + piece.size]
    return [bytes(part) for part in found.values()]


_Move = Callable[[random.Random, list[bytes], list[bytes]], list[bytes]]


def swapped(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """Two records exchanged."""
    one, two = draw.sample(range(len(mine)), 2)
    mine[one], mine[two] = mine[two], mine[one]
    return mine


def repeated(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """A record sent a second time, at once or later."""
    one = draw.randrange(len(mine))
    mine.insert(draw.randint(one + 1, len(mine)), mine[one])
    return mine


def dropped(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """A record, or several in a row, left out."""
    one = draw.randrange(len(mine))
    del mine[one : one + draw.choice([1, 1, 2, 5])]
    return mine


def put_in(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """A record of elsewhere put in."""
    mine.insert(draw.randint(0, len(mine)), draw.choice(other))
    return mine


def put_for(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """A record of elsewhere in the place of one, of the same number where there is one."""
    at = draw.randrange(len(mine))
    mine[at] = other[at] if at < len(other) and draw.random() < 0.7 else draw.choice(other)
    return mine


def gone_over(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """From a record on, everything of elsewhere."""
    at = draw.randrange(len(mine))
    return mine[:at] + other[at:]


def taken_for(draw: random.Random, mine: list[bytes], other: list[bytes]) -> list[bytes]:
    """Everything of elsewhere."""
    return other


MOVES: Final[tuple[_Move, ...]] = (
    swapped,
    repeated,
    dropped,
    put_in,
    put_for,
    gone_over,
    taken_for,
)


def elsewhere(
    draw: random.Random, here: Leg, way: Way, same: Recorded, earlier: Recorded
) -> tuple[str, Leg, Way]:
    """Another place to take bytes from: what it is to this one, and which it is."""
    back = Way.DOWN if way is Way.UP else Way.UP
    kind = draw.choice(["session", "direction", "hop or connection"])
    if kind == "direction":
        return kind, here, back
    if kind == "session":
        return kind, next(leg for leg in earlier.legs if leg.name == here.name), way
    others = [leg for leg in same.legs if leg is not here and leg.line is here.line]
    return kind, draw.choice(others), way


def run_splices(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """Records swapped, repeated, dropped, and taken from other sessions, hops, connections, ways.

    :raises Failed: one was not refused
    """
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    earlier, same = Recorded(draw, 6000, 400), Recorded(draw, 6000, 400)
    places = [(leg, way) for leg in same.legs for way in Way]
    while not over(end, most, counts["splices"]):
        leg, way = draw.choice(places)
        kind, other, other_way = elsewhere(draw, leg, way, same, earlier)
        move = draw.choice(MOVES)
        octets = b"".join(move(draw, units(leg, way), units(other, other_way)))
        if octets == leg.sent[way]:
            continue
        check(leg, way, octets, counts)
        counts["splices"] += 1
        counts[(move.__doc__ or "").rstrip(".")] += 1
        if move in MOVES[3:]:
            counts[f"of another {kind}"] += 1


def run_prefixes(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """Every prefix of a recorded exchange, sent to whoever comes next, with the same keys even.

    :raises Failed: anything of it was delivered
    """
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    recorded = Recorded(draw, 2500, 400)
    prefixes = [
        (leg, way, at)
        for leg in recorded.legs
        for way in Way
        for at in range(len(leg.sent[way]) + 1)
    ]
    counts["prefixes that there are"] = len(prefixes)
    draw.shuffle(prefixes)
    for leg, way, at in prefixes:
        if over(end, most, counts["prefixes"]):
            break
        verdict = leg.receive(way, leg.sent[way][:at], True)
        if verdict.judgement is Judgement.CLEAN or verdict.delivered:
            raise Failed(f"{leg.name} {way.value}: the first {at} bytes were accepted again")
        counts[verdict.judgement.value] += 1
        counts["prefixes"] += 1


# --- nonces --------------------------------------------------------------------------------------


class _Watched:
    """AES-GCM that notes each key and nonce with which something was sealed."""

    used: set[bytes] = set()
    repeats = 0

    def __init__(self, key: bytes) -> None:
        self._key = bytes(key)
        self._real = _REAL(key)

    def encrypt_into(self, nonce: bytes, data: Any, associated: Any, out: Any) -> Any:
        pair = self._key[:16] + nonce  # half of a key tells it from all others
        if pair in self.used:
            type(self).repeats += 1
        self.used.add(pair)
        return self._real.encrypt_into(nonce, data, associated, out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


_REAL: Final = protection.AESGCM


def run_nonces(seed: int, seconds: float, counts: Counter[str], most: int | None) -> None:
    """Records on four hops, both ways, over changes of keys: no key has a nonce twice.

    One Key B serves all of them, as in a session; a hop has two connections.

    :raises Failed: one had
    """
    draw = random.Random(seed)
    end = time.monotonic() + seconds
    _Watched.used, _Watched.repeats = set(), 0
    protection.AESGCM = _Watched  # type: ignore[assignment,misc]
    try:
        sealers = [sealer for hop in HOPS for number in (0, 1) for sealer in _ends(hop, number)]
        counts["directions"] = len(sealers)
        while not over(end, most, counts["records"]):
            for sealer in sealers:
                for _ in range(draw.randint(1, 40)):
                    sealer.seal(RecordType.DATA, b"x")
                    counts["records"] += 1
                if draw.random() < 0.02 and sealer.epoch < protection.EPOCH_MAX:
                    sealer.rekey()
                    counts["records"] += 1
                    counts["changes of keys"] += 1
        counts["keys and nonces"] = len(_Watched.used)
        if _Watched.repeats or len(_Watched.used) != counts["records"]:
            raise Failed(f"{_Watched.repeats} keys had a nonce twice")
    finally:
        protection.AESGCM = _REAL  # type: ignore[misc]
        _Watched.used = set()


def _ends(hop: str, number: int) -> Iterator[Any]:
    key, context = b"b" * 32, hop.encode()
    ours = RecordHandshake(True, KeyB(key), context, number)
    theirs = RecordHandshake(False, KeyB(key), context)
    theirs.receive(ours.receive(theirs.receive(ours.start())))
    for handshake in (ours, theirs):
        yield RecordConnection(handshake.sealer, handshake.opener).sealer
