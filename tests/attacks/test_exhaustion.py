"""Who wants memory, connections or time: from the first byte on, and beside another backup."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.settings import AUTHENTICATION_SECONDS, HANDSHAKE_SECONDS, PREAMBLE_SECONDS
from tests.attacks.malformed import KINDS, Malformed
from tests.attacks.stage import LOOPBACK, Stage, make_files
from tests.crash.ledger import ROOT

#: How much faster time passes.
HURRY = 16
#: A process that meets a bomb may grow by this much.
GROWN_MAX = 32 << 20


class BombTests(SynchronousTestCase):
    """Small inputs that want a lot of memory."""

    def test_bombs(self) -> None:
        """Each is refused by name, and costs at most 32 MiB."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.attacks.bombs"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        met = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual(20, len(met))
        self.assertEqual([], [one for one in met if one["grown"] > GROWN_MAX or not one["told"]])


class Silent(Protocol):
    """Says what it is given, a byte a second, or nothing; and notes when it is cut."""

    def __init__(self, octets: bytes = b"") -> None:
        self._octets = octets
        self.gone: Deferred[float] = Deferred()

    def connectionMade(self) -> None:
        self._began = reactor.seconds()  # type: ignore[attr-defined]
        self._saying = LoopingCall(self._say)
        if self._octets:
            self._saying.start(1 / HURRY)

    def _say(self) -> None:
        octet, self._octets = self._octets[:1], self._octets[1:]
        self.transport.write(octet)  # type: ignore[union-attr]

    def connectionLost(self, *_: Any) -> None:
        if self._saying.running:
            self._saying.stop()
        self.gone.callback((reactor.seconds() - self._began) * HURRY)  # type: ignore[attr-defined]


class LineTests(TestCase):
    """Connections to a provider that runs, on a clock that runs faster."""

    timeout = 120

    async def set_up(self, hurry: float) -> Stage:
        stage = Stage(reactor, hurry)
        self.addCleanup(stage.remove)
        await stage.open(connect=hurry == 1)
        self.addCleanup(stage.close)
        return stage

    async def gone(self, stage: Stage, protocols: list[Silent]) -> list[float]:
        """After how many seconds of the provider's clock each was cut."""
        place = TCP4ClientEndpoint(reactor, LOOPBACK, stage.port)
        await DeferredList([connectProtocol(place, each) for each in protocols])
        ended = await DeferredList([each.gone for each in protocols], fireOnOneErrback=True)
        return [seconds for _, seconds in ended]

    async def test_silent(self) -> None:
        """Who says nothing is cut at the limit of the first bytes, however many they are."""
        stage = await self.set_up(HURRY)
        before = len(os.listdir("/proc/self/fd"))
        seconds = await self.gone(stage, [Silent() for _ in range(100)])
        self.assertEqual(100, len(seconds))
        self.assertGreater(min(seconds), PREAMBLE_SECONDS / 2)  # counted from when we connected
        # The provider closes its ends when it hears of ours; and as its time is hurried, a thread
        # of its own may have opened its data base meanwhile.
        most = before + 10
        for _ in range(200):
            if len(os.listdir("/proc/self/fd")) <= most:
                break
            await deferLater(reactor, 0.05)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), most)

    async def test_slow(self) -> None:
        """Who says what may be, a byte a second, is cut at the limits of first bytes and handshake:
        each byte does not begin a limit anew."""
        stage = await self.set_up(HURRY)
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        preamble = b"CCN1\x01" + bytes(500)
        slow = [Silent(octets) for octets in (hello, preamble) * 25]
        seconds = await self.gone(stage, slow)
        most = PREAMBLE_SECONDS + HANDSHAKE_SECONDS + AUTHENTICATION_SECONDS
        # The clock is real: a busy machine is slower than this, but the bytes would last 500 s.
        self.assertLess(max(seconds), 10 * most)

    async def test_malformed(self) -> None:
        """Malformed connections of every kind beside a backup: it is exact, each is cut, nothing is
        logged as an error, and a backup behind them is served."""
        stage = await self.set_up(1)
        source, target = self.mktemp(), self.mktemp()
        make_files(source, 20, 100_000)
        tenant = await stage.tenant()
        draw = random.Random(9)
        counts: Counter[str] = Counter()
        storm = DeferredList([self.one(stage, draw, counts) for _ in range(300)])
        result = await tenant.back_up(source)
        await storm
        os.mkdir(target)
        await tenant.restore(result.point, target)
        there = Path(target, os.path.abspath(source)[1:])
        for path in Path(source).iterdir():
            self.assertEqual(path.read_bytes(), (there / path.name).read_bytes())
        self.assertEqual(300, sum(counts.values()))
        self.assertEqual(set(KINDS), set(counts))
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual([], tenant.warnings)

    def one(self, stage: Stage, draw: random.Random, counts: Counter[str]) -> Deferred[Any]:
        kind = draw.choice(sorted(KINDS))
        counts[kind] += 1
        protocol = Malformed(KINDS[kind](draw))
        place = TCP4ClientEndpoint(reactor, LOOPBACK, stage.port)
        return connectProtocol(place, protocol).addCallback(lambda _: protocol.gone)
