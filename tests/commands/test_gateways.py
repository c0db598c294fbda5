"""Tests of :mod:`cloudconnect.commands.gateways`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.fields import read_fields, write_fields
from cloudconnect.commands.gateways import PublishRoute, Register
from cloudconnect.errors import ProtocolViolation
from tests.commands.boxes import read_again

ROUTE: dict[str, Any] = {
    "route": b"r" * 16,
    "backend": "here",
    "group": b"g" * 16,
    "rate": 0,
    "lifetime": 120_000,
}


class GatewayTests(SynchronousTestCase):
    """What a gateway and the service say to each other."""

    def test_round_trips(self) -> None:
        """Each arrives as it was sent; an older gateway does not say its pool."""
        for command, values in (
            (PublishRoute, ROUTE),
            (Register, {"advertise": "a.example.com:6180", "pool": "west"}),
            (Register, {"advertise": "", "pool": None}),
        ):
            self.assertEqual(values, read_again(command, values))

    def test_route_has_its_size(self) -> None:
        """A route id of another size is not published."""
        box = write_fields(ROUTE, PublishRoute.arguments, PublishRoute, None)
        box[b"route"] = b"r" * 17
        self.assertRaises(
            ProtocolViolation, read_fields, box, PublishRoute.arguments, PublishRoute, None
        )
