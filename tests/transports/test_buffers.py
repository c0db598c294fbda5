"""Tests of :mod:`cloudconnect.transports.buffers`."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import Tampered
from cloudconnect.keys import Secret
from cloudconnect.settings import RECORD_PAYLOAD_MAX
from cloudconnect.transports.buffers import (
    DIRECT,
    OVERHEAD,
    READ_AHEAD,
    SLACK,
    RecordReader,
    RecordWriter,
)
from cloudconnect.wire.records import (
    RecordHandshake,
    RecordOpener,
    RecordSealer,
    RecordType,
)

KIB = 1 << 10


def directions() -> tuple[RecordSealer, RecordOpener]:
    """What seals at one end and what opens at the other."""
    secret = Secret(bytes(32))
    near, far = (RecordHandshake(initiator, secret, b"tests") for initiator in (True, False))
    far.receive(near.receive(far.receive(near.start())))
    return near.sealer, far.opener


def drain(writer: RecordWriter, now: float = 0.0) -> list[bytes]:
    """Everything that the writer has to send, as it fills its buffer."""
    found = []
    while True:
        writer.seal(now)
        out = writer.outgoing()
        if not out:
            return found
        found.append(bytes(out))
        writer.sent(len(out))


def read(reader: RecordReader, data: bytes, in_place: bool = False) -> list[tuple[int, bytes]]:
    """All records of ``data``."""
    found, view = [], memoryview(data)
    while view:
        view = view[reader.feed(view) :]
        found += [(kind, bytes(payload)) for kind, payload in reader.records(in_place)]
    return found


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which a shift shows."""
    unit = bytes((seed + n) % 251 for n in range(251))
    return (unit * (size // 251 + 1))[:size]


class WriterTests(SynchronousTestCase):
    """What is queued is sealed once, in order, into one buffer."""

    def setUp(self) -> None:
        self.sealer, self.opener = directions()
        self.writer = RecordWriter(self.sealer, 256 * KIB)
        self.reader = RecordReader(self.opener)

    def sizes(self, *parts: bytes) -> list[int]:
        """The payload sizes of the records that ``parts`` become, checked by opening them."""
        self.writer.put(parts)
        wire = b"".join(drain(self.writer))
        records = read(self.reader, wire)
        self.assertEqual({kind for kind, _ in records}, {RecordType.DATA})
        self.assertEqual(b"".join(payload for _, payload in records), b"".join(parts))
        self.assertEqual(self.writer.held, 0)
        return [len(payload) for _, payload in records]

    def test_nothing(self) -> None:
        """A writer with nothing to send seals nothing."""
        self.assertEqual(drain(self.writer), [])
        self.assertEqual((self.writer.held, self.sealer.records), (0, 0))

    def test_one_small_part(self) -> None:
        """A small part is one record."""
        self.assertEqual(self.sizes(b"x"), [1])

    def test_small_parts_are_gathered(self) -> None:
        """Many small parts become full records."""
        self.assertEqual(
            self.sizes(*[pattern(1000, n) for n in range(600)]), [262144, 262144, 75712]
        )

    def test_large_part_is_cut(self) -> None:
        """A part larger than a record becomes several, the last one with the rest."""
        self.assertEqual(self.sizes(pattern(600 * KIB)), [256 * KIB, 256 * KIB, 88 * KIB])

    def test_large_part_is_sealed_where_it_lies(self) -> None:
        """A small part before a large one is a record of its own: the large one is not copied."""
        self.assertEqual(self.sizes(b"head", pattern(DIRECT), b"tail"), [4, DIRECT, 4])
        self.assertLessEqual(self.sizes(b"head", pattern(DIRECT - 1)), [DIRECT + 3])

    def test_several_records_in_one_buffer(self) -> None:
        """Records that fit together are sent together."""
        self.writer.put([pattern(DIRECT), pattern(100), pattern(DIRECT)])
        self.assertEqual(len(drain(self.writer)), 1)
        self.writer.put([pattern(DIRECT)] * 3)
        self.assertEqual(len(drain(self.writer)), 2)

    def test_held(self) -> None:
        """What waits is counted, before and after sealing, until it is sent."""
        self.writer.put([bytes(1000)])
        self.assertEqual(self.writer.held, 1000)
        self.writer.seal(0.0)
        self.assertEqual(self.writer.held, 1000 + OVERHEAD)
        self.writer.sent(500)
        self.assertEqual(self.writer.held, 500 + OVERHEAD)
        self.writer.put_sealed(bytes(30))
        self.assertEqual(self.writer.held, 530 + OVERHEAD)
        self.writer.sent(500 + OVERHEAD)
        self.assertEqual(self.writer.held, 30)

    def test_nothing_is_sealed_twice(self) -> None:
        """While sealed bytes wait, nothing is sealed over them."""
        self.writer.put([b"first", b"second"])
        self.writer.seal(0.0)
        first = bytes(self.writer.outgoing())
        self.writer.put([b"third"])
        self.writer.seal(0.0)
        self.assertEqual(bytes(self.writer.outgoing()), first)
        self.writer.sent(len(first) - 1)
        self.writer.seal(0.0)
        self.assertEqual(bytes(self.writer.outgoing()), first[-1:])

    def test_order_of_sealed_records(self) -> None:
        """A record sealed elsewhere goes behind what was sealed, before what was not."""
        self.writer.put([b"one"])
        self.writer.seal(0.0)
        self.writer.put([b"two"])
        self.writer.put_sealed(self.sealer.seal(RecordType.PING, b"12345678"))
        self.writer.put_sealed(self.sealer.seal(RecordType.PING, b"87654321"))
        wire = b"".join(drain(self.writer))
        self.assertEqual(
            read(self.reader, wire),
            [
                (RecordType.DATA, b"one"),
                (RecordType.PING, b"12345678"),
                (RecordType.PING, b"87654321"),
                (RecordType.DATA, b"two"),
            ],
        )

    def test_many_sealed_records(self) -> None:
        """More of them than fit into the buffer still come first, and in order."""
        count = (256 * KIB + SLACK) // 32 + 100
        octets = [n.to_bytes(8, "big") for n in range(count)]
        for eight in octets:
            self.writer.put_sealed(self.sealer.seal(RecordType.PING, eight))
        self.writer.put([b"data"])
        self.writer.put_end()
        found = read(self.reader, b"".join(drain(self.writer)))
        self.assertEqual([payload for _, payload in found[:count]], octets)
        self.assertEqual([kind for kind, _ in found[count:]], [RecordType.DATA, RecordType.END])

    def test_end(self) -> None:
        """END comes once, after everything that was queued."""
        self.writer.put([pattern(300 * KIB)])
        self.writer.put_end()
        found = read(self.reader, b"".join(drain(self.writer)))
        self.assertEqual(
            [kind for kind, _ in found], [RecordType.DATA, RecordType.DATA, RecordType.END]
        )
        self.assertTrue(self.opener.ended)
        self.assertEqual(drain(self.writer), [])

    def test_end_alone(self) -> None:
        """END needs no payload before it."""
        self.writer.put_end()
        found = read(self.reader, b"".join(drain(self.writer)))
        self.assertEqual([kind for kind, _ in found], [RecordType.END])

    def test_drop(self) -> None:
        """What was not sealed is dropped; what was, is still there to be sent."""
        self.writer.put([b"sealed"])
        self.writer.seal(0.0)
        self.writer.put([b"not sealed"])
        self.writer.put_end()
        self.writer.drop()
        self.assertEqual(read(self.reader, b"".join(drain(self.writer))), [(1, b"sealed")])

    def test_rekey_by_bytes(self) -> None:
        """A key change stands before the first record that is due one."""
        self.sealer._rekey_bytes = 100 * KIB
        self.writer.put([pattern(300 * KIB), pattern(300 * KIB)])
        found = read(self.reader, b"".join(drain(self.writer)))
        self.assertEqual(b"".join(p for _, p in found), pattern(300 * KIB) * 2)
        self.assertEqual([kind for kind, _ in found], [1, 2, 1, 1, 2, 1])
        self.assertEqual((self.sealer.epoch, self.opener.epoch), (2, 2))

    def test_rekey_by_age(self) -> None:
        """So does one for an old key, however little it has served."""
        for now, kinds in (
            (0.0, [1]),
            (599.0, [1]),
            (600.0, [2, 1]),
            (1000.0, [1]),
            (1200.0, [2, 1]),
        ):
            self.writer.put([b"x"])
            found = read(self.reader, b"".join(drain(self.writer, now)))
            self.assertEqual([kind for kind, _ in found], kinds, now)


class ReaderTests(SynchronousTestCase):
    """Records are opened from where their bytes were put."""

    def setUp(self) -> None:
        self.sealer, self.opener = directions()
        self.reader = RecordReader(self.opener)

    def seal(self, payload: bytes) -> bytes:
        return self.sealer.seal(RecordType.DATA, payload)

    def test_byte_by_byte(self) -> None:
        """One byte at a time gives the same records."""
        wire = self.seal(b"one") + self.seal(b"two")
        found = []
        for n in range(len(wire)):
            found += read(self.reader, wire[n : n + 1])
        self.assertEqual(found, [(1, b"one"), (1, b"two")])
        self.assertEqual((self.reader.count, self.reader.waiting), (len(wire), 0))

    def test_wanted(self) -> None:
        """What is missing is known from the header on, and never includes the next record."""
        wire = self.seal(bytes(1000))
        self.assertEqual(self.reader.wanted, 8)
        read(self.reader, wire[:5])
        self.assertEqual(self.reader.wanted, 3)
        read(self.reader, wire[5:8])
        self.assertEqual(self.reader.wanted, 1016)
        read(self.reader, wire[8:108])
        self.assertEqual(self.reader.wanted, 916)
        read(self.reader, wire[108:] + self.seal(b"x")[:4])
        self.assertEqual(self.reader.wanted, 4)

    def test_room(self) -> None:
        """Many small records fit; of a large one, all of it and the next header do."""
        self.assertEqual(len(self.reader.room()), READ_AHEAD)
        wire = self.seal(bytes(RECORD_PAYLOAD_MAX))
        self.reader.feed(wire[:100])
        self.assertEqual(list(self.reader.records(False)), [])
        self.assertEqual(len(self.reader.room()), len(wire) + 8 - 100)

    def test_largest_records_back_to_back(self) -> None:
        """The largest records come through, each read in two steps at most."""
        payload = pattern(RECORD_PAYLOAD_MAX)
        wire = b"".join(self.seal(payload) for _ in range(3))
        self.assertEqual(read(self.reader, wire, True), [(1, payload)] * 3)

    def test_in_place(self) -> None:
        """In place, every payload is a view of the same memory; else it is bytes of its own."""
        wire = self.seal(b"one") + self.seal(b"two")
        self.reader.feed(wire)
        views = [payload for _, payload in self.reader.records(True)]
        self.assertIsInstance(views[0], memoryview)
        self.assertIs(views[0].obj, views[1].obj)
        self.reader.feed(self.seal(b"three"))
        [(_, payload)] = self.reader.records(False)
        self.assertIsInstance(payload, bytes)

    def test_impossible_length(self) -> None:
        """A header that claims too much is refused before anything of the record is there."""
        self.reader.feed(b"\x01\x00\x00\x00" + (RECORD_PAYLOAD_MAX + 17).to_bytes(4, "big"))
        self.assertRaises(Tampered, list, self.reader.records(True))

    def test_bad_record(self) -> None:
        """What stood before a bad record is yielded; of it, and after it, nothing is."""
        for in_place in (False, True):
            self.setUp()
            wire = bytearray(self.seal(b"good") + self.seal(b"bad!") + self.seal(b"later"))
            wire[2 * OVERHEAD + 6] ^= 1
            self.reader.feed(wire)
            records = self.reader.records(in_place)
            self.assertEqual(bytes(next(records)[1]), b"good")
            self.assertRaises(Tampered, next, records)
            self.assertRaises(Tampered, list, self.reader.records(in_place))


class RoundTripTests(SynchronousTestCase):
    """Any parts, cut anywhere on the way, arrive as they were."""

    @settings(max_examples=60, deadline=None)
    @given(
        parts=st.lists(
            st.one_of(
                st.integers(1, 300),
                st.integers(DIRECT - 2, DIRECT + 2),
                st.sampled_from([256 * KIB - 1, 256 * KIB, 256 * KIB + 1, 700 * KIB]),
            ),
            max_size=12,
        ),
        cuts=st.lists(st.integers(1, 400_000), max_size=20),
        payload=st.sampled_from([1000, 64 * KIB, 256 * KIB, RECORD_PAYLOAD_MAX]),
        in_place=st.booleans(),
    )
    def test_round_trip(
        self, parts: list[int], cuts: list[int], payload: int, in_place: bool
    ) -> None:
        """The bytes, their order, the end."""
        sealer, opener = directions()
        writer, reader = RecordWriter(sealer, payload), RecordReader(opener)
        sent = [pattern(size, n) for n, size in enumerate(parts)]
        writer.put(sent)
        writer.put_end()
        self.assertEqual(writer.held, sum(parts))
        view = memoryview(b"".join(drain(writer)))
        received, sizes = bytearray(), iter([*cuts, *[1 << 30] * 2])
        while view:
            piece, view = view[: (size := next(sizes))], view[size:]
            for kind, data in read(reader, bytes(piece), in_place):
                if kind == RecordType.DATA:
                    self.assertLessEqual(len(data), payload)
                    received += data
        self.assertEqual(received, b"".join(sent))
        self.assertTrue(opener.ended)
        self.assertEqual((writer.held, reader.waiting), (0, 0))
