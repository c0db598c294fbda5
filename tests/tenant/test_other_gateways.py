"""Tests of :mod:`cloudconnect.tenant.jobmanager`: a provider with several gateways, some away."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.gateways import DrainGateway
from cloudconnect.errors import MovedOn, NotReachable
from cloudconnect.keys import Password
from cloudconnect.provider.service.planning import GatewayPlace
from cloudconnect.settings import HANG_SECONDS, PING_SECONDS, SILENCE_SECONDS
from cloudconnect.tenant.jobmanager import new_job_id
from cloudconnect.transports.nodes import GATEWAY
from tests.provider.stage import HOST, PORT, TENANT, Tenant, idle
from tests.tenant.test_moving import MovingCase

#: Two more gateways, by name: their ports.
PORTS = {"one": 7001, "two": 7002}


class GatewaysCase(MovingCase):
    """A test with two more gateways, which the tenant is told of."""

    def setUp(self) -> None:
        super().setUp()
        nodes = self.provider.service.nodes
        (known,) = nodes._gateways.values()
        self.first = known.link
        for name, port in PORTS.items():
            self.reactor.network[port] = self.provider.gateway.factory
            link: Any = Line(self.first)
            nodes.add_gateway(link, GatewayPlace("here", f"{name}.example.com:{port}", name))

    def dialled(self) -> list[tuple[str, int]]:
        """Where connections were asked for since the last time."""
        found, self.reactor.dialled[:] = list(self.reactor.dialled), []
        return found

    def log_in(self, tenant: Tenant) -> Any:
        """Log in, while time goes by: who is away is waited for."""
        password = Password(tenant.token.reveal())
        return self.come_to(Deferred.fromCoroutine(tenant.manager.log_in(TENANT, password)))

    def leave(self, name: str) -> None:
        self.provider.service.leave(GATEWAY, name, True)
        self.reactor.settle()


class Line:
    """The line to another gateway, which is the one of this process under another name; that one
    is not to stop."""

    def __init__(self, link: Any) -> None:
        self.transport = link.transport
        self._link = link

    def call(self, command: Any, **values: Any) -> Any:
        if command is DrainGateway:
            values["leaving"] = False
        return self._link.call(command, **values)


class OtherGatewayTests(GatewaysCase):
    """Where a tenant goes."""

    def test_spread(self) -> None:
        """Sessions are spread over the gateways, and the control channel goes to where the tenant
        was told to."""
        tenant = self.connected()
        self.assertEqual({(HOST, PORT)}, set(self.dialled()))
        used = []
        for _ in range(4):
            self.reactor.result_of(tenant.session(idle(tenant)))
            used.append(set(self.dialled()))
        self.assertEqual({7001, 7002}, {port for dialled in used for _, port in dialled})

    def test_own_away(self) -> None:
        """Where the gateway that it was told is away, it logs in through another one that it has
        heard of; the certificate is checked for the name that it was told."""
        tenant = self.connected()
        del self.reactor.network[PORT]
        self.dialled()
        self.log_in(tenant)
        self.assertEqual([PORT, 7001], [port for _, port in self.dialled()][:2])
        self.reactor.result_of(tenant.session(idle(tenant)))
        self.log_in(tenant)  # what failed lately is not tried first again
        self.assertNotIn(PORT, [port for _, port in self.dialled()])

    def test_all_away(self) -> None:
        """Where all are away the error is about the one that the user knows."""
        tenant = self.connected()
        self.reactor.network.clear()
        error = self.assertRaises(NotReachable, self.log_in, tenant)
        self.assertIn(f"{HOST} port {PORT}", str(error))

    def test_data_away(self) -> None:
        """A session goes to the next gateway when one does not take its connections."""
        tenant = self.connected()
        del self.reactor.network[7001]
        for _ in range(3):
            self.come_to(tenant.session(idle(tenant)))
        self.assertEqual(["done"] * 3, self.states())

    def test_breaks(self) -> None:
        """After a session that has broken the next one goes through another gateway."""
        tenant, job = self.connected(), new_job_id()
        waited = self.waiting(tenant, job)
        port = self.data_port()
        for pair in self.pairs():
            if pair.right.getHost().port == port:
                pair.right.abortConnection()
        self.reactor.settle()
        self.go_on.set()
        self.failure_of(waited, NotReachable, *NotReachable.__subclasses__())
        self.dialled()
        self.reactor.result_of(tenant.session(idle(tenant), job_id=job))
        self.assertNotIn(port, [dialled for _, dialled in self.dialled()])

    def data_port(self) -> int:
        (port,) = {pair.right.getHost().port for pair in self.pairs()} - {PORT}
        return int(port)

    def test_leaves(self) -> None:
        """A session moves on when its gateway is to stop, and the next one goes elsewhere on the
        same control channel."""
        tenant, job = self.connected(), new_job_id()
        waited = self.waiting(tenant, job, movable=lambda: True)
        port = self.data_port()
        self.leave(next(name for name, number in PORTS.items() if number == port))
        self.go_on.set()
        self.failure_of(waited, MovedOn)
        self.dialled()
        self.assertTrue(self.answers(tenant))
        self.reactor.result_of(tenant.session(idle(tenant), job_id=job))
        self.assertEqual({7003 - port + 7000}, {dialled for _, dialled in self.dialled()})
        self.assertEqual(["interrupted", "done"], self.states())

    def test_another_leaves(self) -> None:
        """A session through a gateway that stays is not bothered."""
        tenant = self.connected()
        waited = self.waiting(tenant, movable=lambda: True)
        port = self.data_port()
        self.leave(next(name for name, number in PORTS.items() if number != port))
        self.go_on.set()
        self.reactor.result_of(waited)

    def test_hangs(self) -> None:
        """A gateway that hangs keeps its connections: a session through it, whose control channel
        goes through it too, is given up within 51 s, and the next one goes through another."""
        tenant, job = self.connected(), new_job_id()
        del self.reactor.network[PORT]
        self.log_in(tenant)
        self.provider.service.nodes.advertise([])
        self.leave("two")
        waited = self.waiting(tenant, job, movable=lambda: True)
        self.assertEqual({7001}, {pair.right.getHost().port for pair in self.pairs()} - {PORT})
        self.freeze(7001)
        self.provider.service.leave(GATEWAY, "two", False)
        self.reactor.pass_time(PING_SECONDS + HANG_SECONDS + 1)
        self.go_on.set()
        self.failure_of(waited, MovedOn)
        self.dialled()
        self.log_in(tenant)
        self.assertEqual([PORT, 7002], [port for _, port in self.dialled()])
        self.reactor.result_of(tenant.session(idle(tenant), job_id=job))

    def test_only_way(self) -> None:
        """Where there is no other gateway, one that hangs is waited for as long as a peer may be
        silent."""
        tenant = self.connected()
        for name in PORTS:
            self.leave(name)
        tenant.manager._gateways._told.clear()
        tenant.manager._gateways._seen.clear()
        control = tenant.manager.control
        self.freeze(PORT)
        self.reactor.pass_time(PING_SECONDS + HANG_SECONDS + 1)
        self.assertIs(control, tenant.manager.control)
        self.reactor.pass_time(SILENCE_SECONDS)
        self.assertIsNone(control.transport)

    def freeze(self, port: int) -> None:
        """What comes to a port is not taken on any more, either way; nothing is closed."""
        for pair in self.pairs():
            if pair.right.getHost().port == port:
                for end in (pair.left, pair.right):
                    end.write = lambda data: None
                    end.writeSequence = lambda data: None

    def test_control_leaves(self) -> None:
        """A control channel through a gateway that is to stop is not used for another session."""
        tenant = self.connected()
        del self.reactor.network[PORT]
        self.log_in(tenant)
        self.leave("one")
        self.assertFalse(self.answers(tenant))
        self.dialled()
        self.log_in(tenant)
        self.assertEqual(7002, self.dialled()[0][1])
        self.assertTrue(self.answers(tenant))

    def answers(self, tenant: Tenant) -> bool:
        found: bool = self.come_to(Deferred.fromCoroutine(tenant.manager.answers()))
        return found
