"""Tests of :mod:`cloudconnect.tenant.gateways`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.errors import NotReachable, ProtocolViolation
from cloudconnect.tenant.gateways import (
    GATEWAYS_MAX,
    SUSPECT_SECONDS,
    SUSPECTS_MAX,
    TRIED_MAX,
    FirstThatConnects,
    KnownGateways,
    Place,
    read_gateways,
)

OWN, ONE, TWO = ("own", 1), ("one", 1), ("two", 1)


class ReadTests(SynchronousTestCase):
    """Addresses of gateways come from the provider."""

    def test_addresses(self) -> None:
        """Host and port; an IPv6 address in brackets. An older provider tells none."""
        self.assertEqual(
            [("gw.example", 6180), ("2001:db8::1", 443)],
            read_gateways(["gw.example:6180", "[2001:db8::1]:443"]),
        )
        self.assertEqual([], read_gateways(None))

    def test_no_addresses(self) -> None:
        """Anything else is the provider's fault, not the user's; a list without end is cut."""
        for text in ("", "gw.example", ":6180", "gw:0", "gw:65536", "gw:x", 1):
            self.assertRaises(ProtocolViolation, read_gateways, [text])
        self.assertRaises(ProtocolViolation, read_gateways, "gw.example:6180")
        self.assertEqual(GATEWAYS_MAX, len(read_gateways(["gw:1"] * 1000)))


class OrderTests(SynchronousTestCase):
    """Which gateway is tried first."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.learned: list[list[str]] = []
        self.known = KnownGateways(self.clock, OWN, ["one:1"], self.learned.append)

    def test_control(self) -> None:
        """The control channel goes where the tenant was told to, then to what is known."""
        self.assertEqual([OWN, ONE], self.known.for_control())
        self.known.learn(["two:1", "one:1", "own:1"])
        self.assertEqual([OWN, TWO, ONE], self.known.for_control())
        self.known.suspect(OWN)
        self.assertEqual([TWO, ONE, OWN], self.known.for_control())

    def test_data(self) -> None:
        """Data goes to the provider's first choice, but for what was connected ahead, and for what
        has failed; where it names none, to where the control channel went."""
        self.assertEqual([TWO, ONE], self.known.for_data(["two:1", "one:1"], OWN, OWN))
        self.assertEqual([ONE, TWO], self.known.for_data(["two:1", "one:1"], OWN, ONE))
        self.known.suspect(ONE)
        self.assertEqual([TWO, ONE], self.known.for_data(["two:1", "one:1"], OWN, ONE))
        self.assertEqual([OWN], self.known.for_data([], OWN, ONE))
        self.assertRaises(ProtocolViolation, self.known.for_data, ["x"], OWN, OWN)

    def test_ahead(self) -> None:
        """Where the next session will probably go: to the best that is known."""
        self.assertEqual(ONE, self.known.first_for_data(OWN))
        self.known.learn([])
        self.assertEqual(OWN, self.known.first_for_data(OWN))

    def test_suspects(self) -> None:
        """Who failed longest ago is tried first among them, and each is forgotten after a while."""
        self.known.suspect(OWN)
        self.clock.advance(1)
        self.known.suspect(ONE)
        self.assertEqual([TWO, OWN, ONE], self.known.in_order([ONE, OWN, TWO]))
        self.clock.advance(SUSPECT_SECONDS - 1)
        self.assertEqual([OWN, TWO, ONE], self.known.in_order([ONE, OWN, TWO]))
        self.clock.advance(1)
        self.assertEqual([ONE, OWN, TWO], self.known.in_order([ONE, OWN, TWO]))

    def test_many_suspects(self) -> None:
        """However many gateways a provider tells to leave, few are remembered, the last ones."""
        for number in range(1000):
            self.known.suspect((f"g{number}", 1))
        self.known.suspect(ONE)
        self.assertLessEqual(len(self.known._suspects), SUSPECTS_MAX + 1)
        self.assertEqual([TWO, ONE], self.known.in_order([ONE, TWO]))

    def test_few_at_once(self) -> None:
        """One attempt tries few; the next begins with others."""
        self.known.learn([f"g{n}:1" for n in range(9)])
        first = self.known.for_control()
        self.assertEqual(TRIED_MAX, len(first))
        for place in first:
            self.known.suspect(place)
        self.assertEqual(set(), set(first) & set(self.known.for_control()))

    def test_learned(self) -> None:
        """What is new is handed on to be kept, with what was seen before: a gateway that is away
        may be what is left tomorrow."""
        self.known.learn(["two:1"])
        self.known.learn(["one:1", "two:1"])
        self.known.learn(["one:1"])
        self.assertEqual([["two:1", "one:1"]], self.learned)
        self.assertEqual([OWN, ONE, TWO], self.known.for_control())


class Endpoint:
    """Connects, or does not."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def connect(self, factory: Any) -> Any:
        return self.answer()


class ConnectTests(SynchronousTestCase):
    """One connection to the first of several places."""

    def connect(self, *answers: Any) -> tuple[Any, list[Place], list[Place]]:
        failed: list[Place] = []
        used: list[Place] = []
        places = [(f"place-{n}", n) for n in range(len(answers))]

        def make(host: str, port: int) -> Any:
            return Endpoint(answers[port])

        endpoint = FirstThatConnects(places, make, failed.append, used.append)
        verifyObject(IStreamClientEndpoint, endpoint)
        return endpoint.connect(Factory()), failed, used

    def test_first(self) -> None:
        """The first one that takes the connection is used, and no other is tried."""
        made, failed, used = self.connect(lambda: succeed("it"), lambda: 1 / 0)
        self.assertEqual("it", self.successResultOf(made))
        self.assertEqual(([], [("place-0", 0)]), (failed, used))

    def test_next(self) -> None:
        """One that does not take it is noted, and the next one is tried."""
        made, failed, used = self.connect(
            lambda: fail(ConnectionRefusedError()), lambda: succeed("it")
        )
        self.assertEqual("it", self.successResultOf(made))
        self.assertEqual(([("place-0", 0)], [("place-1", 1)]), (failed, used))

    def test_none(self) -> None:
        """Where none takes it, the last one's words say why."""
        made, failed, used = self.connect(
            lambda: fail(NotReachable("first")), lambda: fail(ConnectionRefusedError("second"))
        )
        self.failureResultOf(made, ConnectionRefusedError)
        self.assertEqual((2, []), (len(failed), used))
        self.failureResultOf(self.connect()[0], NotReachable)
