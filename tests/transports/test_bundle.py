"""Tests of :mod:`cloudconnect.transports.bundle`: the contract, and what is a bundle's own."""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import directlyProvides, implementer

from cloudconnect.errors import (
    Aborted,
    HandshakeTimeout,
    NotReachable,
    ProtocolViolation,
    Tampered,
    Truncated,
)
from cloudconnect.interfaces import IEndsListener
from cloudconnect.keys import KeyB
from cloudconnect.settings import (
    BATCH_PAYLOAD_MAX,
    BUNDLE_MEMBERS_MAX,
    BUNDLE_SECONDS,
    BUNDLE_WINDOW,
    CLOSE_SECONDS,
    HIGH_WATER,
)
from cloudconnect.testing import (
    UP,
    Flood,
    HalfCloseRecorder,
    MemoryContract,
    MemoryPair,
    Recorder,
    TCPContract,
    Wire,
    flood_bytes,
)
from cloudconnect.testing.contract import Pieces
from cloudconnect.transports.bundle import Bundle
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.member import BundleMember
from cloudconnect.transports.memory import PIECE
from cloudconnect.transports.recipe import LayerFactory
from cloudconnect.transports.stream import RecordStream
from cloudconnect.wire.striping import BATCH_COST


class BundleContract:
    """How a bundle lies around a factory: the first member is what the factory builds."""

    members = 1
    cipher = False
    handshake = False
    reactor: Any

    def _factory(self, factory: Any) -> Any:
        return LayerFactory(
            factory, lambda p: Bundle(p, self.members, self.reactor).member(0), Bundle.name
        )

    client_factory = server_factory = _factory


class OneMemberOverMemoryTests(BundleContract, MemoryContract, TestCase):
    """A bundle of one connection in memory."""


class OneMemberOverTCPTests(BundleContract, TCPContract, TestCase):
    """A bundle of one TCP connection."""


class OneStreamOverTCPTests(BundleContract, TCPContract, TestCase):
    """A bundle of one record stream, on its fast path where it is the lowest."""

    handshake = True

    def setUp(self) -> None:
        """A secret."""
        super().setUp()
        self.recipe = RecordStream(KeyB.generate(), b"contract")

    def client_factory(self, factory: Any) -> Any:
        """A stream, and a bundle on it."""
        return self.recipe.client_factory(self._factory(factory), self.reactor)

    def server_factory(self, factory: Any) -> Any:
        """The same."""
        return self.recipe.server_factory(self._factory(factory), self.reactor)

    async def test_07_abort_in_connection_made(self) -> None:
        """The other side's protocol may not have been connected by then; then nobody tells it."""
        client, server = Recorder(), Recorder()
        client.connectionMade = lambda: client.transport.abortConnection()  # type: ignore
        joining = self.join(client, server)
        joining.addErrback(lambda _: None)
        await self.until_lost(client)
        self.assertIsInstance(client.reason, ConnectionAborted)
        self.assertEqual(client.losses, 1)
        self.assertIn(server.losses, (0, 1))
        server.losses = 1  # join waits for it
        await joining


class FourMembersOverMemoryTests(BundleContract, MemoryContract, TestCase):
    """A bundle of four connections in memory; somebody is in the middle of the first."""

    members = 4
    more: list[Wire]

    def begin(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Wire:
        """Connect the first members, then the others."""
        wire = super().begin(client, server, piece)
        self.more = []
        first: list[Any] = [wire.client.protocol, wire.server.protocol]
        while all(isinstance(member, BundleMember) for member in first):
            users = [member._members.user for member in first]
            for index in range(1, self.members):
                self.more.append(Wire(self.reactor, piece))
                self.more[-1].connect(*(user.member(index) for user in users))
            first = [user.wrappedProtocol for user in users]
        return wire

    def until(self, condition: Any) -> Any:
        """Members find out one after the other."""
        self.reactor.advance(0)
        return super().until(condition)


class _Joined(SynchronousTestCase):
    """Two bundles in memory, whose members are wires that a test can halt, cut and change."""

    members = 4
    secret: KeyB | None = None

    def setUp(self) -> None:
        """Two bundles and no connection."""
        self.clock = Clock()
        self.client, self.server = self.recorders()
        self.near = Bundle(self.client, self.members, self.clock)
        self.far = Bundle(self.server, self.members, self.clock)
        self.wires: dict[int, Wire] = {}

    def recorders(self) -> tuple[Recorder, Recorder]:
        """What is above them."""
        return Recorder(), Recorder()

    def connect(self, *indexes: int) -> None:
        """Connect these members, all where none is named."""
        for index in indexes or range(self.members):
            self.wires[index] = wire = Wire(self.clock)
            wire.connect(*self.sides(index))
        self.clock.advance(0)

    def sides(self, index: int) -> tuple[Any, Any]:
        """The lowest protocols of both sides of a connection."""
        return self.near.member(index), self.far.member(index)

    def halt(self, index: int, direction: str = UP) -> None:
        """Let nothing more through."""
        wire = self.wires[index]
        (wire._up if direction == UP else wire._down)._near.pauseProducing()

    def go_on(self, index: int) -> None:
        """Let it through again."""
        self.wires[index]._up._near.resumeProducing()

    def lose(self, index: int) -> None:
        """The line of a member breaks, on both sides."""
        wire = self.wires[index]
        wire._up._near.abortConnection()
        wire._down._near.abortConnection()
        self.clock.advance(0)

    def assert_over(self, *recorders: Recorder, kind: type[BaseException]) -> None:
        """All were told once, with this reason, and nothing is left behind."""
        self.clock.advance(CLOSE_SECONDS + 1)
        for recorder in recorders:
            self.assertEqual(recorder.losses, 1)
            self.assertIsInstance(recorder.reason, kind)
        if self.client.losses and self.server.losses:
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def close(self) -> None:
        """Close from one side."""
        self.near.loseConnection()
        self.clock.advance(0)
        self.assert_over(self.client, self.server, kind=ConnectionDone)


class ManyMembersTests(_Joined):
    """What comes of there being several."""

    def test_bounds(self) -> None:
        """A bundle has at least one member and not more than the limit."""
        for count in (0, -1, BUNDLE_MEMBERS_MAX + 1):
            self.assertRaises(ValueError, Bundle, Recorder(), count, self.clock)
        Bundle(Recorder(), BUNDLE_MEMBERS_MAX, self.clock)

    def test_spread(self) -> None:
        """All members carry their part, and it comes out in order."""
        self.connect()
        Flood(self.near, 5_000_000).start()
        self.clock.advance(0)
        self.assertEqual(self.server.data, flood_bytes(0, 5_000_000))
        for wire in self.wires.values():
            self.assertGreater(len(wire.seen[UP]), 500_000)
        self.close()

    def test_little_is_divided(self) -> None:
        """So do they where there is less than a usual batch: each sends little in its first round
        trips. What is hardly more than its header goes over one."""
        self.connect()
        before = {number: len(wire.seen[UP]) for number, wire in self.wires.items()}
        self.near.write(bytes(50_000))
        self.clock.advance(0)
        self.assertEqual(self.server.data, bytes(50_000))
        for number, wire in self.wires.items():
            self.assertGreater(len(wire.seen[UP]) - before[number], 50_000 // 4)
        before = {number: len(wire.seen[UP]) for number, wire in self.wires.items()}
        self.near.write(bytes(500))
        self.clock.advance(0)
        grown = [len(wire.seen[UP]) - before[number] for number, wire in self.wires.items()]
        self.assertEqual(sum(1 for size in grown if size), 1)
        self.close()

    def test_first_is_enough(self) -> None:
        """The protocol is connected with the first member, and can talk; the others join."""
        self.assertIs(self.client.transport, None)
        self.connect(2)
        self.assertIs(self.client.transport, self.near)
        self.near.write(b"one")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"one")
        self.connect(0, 1, 3)
        self.assertEqual((self.client.handshakes, self.server.handshakes), (1, 1))
        for _ in range(8):
            self.near.write(b" more")
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"one" + 8 * b" more")
        self.close()

    def test_end_waits_for_all(self) -> None:
        """The end counts when it has come on each member, those that come later too."""
        self.connect(1)
        self.near.write(b"all")
        self.near.loseConnection()
        self.clock.advance(CLOSE_SECONDS + 5)
        self.assertEqual((self.server.data, self.server.losses, self.client.losses), (b"all", 0, 0))
        self.connect(0, 2, 3)
        self.assert_over(self.client, self.server, kind=ConnectionDone)

    def test_written_before(self) -> None:
        """What was written in connectionMade goes out on members as they come."""
        self.client.greeting = flood_bytes(0, 3_000_000)
        self.connect(3)
        self.assertGreater(len(self.server.data), 0)
        self.connect(0, 1, 2)
        self.assertEqual(self.server.data, flood_bytes(0, 3_000_000))
        self.close()

    def test_slow_member_gets_less(self) -> None:
        """A member whose line takes nothing is given what its queue takes, the others the rest."""
        self.connect()
        self.halt(2)
        flood = Flood(self.near, 2_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertLess(self.wires[2].client.held, 400_000)
        self.assertEqual(self.near.waiting, 0)
        self.assertLess(len(self.server.data), 2_000_000)
        self.go_on(2)
        self.clock.advance(0)
        self.assertEqual(self.server.data, flood_bytes(0, 2_000_000))

    def test_stalled_member_bounds_memory(self) -> None:
        """While one line stands still the others fill the window, no more; then the sender stops.

        When it moves again, so does everything.
        """
        self.connect()
        self.halt(0)
        flood = Flood(self.near, 40_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertEqual(flood.calls[-1], "pause")
        joiner = self.far._joiner
        self.assertGreater(joiner.waiting, BUNDLE_WINDOW // 2)
        self.assertLessEqual(
            joiner.waiting, BUNDLE_WINDOW + self.members * (BATCH_PAYLOAD_MAX + BATCH_COST)
        )
        kept = sum(len(each.kept) for each in joiner._members)
        self.assertLessEqual(kept, self.members * PIECE)
        self.assertEqual([joiner.is_ahead(index) for index in range(4)], [False, True, True, True])
        accepted = 40_000_000 - flood.left
        self.assertLess(accepted, 12_000_000)
        self.go_on(0)
        self.clock.advance(0)
        self.assertEqual(self.server.data, flood_bytes(0, 40_000_000))
        self.assertEqual(joiner.waiting, 0)
        self.close()

    def test_paused_reader_bounds_memory(self) -> None:
        """A protocol that does not read holds up all members, and nothing is lost."""
        self.connect()
        self.far.pauseProducing()
        flood = Flood(self.near, 40_000_000)
        flood.start()
        self.clock.advance(0)
        self.assertLess(40_000_000 - flood.left, 4_000_000)
        self.assertLess(self.near.waiting, 2 * HIGH_WATER)
        self.far.resumeProducing()
        self.clock.advance(0)
        self.assertEqual(self.server.data, flood_bytes(0, 40_000_000))
        self.close()

    def test_waiting(self) -> None:
        """What was written and went to nobody is counted, and is nothing in the end."""
        self.assertEqual(self.near.waiting, 0)
        self.client.greeting = flood_bytes(0, 1000)
        self.connect(0)
        self.assertEqual(self.near.waiting, 0)
        self.halt(0)
        self.near.write(bytes(3_000_000))
        self.clock.advance(0)
        self.assertGreater(self.near.waiting, 2_000_000)
        self.assertLess(self.near.waiting, 3_000_000)
        self.go_on(0)
        self.clock.advance(0)
        self.assertEqual(self.near.waiting, 0)


class FailureTests(_Joined):
    """What ends a bundle before its end."""

    def test_broken_line(self) -> None:
        """A member whose line breaks fails the bundle; the others are closed too."""
        self.connect()
        self.near.write(b"before")
        self.clock.advance(0)
        self.lose(1)
        self.assertEqual(self.server.data, b"before")
        self.assert_over(self.client, self.server, kind=Truncated)
        self.assertIn("connection 1", str(self.client.reason))
        self.assertTrue(all(wire.client.disconnected for wire in self.wires.values()))

    def test_broken_line_at_the_end(self) -> None:
        """As long as both ends were not on a member, its loss is no proper end."""
        self.connect()
        self.halt(3)
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual((self.client.losses, self.server.losses), (0, 0))
        self.lose(3)
        self.assert_over(self.client, self.server, kind=Truncated)

    def test_member_ends_alone(self) -> None:
        """A connection that is closed properly, without the stream's end on it, is a cut."""
        self.connect()
        self.wires[2].client.unregisterProducer()
        self.wires[2].client.loseConnection()
        self.clock.advance(0)
        self.assert_over(self.client, self.server, kind=Truncated)

    def test_half_closed_without_end(self) -> None:
        """So is one whose peer ends one direction and says no end of the stream."""
        pair = MemoryPair(self.clock)
        pair.connect(HalfCloseRecorder(), self.far.member(0))
        pair.left.loseWriteConnection()
        self.clock.advance(0)
        self.assertIsInstance(self.server.reason, Truncated)

    def test_abort_before_all_came(self) -> None:
        """A member that comes after the end is closed at once, and told to nobody."""
        self.connect(0)
        self.near.abortConnection()
        self.clock.advance(0)
        self.assert_over(self.client, kind=ConnectionAborted)
        pair = MemoryPair(self.clock)
        pair.connect(self.near.member(1), Recorder())
        self.clock.advance(0)
        self.assertTrue(pair.left.disconnected)
        self.assertEqual(self.client.losses, 1)

    def test_missing_members(self) -> None:
        """All must come in time, counted from the first one."""
        self.connect(0, 1, 3)
        self.clock.advance(BUNDLE_SECONDS - 1)
        self.assertEqual((self.client.losses, self.server.losses), (0, 0))
        self.clock.advance(1)
        self.clock.advance(0)
        self.assert_over(self.client, kind=HandshakeTimeout)
        self.assertIn("1 of 4", str(self.client.reason))
        self.assertEqual(self.server.losses, 1)

    def test_all_came(self) -> None:
        """When they have come nobody watches any more."""
        self.connect()
        self.clock.advance(BUNDLE_SECONDS + 1)
        self.assertEqual(self.client.losses, 0)
        self.close()

    def test_expected(self) -> None:
        """Without a first one, who waits says for how long; the protocol hears of nothing."""
        waiter = self.near.when_ready()
        self.near.expect(5)
        self.near.expect(10)
        self.clock.advance(9)
        self.assertNoResult(waiter)
        self.clock.advance(1)
        self.clock.advance(0)
        self.failureResultOf(waiter, HandshakeTimeout)
        self.assertEqual((self.client.losses, self.client.transport), (0, None))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_expected_and_came(self) -> None:
        """All that came in time stay."""
        self.near.expect(5)
        self.connect()
        self.clock.advance(6)
        self.near.expect(5)
        self.clock.advance(6)
        self.assertEqual(self.client.losses, 0)
        self.assertIs(self.successResultOf(self.near.when_ready()), self.client)
        self.close()

    def test_fail(self) -> None:
        """Who opens the connections can say that one could not be opened."""
        self.connect(0)
        self.near.fail(ConnectionRefusedError("nobody listens"))
        self.far.fail(Aborted(code=3))
        self.clock.advance(0)
        self.assert_over(self.client, kind=NotReachable)
        self.assert_over(self.server, kind=Aborted)
        self.assertEqual(str(self.client.reason), "nobody listens")

    def test_closed_before_any(self) -> None:
        """A bundle that is closed before a member has come ends, and leaves no timer."""
        self.near.expect(5)
        self.near.loseConnection()
        self.far.expect(5)
        self.far.abortConnection()
        self.clock.advance(0)
        self.failureResultOf(self.near.when_ready(), ConnectionDone)
        self.failureResultOf(self.far.when_ready(), ConnectionAborted)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        """What is no batch fails the bundle by name, and what came before it counts."""
        speaker = Recorder()
        speaker.greeting = struct.pack(">QI", 0, 2) + b"ok" + b"\xff" * 12
        pair = MemoryPair(self.clock)
        pair.connect(speaker, self.far.member(0))
        self.clock.advance(0)
        self.assertEqual(self.server.data, b"ok")
        self.assertIsInstance(self.server.reason, ProtocolViolation)

    def test_given_once(self) -> None:
        """Each member is given away once, and there are no others."""
        self.near.member(0)
        for index in (0, -1, 4):
            self.assertRaises(ValueError, self.near.member, index)
            self.assertRaises(ValueError, self.near.adopt, index, MemoryPair().left)


class OverStreamsTests(_Joined):
    """Over record streams: numbers, the end of the handshake, and who gave up why."""

    members = 3

    def setUp(self) -> None:
        """A secret; both sides' layers as they are connected."""
        super().setUp()
        self.key = KeyB.generate()
        self.layers: dict[int, tuple[Any, Any]] = {}

    def sides(self, index: int) -> tuple[Any, Any]:
        """Streams under two members."""
        initiator = RecordStream(self.key, b"bundle", connection=index)
        responder = RecordStream(self.key, b"bundle")
        self.layers[index] = (
            initiator.layer(True, self.near.member(index), self.clock),
            responder.layer(False, _Adopting(self.far), self.clock),
        )
        return self.layers[index]

    def test_exchange(self) -> None:
        """Bulk both ways over three streams, and a proper end."""
        self.connect()
        Flood(self.near, 3_000_000).start()
        Flood(self.far, 3_000_000).start()
        self.clock.advance(0)
        self.assertEqual(self.server.data, flood_bytes(0, 3_000_000))
        self.assertEqual(self.client.data, flood_bytes(0, 3_000_000))
        self.close()

    def test_up_after_handshake(self) -> None:
        """A member is not up before the peer has proved its key."""
        self.wires[0] = wire = Wire(self.clock)
        wire.muted.add(UP)
        wire.connect(*self.sides(0))
        self.clock.advance(0)
        self.assertEqual((self.client.transport, self.server.transport), (None, None))

    def test_handshake_fails(self) -> None:
        """A member whose handshake fails fails the bundle of the side that opened it."""
        waiter = self.near.when_ready()
        self.wires[0] = wire = Wire(self.clock)
        wire.muted.add(UP)
        wire.connect(*self.sides(0))
        for _ in range(30):
            self.clock.advance(1)
        self.failureResultOf(waiter, HandshakeTimeout)
        self.assertEqual(self.client.losses, 0)
        self.assertFalse(self.far._over)

    def test_tampering(self) -> None:
        """Changed bytes on one member keep their name; the peer does not take it for an end."""
        self.connect()
        self.wires[1].flips[(UP, len(self.wires[1].seen[UP]) + 20)] = 1
        self.near.write(bytes(300_000))
        self.clock.advance(0)
        self.assert_over(self.server, kind=Tampered)
        self.assert_over(self.client, kind=Truncated)

    def test_tampering_goes_first(self) -> None:
        """A security error counts more than a line that broke a moment before."""
        self.connect()
        self.halt(0, UP)
        self.far.fail(Truncated("the line broke"))
        self.far._put_first(Tampered("on another member"))
        self.clock.advance(0)
        self.assert_over(self.server, kind=Tampered)

    def test_abort_stays(self) -> None:
        """... but not more than that the application itself has aborted."""
        self.connect()
        self.far.abortConnection()
        self.far._put_first(Tampered("on another member"))
        self.clock.advance(0)
        self.assert_over(self.server, kind=ConnectionAborted)

    def test_give_up(self) -> None:
        """Giving up tells the peer so."""
        self.connect()
        self.near.write(b"before")
        self.clock.advance(0)
        self.assertRaises(OverflowError, self.near.give_up, 1 << 16)
        self.near.give_up(7)
        self.near.give_up(8)
        self.clock.advance(0)
        self.assert_over(self.client, kind=ConnectionAborted)
        self.assert_over(self.server, kind=Aborted)
        reason: Any = self.server.reason
        self.assertEqual((reason.code, self.server.data), (7, b"before"))

    def test_broken_line_is_told(self) -> None:
        """The peers of the other members hear that we gave up, not that bytes stopped."""
        self.connect()
        self.wires[0]._down._near.abortConnection()  # the far side's line only
        self.halt(0, UP)
        self.clock.advance(0)
        self.assert_over(self.server, kind=Truncated)
        self.assertIsInstance(self.client.reason, (Aborted, Truncated))

    def test_half_close(self) -> None:
        """One direction may end, and the other goes on, over all members."""
        self.client, self.server = HalfCloseRecorder(), HalfCloseRecorder()
        self.near = Bundle(self.client, self.members, self.clock)
        self.far = Bundle(self.server, self.members, self.clock)
        self.connect()
        self.near.write(b"question")
        self.near.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual((self.server.data, self.server.read_ends), (b"question", 1))
        self.clock.advance(2 * CLOSE_SECONDS)
        Flood(self.far, 1_000_000).start()
        self.far.loseWriteConnection()
        self.clock.advance(0)
        self.assertEqual(self.client.data, flood_bytes(0, 1_000_000))
        self.assert_over(self.client, self.server, kind=ConnectionDone)

    def listening(self) -> list[tuple[str, int]]:
        """From now on the protocols want to know when the ends have met; they write down here who
        was told, and how often that one was told of the loss before."""
        told: list[tuple[str, int]] = []
        for name, recorder in (("client", self.client), ("server", self.server)):
            directlyProvides(recorder, IEndsListener)
            recorder.endsMet = (  # type: ignore[attr-defined]
                lambda name=name, recorder=recorder: told.append((name, recorder.losses))
            )
        return told

    def test_ends_met(self) -> None:
        """Once every member has had both ends the protocols are told, before the connections are
        closed; who closed hears it too."""
        told = self.listening()
        self.connect()
        self.near.write(b"last")
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual([("client", 0), ("server", 0)], sorted(told))
        self.assert_over(self.client, self.server, kind=ConnectionDone)

    def test_ends_changed(self) -> None:
        """Not where the end of one member was changed, though the bundle's own end came."""
        told = self.listening()
        self.connect()
        # Behind the record with the bundle's end comes the stream's own: 8 bytes, 16, a tag of 16.
        seen, before = len(self.wires[2].seen[UP]), 8 + 12 + 16
        self.wires[2].flips[(UP, seen + before + 30)] = 1
        self.near.loseConnection()
        self.clock.advance(0)
        self.assertEqual(seen + before + 40, len(self.wires[2].seen[UP]))
        self.assertNotIn("server", [name for name, _ in told])
        self.assert_over(self.server, kind=Tampered)

    def test_adopt_after_the_end(self) -> None:
        """A connection that comes to a bundle that is over is closed."""
        self.connect(0, 1)
        self.far.abortConnection()
        self.clock.advance(0)
        self.connect(2)
        self.clock.advance(0)
        self.assertTrue(self.wires[2].server.disconnected)

    def test_waiting_in_members(self) -> None:
        """What waits in a stream is counted."""
        self.connect()
        for index in range(3):
            self.halt(index)
        self.near.write(bytes(4_000_000))
        self.clock.advance(0)
        self.assertEqual(
            self.near.waiting,
            self.near._splitter.waiting + sum(each[0].waiting for each in self.layers.values()),
        )
        self.near.abortConnection()
        self.far.abortConnection()
        self.clock.advance(0)


@implementer(IHandshakeListener)
class _Adopting(Protocol):
    """An accepted connection, before anybody knows its number."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def handshakeCompleted(self) -> None:
        """Now it is known."""
        transport: Any = self.transport
        self.bundle.adopt(transport.connection, transport)


class LoopbackTests(TestCase):
    """Over four record streams over real TCP connections."""

    members = 4

    async def test_bulk(self) -> None:
        """Both ways at once, on the fast path, and a proper end on every member."""
        from twisted.internet import reactor as the_reactor

        reactor: Any = the_reactor
        key = KeyB.generate()
        client, server = Recorder(), Recorder()
        near, far = (Bundle(protocol, self.members, reactor) for protocol in (client, server))
        factory: Any = Factory()
        factory.noisy = False
        recipe = RecordStream(key, b"b")
        factory.buildProtocol = lambda _: recipe.layer(False, _Adopting(far), reactor)
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        for index in range(self.members):
            endpoint = wrap_client_endpoint(
                RecordStream(key, b"b", connection=index),
                TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
                reactor,
            )
            await connectProtocol(endpoint, near.member(index))
        size = 20_000_000
        await self.until(reactor, lambda: not near._members.missing and not far._members.missing)
        self.assertTrue(all(member.transport.owns_socket for member in near._members))
        Flood(near, size).start()
        Flood(far, size).start()
        await self.until(reactor, lambda: len(client.data) == len(server.data) == size)
        self.assertEqual(server.data, flood_bytes(0, size))
        self.assertEqual(client.data, flood_bytes(0, size))
        for member in far._members:
            self.assertGreater(member.transport._session.reader.count, size // 40)
        near.loseConnection()
        await self.until(reactor, lambda: client.losses and server.losses)
        for recorder in (client, server):
            self.assertIsInstance(recorder.reason, ConnectionDone)

    def until(self, reactor: Any, condition: Any) -> Deferred[None]:
        """Look every millisecond; trial's time limit is the limit."""
        done: Deferred[None] = Deferred()

        def look() -> None:
            if condition():
                done.callback(None)
            else:
                reactor.callLater(0.001, look)

        look()
        return done
