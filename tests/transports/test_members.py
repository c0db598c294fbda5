"""Tests of :mod:`cloudconnect.transports.members`; the rest is in ``test_bundle``."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.bundle import Bundle
from cloudconnect.transports.members import NOWHERE


class MembersTests(SynchronousTestCase):
    """The connections of one bundle, in memory."""

    def setUp(self) -> None:
        """A bundle of three."""
        self.clock = Clock()
        self.bundle = Bundle(Recorder(), 3, self.clock)
        self.members = self.bundle._members

    def connect(self, index: int) -> MemoryPair:
        """Connect a member to somebody who listens."""
        pair = MemoryPair(self.clock)
        pair.connect(self.bundle.member(index), Recorder())
        return pair

    def test_address(self) -> None:
        """The addresses are those of the first that came, also when it has gone."""
        self.assertEqual((self.bundle.getPeer(), self.bundle.getHost()), (NOWHERE, NOWHERE))
        pair = self.connect(2)
        self.connect(0)
        self.assertEqual(self.bundle.getPeer(), pair.left.getPeer())
        self.assertEqual(self.bundle.getHost(), pair.left.getHost())

    def test_missing(self) -> None:
        """Those that have not come are counted."""
        self.assertEqual(self.members.missing, 3)
        self.connect(2)
        self.assertEqual(self.members.missing, 2)

    def test_next_open(self) -> None:
        """Of members with equal queues each has its turn; of others the one with least waiting."""
        self.assertIs(self.members.next_open(), None)
        for index in range(3):
            self.connect(index)
        taken = [self.members.next_open() for _ in range(4)]
        self.assertEqual([member.index for member in taken if member], [0, 1, 2, 0])
        for index, waiting in enumerate((500, 400, 300)):
            transport: Any = self.members[index].transport
            transport.waiting = waiting
        self.assertIs(self.members.next_open(), self.members[2])
        self.members[2]._gate.pauseProducing()
        self.assertIs(self.members.next_open(), self.members[1])
