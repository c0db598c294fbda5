"""Tests of :mod:`cloudconnect.provider.nodes.movers`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.repositories import HasRepository
from cloudconnect.errors import NotFound, NotReachable, Refused
from cloudconnect.provider.nodes.movers import WAIT_SECONDS, MoverPlace, Movers

ONE, TWO = b"1" * 16, b"2" * 16


class Mover(CommandLocator):
    """A mover that has some repositories.

    :ivar asked: how often it was asked
    """

    def __init__(self, *repositories: bytes) -> None:
        super().__init__()
        self.repositories = repositories
        self.asked = 0

    @HasRepository.responder
    def has(self, repository: bytes) -> dict[str, Any]:
        self.asked += 1
        if repository == b"-" * 16:
            raise NotFound("it is odd")
        return {"there": repository in self.repositories}


class MoversTests(SynchronousTestCase):
    """Movers at the ends of links in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.leaving: set[str] = set()
        self.movers = Movers(lambda role, name: name in self.leaving)

    def add(self, name: str, storage: str = "s", host: str = "h", *has: bytes) -> BoundedAMP:
        """A mover is there; the service's end of its line."""
        self.last = Mover(*has)
        link, _ = link_in_process(self.clock, None, self.last)
        self.movers.add(link, MoverPlace(f"{name}:1", storage, host, name))
        return link

    def of(self, repository: bytes) -> list[BoundedAMP]:
        found = Deferred.fromCoroutine(self.movers.of(repository))
        self.clock.pump([0] * 10)
        return self.successResultOf(found)

    def call(self, repository: bytes) -> Deferred[Any]:
        called = Deferred.fromCoroutine(self.movers.call(HasRepository, repository=repository))
        self.clock.pump([0] * 10)
        return called

    def test_none(self) -> None:
        """Without a mover everything is refused with a text."""
        self.assertRaises(NotReachable, self.movers.some)
        self.failureResultOf(Deferred.fromCoroutine(self.movers.of(ONE)), NotReachable)

    def test_waits(self) -> None:
        """Where there is a clock a mover is waited for a little."""
        self.movers = Movers(clock=self.clock)
        first, second = (Deferred.fromCoroutine(self.movers.of(ONE)) for _ in range(2))
        self.clock.advance(WAIT_SECONDS - 1)
        self.assertNoResult(first)
        link = self.add("a")
        self.assertEqual([link], self.successResultOf(first))
        self.assertEqual([link], self.successResultOf(second))
        self.movers.lose(link)
        third = Deferred.fromCoroutine(self.movers.of(ONE))
        self.clock.advance(WAIT_SECONDS)
        self.failureResultOf(third, NotReachable)
        self.assertEqual([], self.movers._awaited)

    def test_one_storage(self) -> None:
        """Movers of one storage can all serve whatever there is, and are not asked."""
        links = [self.add("a"), self.add("b")]
        self.assertEqual(links, self.of(ONE))
        self.assertEqual(0, self.last.asked)

    def test_storages(self) -> None:
        """With two storages the movers are asked once which has it; one that nobody has, or whose
        movers are away, is refused."""
        here, there = self.add("a", "s", "h", ONE), self.add("b", "t", "i", TWO)
        for _ in range(2):
            self.assertEqual(([here], [there]), (self.of(ONE), self.of(TWO)))
        self.assertTrue(self.last.asked <= 2)
        nobodys = Deferred.fromCoroutine(self.movers.of(b"3" * 16))
        self.clock.pump([0] * 10)
        self.failureResultOf(nobodys, NotReachable)
        third = self.add("c", "u", "j")
        self.movers.lose(there)
        away = Deferred.fromCoroutine(self.movers.of(TWO))
        self.clock.pump([0] * 10)
        self.failureResultOf(away, NotReachable)
        self.assertIn(third, self.movers)

    def test_two_hosts(self) -> None:
        """Two hosts do not share a storage at the same time; one after the other they may."""
        first = self.add("a", "s", "h")
        self.assertRaises(Refused, self.add, "b", "s", "i")
        self.movers.lose(first)
        self.assertIn(self.add("b", "s", "i"), self.movers)

    def test_best(self) -> None:
        """The one with the fewest sessions, and one that is leaving only where there is no other;
        one that has gone meanwhile is none."""
        one, two = self.add("a"), self.add("b")
        self.assertIs(two, self.movers.best([one, two], {one: 2, two: 1}))
        self.leaving.add("b")
        self.assertIs(one, self.movers.best([one, two], {one: 2}))
        self.assertEqual((True, False), (self.movers.takes(one), self.movers.takes(two)))
        self.movers.lose(one)
        self.assertIs(two, self.movers.best([one, two], {}))
        self.assertFalse(self.movers.takes(one))

    def test_next(self) -> None:
        """What one that is lost cannot be asked the next one is; other errors pass through."""
        one, two = self.add("a", "s", "h", ONE), self.add("b", "s", "h", ONE)
        line: Any = one.transport
        line.abortConnection()
        self.clock.pump([0] * 10)
        self.assertEqual({"there": True}, self.successResultOf(self.call(ONE)))
        self.assertEqual(1, self.last.asked)
        line = two.transport
        line.abortConnection()
        self.clock.pump([0] * 10)
        self.failureResultOf(self.call(ONE), NotReachable)
        self.movers.lose(one)
        self.movers.lose(two)
        self.add("c")
        self.failureResultOf(self.call(b"-" * 16), NotFound)

    def test_late(self) -> None:
        """One that only does not answer in time is not passed over: it may do it yet."""
        link = self.add("a")
        self.add("b")
        self.patch(link, "call", lambda *_, **__: Deferred.fromCoroutine(late()))

        async def late() -> None:
            raise NotReachable("no answer in time")

        self.failureResultOf(self.call(ONE), NotReachable)
        self.assertEqual(0, self.last.asked)

    def test_tends(self) -> None:
        """Each repository is tended by one of the movers of its storage, and most by the same one
        when another joins."""
        one, two = self.add("a"), self.add("b")
        other = self.add("c", "t", "i")
        repositories = [bytes([number]) * 16 for number in range(40)]
        ours = [[r for r in repositories if self.movers.tends(link, r)] for link in (one, two)]
        self.assertEqual(40, len(ours[0]) + len(ours[1]))
        self.assertTrue(ours[0] and ours[1])
        self.assertTrue(all(self.movers.tends(other, r) for r in repositories))
        third = self.add("d")
        still = [r for r in ours[0] if self.movers.tends(one, r)]
        moved = [r for r in ours[0] if self.movers.tends(third, r)]
        self.assertEqual(sorted(ours[0]), sorted(still + moved))
        self.movers.lose(third)
        self.assertFalse(self.movers.tends(third, repositories[0]))
