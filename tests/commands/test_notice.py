"""Tests of :mod:`cloudconnect.commands.notice`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.notice import PINS_MAX, Notice, read_pins
from cloudconnect.errors import ProtocolViolation

PIN = f"SPKI-SHA256:{'ab' * 32}"


class NoticeTests(SynchronousTestCase):
    """What a provider tells in good time."""

    def test_round_trip(self) -> None:
        """What was sent is read again; what a newer provider says besides does not matter."""
        notice = Notice(pins=(PIN,), address="new.example.com:6180")
        self.assertEqual(notice, Notice.from_map({**notice.as_map(), "later": 1}))
        self.assertTrue(notice)
        self.assertFalse(Notice())

    def test_unreadable(self) -> None:
        """What cannot be read is refused: of other types, too many, too long, or no address."""
        wrong: list[Any] = [
            None,
            [],
            {"pins": PIN},
            {"pins": [1]},
            {"pins": [f"SHA256:{'ab' * 32}"]},
            {"pins": ["x" * 10_000]},
            {"pins": [PIN] * (PINS_MAX + 1)},
            {"address": 1},
            {"address": "no port"},
            {"address": "x" * 1000 + ":1"},
        ]
        for values in wrong:
            self.assertRaises(ProtocolViolation, Notice.from_map, values)

    def test_pins(self) -> None:
        """Each pin once, in one spelling."""
        self.assertEqual(
            (PIN,), read_pins([PIN, PIN.lower().replace("spki-sha256", "SPKI-SHA256")])
        )
