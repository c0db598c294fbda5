"""Tests of :mod:`cloudconnect.transports.flow`."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from cloudconnect.testing import (
    Flood,
)
from cloudconnect.transports.flow import ProducerSlot, PullAdapter, WriteGate


class FlowTests(SynchronousTestCase):
    """The two producers of the flow module."""

    def test_gate(self) -> None:
        """Only changes are told."""
        told: list[Any] = []
        gate = WriteGate(lambda: told.append(gate.paused), lambda: told.append("stop"))
        for call in (gate.resumeProducing, gate.pauseProducing, gate.pauseProducing):
            call()
        gate.resumeProducing()
        gate.stopProducing()
        self.assertEqual(told, [True, False, "stop"])

    def test_interfaces(self) -> None:
        """Both are push producers."""
        from twisted.internet.interfaces import IPushProducer

        verifyObject(IPushProducer, WriteGate(list, list))
        verifyObject(IPushProducer, PullAdapter(None, list, Clock()))

    def test_pull(self) -> None:
        """The producer is asked once a turn, not while paused, and never again once stopped."""
        asked: list[str] = []

        class Pulled:
            def resumeProducing(self) -> None:
                asked.append("pull")
                if len(asked) == 3:
                    adapter.pauseProducing()

            def stopProducing(self) -> None:
                asked.append("stop")

        clock = Clock()
        adapter = PullAdapter(Pulled(), list, clock)
        adapter.resumeProducing()
        adapter.resumeProducing()
        self.assertEqual(asked, [])
        clock.advance(0)
        clock.advance(0)
        self.assertEqual(asked, ["pull"] * 3)
        adapter.resumeProducing()
        adapter.stopProducing()
        clock.advance(0)
        self.assertEqual(asked, ["pull"] * 3 + ["stop"])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_slot(self) -> None:
        """One producer at a time; it hears of changes only, and of the end."""
        slot = ProducerSlot(Clock(), list)
        flood = Flood(None, -1)
        self.assertFalse(slot.registered)
        self.assertTrue(slot.register(flood, True, gone=False))
        self.assertRaises(RuntimeError, slot.register, flood, True, gone=False)
        for paused in (False, True, True, False, False):
            slot.pause(paused)
        self.assertEqual(flood.calls, ["pause", "resume"])
        slot.stop()
        slot.stop()
        slot.pause(True)
        self.assertEqual(flood.calls, ["pause", "resume", "stop"])
        self.assertFalse(slot.registered)

    def test_slot_of_gone_consumer(self) -> None:
        """A producer of a consumer that has gone is stopped, and not kept."""
        slot = ProducerSlot(Clock(), list)
        flood = Flood(None, -1)
        self.assertFalse(slot.register(flood, True, gone=True))
        self.assertEqual((flood.calls, slot.registered), (["stop"], False))

    def test_slot_pulls(self) -> None:
        """A pull producer is asked from the first resume on, until it is unregistered."""
        clock = Clock()
        slot = ProducerSlot(clock, list)
        pulled: list[int] = []

        class Pulled:
            def resumeProducing(self) -> None:
                pulled.append(1)
                if len(pulled) == 3:
                    slot.unregister()

        slot.register(Pulled(), False, gone=False)
        clock.advance(0)
        self.assertEqual(pulled, [])
        slot.pause(False)
        clock.advance(0)
        self.assertEqual(len(pulled), 3)
        self.assertEqual(clock.getDelayedCalls(), [])
