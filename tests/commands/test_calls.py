"""Tests of :mod:`cloudconnect.commands.calls`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.protocols.amp import Command
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.calls import OpenCalls
from cloudconnect.errors import NotReachable, Truncated


class Ask(Command):
    """Is never answered."""


class OpenCallsTests(SynchronousTestCase):
    """Calls without an answer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls = OpenCalls(self.clock)

    def test_tags(self) -> None:
        """No tag is used twice, not even one whose call is over."""
        tags = [self.calls.new_tag() for _ in range(300)]
        self.assertEqual(300, len(set(tags)))
        self.calls.open(tags[0], Ask, None)
        self.calls.answered(tags[0])
        self.assertNotIn(self.calls.new_tag(), tags)

    def test_answered(self) -> None:
        """An answer finds its call once."""
        call = self.calls.open(b"1", Ask, 5)
        self.assertIsNone(self.calls.answered(b"2"))
        self.assertIs(call, self.calls.answered(b"1"))
        self.assertIsNone(self.calls.answered(b"1"))
        self.assertEqual(0, len(self.calls))

    def test_late(self) -> None:
        """A call that was given up still counts, until its answer comes."""
        call = self.calls.open(b"1", Ask, 5)
        self.clock.advance(5)
        self.assertIn("Ask within 5 s", str(self.failureResultOf(call.answer, NotReachable).value))
        self.assertEqual((True, 1), (call.given_up, len(self.calls)))
        self.assertIs(call, self.calls.answered(b"1"))

    def test_cancelled(self) -> None:
        """So does one that was cancelled; its timer does not stay."""
        call = self.calls.open(b"1", Ask, 5)
        call.answer.cancel()
        self.failureResultOf(call.answer)
        self.assertEqual((True, 1), (call.given_up, len(self.calls)))
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_fail(self) -> None:
        """All that are open fail, each once, and no timer stays."""
        late, open_, none = (self.calls.open(b"%d" % i, Ask, i or None) for i in (1, 2, 0))
        self.clock.advance(1)
        self.failureResultOf(late.answer, NotReachable)
        error = Truncated("cut")
        self.calls.fail(error)
        for call in (open_, none):
            self.assertIs(error, self.failureResultOf(call.answer).value)
        self.assertEqual((0, []), (len(self.calls), self.clock.getDelayedCalls()))
        self.calls.fail(error)
