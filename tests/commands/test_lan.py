"""Tests of :mod:`cloudconnect.commands.lan`: what the boxes of the LAN link carry."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.fields import read_fields, write_fields
from cloudconnect.commands.lan import HandKeyB, ListRepositoryPoints, OfferKeyA, PublishRoute
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import IntegrityKey, KeyA, KeyB

HANDED: dict[str, Any] = {
    "session": b"s" * 16,
    "tenant": "acme",
    "route": b"r" * 16,
    "hop": "source-mover>target-mover",
    "key_b": KeyB(bytes(range(32))),
    "integrity_key": IntegrityKey(bytes(range(32, 64))),
}
ROUTE: dict[str, Any] = {
    "route": b"r" * 16,
    "backend": "here",
    "group": b"g" * 16,
    "rate": 0,
    "lifetime": 120_000,
}


class LanTests(SynchronousTestCase):
    """The commands between roles."""

    def read(self, command: Any, values: dict[str, Any]) -> Any:
        box = write_fields(values, command.arguments, command, None)
        return read_fields(box, command.arguments, command, None)

    def test_round_trips(self) -> None:
        """Each arrives as it was sent."""
        query = {"host": "", "job": "", "tag": "", "after": 0, "limit": 500, "states": None}
        for command, values in (
            (OfferKeyA, {"package": {"session": b"s" * 16}, "key_a": KeyA(bytes(32))}),
            (PublishRoute, ROUTE),
            (HandKeyB, HANDED),
            (ListRepositoryPoints, {"repository": b"r" * 16, **query}),
        ):
            self.assertEqual(values, self.read(command, values))

    def test_keys_are_needed(self) -> None:
        """The source mover gets both keys, or nothing is handed over."""
        for name in ("key_b", "integrity_key"):
            for wrong in (None, bytes(32), KeyA(bytes(32))):
                error = self.assertRaises(TypeError, self.read, HandKeyB, {**HANDED, name: wrong})
                self.assertIn(name, str(error))

    def test_route_has_its_size(self) -> None:
        """A route id of another size is not published."""
        box = write_fields(ROUTE, PublishRoute.arguments, PublishRoute, None)
        box[b"route"] = b"r" * 17
        self.assertRaises(
            ProtocolViolation, read_fields, box, PublishRoute.arguments, PublishRoute, None
        )
