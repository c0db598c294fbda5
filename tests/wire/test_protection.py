"""One direction of records: :mod:`cloudconnect.wire.protection`."""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    KeyForgotten,
    NonceExhausted,
    ProtocolViolation,
    Tampered,
)
from cloudconnect.keys import Secret
from cloudconnect.settings import EPOCH_MAX, RECORD_PAYLOAD_MAX
from cloudconnect.wire.protection import (
    HEADER_SIZE,
    TAG_SIZE,
    RecordOpener,
    RecordSealer,
    RecordType,
)
from cloudconnect.wire.schedule import TrafficSecret

OVERHEAD = HEADER_SIZE + TAG_SIZE
DATA = RecordType.DATA


def traffic() -> TrafficSecret:
    """The same traffic secret each time."""
    return TrafficSecret(Secret(b"k" * 32), b"context", 0, 0, bytes(64))


def pair(**limits: float) -> tuple[RecordSealer, RecordOpener]:
    """A sealer and the opener that fits it; ``limits`` are the sealer's."""
    return RecordSealer(traffic(), **limits), RecordOpener(traffic())  # type: ignore[arg-type]


def give(opener: RecordOpener, record: bytes) -> tuple[RecordType, bytes]:
    """Open one whole record."""
    kind, length = opener.header(record[:HEADER_SIZE])
    if length != len(record) - HEADER_SIZE:
        raise AssertionError("not one whole record")
    return kind, opener.open(record[:HEADER_SIZE], record[HEADER_SIZE:])


def forge(kind: int, payload: bytes, sequence: int = 0, flags: int = 0, epoch: int = 0) -> bytes:
    """A record with a good tag that no sealer would make: what a bad peer can send."""
    key = traffic().record_key()
    nonce = (int.from_bytes(key.iv, "big") ^ sequence).to_bytes(12, "big")
    header = struct.pack(">BBHI", kind, flags, epoch, len(payload) + TAG_SIZE)
    return header + AESGCM(key.key.reveal()).encrypt(nonce, payload, header)


class SealerTests(SynchronousTestCase):
    """Making records."""

    def test_bytes(self) -> None:
        """Records are what section 6 says, computed another way: header, nonces, tag."""
        sealer, _ = pair()
        for sequence, payload in enumerate((b"one", b"two", b"three")):
            self.assertEqual(sealer.seal(DATA, payload), forge(1, payload, sequence))
        self.assertEqual(
            sealer.end(), forge(3, (11).to_bytes(8, "big") + (3).to_bytes(8, "big"), 3)
        )

    def test_into_a_buffer(self) -> None:
        """A record is written where the caller says, and nothing behind it is touched."""
        sealer, _ = pair()
        buffer = bytearray(b"\xee" * 100)
        written = sealer.seal_into(DATA, memoryview(b"payload"), memoryview(buffer)[10:])
        self.assertEqual(written, OVERHEAD + 7)
        self.assertEqual(buffer[10 : 10 + written], forge(1, b"payload"))
        self.assertEqual(buffer[:10] + buffer[10 + written :], b"\xee" * (100 - written))

    def test_buffer_too_small(self) -> None:
        """Where a record does not fit, nothing is written and no number is used up."""
        sealer, _ = pair()
        buffer = bytearray(OVERHEAD + 2)
        with self.assertRaises(ValueError):
            sealer.seal_into(DATA, b"abc", memoryview(buffer))
        self.assertEqual(buffer, bytes(OVERHEAD + 2))
        self.assertEqual(sealer.seal(DATA, b"abc"), forge(1, b"abc"))

    def test_sizes(self) -> None:
        """Each type refuses a payload that it cannot have."""
        sealer, _ = pair()
        for kind, size in (
            (DATA, 0),
            (DATA, RECORD_PAYLOAD_MAX + 1),
            (RecordType.ABORT, 1),
            (RecordType.ABORT, 3),
            (RecordType.PING, 7),
            (RecordType.PONG, 9),
        ):
            with self.assertRaises(ValueError):
                sealer.seal(kind, bytes(size))
        self.assertEqual(sealer.records, 0)

    def test_largest_record(self) -> None:
        """A record of 1 MiB goes through."""
        sealer, opener = pair()
        payload = bytes(RECORD_PAYLOAD_MAX)
        self.assertEqual(give(opener, sealer.seal(DATA, payload)), (DATA, payload))

    def test_end_and_rekey_have_their_own_methods(self) -> None:
        """Totals and epochs are the sealer's business: a caller cannot make them up."""
        sealer, _ = pair()
        for kind, payload in ((RecordType.END, bytes(16)), (RecordType.REKEY, b"")):
            with self.assertRaises(ValueError):
                sealer.seal(kind, payload)
            with self.assertRaises(ValueError):
                sealer.seal_into(kind, payload, memoryview(bytearray(100)))

    def test_after_end(self) -> None:
        """After END only PING, PONG, REKEY and ABORT can be sealed."""
        sealer, opener = pair()
        give(opener, sealer.end())
        self.assertTrue(sealer.ended and opener.ended)
        with self.assertRaises(RuntimeError):
            sealer.seal(DATA, b"more")
        with self.assertRaises(RuntimeError):
            sealer.end()
        for record in (
            sealer.seal(RecordType.PING, b"12345678"),
            sealer.rekey(),
            sealer.seal(RecordType.PONG, b"12345678"),
            sealer.seal(RecordType.ABORT, b"\x01\x02"),
        ):
            give(opener, record)
        self.assertEqual((sealer.abort_code, opener.abort_code), (258, 258))

    def test_after_abort(self) -> None:
        """After ABORT nothing at all can be sealed."""
        sealer, _ = pair()
        sealer.seal(RecordType.ABORT, b"\0\0")
        self.assertEqual(sealer.abort_code, 0)
        with self.assertRaises(RuntimeError):
            sealer.seal(RecordType.PING, bytes(8))
        for make in (sealer.end, sealer.rekey):
            with self.assertRaises(RuntimeError):
                make()

    def test_nonces_do_not_wrap(self) -> None:
        """The last of 2**64 sequence numbers can be used, and there is none after it."""
        sealer, _ = pair()
        sealer._sequence = 2**64 - 1
        self.assertEqual(sealer.seal(DATA, b"x"), forge(1, b"x", 2**64 - 1))
        with self.assertRaises(NonceExhausted):
            sealer.seal(DATA, b"x")

    def test_forget(self) -> None:
        """A sealer that has forgotten its keys seals nothing."""
        sealer, _ = pair()
        sealer.forget()
        with self.assertRaises(KeyForgotten):
            sealer.seal(DATA, b"x")
        with self.assertRaises(KeyForgotten):
            sealer.rekey()


class RekeyTests(SynchronousTestCase):
    """When keys change, and that they do."""

    def test_due_by_bytes(self) -> None:
        """A new key is due when an epoch has carried its bytes of payload, and then not."""
        sealer, _ = pair(rekey_bytes=10)
        sealer.seal(DATA, bytes(9))
        sealer.seal(RecordType.PING, bytes(8))
        self.assertFalse(sealer.rekey_due(0.0))
        sealer.seal(DATA, bytes(1))
        self.assertTrue(sealer.rekey_due(0.0))
        self.assertTrue(sealer.rekey_due())
        sealer.rekey()
        self.assertFalse(sealer.rekey_due(0.0))

    def test_due_by_time(self) -> None:
        """A new key is due some seconds after the first question, and after each change."""
        sealer, _ = pair(rekey_seconds=600.0)
        self.assertFalse(sealer.rekey_due(1000.0))
        self.assertFalse(sealer.rekey_due(1599.9))
        self.assertTrue(sealer.rekey_due(1600.0))
        self.assertFalse(sealer.rekey_due())
        sealer.rekey()
        self.assertFalse(sealer.rekey_due(2199.9))
        self.assertTrue(sealer.rekey_due(2200.0))

    def test_new_key_and_numbers_from_zero(self) -> None:
        """After REKEY a record has the next epoch, another key, and sequence number 0."""
        sealer, opener = pair()
        give(opener, sealer.seal(DATA, b"before"))
        first = sealer.commitment
        give(opener, sealer.rekey())
        self.assertEqual((sealer.epoch, opener.epoch), (1, 1))
        self.assertNotEqual(sealer.commitment, first)
        record = sealer.seal(DATA, b"after")
        chain = traffic()
        chain.advance()
        key = chain.record_key()
        self.assertEqual(
            AESGCM(key.key.reveal()).decrypt(key.iv, record[8:], b"\x01\0\0\x01\0\0\0\x15"),
            b"after",
        )
        self.assertEqual(give(opener, record), (DATA, b"after"))

    def test_totals_count_over_epochs(self) -> None:
        """END's totals are the connection's, not the epoch's."""
        sealer, opener = pair()
        for record in (sealer.seal(DATA, b"abc"), sealer.rekey(), sealer.seal(DATA, b"de")):
            give(opener, record)
        self.assertEqual(give(opener, sealer.end())[1], struct.pack(">QQ", 5, 2))

    def test_old_epoch_is_refused(self) -> None:
        """A record of the epoch before, though genuine, is refused by its header alone."""
        sealer, opener = pair()
        old = sealer.seal(DATA, b"x")
        give(opener, old)
        give(opener, sealer.rekey())
        with self.assertRaises(Tampered):
            opener.header(old[:HEADER_SIZE])

    def test_last_epoch(self) -> None:
        """In the last epoch there is no REKEY, and END is still possible."""
        sealer, opener = pair()
        for side in (sealer, opener):
            side._traffic.epoch = EPOCH_MAX
        with self.assertRaises(NonceExhausted):
            sealer.rekey()
        self.assertEqual(give(opener, sealer.seal(DATA, b"last")), (DATA, b"last"))
        give(opener, sealer.end())
        self.assertTrue(opener.ended)

    def test_peer_leaves_the_last_epoch(self) -> None:
        """A REKEY of epoch 65535 is refused by its header."""
        _, opener = pair()
        opener._traffic.epoch = EPOCH_MAX
        with self.assertRaises(Tampered):
            opener.header(struct.pack(">BBHI", 2, 0, EPOCH_MAX, 16))

    def test_sender_stops_at_the_hard_limit(self) -> None:
        """A caller that never changes the key is stopped where the peer would close."""
        sealer, opener = pair(epoch_bytes_max=10)
        give(opener, sealer.seal(DATA, bytes(10)))
        with self.assertRaises(NonceExhausted):
            sealer.seal(DATA, bytes(1))
        give(opener, sealer.rekey())
        give(opener, sealer.seal(DATA, bytes(1)))

    def test_receiver_closes_at_the_hard_limit(self) -> None:
        """A peer that uses one key for too many bytes has broken the protocol."""
        sealer, opener = RecordSealer(traffic()), RecordOpener(traffic(), epoch_bytes_max=10)
        give(opener, sealer.seal(DATA, bytes(6)))
        give(opener, sealer.rekey())
        give(opener, sealer.seal(DATA, bytes(10)))
        with self.assertRaises(ProtocolViolation):
            give(opener, sealer.seal(DATA, bytes(1)))
        with self.assertRaises(ProtocolViolation):
            opener.header(sealer.seal(DATA, bytes(1))[:HEADER_SIZE])


class OpenerTests(SynchronousTestCase):
    """Reading records, and refusing them."""

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
    def test_there_and_back(self, payloads: list[bytes]) -> None:
        """What was sealed is opened, in both ways of opening, and the counters agree."""
        sealer, opener = pair()
        _, other = pair()
        out = memoryview(bytearray(400))
        for payload in payloads:
            record = memoryview(sealer.seal(DATA, payload))
            self.assertEqual(opener.open(record[:8], record[8:]), payload)
            size = other.open_into(record[:8], record[8:], out)
            self.assertEqual(out[:size], payload)
        for side in (sealer, opener, other):
            self.assertEqual(side.data_bytes, sum(map(len, payloads)))
            self.assertEqual(side.data_records, len(payloads))

    def test_impossible_headers(self) -> None:
        """Every header that no sealer makes is refused before its ciphertext is there."""
        for header in (
            (0, 0, 0, 17),  # unknown types
            (7, 0, 0, 17),
            (255, 0, 0, 17),
            (1, 1, 0, 17),  # flags
            (1, 0, 1, 17),  # epochs
            (1, 0, 65535, 17),
            (1, 0, 0, 16),  # empty DATA
            (1, 0, 0, 0),
            (1, 0, 0, 15),
            (1, 0, 0, (1 << 20) + 17),
            (1, 0, 0, 0xFFFFFFFF),
            (2, 0, 0, 17),
            (3, 0, 0, 16),
            (3, 0, 0, 33),
            (4, 0, 0, 17),
            (5, 0, 0, 25),
            (6, 0, 0, 23),
        ):
            _, opener = pair()
            with self.assertRaises(Tampered):
                opener.header(struct.pack(">BBHI", *header))
            self.assertIsInstance(opener.failure, Tampered)

    def test_longest_header(self) -> None:
        """The longest DATA has 1 MiB of payload."""
        _, opener = pair()
        header = struct.pack(">BBHI", 1, 0, 0, (1 << 20) + 16)
        self.assertEqual(opener.header(header), (DATA, (1 << 20) + 16))

    def test_every_flipped_bit(self) -> None:
        """Each single bit of a record counts; what was decrypted meanwhile is wiped."""
        record = RecordSealer(traffic()).seal(DATA, b"canary")
        for bit in range(len(record) * 8):
            changed = bytearray(record)
            changed[bit // 8] ^= 1 << bit % 8
            opener = RecordOpener(traffic())
            out = bytearray(b"\xee" * 6)
            with self.assertRaises((Tampered, ValueError)) as caught:
                opener.open_into(changed[:8], changed[8:], memoryview(out))
            if isinstance(caught.exception, Tampered):
                self.assertIs(opener.failure, caught.exception)
            else:  # the length says that the record is not complete: the caller's buffer is wrong
                self.assertTrue(32 <= bit < 64)
            self.assertIn(out, (b"\xee" * 6, bytes(6)))
            self.assertNotIn("canary", str(caught.exception))

    def test_order(self) -> None:
        """A record that is repeated, left out or moved is refused."""
        sealer = RecordSealer(traffic())
        records = [sealer.seal(DATA, bytes((48 + number,))) for number in range(3)]
        for order in ((0, 0), (1,), (0, 2), (2,), (0, 1, 1), (0, 1, 0)):
            opener = RecordOpener(traffic())
            for number in order[:-1]:
                give(opener, records[number])
            with self.assertRaises(Tampered):
                give(opener, records[order[-1]])

    def test_other_direction(self) -> None:
        """A record that is sent back to its sender is refused."""
        record = RecordSealer(traffic()).seal(DATA, b"x")
        back = RecordOpener(TrafficSecret(Secret(b"k" * 32), b"context", 0, 1, bytes(64)))
        with self.assertRaises(Tampered):
            give(back, record)

    def test_failed_stays_failed(self) -> None:
        """After a bad record the genuine one is not read either, and the keys are gone."""
        sealer, opener = pair()
        record = sealer.seal(DATA, b"x")
        with self.assertRaises(Tampered) as first:
            give(opener, record[:-1] + bytes((record[-1] ^ 1,)))
        with self.assertRaises(Tampered) as second:
            give(opener, record)
        self.assertIs(first.exception, second.exception)
        with self.assertRaises(KeyForgotten):
            opener._traffic.record_key()

    def test_the_number_of_the_record(self) -> None:
        """The error names the record and the epoch at which it was seen."""
        sealer, opener = pair()
        give(opener, sealer.seal(DATA, b"0"))
        give(opener, sealer.rekey())
        record = bytearray(sealer.seal(DATA, b"2"))
        record[-1] ^= 0x80
        with self.assertRaises(Tampered) as caught:
            give(opener, bytes(record))
        self.assertIn("record 2 of epoch 1", str(caught.exception))
        self.assertEqual(opener.records, 2)

    def test_totals(self) -> None:
        """An END whose totals are not what came is tampering, though its tag is good."""
        for totals in ((4, 1), (3, 2), (3, 0), (2**64 - 1, 1)):
            opener = RecordOpener(traffic())
            give(opener, forge(1, b"abc"))
            with self.assertRaises(Tampered):
                give(opener, forge(3, struct.pack(">QQ", *totals), 1))
            self.assertFalse(opener.ended)
        opener = RecordOpener(traffic())
        give(opener, forge(1, b"abc"))
        give(opener, forge(3, struct.pack(">QQ", 3, 1), 1))
        self.assertTrue(opener.ended)

    def test_nothing_after_the_end(self) -> None:
        """DATA and a second END are refused after END, and everything after ABORT."""
        end = forge(3, bytes(16))
        for late in (forge(1, b"late", 1), forge(3, bytes(16), 1)):
            opener = RecordOpener(traffic())
            give(opener, end)
            with self.assertRaises(Tampered):
                give(opener, late)
        opener = RecordOpener(traffic())
        give(opener, forge(4, b"\0\7"))
        self.assertEqual(opener.abort_code, 7)
        with self.assertRaises(Tampered):
            give(opener, forge(5, bytes(8), 1))

    def test_wrong_buffers_are_the_callers_fault(self) -> None:
        """A buffer of the wrong size raises ValueError and does not end the conversation."""
        sealer, opener = pair()
        record = sealer.seal(DATA, b"abc")
        with self.assertRaises(ValueError):
            opener.open_into(record[:8], record[8:], memoryview(bytearray(2)))
        with self.assertRaises(ValueError):
            opener.open(record[:8], record[8:-1])
        self.assertEqual(give(opener, record), (DATA, b"abc"))

    def test_forget(self) -> None:
        """An opener that has forgotten its keys opens nothing."""
        sealer, opener = pair()
        record = sealer.seal(DATA, b"x")
        opener.forget()
        with self.assertRaises(KeyForgotten):
            opener.header(record[:8])

    def test_nothing_is_printed(self) -> None:
        """Neither side shows its keys."""
        octets = traffic().record_key().key.reveal()
        for side in pair():
            self.assertEqual(repr(side), f"<{type(side).__name__} epoch 0 record 0>")
            self.assertNotIn(octets.hex(), str(side))
