"""Tests of :mod:`cloudconnect.provider.nodes.known`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.commands.gateways import PublishRoute, RetireRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import NoAccelerator, NotReachable, Refused
from cloudconnect.provider.nodes.known import ANSWER_SECONDS, Nodes
from cloudconnect.provider.nodes.movers import MoverPlace
from cloudconnect.provider.service.planning import HERE, GatewayPlace, Part

GROUP = b"g" * 16


class Gateway(CommandLocator):
    """A gateway that keeps what it is told.

    :ivar answer: makes the answer to a route
    """

    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.answer = answer
        self.routes: dict[bytes, str] = {}
        self.retired: list[bytes] = []

    @PublishRoute.responder
    def publish(self, route: bytes, backend: str, **rest: Any) -> Any:
        self.routes[route] = backend
        return self.answer()

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, Any]:
        self.retired.append(route)
        return {}


class NodesTests(SynchronousTestCase):
    """Roles at the ends of links in memory."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.nodes = Nodes(["set.example:6180"])

    def link(self, locator: CommandLocator | None = None) -> BoundedAMP:
        """The service's end of a line to a role."""
        link, _ = link_in_process(self.clock, None, locator or CommandLocator())
        return link

    def gateway(
        self, place: GatewayPlace, answer: Callable[[], Any] = dict
    ) -> tuple[Gateway, BoundedAMP]:
        """A gateway that is there."""
        gateway = Gateway(answer)
        link = self.link(gateway)
        self.nodes.add_gateway(link, place)
        return gateway, link

    def publish(self, *parts: Part) -> Deferred[list[GatewayPlace]]:
        """Publish these parts, and wait for as long as a gateway may take."""
        taken = Deferred.fromCoroutine(self.nodes.publish(GROUP, list(parts)))
        self.clock.pump([0] * 10 + [ANSWER_SECONDS] + [0] * 10)
        return taken

    def part(self, role: Role = Role.TARGET_MOVER, backend: str = HERE) -> Part:
        return Part(role, self.link(), backend)

    def test_mover(self) -> None:
        """Without a mover nothing can be asked of it, and that has a text."""
        with self.assertRaises(NotReachable):
            _ = self.nodes.mover
        link = self.link()
        self.nodes.set_mover(link)
        self.assertIs(link, self.nodes.mover)

    def test_accelerators(self) -> None:
        """The one with the fewest sessions is chosen of those that are there."""
        self.assertFalse(self.nodes.accelerates)
        self.assertRaises(NoAccelerator, self.nodes.accelerator, {})
        one, two = self.link(), self.link()
        self.nodes.add_accelerator(one, "one:1")
        self.nodes.add_accelerator(two)
        self.assertEqual((two, HERE), self.nodes.accelerator({one: 2, two: 1}))
        self.assertEqual((one, "one:1"), self.nodes.accelerator({two: 1}))
        self.nodes.lose_accelerator(one)
        self.assertEqual((two, HERE), self.nodes.accelerator({two: 9}))

    def test_addresses(self) -> None:
        """What the admin set comes first, where no gateway here says that it is its own; each
        address stands there once."""
        places = [GatewayPlace("b:1", "gw.example:6180"), GatewayPlace(), GatewayPlace("c:1", "")]
        places.append(GatewayPlace("d:1", "set.example:6180"))
        self.assertEqual(["set.example:6180", "gw.example:6180"], self.nodes.addresses(places))

    def test_published(self) -> None:
        """Each gateway learns of each part where it finds it itself; a gateway that refuses one
        part counts as none, and stays for the next session."""
        here, _ = self.gateway(GatewayPlace())
        there, _ = self.gateway(GatewayPlace("10.0.0.5:6182", "gw.example:6180"))

        def refuse() -> None:
            raise Refused("the table is full")

        full, _ = self.gateway(GatewayPlace("x:1", "full.example:6180"), refuse)
        mover, accelerator = self.part(), self.part(Role.TARGET_WAN, "10.0.0.6:6183")
        for _ in range(2):
            taken = self.successResultOf(self.publish(mover, accelerator))
            self.assertEqual(["", "gw.example:6180"], sorted(place.advertise for place in taken))
        self.assertEqual({mover.route: HERE, accelerator.route: "10.0.0.6:6183"}, here.routes)
        self.assertEqual(
            {mover.route: "10.0.0.5:6182", accelerator.route: "10.0.0.6:6183"}, there.routes
        )
        self.assertEqual(2, len(full.routes))
        self.nodes.retire([mover, accelerator])
        self.clock.pump([0] * 10)
        self.assertEqual([mover.route, accelerator.route], there.retired)

    def test_silent_gateway(self) -> None:
        """One of another process that does not answer is lost, and its line is cut; where no other
        one takes the routes nothing can begin."""
        _, link = self.gateway(GatewayPlace("x:1", "silent.example:6180"), Deferred)
        self.failureResultOf(self.publish(self.part()), Refused)
        self.assertIsNone(link.transport)
        self.assertEqual({}, self.nodes._gateways)

    def test_late_here(self) -> None:
        """A role in this process that was held up for as long, as all of it was, stays: nothing
        would ever make it register again. Once its line is gone it is lost like any other."""
        _, gateway = self.gateway(GatewayPlace(), Deferred)
        self.failureResultOf(self.publish(self.part()), Refused)
        part = self.part(Role.TARGET_WAN)
        self.nodes.add_accelerator(part.link)
        self.nodes.lose_if_gone(part, NotReachable("no answer in time"))
        self.assertTrue(self.nodes.accelerates)
        self.assertEqual([gateway], list(self.nodes._gateways))
        for link in (gateway, part.link):
            line: Any = link.transport
            line.abortConnection()
        self.clock.pump([0] * 10)
        self.nodes.lose_if_gone(part, NotReachable("no answer in time"))
        self.failureResultOf(self.publish(self.part()), Refused)
        self.assertEqual((False, {}), (self.nodes.accelerates, self.nodes._gateways))

    def test_gone(self) -> None:
        """A role that cannot be reached is lost, and for no other reason."""
        for role, error, lost in (
            (Role.TARGET_WAN, NotReachable("silence"), True),
            (Role.TARGET_WAN, Refused("not this one"), False),
            (Role.TARGET_MOVER, NotReachable("silence"), True),
            (Role.TARGET_MOVER, Refused("not this one"), False),
        ):
            part = self.part(role, "10.0.0.6:6183")
            if role is Role.TARGET_WAN:
                self.nodes.add_accelerator(part.link, part.backend)
            else:
                self.nodes.movers.add(part.link, MoverPlace(part.backend))
            self.nodes.lose_if_gone(part, error)
            self.clock.pump([0] * 10)
            self.assertIs(lost, part.link.transport is None)
            there = self.nodes.accelerates or part.link in self.nodes.movers
            self.assertIs(not lost, there)
            self.nodes.lose_accelerator(part.link)
            self.nodes.movers.lose(part.link)
