"""Tests of :mod:`cloudconnect.transports.member`; the rest is in ``test_bundle``."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    ILoggingContext,
    IProtocol,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.interfaces import IBufferReceiver
from cloudconnect.testing import MemoryPair, Recorder
from cloudconnect.transports.bundle import Bundle


class MemberTests(SynchronousTestCase):
    """One connection of a bundle, in memory."""

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

    def test_interfaces(self) -> None:
        """A member provides what it claims."""
        member = self.bundle.member(1)
        for interface in (
            IProtocol,
            IHalfCloseableProtocol,
            IHandshakeListener,
            IBufferReceiver,
            ILoggingContext,
        ):
            verifyObject(interface, member)
        self.assertEqual(member.logPrefix(), "Recorder (bundle) (connection 1)")

    def test_two_reasons_not_to_read(self) -> None:
        """A member is read when the bundle is and when it is not ahead."""
        pair = self.connect(0)
        member = self.members[0]
        paused = []
        self.members.pauseProducing()
        paused.append(pair.left._paused)
        member.set_ahead(True)
        self.members.resumeProducing()
        paused.append(pair.left._paused)
        member.set_ahead(False)
        paused.append(pair.left._paused)
        self.assertEqual(paused, [True, True, False])

    def test_paused_before_it_came(self) -> None:
        """A member that comes while the bundle is paused is not read."""
        self.connect(0)
        self.bundle.pauseProducing()
        self.assertTrue(self.connect(1).left._paused)

    def test_second_connection(self) -> None:
        """A member has one connection; a second one is refused, and the first goes on."""
        self.connect(0)
        member = self.members[0]
        self.assertRaises(RuntimeError, member.makeConnection, MemoryPair(self.clock).left)
        self.assertRaises(RuntimeError, member.adopt, MemoryPair(self.clock).left)
        self.assertTrue(member.up)

    def test_adopt_any_transport(self) -> None:
        """Any transport may be adopted from the protocol that it has, and from its producer."""
        pair, first = MemoryPair(self.clock), Recorder()
        pair.connect(first, Recorder())
        pair.left.registerProducer(Recorder(), True)
        member = self.bundle.adopt(1, pair.left)
        self.assertIs(pair.left.protocol, member)
        self.assertTrue(member.up)
        self.bundle.write(b"hello")
        self.clock.advance(0)
        far: Any = pair.right.protocol
        self.assertTrue(far.data.endswith(b"hello"))
