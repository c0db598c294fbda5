"""Tests of :mod:`cloudconnect.transports.admission`, and of the switch that asks it."""

from __future__ import annotations

import resource
import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.settings import PREAMBLE_SECONDS
from cloudconnect.testing import Recorder
from cloudconnect.transports.admission import (
    RESERVED_DESCRIPTORS,
    Admission,
    descriptors_for,
    holder_of,
)
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.switch import FactoryTarget, FirstBytesFactory, Outcome
from tests.transports.sockets import Sockets


class HolderTests(SynchronousTestCase):
    """Whose a connection is."""

    def test_addresses(self) -> None:
        """An IPv4 address, also where it comes as IPv6, and an IPv6 network; nobody's otherwise."""
        for address, holder in (
            (IPv4Address("TCP", "192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "::ffff:192.0.2.7", 1), "192.0.2.7"),
            (IPv6Address("TCP", "2001:db8:1:2:3::7", 1), "2001:db8:1:2::/64"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::/64"),
            (UNIXAddress(b"/socket"), ""),
        ):
            self.assertEqual(holder, holder_of(address))


class AdmissionTests(SynchronousTestCase):
    """Counting."""

    def test_changed(self) -> None:
        """Other bounds hold from then on, and who is in stays."""
        admission = Admission(2, 1)
        self.assertEqual([True, False, True], [admission.enter(holder) for holder in "aab"])
        admission.change(4, 2)
        self.assertEqual([True, False, True, False], [admission.enter(h) for h in "aabc"])
        admission.change(1, 1)
        self.assertEqual(4, admission.count)
        self.assertFalse(admission.enter("c"))

    def test_bounds(self) -> None:
        """No more than so many, in all and of one; who has left makes room."""
        admission = Admission(4, 2)
        entered = [admission.enter(holder) for holder in "aaabbb"]
        self.assertEqual([True, True, False, True, True, False], entered)
        self.assertFalse(admission.enter("c"))
        self.assertEqual(4, admission.count)
        admission.leave("a")
        self.assertFalse(admission.enter("b"))
        self.assertTrue(admission.enter("a"))

    def test_nobody(self) -> None:
        """What has no address counts in all, and for nobody."""
        admission = Admission(3, 1)
        self.assertEqual([True, True, True, False], [admission.enter("") for _ in range(4)])

    def test_descriptors(self) -> None:
        """There are no more connections than descriptors allow."""
        limit, endless = [RESERVED_DESCRIPTORS + 100], resource.RLIM_INFINITY
        self.patch(
            resource,
            "getrlimit",
            lambda kind: (limit[0], endless),
        )
        self.assertEqual([50, 10], [descriptors_for(wanted, 2) for wanted in (1000, 10)])
        limit[0] = 10
        self.assertEqual(1, descriptors_for(1000, 2))
        limit[0] = endless
        self.assertEqual(1000, descriptors_for(1000, 2))


class SwitchTests(SynchronousTestCase):
    """What the switch does with it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.admission = Admission(2, 2)
        self.made: list[Recorder] = []
        self.target = FactoryTarget(Factory.forProtocol(self.build), "service")
        self.factory = FirstBytesFactory(
            lambda route: None, self.target, self.clock, admission=self.admission
        )

    def build(self) -> Recorder:
        self.made.append(Recorder())
        return self.made[-1]

    def connect(self) -> tuple[MemoryPair, Recorder]:
        pair, client = MemoryPair(self.clock), Recorder()
        protocol: Any = self.factory.buildProtocol(None)  # type: ignore[arg-type]
        pair.connect(client, protocol)
        self.clock.advance(0)
        return pair, client

    def test_crowded(self) -> None:
        """One too many is closed at once; when another has gone there is room again, whatever its
        protocol was by then."""
        first, _ = self.connect()
        first.left.write(b"\x16\x03\x01 TLS")
        second, _ = self.connect()
        _, third = self.connect()
        self.assertEqual((1, 1), (third.losses, self.factory.counts[Outcome.CROWDED]))
        self.assertEqual(2, self.admission.count)
        first.left.loseConnection()
        self.clock.advance(0)
        self.assertEqual((1, 1), (self.admission.count, self.made[0].losses))
        _, fourth = self.connect()
        self.assertEqual(0, fourth.losses)

    def test_silent(self) -> None:
        """Who says nothing is closed after a time limit, and counted no longer."""
        _, silent = self.connect()
        self.clock.advance(PREAMBLE_SECONDS)
        self.clock.advance(0)
        self.assertEqual((1, 0), (silent.losses, self.admission.count))

    def test_sockets(self) -> None:
        """The same with real sockets."""
        sockets = Sockets()
        self.addCleanup(sockets.close)
        client = socket.create_connection(sockets._listen(self.factory))
        sockets.until(lambda: self.admission.count == 1)
        client.sendall(b"\x16\x03\x01 TLS")
        sockets.until(lambda: self.made)
        client.close()
        sockets.until(lambda: self.made[0].losses)
        self.assertEqual(0, self.admission.count)
