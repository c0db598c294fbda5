"""Tests of a data mover with as many sessions as it can have at a time."""

from __future__ import annotations

from cloudconnect.provider.data_mover import mover
from tests.tenant.test_moving import MovingCase


class BusyMoverTests(MovingCase):
    """A mover that can have one session at a time, and has it."""

    def setUp(self) -> None:
        self.patch(mover, "SESSIONS_MAX", 1)
        super().setUp()

    def test_others_are_answered(self) -> None:
        """Who lists restore points does not wait for the end of the session."""
        tenant = self.connected()
        waited = self.waiting(tenant)
        self.assertEqual([], self.reactor.result_of(tenant.manager.points()))
        self.go_on.set()
        self.reactor.result_of(waited)
