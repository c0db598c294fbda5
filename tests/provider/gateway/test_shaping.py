"""Tests of :mod:`cloudconnect.provider.gateway.shaping`: a clock, and relays over real sockets."""

from __future__ import annotations

import contextlib
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.gateway.fairness import BURST_GRANTS, grant_of
from cloudconnect.provider.gateway.shaping import Allowance, Lane, Shaper
from cloudconnect.transports.pipes import PipePool
from cloudconnect.transports.splice import SplicedPair, Traffic
from tests.transports.sockets import Peer, Sockets

A, B, TASK, RATE = b"A" * 16, b"B" * 16, b"t" * 16, 1_000_000


class LaneTests(SynchronousTestCase):
    """One direction."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.lane = Lane(self.clock, RATE)
        self.granted: list[Allowance] = []

    def join(self, group: bytes = A, cap: int = 0) -> Allowance:
        return self.lane.join(group, TASK, cap)

    def ask(self, allowance: Allowance) -> None:
        allowance.ask(lambda: self.granted.append(allowance))

    def use_up(self) -> Allowance:
        """Somebody takes all that there is now."""
        allowance = self.join()
        for _ in range(BURST_GRANTS):
            self.ask(allowance)
            self.clock.advance(0)
            allowance.spend(allowance.left)
        self.granted.clear()
        return allowance

    def test_granted(self) -> None:
        """Who asks is granted some in a later turn, and may spend it."""
        allowance = self.join()
        self.ask(allowance)
        self.assertEqual((0, []), (allowance.left, self.granted))
        self.clock.advance(0)
        self.assertEqual((grant_of(RATE), [allowance]), (allowance.left, self.granted))
        allowance.spend(100)
        self.assertEqual(grant_of(RATE) - 100, allowance.left)

    def test_waits(self) -> None:
        """What the line does not have yet is granted when it has it."""
        allowance = self.use_up()
        self.ask(allowance)
        self.clock.advance(0)
        self.assertEqual([], self.granted)
        self.clock.advance(2 * grant_of(RATE) / RATE)
        self.assertEqual([allowance], self.granted)

    def test_change(self) -> None:
        """Who waits is served at the line's other rate at once."""
        allowance = self.use_up()
        self.ask(allowance)
        self.clock.advance(0)
        self.assertEqual([], self.granted)
        self.lane.change(0)
        self.clock.advance(0)
        self.assertEqual([allowance], self.granted)

    def test_debt(self) -> None:
        """Who has moved more than was granted waits until that is made good."""
        allowance = self.join()
        allowance.spend(3 * grant_of(RATE))
        self.ask(allowance)
        self.clock.advance(0)
        self.assertEqual([], self.granted)
        self.clock.pump([grant_of(RATE) / RATE] * 4)
        self.assertEqual([allowance], self.granted)
        self.assertGreater(allowance.left, 0)

    def test_cap(self) -> None:
        """A cap may be set later, and holds for all relays of a group."""
        one, two, other = self.join(), self.join(), self.join(B)
        self.lane.cap(A, RATE // 10)
        self.lane.cap(b"nobody" * 2, 1)
        moved = {one: 0, two: 0, other: 0}

        def again(allowance: Allowance) -> None:
            moved[allowance] += allowance.left
            allowance.spend(allowance.left)
            allowance.ask(lambda: again(allowance))

        for allowance in moved:
            again(allowance)
        self.clock.pump([0.01] * 1000)
        self.assertLess(moved[one] + moved[two], 1.1 * RATE)
        self.assertGreater(moved[other], 8.5 * RATE)

    def test_closed(self) -> None:
        """Who is gone is granted nothing, does not hold up anybody, and leaves nothing behind."""
        gone, stays = self.use_up(), self.join(B)
        for allowance in (gone, stays):
            self.ask(allowance)
        gone.close()
        gone.close()
        self.clock.advance(1)
        self.assertEqual([stays], self.granted)
        self.ask(gone)
        stays.close()
        self.clock.advance(1)
        self.assertEqual(([], [stays]), (self.clock.getDelayedCalls(), self.granted))
        self.assertEqual({}, self.lane._share._groups)


class ShaperTests(SynchronousTestCase):
    """Both directions."""

    def test_change(self) -> None:
        """A line that gets a rate limits who joins from then on, and one that loses it nobody."""
        shaper = Shaper(Clock())
        self.assertIsNone(shaper.join(A, TASK, 0))
        shaper.change(RATE)
        self.assertIsNotNone(shaper.join(A, TASK, 0))
        shaper.change(0)
        self.assertIsNone(shaper.join(A, TASK, 0))

    def test_no_limits(self) -> None:
        """Where neither the line nor the group has a limit nothing is asked."""
        clock = Clock()
        self.assertIsNone(Shaper(clock).join(A, TASK, 0))
        self.assertIsNotNone(Shaper(clock).join(A, TASK, 1000))
        self.assertIsNotNone(Shaper(clock, 1000).join(A, TASK, 0))


class SocketTests(SynchronousTestCase):
    """Relays between real sockets, on a line whose time is a clock's."""

    def test_one_against_sixteen(self) -> None:
        """Of a tenant with 16 connections and one with a single one, whose peers send as much as
        they can, each gets its half of the line, counted in bytes."""
        clock, sockets = Clock(), Sockets("epoll")
        self.addCleanup(sockets.close)
        pool, traffic = PipePool(((64 << 10, 20),)), Traffic()
        self.addCleanup(pool.close)
        shaper = Shaper(clock, RATE)
        ends: list[tuple[bytes, Peer, Peer]] = []
        for group in [A] * 16 + [B]:
            near, far = Protocol(), Protocol()
            peers = sockets.accept(near), sockets.open(far)
            near.transport.pauseProducing()  # type: ignore[union-attr]
            up, down = shaper.join(group, TASK, 0) or (None, None)
            pair = SplicedPair(clock, near.transport, far.transport, pool, traffic, up, down)
            pair.begin()
            ends.append((group, *peers))
        moved = {A: 0, B: 0}
        payload = bytes(grant_of(RATE))
        for _ in range(1000):
            for group, near_peer, far_peer in ends:
                self.send(near_peer, payload)
                moved[group] += far_peer.take()
                far_peer.received = b""
            sockets.turns(1)
            clock.advance(0.001)
        total = sum(moved.values())
        self.assertGreater(total, 0.9 * RATE)
        self.assertLess(total, 1.1 * RATE)
        self.assertGreater(moved[B], 0.45 * total)

    def send(self, peer: Any, payload: bytes) -> None:
        with contextlib.suppress(BlockingIOError):
            peer.socket.send(payload)
