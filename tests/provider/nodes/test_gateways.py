"""Tests of :mod:`cloudconnect.provider.nodes.gateways`; more of it: ``test_nodes``."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.commands.gateways import DrainGateway, PublishRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import Refused
from cloudconnect.provider.gateway.load import SESSION_WEIGHT, Load
from cloudconnect.provider.nodes.gateways import QUIET_SECONDS
from cloudconnect.provider.nodes.known import Nodes
from cloudconnect.provider.service.planning import GatewayPlace, Part
from cloudconnect.settings import LOAD_SECONDS
from cloudconnect.transports.nodes import GATEWAY

GROUP = b"g" * 16


class Gateway(CommandLocator):
    """A gateway that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[int] = []
        self.drained: list[bool] = []

    @PublishRoute.responder
    def publish(self, rate: int, **rest: Any) -> dict[str, Any]:
        self.rates.append(rate)
        return {}

    @DrainGateway.responder
    def drain(self, leaving: bool) -> dict[str, Any]:
        self.drained.append(leaving)
        return {}


class GatewaysTests(SynchronousTestCase):
    """Gateways at the ends of links in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.nodes = Nodes(clock=self.clock)
        self.told: list[tuple[list[str], list[str]]] = []

    def gateway(self, name: str, pool: str = "default", **place: Any) -> tuple[Gateway, BoundedAMP]:
        gateway = Gateway()
        link, _ = link_in_process(self.clock, None, gateway)
        self.nodes.add_gateway(link, GatewayPlace("b:1", f"{name}:6180", name, pool, **place))
        self.clock.pump([0] * 5)
        return gateway, link

    def publish(self, pool: str = "default", rate: int | None = None) -> Deferred[Any]:
        part = Part(Role.TARGET_MOVER, link_in_process(self.clock, None, None)[0], "here")
        done = Deferred.fromCoroutine(self.nodes.publish(GROUP, [part], rate, pool))
        self.clock.pump([0] * 10)
        return done

    def names(self, pool: str = "default") -> list[str]:
        return [place.name for place in self.nodes.places(pool)]

    def follow(self, gateways: list[str], leaving: list[str]) -> None:
        self.told.append((gateways, leaving))

    def test_load(self) -> None:
        """The gateway with the least to do comes first: by bytes, then by connections."""
        links = {name: self.gateway(name)[1] for name in ("one", "two", "three")}
        self.nodes.reported(links["one"], Load(0, 50_000_000, 0))
        self.nodes.reported(links["two"], Load(9, 0, 0))
        self.nodes.reported(links["three"], Load(3, 0, 0))
        self.assertEqual(["three", "two", "one"], self.names())
        self.assertEqual(
            ["three:6180", "two:6180", "one:6180"], self.nodes.addresses(self.nodes.places())
        )
        self.nodes.reported(links["one"], Load(1, 0, 0))
        self.assertEqual("one", self.names()[0])
        self.assertEqual(1, self.nodes.connections_at(links["one"]))
        self.nodes.lose_gateway(links["one"])
        self.assertEqual(0, self.nodes.connections_at(links["one"]))
        self.assertEqual([], self.nodes.reported(links["one"], Load()))

    def test_sessions_spread(self) -> None:
        """Sessions that begin between two reports go to different gateways."""
        for name in ("one", "two", "three"):
            self.gateway(name)
        firsts = [self.successResultOf(self.publish())[0].name for _ in range(6)]
        self.assertEqual([2, 2, 2], [firsts.count(name) for name in ("one", "two", "three")])
        (known, *_) = self.nodes._gateways.values()
        self.assertEqual(2 * SESSION_WEIGHT, known.load.weight)

    def test_pools(self) -> None:
        """A tenant gets the gateways of its pool and no others; an empty pool is named."""
        one, _ = self.gateway("one")
        two, _ = self.gateway("two", "fast")
        self.gateway("inside", "fast", public=False)
        (place,) = self.successResultOf(self.publish("fast"))
        self.assertEqual(("two", [], [0]), (place.name, one.rates, two.rates))
        self.assertEqual((["one"], ["two"]), (self.names(), self.names("fast")))
        error = self.failureResultOf(self.publish("slow"), Refused)
        self.assertIn("pool slow", str(error.value))

    def test_hangs(self) -> None:
        """A gateway that reports no load and answers nothing is lost within 20 s: it is cut off,
        and the tenants of its pool are told to go elsewhere; once."""
        _, link = self.gateway("one")
        _, other = self.gateway("two")
        self.nodes.follow(self.follow, "default")
        link.transport.pauseProducing()  # type: ignore[union-attr]
        for _ in range(4):
            self.pass_time(LOAD_SECONDS)
            self.nodes.reported(other, Load())
        self.pass_time(1)
        self.assertEqual([(["two:6180"], ["one:6180"])], self.told)
        self.assertEqual(["two"], self.names())
        self.assertIsNone(link.transport)
        self.nodes.left(link)
        self.assertEqual(1, len(self.told))

    def test_held_up(self) -> None:
        """Where we were held up ourselves, gateways that are there are not lost; those of our own
        process are not watched."""
        _, link = self.gateway("one")
        self.nodes.add_gateway(link_in_process(self.clock, None, None)[0], GatewayPlace())
        self.nodes.follow(self.follow, "default")
        for _ in range(3):
            self.clock.advance(10 * QUIET_SECONDS)
            self.clock.pump([0] * 10)
        self.assertEqual([], self.told)
        self.assertEqual({"one", "here"}, set(self.names()))
        self.nodes.lose_gateway(link)
        self.assertEqual([], [c for c in self.clock.getDelayedCalls() if c.func == self.nodes._ask])

    def test_older(self) -> None:
        """A gateway of an older release, which reports nothing and knows no such question, is not
        lost: it has answered."""
        link, _ = link_in_process(self.clock, None, CommandLocator())
        self.nodes.add_gateway(link, GatewayPlace("b:1", "old:6180", "old"))
        for _ in range(5):
            self.pass_time(QUIET_SECONDS)
        self.assertEqual(["old"], self.names())

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.clock.pump([0] * 10)

    def test_leaving(self) -> None:
        """One that leaves hears it and gets no routes, and the tenants of its pool hear it; and so
        when it comes back."""
        one, _ = self.gateway("one")
        self.gateway("two")
        self.nodes.follow(self.follow, "default")
        self.nodes.follow(lambda *told: self.fail("another pool"), "fast")
        self.nodes.set_leaving(GATEWAY, "one", True)
        self.clock.pump([0] * 5)
        self.assertEqual([(["two:6180"], ["one:6180"])], self.told)
        self.assertEqual(([True], ["two"]), (one.drained, self.names()))
        self.successResultOf(self.publish())
        self.assertEqual([], one.rates)
        self.nodes.set_leaving(GATEWAY, "one", False)
        self.clock.pump([0] * 5)
        self.assertEqual((["one:6180", "two:6180"], []), (sorted(self.told[1][0]), self.told[1][1]))
        self.assertEqual([True, False], one.drained)
        self.nodes.unfollow(self.follow)
        self.nodes.set_leaving(GATEWAY, "two", True)
        self.assertEqual(2, len(self.told))

    def test_still_leaving(self) -> None:
        """One that was to leave, and registers again, still is."""
        self.nodes.set_leaving(GATEWAY, "one", True)
        one, _ = self.gateway("one")
        self.assertEqual(([True], []), (one.drained, self.names()))

    def test_caps(self) -> None:
        """A tenant's cap goes with its routes, and is shared between the gateways by how many of
        its relays each has."""
        one, first = self.gateway("one")
        _, second = self.gateway("two")
        self.successResultOf(self.publish(rate=1_000_000))
        self.assertEqual([1_000_000], one.rates)
        other = b"o" * 16
        self.assertEqual(
            [(GROUP, 1_000_000)], self.nodes.reported(first, Load(groups={GROUP: 1, other: 5}))
        )
        self.assertEqual([(GROUP, 750_000)], self.nodes.reported(second, Load(groups={GROUP: 3})))
        self.assertEqual([(GROUP, 250_000)], self.nodes.reported(first, Load(groups={GROUP: 1})))
        self.successResultOf(self.publish())
        self.assertEqual([], self.nodes.reported(first, Load(groups={GROUP: 1})))

    def test_fields(self) -> None:
        """What a listing shows of one."""
        _, link = self.gateway("one", "fast")
        self.nodes.reported(link, Load(3, 10, 20))
        self.assertEqual(
            {
                "pool": "fast",
                "advertise": "one:6180",
                "connections": 3,
                "bytes_per_second_up": 10,
                "bytes_per_second_down": 20,
            },
            self.nodes.gateway_fields(link),
        )
