"""Tests of :mod:`cloudconnect.commands.lan`: what the boxes of the LAN link carry."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.lan import HandKeyB, OfferKeyA
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from tests.commands.boxes import read_again

HANDED: dict[str, Any] = {
    "session": b"s" * 16,
    "tenant": "acme",
    "route": b"r" * 16,
    "hop": "source-mover>target-mover",
    "key_b": KeyB(bytes(range(32))),
    "integrity_key": IntegrityKey(bytes(range(32, 64))),
}


class LanTests(SynchronousTestCase):
    """The commands between roles."""

    def test_round_trips(self) -> None:
        """Each arrives as it was sent."""
        for command, values in (
            (OfferKeyA, {"package": {"session": b"s" * 16}, "key_a": KeyA(bytes(32))}),
            (HandKeyB, HANDED),
        ):
            self.assertEqual(values, read_again(command, values))

    def test_keys_are_needed(self) -> None:
        """The source mover gets both keys, or nothing is handed over."""
        for name in ("key_b", "integrity_key"):
            for wrong in (None, bytes(32), KeyA(bytes(32))):
                error = self.assertRaises(TypeError, read_again, HandKeyB, {**HANDED, name: wrong})
                self.assertIn(name, str(error))
