"""Tests of :mod:`cloudconnect.transports.bundle`: the contract, and what is a bundle's own."""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from cloudconnect.testing import MemoryContract, Recorder, TCPContract, Wire
from cloudconnect.testing.contract import Pieces
from cloudconnect.transports.bundle import Bundle
from cloudconnect.transports.members import BundleMember
from cloudconnect.transports.memory import PIECE
from cloudconnect.transports.recipe import LayerFactory


class BundleContract:
    """How a bundle lies around a factory: the first member is what the factory builds."""

    members = 1
    cipher = False
    handshake = False
    reactor: Any

    def _factory(self, factory: Any) -> Any:
        return LayerFactory(
            factory, lambda p: Bundle(p, self.members, self.reactor).member(0), Bundle.name
        )

    client_factory = server_factory = _factory


class OneMemberOverMemoryTests(BundleContract, MemoryContract, TestCase):
    """A bundle of one connection in memory."""


class OneMemberOverTCPTests(BundleContract, TCPContract, TestCase):
    """A bundle of one TCP connection."""


class FourMembersOverMemoryTests(BundleContract, MemoryContract, TestCase):
    """A bundle of four connections in memory; somebody is in the middle of the first."""

    members = 4
    more: list[Wire]

    def begin(self, client: Any, server: Any, piece: Pieces = lambda: PIECE) -> Wire:
        """Connect the first members, then the others."""
        wire = super().begin(client, server, piece)
        self.more = []
        first: list[Any] = [wire.client.protocol, wire.server.protocol]
        while all(isinstance(member, BundleMember) for member in first):
            users = [member._members.user for member in first]
            for index in range(1, self.members):
                self.more.append(Wire(self.reactor, piece))
                self.more[-1].connect(*(user.member(index) for user in users))
            first = [user.wrappedProtocol for user in users]
        return wire

    def until(self, condition: Any) -> Any:
        """Members find out one after the other."""
        self.reactor.advance(0)
        return super().until(condition)


def placeholder() -> Recorder:
    return Recorder()
