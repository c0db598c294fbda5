"""Tests of :mod:`cloudconnect.accelerator.source`: what a job manager and a mover can ask of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Protocol

from cloudconnect.accelerator.passage import hop_endpoint
from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.commands.control import BETWEEN_WANS, TO_SOURCE_WAN
from cloudconnect.commands.lan import EndWAN, HandWAN, PassedWAN
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    NoAccelerator,
    NotReachable,
    Replayed,
    SecurityError,
    Truncated,
    UsageError,
)
from cloudconnect.keys import KeyB
from cloudconnect.settings import CLOSE_SECONDS, HANDSHAKE_SECONDS, KEY_B_SECONDS
from cloudconnect.testing import Recorder
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.provider.stage import HOST, PORT, StageCase, idle

SESSION, ROUTE, KEY = b"s" * 16, b"r" * 16, bytes(range(32))


class SourceCase(StageCase):
    """A source accelerator, with the test as its job manager and its mover."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.accelerated()
        assert self.acme.accelerator is not None
        self.accelerator: SourceAccelerator = self.acme.accelerator
        self.link = self.acme.own.link

    def hand(self, **changes: Any) -> Any:
        """Hand over a session that nobody at the provider knows."""
        values: dict[str, Any] = {
            "session": SESSION,
            "tenant": "acme",
            "route": ROUTE,
            "next_route": b"n" * 16,
            "gateways": [f"{HOST}:{PORT}"],
            "hops": [TO_SOURCE_WAN, BETWEEN_WANS],
            "streams": 2,
            "cache": b"c" * 32,
            "key_b": KeyB(KEY),
        }
        return self.link.call(HandWAN, **{**values, **changes})

    def end(self, aborted: bool = False, session: bytes = SESSION) -> Any:
        return self.link.call(EndWAN, session=session, aborted=aborted)

    def to_a_dead_end(self) -> None:
        """From now on connections to the provider are opened, and nobody answers."""

        class Silent:
            def connect(self, factory: Any) -> Any:
                return Deferred()

        self.accelerator._connect = lambda host, port: Silent()  # type: ignore[assignment,return-value]

    def refused(self, **change: Any) -> None:
        """A mover that is not taken: closed, in the handshake or right behind it."""
        protocol, results = self.mover(**change)
        self.reactor.settle()
        (result,) = results
        error = protocol.reason if result is protocol else result.value
        self.assertIsInstance(error, CloudConnectError, change)

    def mover(self, key: bytes = KEY, hop: str = TO_SOURCE_WAN, connection: int = 0) -> Any:
        """A mover connects; its protocol, and what its connecting came to."""
        protocol = Recorder()
        endpoint = hop_endpoint(
            self.reactor,
            self.acme.own.endpoint,
            KeyB(key),
            route=ROUTE,
            session=SESSION,
            tenant="acme",
            hop=hop,
            connection=connection,
        )
        results: list[Any] = []
        connectProtocol(endpoint, protocol).addBoth(results.append)
        self.reactor.settle()
        return protocol, results


class HandTests(SourceCase):
    """What it is handed."""

    def test_malformed(self) -> None:
        """What cannot be a session is refused, and nothing of it is kept."""
        for change in (
            {"hops": []},
            {"hops": [TO_SOURCE_WAN]},
            {"hops": [1, 2]},
            {"hops": "ab"},
            {"gateways": []},
            {"gateways": {}},
            {"streams": 0},
            {"streams": 17},
        ):
            self.failure_of(self.hand(**change), ContextMismatch)
        self.failure_of(self.hand(gateways=["no port"]), UsageError)
        self.assertEqual(({}, {}), (self.accelerator._by_session, self.accelerator._by_route))

    def test_twice(self) -> None:
        """A session, or a route, is handed over once; also where two come at the same time."""
        self.to_a_dead_end()
        results: list[Any] = []
        for both in (self.hand(), self.hand()):
            both.addBoth(results.append)
        while len(results) < 2:
            self.reactor._wait()
            self.reactor.settle()
        (refused,) = (one for one in results if one != {})
        self.assertIsInstance(refused.value, ContextMismatch)
        for change in ({"session": b"t" * 16}, {"route": b"t" * 16}):
            self.failure_of(self.hand(**change), ContextMismatch)
        self.reactor.result_of(self.end(aborted=True))
        self.assertEqual({}, self.accelerator._by_route)

    def test_stopping(self) -> None:
        """One that is stopping takes no session, and says so: nothing was changed on the way."""
        self.accelerator.running = False
        self.failure_of(self.hand(), NoAccelerator)
        self.accelerator.running = True
        self.assertEqual({}, self.accelerator._by_session)

    def test_unknown(self) -> None:
        """The end of a session that it does not know is no error."""
        self.assertEqual({}, self.reactor.result_of(self.end())["counts"])

    def test_nobody_comes(self) -> None:
        """Where the next step does not come, Key B is dropped, and who asks is told."""
        self.to_a_dead_end()
        key = KeyB(KEY)
        self.reactor.result_of(self.hand(key_b=key))
        (one,) = self.accelerator._by_session.values()
        self.reactor.pass_time(KEY_B_SECONDS + 1)
        self.failure_of(self.end(), Truncated)
        self.assertTrue(one.key_b.forgotten)

    def test_provider_not_reachable(self) -> None:
        """Each gateway is tried; where none takes the connection, that is what the end says."""
        tried: list[tuple[str, int]] = []

        class Refusing:
            def connect(self, factory: Any) -> Any:
                raise ConnectionRefusedError

        def connect(host: str, port: int) -> Any:
            tried.append((host, port))
            return Refusing()

        self.accelerator._connect = connect
        self.reactor.result_of(self.hand(gateways=["one:1", "two:2"], streams=1))
        self.failure_of(self.end(), NotReachable)
        self.assertEqual([("one", 1), ("two", 2)], tried)

    def test_next_gateway(self) -> None:
        """A whole session over the second gateway, as the first one is gone."""
        reach, tried = self.acme.manager.far_endpoint, []  # type: ignore[var-annotated]
        hand = self.accelerator._hand

        class Gone:
            def connect(self, factory: Any) -> Any:
                raise ConnectionRefusedError

        def connect(host: str, port: int) -> Any:
            tried.append(host)
            return Gone() if host == "gone" else reach(host, port)

        def with_one_more(link: Any, **values: Any) -> Any:
            return hand(link, **{**values, "gateways": ["gone:1", *values["gateways"]]})

        self.accelerator._connect = connect
        self.accelerator._hand = with_one_more  # type: ignore[method-assign]
        self.reactor.result_of(self.acme.session(idle(self.acme)))
        self.assertEqual(["gone", HOST, HOST, "gone", HOST], tried)

    def test_stop(self) -> None:
        """One that stops ends its sessions."""
        self.to_a_dead_end()
        self.reactor.result_of(self.hand())
        self.reactor.result_of(self.accelerator.stopService())
        self.assertEqual({}, self.accelerator._by_session)


class MoverTests(SourceCase):
    """Who connects as the mover."""

    def setUp(self) -> None:
        super().setUp()
        self.to_a_dead_end()
        self.reactor.result_of(self.hand())
        (self.one,) = self.accelerator._by_session.values()

    def test_one_mover(self) -> None:
        """Who proves Key B is the mover; whoever proves it once more, or under another number, has
        no business to: the session ends as tampered with."""
        first, results = self.mover()
        self.assertIs(first, results[0])
        self.assertTrue(self.one.taken)
        self.refused()
        self.failure_of(self.end(), Replayed)
        self.assertEqual(["replayed"], [one.kind.value for one in self.acme.warnings])

    def test_strangers(self) -> None:
        """Another key or hop, junk, and a tunnel where there is none: closed, and the mover is
        still let in."""
        for change in ({"key": bytes(32)}, {"hop": BETWEEN_WANS}):
            self.refused(**change)
        for kind in ConnectionKind:
            for data in (b"", bytes(300), b"\xff" * 300):
                stranger = Recorder()
                stranger.greeting = Preamble(kind, ROUTE).encode() + data
                connectProtocol(self.acme.own.endpoint, stranger)
                self.reactor.settle()
        self.reactor.pass_time(HANDSHAKE_SECONDS + 1)
        self.assertEqual([], self.one.unproved)
        mover, results = self.mover()
        self.assertIs(mover, results[0])

    def test_many_strangers(self) -> None:
        """Connections that prove nothing make way for new ones: they keep nobody out."""
        for _ in range(200):
            stranger = Recorder()
            stranger.greeting = Preamble(ConnectionKind.KEY_B_STREAM, ROUTE).encode()
            connectProtocol(self.acme.own.endpoint, stranger)
        self.reactor.settle()
        self.assertLessEqual(len(self.one.unproved), 64)
        mover, results = self.mover()
        self.assertIs(mover, results[0])

    def test_unknown_route(self) -> None:
        """A connection on a route that it does not have is closed."""
        stranger = Recorder()
        stranger.greeting = Preamble(ConnectionKind.KEY_B_STREAM, b"x" * 16).encode() + bytes(50)
        connectProtocol(self.acme.own.endpoint, stranger)
        self.reactor.pass_time(HANDSHAKE_SECONDS + 1)
        self.assertEqual(b"", bytes(stranger.data))
        self.assertIsNone(self.one.outcome)

    def test_mover_lost(self) -> None:
        """A mover that is gone ends the session, and its job manager hears of it."""
        mover, _ = self.mover()
        mover.transport.transport.abortConnection()
        self.reactor.pass_time(1)
        error = self.failure_of(self.end(), Truncated)
        self.assertNotIsInstance(error, SecurityError)
        self.assertEqual(["truncated"], [one.kind.value for one in self.acme.warnings])

    def test_aborted(self) -> None:
        """The end of a session that failed is an answer, and no error."""
        mover, _ = self.mover()
        counts = self.reactor.result_of(self.end(aborted=True))["counts"]
        self.assertEqual(0, counts["bytes_before"])
        self.reactor.pass_time(1)
        self.assertTrue(self.one.key_b.forgotten)
        self.assertIsInstance(self.one.outcome[0], Aborted)  # type: ignore[index]
        self.assertIsInstance(mover, Protocol)

    def test_not_passed(self) -> None:
        """Who asks when all was passed on hears why it never will be, as later at the end; of a
        session that is not known there is nothing to say."""
        mover, _ = self.mover()
        passed = self.link.call(PassedWAN, session=SESSION)
        self.reactor.settle()
        self.assertNoResult(passed)
        mover.transport.transport.abortConnection()
        self.reactor.pass_time(1)
        self.failure_of(passed, Truncated)
        self.failure_of(self.link.call(PassedWAN, session=SESSION), Truncated)
        self.failure_of(self.end(), Truncated)
        answer = self.reactor.result_of(self.link.call(PassedWAN, session=b"?" * 16))
        self.assertEqual({}, answer["counts"])

    def test_passed_late(self) -> None:
        """One that does not come to it is given up."""
        self.mover()
        passed = self.link.call(PassedWAN, session=SESSION)
        self.reactor.pass_time(CLOSE_SECONDS + 1)
        self.failure_of(passed, Truncated)

    def test_takes_its_time(self) -> None:
        """A session that is over for the job manager, and does not end, is given up."""
        self.mover()
        ending = self.end()
        self.reactor.settle()
        self.assertNoResult(ending)
        self.reactor.pass_time(CLOSE_SECONDS + 1)
        self.failure_of(ending, Truncated)
