"""A record stream from its first byte to its last: :mod:`cloudconnect.wire.records`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import (
    CloudConnectError,
    KeyForgotten,
    NonceExhausted,
    ProtocolViolation,
    Tampered,
    Truncated,
)
from cloudconnect.keys import KeyB
from cloudconnect.wire.records import (
    AbortReceived,
    DataReceived,
    EndReceived,
    PingReceived,
    PongReceived,
    RecordConnection,
    RecordEvent,
    RecordHandshake,
    RecordOpener,
    RecordSealer,
    RecordType,
)
from tests.wire.test_agreement import CONTEXT, SECRET, sides


def connections(payload_max: int = 65536) -> tuple[RecordConnection, RecordConnection]:
    """Two ends of a connection, the initiator's first."""
    ours, theirs = sides()
    theirs.receive(ours.receive(theirs.receive(ours.start())))
    return (
        RecordConnection(ours.sealer, ours.opener, payload_max),
        RecordConnection(theirs.sealer, theirs.opener, payload_max),
    )


class Listener:
    """One side that only listens to a recorded conversation, as a transport would."""

    def __init__(self, initiator: bool) -> None:
        self.handshake = sides()[0 if initiator else 1]
        if initiator:
            self.handshake.start()
        self.connection: RecordConnection | None = None
        self.events: list[RecordEvent] = []
        self.error: CloudConnectError | None = None

    def receive(self, data: bytes) -> None:
        if self.error is not None:
            return
        try:
            if self.connection is None:
                self.handshake.receive(data)
                if not self.handshake.done:
                    return
                self.connection = RecordConnection(self.handshake.sealer, self.handshake.opener)
                data = self.handshake.leftover
            self.events += self.connection.receive(data)
            self.error = self.connection.error
        except CloudConnectError as error:
            self.error = error

    def end_of_input(self) -> None:
        if self.error is not None:
            return
        if self.connection is None:
            self.error = Truncated("the bytes stopped within the handshake")
            return
        try:
            self.connection.end_of_input()
        except CloudConnectError as error:
            self.error = error


def recorded(initiator: bool) -> tuple[list[bytes], list[RecordEvent]]:
    """What the initiator, or the responder, sends in one short conversation, message by message;
    and what the other side makes of the records among them.
    """
    ours, theirs = sides()
    hello = ours.start()
    welcome = theirs.receive(hello)
    begin = ours.receive(welcome)
    theirs.receive(begin)
    side = ours if initiator else theirs
    speaker = RecordConnection(side.sealer, side.opener)
    messages = [
        *((hello, begin) if initiator else (welcome,)),
        speaker.send(b"canary one"),
        speaker.ping(b"pingping"),
        speaker.sealer.rekey(),
        speaker.send(b"canary two"),
        speaker.pong(b"pongpong"),
        speaker.end(),
    ]
    return messages, [
        DataReceived(b"canary one"),
        PingReceived(b"pingping"),
        DataReceived(b"canary two"),
        PongReceived(b"pongpong"),
        EndReceived(),
    ]


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """``data`` in pieces, cut at the given places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


class ConnectionTests(SynchronousTestCase):
    """Records in both directions, as bytes and events."""

    def test_conversation(self) -> None:
        """Everything that can be said arrives as its event, in order, in both directions."""
        for listening_initiator in (False, True):
            messages, events = recorded(not listening_initiator)
            listener = Listener(listening_initiator)
            for message in messages:
                listener.receive(message)
            listener.end_of_input()
            self.assertEqual(listener.events, events)
            self.assertIsNone(listener.error)

    @settings(deadline=None, max_examples=60)
    @given(st.booleans(), st.lists(st.integers(0, 1000), max_size=30))
    def test_any_chunking(self, initiator: bool, cuts: list[int]) -> None:
        """However the bytes arrive, the events are the same."""
        messages, events = recorded(not initiator)
        listener = Listener(initiator)
        for piece in split(b"".join(messages), cuts):
            listener.receive(piece)
        listener.end_of_input()
        self.assertEqual((listener.events, listener.error), (events, None))

    def test_one_byte_at_a_time(self) -> None:
        """One byte at a time, each event comes with the last byte of its record."""
        messages, events = recorded(True)
        listener = Listener(False)
        seen = 0
        for message, new in zip(messages, (0, 0, 1, 1, 0, 1, 1, 1), strict=True):
            for byte in message[:-1]:
                listener.receive(bytes((byte,)))
                self.assertEqual(len(listener.events), seen)
            listener.receive(message[-1:])
            seen += new
            self.assertEqual(listener.events, events[:seen])

    @settings(deadline=None, max_examples=60)
    @given(st.binary(max_size=2000), st.integers(1, 700), st.lists(st.integers(0, 5000)))
    def test_any_payload(self, payload: bytes, payload_max: int, cuts: list[int]) -> None:
        """A payload of any size comes out whole, in records of at most the size asked for."""
        ours, theirs = connections(payload_max)
        wire = ours.send(payload) + ours.end()
        events = [event for piece in split(wire, cuts) for event in theirs.receive(piece)]
        self.assertEqual(events.pop(), EndReceived())
        pieces = [event.data for event in events if isinstance(event, DataReceived)]
        self.assertEqual(b"".join(pieces), payload)
        self.assertEqual(len(pieces), -(-len(payload) // payload_max))
        self.assertEqual(theirs.opener.data_bytes, len(payload))

    def test_empty_send(self) -> None:
        """Nothing to send is no record."""
        ours, _ = connections()
        self.assertEqual(ours.send(b""), b"")
        self.assertEqual(ours.sealer.records, 0)

    def test_rekeys_by_itself(self) -> None:
        """Keys change on the way when they are due, by bytes and by time."""
        for rekey, times in (
            ({"rekey_bytes": 10}, (0.0, 0.0, 0.0)),
            ({"rekey_seconds": 5.0}, (0.0, 5.0, 10.0)),
        ):
            ours, theirs = sides()
            welcome = theirs.receive(ours.start())
            begin = ours.receive(welcome)
            theirs.receive(begin)
            sealer = ours.sealer
            for name, value in rekey.items():
                setattr(sealer, "_" + name, value)
            speaker = RecordConnection(sealer, ours.opener)
            listener = RecordConnection(theirs.sealer, theirs.opener)
            events: list[RecordEvent] = []
            for now in times:
                events += listener.receive(speaker.send(bytes(10), now))
            self.assertEqual(events, [DataReceived(bytes(10))] * 3)
            self.assertEqual((speaker.sealer.epoch, listener.opener.epoch), (2, 2))

    def test_last_epoch(self) -> None:
        """When the last epoch is used up no more data is sent, and END still is."""
        ours, theirs = connections()
        ours.sealer._rekey_bytes = 10
        ours.sealer._traffic.epoch = theirs.opener._traffic.epoch = 65535
        theirs.receive(ours.send(bytes(10)))
        with self.assertRaises(NonceExhausted):
            ours.send(bytes(1))
        self.assertEqual(theirs.receive(ours.end()), [EndReceived()])

    def test_clean(self) -> None:
        """Clean is END sent and received, whichever came first."""
        ours, theirs = connections()
        theirs.receive(ours.end())
        self.assertEqual((theirs.ended, theirs.clean, ours.clean), (True, False, False))
        ours.receive(theirs.send(b"still talking") + theirs.end())
        self.assertEqual((theirs.clean, ours.clean), (True, True))
        ours.end_of_input()

    def test_ping_after_end(self) -> None:
        """The side that has ended still answers."""
        ours, theirs = connections()
        theirs.receive(ours.end())
        self.assertEqual(ours.receive(theirs.ping(b"12345678")), [PingReceived(b"12345678")])
        self.assertEqual(theirs.receive(ours.pong(b"12345678")), [PongReceived(b"12345678")])
        theirs.end_of_input()

    def test_abort(self) -> None:
        """After ABORT nothing is read, not even garbage, and the end of the bytes is no cut."""
        ours, theirs = connections()
        wire = ours.send(b"before") + ours.abort(300)
        self.assertEqual(
            theirs.receive(wire + b"garbage" * 100), [DataReceived(b"before"), AbortReceived(300)]
        )
        self.assertEqual(theirs.receive(b"garbage" * 100), [])
        self.assertFalse(theirs.mid_record)
        self.assertTrue(ours.aborted and theirs.aborted)
        theirs.end_of_input()
        with self.assertRaises(RuntimeError):
            ours.send(b"more")

    def test_send_after_end(self) -> None:
        """No data after END."""
        ours, _ = connections()
        ours.end()
        with self.assertRaises(RuntimeError):
            ours.send(b"more")

    def test_bounded_buffer(self) -> None:
        """An incomplete record is buffered only as far as its checked header allows."""
        ours, theirs = connections()
        with self.assertRaises(Tampered):
            theirs.receive(b"\x01\0\0\0\xff\xff\xff\xff" + bytes(100))
        self.assertFalse(theirs.mid_record)
        self.assertEqual(len(theirs._buffer), 0)

    def test_events_before_a_bad_record(self) -> None:
        """What came before the bad record in the same bytes is delivered, then the error."""
        ours, theirs = connections()
        good, bad, late = ours.send(b"good"), bytearray(ours.send(b"bad")), ours.send(b"late")
        bad[-1] ^= 1
        self.assertEqual(theirs.receive(good + bad + late), [DataReceived(b"good")])
        self.assertIsInstance(theirs.error, Tampered)
        for data in (late, b""):
            with self.assertRaises(Tampered) as caught:
                theirs.receive(data)
            self.assertIs(caught.exception, theirs.error)
        with self.assertRaises(Tampered):
            theirs.end_of_input()

    def test_too_many_bytes_in_one_epoch(self) -> None:
        """A peer that does not change its key is refused, with its own error."""
        ours, theirs = connections()
        theirs.opener._epoch_bytes_max = 5
        with self.assertRaises(ProtocolViolation):
            theirs.receive(ours.send(bytes(6)))

    def test_forget(self) -> None:
        """After forget neither direction works."""
        ours, theirs = connections()
        record = ours.send(b"x")
        ours.forget()
        with self.assertRaises(KeyForgotten):
            ours.send(b"x")
        theirs.forget()
        with self.assertRaises(KeyForgotten):
            theirs.receive(record)

    def test_record_size(self) -> None:
        """A record size of nothing, or beyond 1 MiB, is refused."""
        ours, _ = connections()
        for size in (0, (1 << 20) + 1):
            with self.assertRaises(ValueError):
                RecordConnection(ours.sealer, ours.opener, size)

    def test_payload_is_not_printed(self) -> None:
        """An event in a log does not show what was received."""
        self.assertNotIn("canary", repr(DataReceived(b"canary")))


class AttackTests(SynchronousTestCase):
    """A recorded conversation, changed or cut in every place."""

    def _expected(
        self, messages: list[bytes], events: list[RecordEvent], position: int
    ) -> list[RecordEvent]:
        """The events of the records that are complete before ``position``."""
        listener_events = 0
        silent = len(messages) - 1 - len(events)  # handshake messages, and then one REKEY
        passed = 0
        for number, message in enumerate(messages):
            passed += len(message)
            if passed > position:
                break
            if number >= silent and message[0] != RecordType.REKEY:
                listener_events += 1
        return events[:listener_events]

    def _lengths(self, messages: list[bytes], events: list[RecordEvent]) -> set[int]:
        """Where the length fields of the records are."""
        starts = list(itertools.accumulate(map(len, messages), initial=0))
        silent = len(messages) - 1 - len(events)
        return {start + field for start in starts[silent:-1] for field in (4, 5, 6, 7)}

    def test_every_bit(self) -> None:
        """Each flipped bit is refused; nothing of its record, nor after it, is delivered.

        A flipped length may also show as a record that never becomes complete.
        """
        for initiator in (False, True):
            messages, events = recorded(not initiator)
            whole = b"".join(messages)
            for bit in range(len(whole) * 8):
                changed = bytearray(whole)
                changed[bit // 8] ^= 1 << bit % 8
                listener = Listener(initiator)
                listener.receive(bytes(changed))
                waiting = listener.error is None
                listener.end_of_input()
                self.assertIsInstance(listener.error, Truncated if waiting else Tampered)
                self.assertEqual(listener.events, self._expected(messages, events, bit // 8))
                self.assertNotIn("canary", str(listener.error))
                if waiting:
                    self.assertIn(bit // 8, self._lengths(messages, events))

    @settings(deadline=None, max_examples=200)
    @given(st.booleans(), st.integers(0, 10**6), st.integers(1, 255), st.lists(st.integers(0, 400)))
    def test_any_byte_in_any_chunking(
        self, initiator: bool, position: int, difference: int, cuts: list[int]
    ) -> None:
        """Each changed byte is refused, however the bytes arrive."""
        messages, events = recorded(not initiator)
        changed = bytearray(b"".join(messages))
        position %= len(changed)
        changed[position] ^= difference
        listener = Listener(initiator)
        for piece in split(bytes(changed), cuts):
            listener.receive(piece)
        listener.end_of_input()
        self.assertIsInstance(listener.error, (Tampered, Truncated))
        self.assertEqual(listener.events, self._expected(messages, events, position))

    def test_every_cut(self) -> None:
        """Each cut before the last byte is noticed; each whole record before it is delivered."""
        for initiator in (False, True):
            messages, events = recorded(not initiator)
            whole = b"".join(messages)
            for length in range(len(whole)):
                listener = Listener(initiator)
                listener.receive(whole[:length])
                listener.end_of_input()
                self.assertIsInstance(listener.error, Truncated)
                self.assertEqual(listener.events, self._expected(messages, events, length))

    def test_mid_record(self) -> None:
        """A record that has begun and one that has not are told apart."""
        ours, theirs = connections()
        record = ours.send(b"abc")
        self.assertFalse(theirs.mid_record)
        for length in range(1, len(record)):
            ours, theirs = connections()
            theirs.receive(record[:length])
            self.assertTrue(theirs.mid_record)
            with self.assertRaises(Truncated) as caught:
                theirs.end_of_input()
            self.assertIn("within a record", str(caught.exception))
        theirs = connections()[1]
        theirs.receive(record)
        self.assertFalse(theirs.mid_record)
        with self.assertRaises(Truncated) as caught:
            theirs.end_of_input()
        self.assertIn("before the authenticated end", str(caught.exception))

    def test_cut_after_end(self) -> None:
        """A record that is cut after END is noticed too."""
        ours, theirs = connections()
        theirs.receive(ours.end() + ours.ping(bytes(8))[:-1])
        self.assertTrue(theirs.ended)
        with self.assertRaises(Truncated):
            theirs.end_of_input()

    def test_swap_drop_repeat(self) -> None:
        """Two records swapped, one left out, one repeated: refused at the first wrong one."""
        for order, good in (
            ((1, 0, 2), 0),
            ((0, 2, 1), 1),
            ((1, 2), 0),
            ((0, 2), 1),
            ((0, 0, 1, 2), 1),
            ((0, 1, 1, 2), 2),
            ((0, 1, 2, 2), 3),
        ):
            ours, theirs = connections()
            records = [ours.send(bytes((number,))) for number in range(3)]
            try:
                events = theirs.receive(b"".join(records[number] for number in order))
            except Tampered:
                events = []
            self.assertEqual(events, [DataReceived(bytes((number,))) for number in range(good)])
            self.assertIsInstance(theirs.error, Tampered)

    def test_splice_of_another_connection(self) -> None:
        """A record of another connection of the same session is refused."""
        one = connections()[0]
        _, theirs = sides()
        other = RecordHandshake(True, KeyB(SECRET), CONTEXT, connection=8, salt=b"i" * 32)
        theirs.receive(other.receive(theirs.receive(other.start())))
        with self.assertRaises(Tampered):
            RecordConnection(theirs.sealer, theirs.opener).receive(one.send(b"x"))

    def test_an_end_in_the_wrong_place(self) -> None:
        """An END made by an honest sealer but with records held back is refused."""
        ours, theirs = connections()
        ours.send(b"held back")
        with self.assertRaises(Tampered):
            theirs.receive(ours.end())
        self.assertFalse(theirs.ended)


class ExportTests(SynchronousTestCase):
    """What the module offers."""

    def test_names(self) -> None:
        """Sealer and opener can be had from here."""
        ours, _ = connections()
        self.assertIsInstance(ours.sealer, RecordSealer)
        self.assertIsInstance(ours.opener, RecordOpener)
