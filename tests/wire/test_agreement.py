"""The handshake of a record stream: :mod:`cloudconnect.wire.agreement`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import KeyForgotten, Replayed, Tampered
from cloudconnect.keys import KeyB, Secret
from cloudconnect.wire.agreement import BEGIN_SIZE, HELLO_SIZE, WELCOME_SIZE, RecordHandshake
from cloudconnect.wire.records import DataReceived, RecordConnection, RecordType

SECRET = b"\x5a" * 32
CONTEXT = b"the context"


def sides(**responder: object) -> tuple[RecordHandshake, RecordHandshake]:
    """Two handshakes that fit, always with the same salts; ``responder`` is what differs there."""
    there = {"secret": KeyB(SECRET), "context": CONTEXT, "salt": b"r" * 32, **responder}
    return (
        RecordHandshake(True, KeyB(SECRET), CONTEXT, connection=7, salt=b"i" * 32),
        RecordHandshake(False, **there),  # type: ignore[arg-type]
    )


class HandshakeTests(SynchronousTestCase):
    """The three messages before the records."""

    def test_both_agree(self) -> None:
        """After hello, welcome and begin each side opens what the other one seals."""
        ours, theirs = sides()
        hello = ours.start()
        welcome = theirs.receive(hello)
        begin = ours.receive(welcome)
        self.assertEqual(theirs.receive(begin), b"")
        self.assertEqual(
            (len(hello), len(welcome), len(begin)), (HELLO_SIZE, WELCOME_SIZE, BEGIN_SIZE)
        )
        self.assertTrue(ours.done and theirs.done and ours.peer_proved and theirs.peer_proved)
        for one, other in ((ours, theirs), (theirs, ours)):
            record = one.sealer.seal(RecordType.DATA, b"x")
            self.assertEqual(other.opener.open(record[:8], record[8:]), b"x")

    def test_bytes(self) -> None:
        """The messages are salt and number, salt and commitment, commitment."""
        ours, theirs = sides()
        hello = ours.start()
        self.assertEqual(hello, b"i" * 32 + b"\0\0\0\x07")
        welcome = theirs.receive(hello)
        begin = ours.receive(welcome)
        theirs.receive(begin)
        self.assertEqual(welcome, b"r" * 32 + theirs.sealer.commitment)
        self.assertEqual(begin, ours.sealer.commitment)
        self.assertEqual(theirs.opener.commitment, ours.sealer.commitment)
        self.assertNotEqual(theirs.opener.commitment, theirs.sealer.commitment)

    def test_the_responder_learns_the_number(self) -> None:
        """The connection's number comes with the hello."""
        ours, theirs = sides()
        theirs.receive(ours.start())
        self.assertEqual(theirs.connection, 7)

    def test_fresh_salts(self) -> None:
        """Without a test's salt each handshake has its own."""
        hellos = {RecordHandshake(True, KeyB(SECRET), CONTEXT).start() for _ in range(5)}
        self.assertEqual(len(hellos), 5)

    def test_one_byte_at_a_time(self) -> None:
        """However the messages arrive, the answers are the same, and come when they can."""
        whole_ours, whole_theirs = sides()
        welcome = whole_theirs.receive(whole_ours.start())
        begin = whole_ours.receive(welcome)
        ours, theirs = sides()
        answers = [theirs.receive(bytes((byte,))) for byte in ours.start()]
        self.assertEqual(answers, [b""] * (HELLO_SIZE - 1) + [welcome])
        answers = [ours.receive(bytes((byte,))) for byte in welcome]
        self.assertEqual(answers, [b""] * (WELCOME_SIZE - 1) + [begin])
        self.assertFalse(theirs.done)
        for byte in begin:
            theirs.receive(bytes((byte,)))
        self.assertTrue(theirs.done)

    def test_leftover(self) -> None:
        """Records that come together with the last message are kept for the connection."""
        ours, theirs = sides()
        begin = ours.receive(theirs.receive(ours.start()))
        record = ours.sealer.seal(RecordType.DATA, b"early")
        theirs.receive(begin + record)
        self.assertEqual(theirs.leftover, record)
        connection = RecordConnection(theirs.sealer, theirs.opener)
        self.assertEqual(connection.receive(theirs.leftover), [DataReceived(b"early")])

    def test_nothing_before_it_is_over(self) -> None:
        """There is no sealer and no opener before the peer has proved itself."""
        ours, theirs = sides()
        theirs.receive(ours.start())
        for handshake in (ours, theirs):
            with self.assertRaises(RuntimeError):
                handshake.sealer  # noqa: B018
            with self.assertRaises(RuntimeError):
                handshake.opener  # noqa: B018

    def test_another_secret_or_context(self) -> None:
        """Each side refuses a peer with another secret or context; it has proved nothing."""
        for change in ({"secret": Secret(b"\x5b" * 32)}, {"context": b"another"}):
            ours, theirs = sides(**change)
            welcome = theirs.receive(ours.start())
            with self.assertRaises(Tampered):
                ours.receive(welcome)
            with self.assertRaises(Tampered):
                theirs.receive(bytes(BEGIN_SIZE))
            self.assertFalse(ours.peer_proved or theirs.peer_proved or ours.done or theirs.done)

    def test_reflection(self) -> None:
        """A commitment that is sent back to its maker proves nothing."""
        ours, theirs = sides()
        welcome = theirs.receive(ours.start())
        with self.assertRaises(Tampered):
            theirs.receive(welcome[32:])

    def test_replay_of_a_whole_initiator(self) -> None:
        """A recorded hello and begin do not pass again: the responder's salt is another one."""
        ours, theirs = sides()
        hello = ours.start()
        begin = ours.receive(theirs.receive(hello))
        again = RecordHandshake(False, KeyB(SECRET), CONTEXT)
        again.receive(hello)
        with self.assertRaises(Tampered):
            again.receive(begin)

    def test_allow_is_asked_once_and_late(self) -> None:
        """Whether a number may be used is asked once, after the proof, with the number."""
        asked: list[int] = []

        def allow(number: int) -> bool:
            asked.append(number)
            return True

        ours, theirs = sides(allow=allow)
        begin = ours.receive(theirs.receive(ours.start()))
        theirs.receive(begin[:-1])
        self.assertEqual(asked, [])
        theirs.receive(begin[-1:])
        self.assertEqual(asked, [7])

    def test_allow_is_not_asked_by_a_stranger(self) -> None:
        """A stranger cannot use up a number."""
        asked: list[int] = []
        ours, theirs = sides(allow=asked.append)
        theirs.receive(ours.start())
        with self.assertRaises(Tampered):
            theirs.receive(bytes(BEGIN_SIZE))
        self.assertEqual(asked, [])

    def test_a_used_number(self) -> None:
        """A number that may not be used is a replay, by a peer that has proved itself."""
        ours, theirs = sides(allow=lambda number: False)
        begin = ours.receive(theirs.receive(ours.start()))
        with self.assertRaises(Replayed):
            theirs.receive(begin)
        self.assertTrue(theirs.peer_proved)
        self.assertFalse(theirs.done)

    def test_failed_stays_failed(self) -> None:
        """The genuine message does not mend a handshake that has failed."""
        ours, theirs = sides()
        begin = ours.receive(theirs.receive(ours.start()))
        with self.assertRaises(Tampered) as first:
            theirs.receive(bytes(BEGIN_SIZE))
        with self.assertRaises(Tampered) as second:
            theirs.receive(begin)
        self.assertIs(first.exception, second.exception)

    def test_forgotten_secret(self) -> None:
        """A secret that was dropped meanwhile makes no keys."""
        secret = KeyB(SECRET)
        ours, theirs = sides(secret=secret)
        secret.forget()
        with self.assertRaises(KeyForgotten):
            theirs.receive(ours.start())

    def test_misuse(self) -> None:
        """A responder does not start, and a handshake that is over takes no more bytes."""
        ours, theirs = sides()
        with self.assertRaises(RuntimeError):
            theirs.start()
        theirs.receive(ours.receive(theirs.receive(ours.start())))
        with self.assertRaises(RuntimeError):
            theirs.receive(b"x")
        with self.assertRaises(ValueError):
            RecordHandshake(True, KeyB(SECRET), CONTEXT, salt=b"short")
        with self.assertRaises(ValueError):
            RecordHandshake(True, KeyB(SECRET), CONTEXT, connection=1 << 32)
