"""Tests of :mod:`cloudconnect.provider.nodes.registrations`: gateways that come and go."""

from __future__ import annotations

from cloudconnect.commands.gateways import PublishRoute
from cloudconnect.provider.service.planning import GatewayPlace
from tests.certificates import Authority
from tests.provider.lan_parts import ADVERTISED, BACKEND, LanCase


class RegistrationTests(LanCase):
    """How a gateway of its own process registers, over mutual TLS."""

    def test_registers(self) -> None:
        """The service knows the gateway and its address, the gateway where TLS goes."""
        self.serve()
        self.start()
        self.assertEqual([BACKEND], self.registered)
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED, "edge")], self.places)

    def test_routes_on_the_same_line(self) -> None:
        """The service publishes routes on the line that the gateway has opened."""
        self.serve()
        gateway = self.start()
        route = b"r" * 16
        values = {"backend": BACKEND, "group": b"g" * 16, "rate": 0, "lifetime": 60_000}
        answer = self.made[0].call(PublishRoute, route=route, **values)
        self.reactor.settle()
        self.successResultOf(answer)
        target = gateway.target(route)
        assert target is not None
        self.assertEqual(BACKEND, target.description)

    def test_gone(self) -> None:
        """A gateway whose line is lost is not there any more; it comes back by itself."""
        self.serve()
        self.start()
        self.made[0].transport.abortConnection()
        self.reactor.settle()
        self.assertEqual([GatewayPlace()], self.places)
        self.reactor.pass_time(60)
        self.assertEqual([GatewayPlace(), GatewayPlace(BACKEND, ADVERTISED, "edge")], self.places)
        self.assertEqual([BACKEND] * 2, self.registered)

    def test_changed(self) -> None:
        """A gateway that is for another pool, or reached elsewhere, says so on the same line; where
        there is none, on the next one."""
        self.serve()
        self.start()
        self.registration.change("other.example.com:6180", "west")
        self.reactor.settle()
        place = GatewayPlace(BACKEND, "other.example.com:6180", "edge", "west")
        self.assertEqual([GatewayPlace(), place], self.places)
        self.assertEqual(1, len(self.made))
        self.made[0].transport.abortConnection()
        self.reactor.settle()
        self.registration.change(ADVERTISED, "east")
        self.reactor.pass_time(60)
        place = GatewayPlace(BACKEND, ADVERTISED, "edge", "east")
        self.assertEqual([GatewayPlace(), place], self.places)

    def test_no_back_end(self) -> None:
        """A provider that is not set up for gateways on other hosts says so."""
        self.serve("")
        self.start()
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))
        self.assertIn("no back-end port", self.log_text())

    def test_changed_after_a_failure(self) -> None:
        """Nothing is said on a line on which the gateway could not register; the next one is told
        of what has changed since."""
        self.serve("")
        self.start()
        self.registration.change("other.example.com:6180", "west")
        self.reactor.settle()
        self.assertNotIn("was not told of a change", self.log_text())
        self.assertIsNone(self.registration._line)
        self.reactor.result_of(self.registration.stopService())

    def test_other_role(self) -> None:
        """A node that is no gateway by its certificate cannot register."""
        self.serve()
        self.start(self.tls("mover", "edge", "service"))
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))

    def test_other_authority(self) -> None:
        """Nor can one that another authority has named."""
        self.serve()
        self.start(self.tls("gateway", "edge", "service", authority=Authority("another LAN")))
        self.assertEqual(([], [GatewayPlace()]), (self.registered, self.places))

    def test_tries_again(self) -> None:
        """As long as it cannot register it tries again, ever more slowly, on one line at a time."""
        self.serve("")
        self.start()
        self.reactor.pass_time(600)
        self.assertTrue(5 < len(self.made) < 60, len(self.made))
        self.assertEqual([], [made for made in self.made if made.transport is not None])

    def test_not_there(self) -> None:
        """A service that is not there yet is found once it is."""
        self.start()
        self.assertEqual([], self.registered)
        self.serve()
        self.reactor.pass_time(60)
        self.assertEqual([BACKEND], self.registered)

    def test_stopped(self) -> None:
        """A gateway that stops closes its line and opens no other."""
        self.serve()
        self.start()
        self.reactor.result_of(self.registration.stopService())
        self.reactor.pass_time(600)
        self.assertEqual(([GatewayPlace()], 1), (self.places, len(self.made)))

    def test_stopped_while_waiting(self) -> None:
        """Nor does one that waits for its next attempt."""
        self.start()
        self.reactor.result_of(self.registration.stopService())
        self.serve()
        self.reactor.pass_time(600)
        self.assertEqual([], self.made)
