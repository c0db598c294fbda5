"""The sending half: what it answers, and what it refuses to answer."""

from __future__ import annotations

from typing import cast

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.dedup.cutting import ContentCutter
from cloudconnect.dedup.encoder import ASKED_MAX, Encoder
from cloudconnect.dedup.limits import BATCHES_MAX, WINDOW_MAX, WINDOW_MIN
from cloudconnect.dedup.memory import MemoryCache
from cloudconnect.dedup.messages import Ack, Batch, End, Hello, Message, MessageReader, Miss, Resend
from cloudconnect.errors import ProtocolViolation
from tests.dedup.pairs import noise


def read(messages: object) -> list[Message]:
    """What an encoder's messages say."""
    parts = [part for message in cast(list[list[bytes]], messages) for part in message]
    return list(MessageReader().receive(b"".join(parts)))


class EncoderTests(SynchronousTestCase):
    """An encoder without a far end."""

    def setUp(self) -> None:
        self.encoder = Encoder(MemoryCache(), ContentCutter())

    def tiny(self, count: int) -> list[Message]:
        """As many batches of a byte each."""
        found = []
        for _ in range(count):
            found += read([*self.encoder.feed(b"x"), *self.encoder.flush()])
        return found

    def test_numbers(self) -> None:
        """Batches are numbered, and END counts them."""
        found = [*self.tiny(3), *read(self.encoder.finish())]
        self.assertEqual([one.number for one in found[:3] if isinstance(one, Batch)], [0, 1, 2])
        self.assertEqual(found[3], End(3, 3))
        self.assertFalse(self.encoder.settled)
        read(self.encoder.acknowledged(Ack(2)))
        self.assertTrue(self.encoder.settled)

    def test_acknowledged(self) -> None:
        """What was not sent, or was acknowledged already, cannot be acknowledged."""
        self.tiny(3)
        self.assertRaises(ProtocolViolation, list, self.encoder.acknowledged(Ack(3)))
        list(self.encoder.acknowledged(Ack(1)))
        self.assertRaises(ProtocolViolation, list, self.encoder.acknowledged(Ack(1)))

    def test_missed(self) -> None:
        """Pieces are resent as often as an honest far end may ask, and no more."""
        read([*self.encoder.feed(noise(50_000)), *self.encoder.flush()])
        for _ in range(ASKED_MAX):
            resend = read(self.encoder.missed(Miss(0, [0])))[0]
            self.assertIsInstance(resend, Resend)
        self.assertRaises(ProtocolViolation, list, self.encoder.missed(Miss(0, [0])))

    def test_impossible(self) -> None:
        """Pieces that there are not, of batches that are not under way."""
        self.tiny(2)
        list(self.encoder.acknowledged(Ack(0)))
        for miss in (Miss(0, [0]), Miss(2, [0]), Miss(1, [1]), Miss(1, [0, 900])):
            self.assertRaises(ProtocolViolation, list, self.encoder.missed(miss))

    def test_window(self) -> None:
        """Bytes wait for the window that the far end greets with; the own one is not exceeded."""
        encoder = Encoder(MemoryCache(), ContentCutter(), window=2 * WINDOW_MIN)
        sent: list[Message] = []
        while encoder.ready:
            sent += read(encoder.feed(noise(500_000, len(sent))))
        plain = sum(one.plain for one in sent if isinstance(one, Batch))
        self.assertLessEqual(plain, WINDOW_MIN)
        later = read(encoder.greeted(Hello(WINDOW_MAX, False)))
        self.assertEqual(len(later), 1)
        self.assertTrue(encoder.ready)
        while encoder.ready:
            later += read(encoder.feed(noise(500_000, len(later))))
        plain += sum(one.plain for one in later if isinstance(one, Batch))
        self.assertLessEqual(plain, 2 * WINDOW_MIN)

    def test_many_batches(self) -> None:
        """So do batches, however small, and END behind them."""
        self.assertEqual(len(self.tiny(BATCHES_MAX + 5)), BATCHES_MAX)
        self.assertFalse(self.encoder.ready)
        self.assertEqual(read(self.encoder.finish()), [])
        self.assertRaises(ProtocolViolation, list, self.encoder.acknowledged(Ack(BATCHES_MAX)))
        self.assertRaises(ProtocolViolation, list, self.encoder.missed(Miss(BATCHES_MAX, [0])))
        later = read(self.encoder.acknowledged(Ack(4)))
        self.assertEqual(len(later), 6)
        self.assertIsInstance(later[-1], End)
