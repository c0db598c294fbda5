"""Tests of :mod:`cloudconnect.transports.liveness`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.settings import (
    PING_SECONDS,
    RECORD_PAYLOAD_PLAIN,
    RECORD_SECONDS,
    SILENCE_SECONDS,
)
from cloudconnect.transports.liveness import Liveness


class LivenessTests(SynchronousTestCase):
    """A peer that goes on is kept, one that does not is given up."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.pings: list[float] = []
        self.looks = 0
        self.reasons: list[Exception] = []
        self.on_look = lambda: None
        self.liveness = Liveness(
            self.clock,
            lambda: self.pings.append(self.clock.seconds()),
            self.look,
            self.reasons.append,
        )
        self.liveness.start()

    def look(self) -> None:
        self.looks += 1
        self.on_look()

    def pass_time(self, seconds: float) -> None:
        """Second by second, as timers see it."""
        for _ in range(int(seconds)):
            self.clock.advance(1)

    def test_ping_when_idle(self) -> None:
        """A PING is due each PING_SECONDS in which nothing was sent."""
        self.pass_time(PING_SECONDS - 1)
        self.assertEqual(self.pings, [])
        self.pass_time(1 + PING_SECONDS)
        self.assertEqual(self.pings, [PING_SECONDS, 2 * PING_SECONDS])

    def test_no_ping_while_sending(self) -> None:
        """What is sent puts the PING off."""
        self.pass_time(PING_SECONDS - 1)
        self.liveness.sent()
        self.pass_time(PING_SECONDS - 1)
        self.assertEqual(self.pings, [])
        self.pass_time(1)
        self.assertEqual(self.pings, [2 * PING_SECONDS - 1])

    def test_silence(self) -> None:
        """A peer that sends nothing at all is given up after SILENCE_SECONDS, once."""
        self.pass_time(SILENCE_SECONDS - 1)
        self.assertEqual(self.reasons, [])
        self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)
        self.assertIn("nothing came", str(self.reasons[0]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_heard(self) -> None:
        """Any byte heard begins the silence anew."""
        for count in range(1, 11):
            self.pass_time(SILENCE_SECONDS - 1)
            self.liveness.heard(count, 0 if count % 2 else count, False)
        self.assertEqual(self.reasons, [])
        self.pass_time(SILENCE_SECONDS)
        self.assertEqual(len(self.reasons), 1)

    def test_record_does_not_go_on(self) -> None:
        """A record that has started and stops is given up after RECORD_SECONDS."""
        self.pass_time(5)
        self.liveness.heard(20, 0, True)
        self.pass_time(RECORD_SECONDS - 1)
        self.assertEqual(self.reasons, [])
        self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)
        self.assertIn("a record has started", str(self.reasons[0]))

    def test_record_that_trickles(self) -> None:
        """Single bytes do not keep a record alive."""
        for second in range(int(RECORD_SECONDS)):
            self.liveness.heard(20 + second, 0, True)
            self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)

    def test_slow_large_record(self) -> None:
        """A record that grows by RECORD_PAYLOAD_PLAIN in each RECORD_SECONDS may take long."""
        for step in range(16):
            self.liveness.heard(20 + step * RECORD_PAYLOAD_PLAIN, 0, True)
            self.pass_time(RECORD_SECONDS - 1)
        self.assertEqual(self.reasons, [])
        self.liveness.heard(20 + 16 * RECORD_PAYLOAD_PLAIN - 1, 0, True)
        self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)

    def test_record_after_record(self) -> None:
        """Each record that is completed gives the next one its own time."""
        for number in range(20):
            self.liveness.heard(20 * number, number, True)
            self.pass_time(RECORD_SECONDS - 1)
        self.assertEqual(self.reasons, [])
        self.liveness.heard(1000, 21, False)
        self.pass_time(RECORD_SECONDS + 1)
        self.assertEqual(self.reasons, [])

    def test_not_while_we_do_not_read(self) -> None:
        """Nothing is held against the peer while our own side does not read; PINGs go on."""
        self.liveness.heard(20, 0, True)
        self.liveness.reading(False)
        self.pass_time(10 * SILENCE_SECONDS)
        self.assertEqual(self.reasons, [])
        self.assertEqual(len(self.pings), 10 * SILENCE_SECONDS // PING_SECONDS)
        self.liveness.reading(True)
        self.pass_time(RECORD_SECONDS - 1)
        self.assertEqual(self.reasons, [])
        self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)

    def test_reading_again_and_again(self) -> None:
        """That we go on reading counts only where we had stopped."""
        self.pass_time(SILENCE_SECONDS - 1)
        self.liveness.reading(True)
        self.pass_time(1)
        self.assertEqual(len(self.reasons), 1)

    def test_looks_before_giving_up(self) -> None:
        """What had come unnoticed is taken in before the peer is given up."""
        self.on_look = lambda: self.liveness.heard(20, 1, False)
        self.pass_time(SILENCE_SECONDS)
        self.assertEqual((self.looks, self.reasons), (1, []))

    def test_stopped_by_a_look(self) -> None:
        """What is found may end the connection."""
        self.on_look = self.liveness.stop
        self.pass_time(2 * SILENCE_SECONDS)
        self.assertEqual((self.looks, self.reasons), (1, []))

    def test_stop(self) -> None:
        """No timer is left, and none is begun by what is reported later."""
        self.liveness.stop()
        self.liveness.stop()
        self.liveness.heard(20, 0, True)
        self.liveness.reading(False)
        self.liveness.reading(True)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """However busy the connection is, it has one timer."""
        for number in range(1000):
            self.liveness.heard(number * 1000, number, bool(number % 3))
            self.liveness.sent()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
