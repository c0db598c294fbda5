"""Tests of :mod:`cloudconnect.commands.keeping`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.keeping import AskOwner, SetRules
from tests.commands.boxes import read_again


class KeepingTests(SynchronousTestCase):
    """What the service has a mover do with restore points."""

    def test_round_trips(self) -> None:
        """Each arrives as it was sent."""
        for command, values in (
            (SetRules, {"repository": b"r" * 16, "rules": {"bin_days": 7}, "frozen": True}),
            (AskOwner, {"repository": b"r" * 16}),
        ):
            self.assertEqual(values, read_again(command, values))
