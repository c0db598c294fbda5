"""Tests of :mod:`cloudconnect.commands.box`: two ends that call each other."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import Factory
from twisted.logger import eventAsText, globalLogPublisher
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cloudconnect.commands.arguments import SecretArgument
from cloudconnect.commands.box import TAG_MAX, BoundedAMP, BoundedCommand
from cloudconnect.errors import (
    CloudConnectError,
    ControlTampered,
    LocalError,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Tampered,
)
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.settings import (
    BOX_MAX,
    BOX_MAX_UNAUTHENTICATED,
    COMMAND_SECONDS,
    REQUESTS_MAX,
    REQUESTS_MAX_UNAUTHENTICATED,
)
from cloudconnect.transports.memory import MemoryPair

CANARY = b"0123456789abcdef0123456789abcdef"


class Echo(BoundedCommand):
    """Comes back."""

    arguments = [(b"text", amp.String())]
    response = [(b"text", amp.String())]


class Wait(BoundedCommand):
    """Is answered later."""

    response = [(b"number", amp.Integer())]


class Refuse(BoundedCommand):
    """Is refused, for the reason that it names."""

    arguments = [(b"how", amp.Unicode())]


class MakeKey(BoundedCommand):
    """Is answered with a key, and with a number that is forgotten."""

    response = [(b"key", SecretArgument(KeyA)), (b"number", amp.Integer())]


class Deliver(BoundedCommand):
    """Carries a key, and is answered with a digest of its box."""

    arguments = [(b"key", SecretArgument(KeyB))]
    response = [(b"digest", amp.String())]


class Tell(BoundedCommand):
    """Wants no answer."""

    requiresAnswer = False
    arguments = [(b"text", amp.String())]


class Large(BoundedCommand):
    """Is answered with this many bytes, twice."""

    arguments = [(b"size", amp.Integer())]
    response = [(b"one", amp.String()), (b"two", amp.String())]


class Unlock(BoundedCommand):
    """Raises the limits."""


class Server(BoundedAMP):
    """Answers all of them."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.waiting: list[Deferred[dict[str, Any]]] = []
        self.told: list[bytes] = []
        self.keys: list[KeyB] = []
        self.reason: Any = None

    @Echo.responder
    def echo(self, text: bytes) -> dict[str, Any]:
        return {"text": text}

    @Wait.responder
    def wait(self) -> Deferred[dict[str, Any]]:
        self.waiting.append(Deferred())
        return self.waiting[-1]

    @Refuse.responder
    def refuse(self, how: str) -> dict[str, Any]:
        if how == "bug":
            raise ValueError(f"not for others: {CANARY.decode()}")
        raise {"login": LoginRefused, "tampered": Tampered}[how]("because")

    @MakeKey.responder
    def make_key(self) -> dict[str, Any]:
        return {"key": KeyA(CANARY)}

    @Deliver.responder
    async def deliver(self, key: KeyB) -> dict[str, Any]:
        self.keys.append(key)
        return {"digest": self.digest_of_current_box()}

    @Tell.responder
    def tell(self, text: bytes) -> dict[str, Any]:
        self.told.append(text)
        return {}

    @Large.responder
    def large(self, size: int) -> dict[str, Any]:
        return dict.fromkeys(("one", "two"), (CANARY * 3000)[:size])

    @Unlock.responder
    def unlock(self) -> dict[str, Any]:
        self.set_limits(BOX_MAX, REQUESTS_MAX)
        return {}

    def connectionLost(self, reason: Any = None) -> None:
        self.reason = reason.value
        super().connectionLost(reason)


def serialized(
    *, command: type[amp.Command] | bytes = Echo, ask: bytes = b"1", **values: Any
) -> bytes:
    """A request as bytes."""
    name = command if isinstance(command, bytes) else command.commandName
    return amp.AmpBox(_command=name, _ask=ask, **values).serialize()


class BoxTestCase(SynchronousTestCase):
    """A client and a server in memory.

    :ivar events: everything that was logged
    """

    server_limits: dict[str, int] = {}

    def setUp(self) -> None:
        self.pair = MemoryPair()
        self.clock = self.pair.clock
        self.client = Server(self.clock)
        self.server = Server(self.clock, **self.server_limits)
        self.pair.connect(self.client, self.server)
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def result(self, answer: Deferred[Any]) -> Any:
        """What ``answer`` comes to, now."""
        self.pair.pump()
        return self.successResultOf(answer)

    def error(self, answer: Deferred[Any], kind: type[Exception]) -> Any:
        """The error of just this class that ``answer`` comes to, now."""
        self.pair.pump()
        error = self.failureResultOf(answer).value
        self.assertIs(kind, type(error), error)
        return error

    def logged(self) -> str:
        """Everything that was logged, with tracebacks."""
        return "\n".join(eventAsText(event) for event in self.events)

    def assert_failed(self, text: str) -> None:
        """The server has cut the line, has logged once why, and still lives."""
        self.pair.pump()
        self.assertIsInstance(self.server.reason, ConnectionAborted)
        mine = [event for event in self.events if event["log_namespace"].startswith("tests.")]
        self.assertEqual(1, len(mine))
        self.assertEqual("warn", mine[0]["log_level"].name)
        self.assertIn(text, eventAsText(mine[0]))
        self.assertEqual([], self.flushLoggedErrors())


class CallTests(BoxTestCase):
    """Calls and their answers."""

    def test_answer(self) -> None:
        """A call comes to the values of its answer, in both directions."""
        for caller in (self.client, self.server):
            self.assertEqual({"text": b"hello"}, self.result(caller.call(Echo, text=b"hello")))

    def test_many(self) -> None:
        """Answers find their calls, in whatever order they come."""
        calls = [self.client.call(Wait) for _ in range(REQUESTS_MAX)]
        self.pair.pump()
        for number, waiting in reversed(list(enumerate(self.server.waiting))):
            waiting.callback({"number": number})
        self.assertEqual(
            [{"number": n} for n in range(REQUESTS_MAX)], list(map(self.result, calls))
        )

    def test_no_answer_wanted(self) -> None:
        """A command that wants no answer is told, and leaves nothing open."""
        for _ in range(2 * REQUESTS_MAX):
            self.assertEqual({}, self.result(self.client.call(Tell, text=b"x")))
        self.assertEqual(2 * REQUESTS_MAX, len(self.server.told))

    def test_other_locator(self) -> None:
        """The responders may be another object's."""

        class Locator(amp.CommandLocator):
            @Echo.responder
            def echo(self, text: bytes) -> dict[str, Any]:
                return {"text": text.upper()}

        pair = MemoryPair()
        client = BoundedAMP(pair.clock)
        pair.connect(client, BoundedAMP(pair.clock, locator=Locator()))
        answer = client.call(Echo, text=b"a")
        pair.pump()
        self.assertEqual({"text": b"A"}, self.successResultOf(answer))

    def test_arguments_that_do_not_fit(self) -> None:
        """Nothing goes out for arguments that do not fit, and no value is repeated."""
        for command, arguments in (
            (Echo, {}),
            (Echo, {"text": 5}),
            (Echo, {"text": b"", "more": CANARY}),
            (Deliver, {"key": CANARY}),
            (Deliver, {"key": KeyA(CANARY)}),
        ):
            error = self.error(self.client.call(command, **arguments), TypeError)
            self.assertNotIn(CANARY.decode(), str(error))
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_too_many_calls(self) -> None:
        """One call more than may be open is refused here, and does not spoil the others."""
        calls = [self.client.call(Wait) for _ in range(REQUESTS_MAX)]
        self.error(self.client.call(Wait), LocalError)
        self.pair.pump()
        for waiting in self.server.waiting:
            waiting.callback({"number": 1})
        self.assertEqual([{"number": 1}] * REQUESTS_MAX, list(map(self.result, calls)))

    def test_too_large(self) -> None:
        """So is a call that is larger than may be sent."""
        answer = self.client.call(Large, size=0)
        self.client.set_limits(10, REQUESTS_MAX)
        digest, larger = self.client.call_with_digest(Echo, text=b"x" * 20)
        self.assertEqual(b"", digest)
        self.failureResultOf(larger)
        self.client.set_limits(BOX_MAX, REQUESTS_MAX)
        self.assertEqual({"one": b"", "two": b""}, self.result(answer))

    def test_digest(self) -> None:
        """Both sides have the same digest, that of the bytes on the wire."""
        wire: list[bytes] = []
        write = self.pair.left.write
        self.pair.left.write = lambda data: (wire.append(data), write(data))
        digest, answer = self.client.call_with_digest(Deliver, key=KeyB(CANARY))
        self.assertEqual({"digest": digest}, self.result(answer))
        self.assertEqual([digest], [hashlib.sha256(data).digest() for data in wire])
        self.assertEqual([KeyB(CANARY)], self.server.keys)
        other, answer = self.client.call_with_digest(Deliver, key=KeyB(CANARY))
        self.assertNotEqual(digest, other)  # the tag is another
        self.assertEqual({"digest": other}, self.result(answer))

    def test_no_current_box(self) -> None:
        """There is a current box only while a responder is called."""
        self.assertRaises(LocalError, self.server.digest_of_current_box)
        self.result(self.client.call(Echo, text=b""))
        self.assertRaises(LocalError, self.server.digest_of_current_box)

    def test_twisted(self) -> None:
        """Twisted's own AMP understands us, and we it."""

        class Stock(amp.AMP):
            @Echo.responder
            def echo(self, text: bytes) -> dict[str, Any]:
                return {"text": text.upper()}

        pair = MemoryPair()
        ours, stock = Server(pair.clock), Stock()
        pair.connect(ours, stock)
        answers = [ours.call(Echo, text=b"a"), stock.callRemote(Echo, text=b"b")]
        pair.pump()
        self.assertEqual([b"A", b"b"], [self.successResultOf(answer)["text"] for answer in answers])

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.binary(max_size=3000), max_size=5), st.lists(st.integers(1, 500)))
    def test_any_pieces(self, texts: list[bytes], sizes: list[int]) -> None:
        """It makes no difference in which pieces the bytes arrive."""
        pair = MemoryPair()
        client, server = Server(pair.clock), Server(pair.clock)
        pair.connect(client, server)
        for protocol in (client, server):
            deliver, cuts = protocol.dataReceived, list(sizes)

            def in_pieces(data: bytes, deliver: Any = deliver, cuts: list[int] = cuts) -> None:
                while cuts and data:
                    size = cuts.pop()
                    deliver(data[:size])
                    data = data[size:]
                deliver(data)

            protocol.dataReceived = in_pieces  # type: ignore[method-assign]
        answers = [client.call(Echo, text=text) for text in texts]
        pair.pump()
        self.assertEqual(texts, [self.successResultOf(answer)["text"] for answer in answers])


class RefusalTests(BoxTestCase):
    """Errors as answers."""

    def test_typed(self) -> None:
        """The caller gets an error of the same class with the same text."""
        for how, kind in (("login", LoginRefused), ("tampered", Tampered)):
            error = self.error(self.client.call(Refuse, how=how), kind)
            self.assertEqual("because", str(error))
        self.assertEqual([], self.flushLoggedErrors())

    def test_bug(self) -> None:
        """Of a bug the caller learns only that there was one; it is logged where it is."""
        error = self.error(self.client.call(Refuse, how="bug"), CloudConnectError)
        self.assertNotIn("not for others", str(error))
        self.assertEqual(1, len(self.flushLoggedErrors(ValueError)))
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_half_an_answer(self) -> None:
        """An answer without one of its fields is a bug, and its other fields are not printed."""
        self.error(self.client.call(MakeKey), CloudConnectError)
        self.assertIn("number of MakeKey", self.logged())
        for secret in (CANARY.decode(), CANARY.hex(), repr(KeyA(CANARY))):
            self.assertNotIn(secret, self.logged())
        self.assertEqual(1, len(self.flushLoggedErrors(TypeError)))

    def test_answer_too_large(self) -> None:
        """An answer that is too large is a bug of the responder, and is not printed."""
        self.error(self.client.call(Large, size=65535), CloudConnectError)
        self.assertNotIn(CANARY.decode(), self.logged())
        self.assertEqual(1, len(self.flushLoggedErrors()))
        self.assertEqual(32000, len(self.result(self.client.call(Large, size=32000))["one"]))

    def test_unknown_command(self) -> None:
        """A command that nobody answers is refused, and the line stays."""

        class Unknown(BoundedCommand):
            """Nobody answers it."""

        self.error(self.client.call(Unknown), ProtocolViolation)
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_line_changers(self) -> None:
        """Neither StartTLS nor a switch of protocols can be asked for, or sent."""

        class Switch(amp.ProtocolSwitchCommand):
            """Another protocol on the same line."""

        class Locator(amp.CommandLocator):
            @amp.StartTLS.responder
            def start_tls(self) -> dict[str, Any]:
                raise AssertionError("called")

            @Switch.responder
            def switch(self) -> dict[str, Any]:
                raise AssertionError("called")

        for locator in (None, Locator()):
            pair = MemoryPair()
            received: list[amp.AmpBox] = []
            peer, server = BoundedAMP(pair.clock), BoundedAMP(pair.clock, locator)
            peer._box_received = received.append  # type: ignore[method-assign]
            pair.connect(peer, server)
            for name in (b"StartTLS", b"Switch"):
                pair.left.write(serialized(command=name))
            pair.pump()
            self.assertEqual([b"protocol_violation"] * 2, [box[b"_error_code"] for box in received])
        for command in (amp.StartTLS, Switch):
            self.error(self.client.call(command), TypeError)

    def test_malformed_argument(self) -> None:
        """An argument that does not fit is refused without being repeated; the line stays."""
        self.pair.left.write(serialized(command=Deliver, ask=b"77", key=CANARY + b"0"))
        call = self.client._calls.open(b"77", Deliver, None)
        error = self.error(call.answer, ProtocolViolation)
        self.assertIn("key of Deliver", str(error))
        self.assertNotIn(CANARY.decode(), str(error) + self.logged())
        self.assertEqual([], self.server.keys)

    def test_malformed_answer(self) -> None:
        """An answer that does not fit fails its call only."""
        self.server._respond = lambda box: amp.AmpBox(number=b"many")  # type: ignore
        self.error(self.client.call(Wait), ProtocolViolation)
        del self.server._respond
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))


class EndTests(BoxTestCase):
    """What becomes of open calls."""

    def test_timeout(self) -> None:
        """A call that is not answered in time fails; a late answer harms nobody."""
        answer = self.client.call(Wait)
        self.pair.pump()
        self.clock.advance(COMMAND_SECONDS - 0.1)
        self.assertNoResult(answer)
        self.clock.advance(0.2)
        self.assertIn("Wait", str(self.error(answer, NotReachable)))
        self.server.waiting[0].callback({"number": 1})
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_other_timeouts(self) -> None:
        """Each call may have a limit of its own, or none."""
        short, none = self.client.call(Wait, timeout=1), self.client.call(Wait, timeout=None)
        self.clock.advance(COMMAND_SECONDS * 2)
        self.error(short, NotReachable)
        self.assertNoResult(none)

    def test_given_up_calls_count(self) -> None:
        """Calls without an answer in time do not make room for more: nothing grows for ever."""
        for _ in range(REQUESTS_MAX):
            self.client.call(Wait, timeout=1).addErrback(lambda _: None)
        self.clock.advance(1)
        self.error(self.client.call(Wait), LocalError)
        self.pair.pump()
        self.server.waiting[0].callback({"number": 1})
        self.pair.pump()
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_cancelled(self) -> None:
        """A call may be cancelled; its answer harms nobody."""
        answer = self.client.call(Wait)
        self.pair.pump()
        answer.cancel()
        self.failureResultOf(answer)
        self.server.waiting[0].callback({"number": 1})
        self.assertEqual({"text": b"x"}, self.result(self.client.call(Echo, text=b"x")))

    def test_timers(self) -> None:
        """No timer is left behind."""
        self.client.call(Wait).addErrback(lambda _: None)
        self.result(self.client.call(Echo, text=b"x"))
        self.pair.right.abortConnection()
        self.pair.pump()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_lost(self) -> None:
        """When the connection ends, open calls fail, and so does each that comes later."""
        for end in (self.pair.right.loseConnection, self.pair.right.abortConnection):
            self.setUp()
            answer = self.client.call(Wait)
            self.pair.pump()
            end = getattr(self.pair.right, end.__name__)
            end()
            self.error(answer, NotReachable)
            self.error(self.client.call(Echo, text=b"x"), NotReachable)

    def test_lost_for_a_reason(self) -> None:
        """The typed reason of a transport is that of the calls."""
        answer = self.client.call(Wait)
        reason = ControlTampered("a TLS record was changed")
        self.client.connectionLost(Failure(reason))
        self.assertIs(reason, self.error(answer, ControlTampered))
        self.assertIs(reason, self.error(self.client.call(Wait), ControlTampered))

    def test_answer_after_the_end(self) -> None:
        """A responder that is done when the caller has gone harms nobody."""
        self.client.call(Wait).addErrback(lambda _: None)
        self.pair.pump()
        self.pair.left.abortConnection()
        self.pair.pump()
        self.server.waiting[0].callback({"number": 1})
        self.assertEqual([], self.flushLoggedErrors())

    def test_before_the_beginning(self) -> None:
        """There is nobody to call before there is a connection."""
        self.error(BoundedAMP(self.clock).call(Wait), NotReachable)


class BoundTests(BoxTestCase):
    """A peer that does not keep to the limits, before it is authenticated."""

    server_limits = {
        "box_max": BOX_MAX_UNAUTHENTICATED,
        "requests_max": REQUESTS_MAX_UNAUTHENTICATED,
    }

    def test_box(self) -> None:
        """A box that is too large cuts the line at the length that makes it so."""
        wire = serialized(text=b"x" * BOX_MAX_UNAUTHENTICATED)
        at = wire.index(b"xx")
        self.pair.left.write(wire[: at - 1])
        self.pair.pump()
        self.assertIsNone(self.server.reason)
        self.pair.left.write(wire[at - 1 : at])
        self.assert_failed("4096")

    def test_box_that_fits(self) -> None:
        """One that just fits is answered."""
        overhead = len(serialized(text=b""))
        text = b"x" * (BOX_MAX_UNAUTHENTICATED - overhead)
        self.assertEqual(BOX_MAX_UNAUTHENTICATED, len(serialized(text=text)))
        self.assertEqual({"text": text}, self.result(self.client.call(Echo, text=text)))

    def test_requests(self) -> None:
        """One open request more than allowed cuts the line; the second is not begun."""
        self.pair.left.write(serialized(command=Wait) + serialized(command=Wait, ask=b"2"))
        self.assert_failed("more than 1 requests")
        self.assertEqual(1, len(self.server.waiting))

    def test_requests_that_want_no_answer(self) -> None:
        """A request without a tag is an open one too."""
        box = amp.AmpBox(_command=b"Wait").serialize()
        self.pair.left.write(box + box)
        self.assert_failed("more than 1 requests")

    def test_one_after_the_other(self) -> None:
        """Any number may come one after the other, also in one piece."""
        for tag in range(1, 200):
            self.client._calls.open(b"%d" % tag, Echo, None)
        self.pair.left.write(b"".join(serialized(ask=b"%d" % i, text=b"") for i in range(1, 200)))
        self.pair.pump()
        self.assertEqual(0, len(self.client._calls))
        self.assertIsNone(self.server.reason)

    def test_other_limits(self) -> None:
        """After the limits were raised, what follows in the same piece may be larger."""
        large = serialized(ask=b"3", text=b"x" * 60_000)
        waits = b"".join(serialized(command=Wait, ask=b"%d" % i) for i in range(4, 60))
        self.client.dataReceived = lambda data: None  # type: ignore[method-assign]
        self.pair.left.write(serialized(command=Unlock, ask=b"2") + large + waits)
        self.pair.pump()
        self.assertIsNone(self.server.reason)
        self.assertEqual(56, len(self.server.waiting))

    def test_open_calls_hear_of_it(self) -> None:
        """Our own calls to such a peer fail for that reason; nothing more is read or called."""
        answer = self.server.call(Echo, text=b"x")
        self.server.dataReceived(serialized(command=Wait, ask=b"x" * (TAG_MAX + 1)))
        self.server.dataReceived(serialized(command=Tell, text=b"later"))
        self.assertEqual([], self.server.told)
        self.error(answer, ProtocolViolation)
        self.error(self.server.call(Echo, text=b"x"), ProtocolViolation)

    def test_violations(self) -> None:
        """What is no box of ours cuts the line, and never raises."""
        for data, text in (
            (b"\x01\x00", "longer than 255"),
            (b"\0\0", "no command, answer or error"),
            (amp.AmpBox(x=b"1").serialize(), "no command, answer or error"),
            (amp.AmpBox(_answer=b"1").serialize(), "nothing that was asked"),
            (amp.AmpBox(_error=b"1", _error_code=b"x").serialize(), "nothing that was asked"),
            (amp.AmpBox(_answer=b"1", _command=b"Echo").serialize(), "no command, answer or error"),
            (serialized(ask=b"", text=b""), "tag"),
            (serialized(ask=b"x" * (TAG_MAX + 1), text=b""), "tag"),
            (b"\0\1b\0\1x\0\1a\0\1x\0\0", "ascending"),
            (b"GET / HTTP/1.1\r\n\r\n", "larger than 4096"),
            (b"\x16\x03\x01\x02\x00", "larger than 4096"),
        ):
            self.setUp()
            self.pair.left.write(data)
            self.assert_failed(text)

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=300), st.lists(st.integers(1, 20), max_size=20))
    def test_junk(self, junk: bytes, sizes: list[int]) -> None:
        """Whatever comes, nothing is raised, and no more is kept than the limit."""
        pair = MemoryPair()
        server = Server(pair.clock, **self.server_limits)
        server.makeConnection(pair.right)
        server.dataReceived(serialized(text=b"")[:5] + junk)
        self.assertLessEqual(server._parser.held, BOX_MAX_UNAUTHENTICATED)
        whole = serialized(text=junk)
        for size in sizes:
            server.dataReceived(whole[:size])
            whole = whole[size:]

    def test_left(self) -> None:
        """After a responder has closed the line, nothing that came with its request is begun."""

        class Leaver(Server):
            @Unlock.responder
            def leave(self) -> dict[str, Any]:
                self.transport.loseConnection()
                return {}

        leaver = Leaver(self.clock)
        pair = MemoryPair(self.clock)
        pair.connect(Server(self.clock), leaver)
        told = amp.AmpBox(_command=b"Tell", text=b"later").serialize()
        pair.left.write(amp.AmpBox(_command=b"Unlock").serialize() + told)
        pair.pump()
        self.assertEqual([], leaver.told)


class BackPressureTests(BoxTestCase):
    """A peer that asks and does not read the answers."""

    def test_stops_reading(self) -> None:
        """No more requests are read while the answers are not taken; then all are answered."""
        self.pair.left.pauseProducing()
        total, size = 200, 60_000
        for tag in range(1, total + 1):
            self.client._calls.open(b"%x" % tag, Echo, None)
            self.pair.left.write(serialized(command=Echo, ask=b"%x" % tag, text=b"x" * size))
        self.pair.pump()
        self.assertLess(self.pair.right.held, 20 * size)
        self.assertGreater(self.pair.left.held, total * size / 2)
        self.pair.left.resumeProducing()
        self.pair.pump()
        self.assertEqual(0, len(self.client._calls))

    def test_closing_does_not_wait(self) -> None:
        """Where the transport is not full, closing it needs no help from here."""
        self.result(self.client.call(Echo, text=b"x"))
        self.server.transport.loseConnection()
        self.pair.pump()
        self.assertIsNotNone(self.server.reason)

    def test_closing_while_full(self) -> None:
        """Where it is full, it closes when the peer has taken the answers."""
        self.pair.left.pauseProducing()
        calls = [self.client.call(Echo, text=b"x" * 60_000) for _ in range(20)]
        self.pair.pump()
        self.server.transport.loseConnection()
        self.pair.pump()
        self.assertIsNone(self.server.reason)
        self.pair.left.resumeProducing()
        self.pair.pump()
        self.assertIsNotNone(self.server.reason)
        for call in calls:
            call.addErrback(lambda _: None)


class LoopbackTests(TestCase):
    """The same over real sockets."""

    @inlineCallbacks
    def test_works(self) -> Any:
        """Calls are answered over TCP, refused ones too, and the end is clean."""
        from twisted.internet import reactor

        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(lambda: Server(reactor))
        )
        self.addCleanup(port.stopListening)
        client = yield connectProtocol(
            TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port), Server(reactor)
        )
        answer = yield client.call(Echo, text=b"x" * 60_000)
        self.assertEqual({"text": b"x" * 60_000}, answer)
        yield self.assertFailure(client.call(Refuse, how="login"), LoginRefused)
        waiting = client.call(Wait)
        client.transport.loseConnection()
        yield self.assertFailure(waiting, NotReachable)
