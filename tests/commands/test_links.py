"""Tests of :mod:`cloudconnect.commands.links`: two roles of one process."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.gateways import Register, RetireRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import NotReachable, ProtocolViolation, Refused


class Service(CommandLocator):
    """Answers Register."""

    @Register.responder
    def register(self, advertise: str, pool: str | None) -> dict[str, Any]:
        if not advertise:
            raise Refused("say where")
        return {"service": advertise.upper()}


class Gateway(CommandLocator):
    """Answers RetireRoute."""

    def __init__(self) -> None:
        super().__init__()
        self.routes: list[bytes] = []

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, Any]:
        self.routes.append(route)
        return {}


class LinkTests(SynchronousTestCase):
    """A link inside one process."""

    def setUp(self) -> None:
        self.clock, self.gateway = Clock(), Gateway()
        self.left, self.right = link_in_process(self.clock, Service(), self.gateway)

    def test_both_ways(self) -> None:
        """Either role calls the other, and gets its answer in a later turn, as over a network."""
        there = self.right.call(Register, advertise="here")
        back = self.left.call(RetireRoute, route=b"r" * 16)
        self.assertNoResult(there)
        self.clock.advance(0)
        self.assertEqual({"service": "HERE"}, self.successResultOf(there))
        self.assertEqual({}, self.successResultOf(back))
        self.assertEqual([b"r" * 16], self.gateway.routes)

    def test_refusal(self) -> None:
        """A role's error arrives as the same class with the same text."""
        there = self.right.call(Register, advertise="")
        self.clock.advance(0)
        error = self.failureResultOf(there, Refused)
        self.assertEqual("say where", str(error.value))

    def test_nothing_to_answer(self) -> None:
        """A role that answers nothing says that there is no such command."""
        left, right = link_in_process(self.clock, None, self.gateway)
        asked = right.call(Register, advertise="here")
        self.clock.advance(0)
        self.failureResultOf(asked, ProtocolViolation)

    def test_end(self) -> None:
        """When one role closes the link, the other's open calls fail, and later ones at once."""
        asked = self.right.call(Register, advertise="here")
        assert self.left.transport is not None
        self.left.transport.loseConnection()
        self.clock.advance(0)
        self.failureResultOf(asked, NotReachable)
        self.failureResultOf(self.right.call(Register, advertise="here"), NotReachable)
