"""Tests of :mod:`cloudconnect.sessions.acceptance`: who may open a tunnel or a stream, and once."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from zope.interface.verify import verifyObject

from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    Downgrade,
    FrameMismatch,
    NotReachable,
    Replayed,
    Tampered,
    Truncated,
)
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.keys import IntegrityKey, KeyB, key_b_confirmation
from cloudconnect.sessions.acceptance import RoleTarget, tunnel_layer
from cloudconnect.sessions.machine import SessionState
from cloudconnect.sessions.role import RoleSession
from cloudconnect.sessions.unproved import UNPROVED_MAX
from cloudconnect.settings import CLOSE_SECONDS, HANDSHAKE_SECONDS, KEY_A_SECONDS, KEY_B_SECONDS
from cloudconnect.testing import DOWN, UP, Wire
from cloudconnect.transports.tunnel import NoiseTunnel, framed
from cloudconnect.wire.noise import FIRST_MESSAGE_SIZE, NoiseHandshake
from cloudconnect.wire.preamble import ConnectionKind
from tests.provider.sessions import (
    FRAMES,
    KEY_A,
    KEY_B,
    OTHER_KEY,
    MoverCase,
    Tunnel,
    hello,
)


class TunnelTests(MoverCase):
    """Key A: single use, and only by who holds it."""

    def first_message(self, key: bytes = KEY_A) -> bytes:
        """The preamble and the first message of a tunnel."""
        handshake = NoiseHandshake(True, key, self.prologue())
        octets = self.preamble(ConnectionKind.KEY_A_TUNNEL).encode()
        return octets + framed(handshake.write_message())

    def test_interface(self) -> None:
        """It is a relay target."""
        verifyObject(IRelayTarget, RoleTarget(self.mover))

    def test_opens(self) -> None:
        """Who holds Key A and agrees about the session gets a tunnel; Key A is gone."""
        session = self.offer()
        key = session.core.key_a
        tunnel = self.result(self.tunnel())
        self.assertIsNone(tunnel.reason)
        self.assertTrue(key is not None and key.forgotten)
        self.assertIsNone(session.core.key_a)
        self.assertIs(SessionState.PROVED, session.core.state)

    def test_gone_before_the_answer(self) -> None:
        """Key A is forgotten before a byte of message 2 is written."""
        session = self.offer()
        key = session.core.key_a
        seen: list[tuple[bool, bool]] = []
        layer = tunnel_layer(
            self.mover, session, self.preamble(ConnectionKind.KEY_A_TUNNEL).encode(), _Nobody()
        )
        assert layer is not None and key is not None
        wire = Wire(self.reactor)
        write = wire.server.write
        wire.server.write = lambda data: (  # type: ignore[method-assign]
            seen.append((key.forgotten, session.core.key_a is None)),
            write(data),
        )
        recipe = NoiseTunnel(psk=_copy(key), prologue=self.prologue())
        wire.connect(recipe.layer(True, Tunnel(self.reactor), self.reactor), layer)
        self.reactor.settle()
        self.assertEqual((True, True), seen[0])

    def test_once(self) -> None:
        """A second tunnel with the same Key A does not come up, and changes nothing."""
        session = self.offer()
        first = self.result(self.tunnel())
        second = self.tunnel()
        self.assertIsInstance(self.failureResultOf(second).value, CloudConnectError)
        self.assertEqual((None, SessionState.PROVED), (first.reason, session.core.state))
        self.result(self.deliver(first))

    def test_race(self) -> None:
        """Of two that hold the same first message, one gets an answer; the other none."""
        self.offer()
        message = self.first_message()
        ready = self.stranger(message[:-1])
        other = self.stranger(message[:-1])
        for client in (ready, other):
            client.transport.write(message[-1:])
        self.reactor.settle()
        self.assertGreater(len(ready.data), 0)
        self.assertEqual((b"", 1), (bytes(other.data), other.losses))

    def test_wrong_key(self) -> None:
        """A stranger without Key A burns nothing: only his connection closes."""
        session = self.offer()
        stranger = self.stranger(self.first_message(OTHER_KEY))
        self.assertEqual((b"", 1), (bytes(stranger.data), stranger.losses))
        self.assertIs(SessionState.OFFERED, session.core.state)
        self.assertIsNone(self.result(self.tunnel()).reason)

    def test_every_flip(self) -> None:
        """No changed byte of the first message burns Key A."""
        session = self.offer()
        whole = self.first_message()
        for offset in range(21, len(whole)):
            changed = bytearray(whole)
            changed[offset] ^= 1
            stranger = self.stranger(bytes(changed))
            if offset == 21 or offset == 22:  # the length: too long is refused, too short as well
                stranger.transport.abortConnection()
                self.reactor.settle()
            self.assertEqual(b"", bytes(stranger.data), offset)
            self.assertIs(SessionState.OFFERED, session.core.state)
        self.assertEqual(21 + 2 + FIRST_MESSAGE_SIZE, len(whole))
        self.result(self.tunnel())

    def test_other_agreement(self) -> None:
        """Who disagrees about any part of the session does not get a tunnel, nor burns Key A."""
        changes: dict[str, Any] = {
            "session": b"t" * 16,
            "tenant": "evil",
            "role": "target-wan",
            "exporter": b"f" * 32,
            "agreed": b"b" * 32,
        }
        session = self.offer()
        for name, value in changes.items():
            opened = self.tunnel(told=attrs.evolve(self.package, **{name: value}))
            error = self.failureResultOf(opened).value
            self.assertIsInstance(error, CloudConnectError, name)
            self.assertIs(SessionState.OFFERED, session.core.state, name)
        self.result(self.tunnel())

    def test_junk(self) -> None:
        """Junk on a live route id neither burns Key A nor ends a session that runs."""
        session = self.offer()
        tunnel = self.result(self.tunnel())
        octets = self.preamble(ConnectionKind.KEY_A_TUNNEL).encode()
        for junk in (b"", b"\0\0", b"\xff" * 100, framed(bytes(FIRST_MESSAGE_SIZE))):
            self.stranger(octets + junk).transport.abortConnection()
            self.reactor.settle()
        self.assertEqual((None, SessionState.PROVED), (tunnel.reason, session.core.state))
        self.result(self.deliver(tunnel))
        self.assertIs(SessionState.KEYED, session.core.state)

    def test_many_strangers(self) -> None:
        """Strangers who say nothing cannot keep the tenant's own tunnel out."""
        session = self.offer()
        octets = self.preamble(ConnectionKind.KEY_A_TUNNEL).encode()
        strangers = [self.stranger(octets) for _ in range(UNPROVED_MAX + 5)]
        self.assertLessEqual(len(session.unproved), UNPROVED_MAX)
        self.assertEqual(5, sum(stranger.losses for stranger in strangers))
        self.result(self.tunnel())

    def test_silent_stranger(self) -> None:
        """Who does not finish a handshake in time is closed, and forgotten."""
        session = self.offer()
        stranger = self.stranger(self.first_message()[:-1])
        self.reactor.pass_time(HANDSHAKE_SECONDS + 1)
        self.assertEqual((1, []), (stranger.losses, session.unproved))
        self.result(self.tunnel())

    def test_lifetime(self) -> None:
        """Key A may be used as long as it lives, on the mover's own clock, and not a moment
        longer."""
        self.offer()
        self.reactor.advance(KEY_A_SECONDS - 0.1)
        self.result(self.tunnel())
        session = self.offer(session=b"2" * 16, route=b"2" * 16)
        key = session.core.key_a
        self.reactor.advance(KEY_A_SECONDS)
        self.assertTrue(key is not None and key.forgotten)
        self.assertIsInstance(self.failureResultOf(self.tunnel()).value, CloudConnectError)

    def test_lifetime_during_the_handshake(self) -> None:
        """A handshake that was begun in time and ends too late proves nothing."""
        session = self.offer(lifetime_ms=5000)
        message = self.first_message()
        slow = self.stranger(message[:-1])
        self.reactor.advance(5)
        slow.transport.write(message[-1:])
        self.reactor.settle()
        self.assertEqual(b"", bytes(slow.data))
        self.assertIsNot(SessionState.PROVED, session.core.state)

    def test_unknown_route(self) -> None:
        """A route of no session is refused without an answer."""
        self.offer()
        self.mover._by_route.clear()
        stranger = self.stranger(self.first_message())
        self.assertEqual((b"", 1), (bytes(stranger.data), stranger.losses))


class DeliverTests(MoverCase):
    """What must come with Key B."""

    def setUp(self) -> None:
        super().setUp()
        self.session = self.offer()
        self.opened: Tunnel = self.result(self.tunnel())

    def test_confirmation(self) -> None:
        """The answer proves Key B, bound to the handshake, the role and the delivery's bytes."""
        from cloudconnect.commands.tunnel import DeliverKeyB

        digest, answering = self.opened.call_with_digest(
            DeliverKeyB,
            key_b=KeyB(KEY_B),
            integrity_key=IntegrityKey(FRAMES),
            hops=["source-mover>target-mover"],
            versions=[1],
            version=1,
        )
        answer = self.result(answering)
        handshake_hash = self.opened.transport.handshake_hash  # type: ignore[union-attr]
        self.assertEqual(
            key_b_confirmation(KeyB(KEY_B), handshake_hash, "target-mover", digest),
            answer["confirmation"],
        )
        self.assertIs(SessionState.KEYED, self.session.core.state)
        self.assertIn("key_b_received", self.told.events)

    def assert_refused(self, kind: type[CloudConnectError], **changes: Any) -> None:
        """The delivery is refused with this error; the session ends, and both sides know why."""
        self.failure_of(self.deliver(self.opened, **changes), kind)
        self.assertIsNone(self.session.core.key_b)
        self.assertEqual([kind.kind.value], self.warned())  # type: ignore[attr-defined]
        self.reactor.settle()
        self.assertIs(SessionState.ENDED, self.session.core.state)
        self.assertIsNotNone(self.opened.reason)

    def test_no_integrity_key(self) -> None:
        """A mover is not content without the integrity key."""
        self.assert_refused(ContextMismatch, integrity_key=None)

    def test_other_hops(self) -> None:
        """The hops must be those of the package: no detour, none left out, none more."""
        self.assert_refused(ContextMismatch, hops=["source-mover>source-wan"])

    def test_no_hops(self) -> None:
        """None at all is not the same either."""
        self.assert_refused(ContextMismatch, hops=[])

    def test_odd_hops(self) -> None:
        """Something that is no list is not either."""
        self.assert_refused(ContextMismatch, hops="source-mover>target-mover")

    def test_lower_version(self) -> None:
        """A version that is not the highest common one is a downgrade."""
        self.assert_refused(Downgrade, version=0, versions=[0, 1])

    def test_unknown_version(self) -> None:
        """A version that we do not speak as well."""
        self.assert_refused(Downgrade, version=7, versions=[7])

    def test_odd_versions(self) -> None:
        """Versions that are no numbers are refused, whatever they are."""
        self.assert_refused(ContextMismatch, versions={"1": [1]})

    def test_nested_versions(self) -> None:
        """Also when they are hidden in a list."""
        self.assert_refused(Downgrade, versions=[[1], {"a": 1}], version=1)

    def test_twice(self) -> None:
        """Key B is delivered once: a second delivery ends the session."""
        self.result(self.deliver(self.opened))
        self.failure_of(self.deliver(self.opened, key_b=KeyB(OTHER_KEY)), Replayed)
        self.assertEqual(["replayed"], self.warned())
        self.assertIs(SessionState.ENDED, self.session.core.state)

    def test_not_in_the_log(self) -> None:
        """Refused or not, no key is in the log or in what the service is told."""
        self.assert_refused(ContextMismatch, hops=[])
        said = self.log_text() + repr(self.told.warnings) + repr(self.session)
        for key in (KEY_A, KEY_B, FRAMES):
            self.assertNotIn(key.hex(), said)
            self.assertNotIn(repr(key)[2:-1], said)


class TunnelEndTests(MoverCase):
    """The tunnel is the session's liveness line."""

    def test_clean_end(self) -> None:
        """When the job manager ends the tunnel the session is over."""
        tunnel = self.delivered()
        core = self.mover._by_session[self.package.session].core
        tunnel.transport.loseConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        self.assertEqual((SessionState.ENDED, None), (core.state, core.key_b))
        self.assertEqual([], self.warned())

    def test_cut(self) -> None:
        """When it is cut as well, and that is said."""
        tunnel = self.delivered()
        core = self.mover._by_session[self.package.session].core
        tunnel.transport.abortConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        self.assertEqual((SessionState.ENDED, None), (core.state, core.key_b))
        self.assertEqual(["truncated"], self.warned())

    def test_stream_falls_with_it(self) -> None:
        """A stream that is up ends with its tunnel when that is cut."""
        tunnel = self.delivered()
        pipe = self.result(self.stream())
        tunnel.transport.abortConnection()  # type: ignore[union-attr]
        lost = self.result(pipe.when_lost())
        self.assertIsInstance(lost, NotReachable)

    def test_stream_has_a_moment(self) -> None:
        """A stream whose tunnel was ended properly is about to end: it has some seconds for it."""
        tunnel = self.delivered()
        pipe = self.result(self.stream())
        tunnel.transport.loseConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        lost = pipe.when_lost()
        self.assertNoResult(lost)
        self.reactor.pass_time(CLOSE_SECONDS + 1)
        self.assertIsInstance(self.result(lost), NotReachable)

    def test_no_key_b_in_time(self) -> None:
        """A tunnel through which nothing comes in time ends, and its session with it."""
        session = self.offer()
        tunnel = self.result(self.tunnel())
        self.reactor.pass_time(KEY_B_SECONDS + 1)
        self.assertIs(SessionState.ENDED, session.core.state)
        self.assertIsNotNone(tunnel.reason)


class StreamTests(MoverCase):
    """Key B: only who holds it, and each connection number once."""

    def test_opens(self) -> None:
        """Who holds Key B gets a stream, and a dialogue on it; Key B is gone."""
        self.delivered()
        core = self.mover._by_session[self.package.session].core
        key = core.key_b
        pipe = self.result(self.stream())
        self.assertEqual((None, True), (core.key_b, key is not None and key.forgotten))
        channel = self.channel(pipe)

        def talk() -> str:
            kind: str = hello(channel).kind.name
            channel.finish()
            channel.expect_end()
            return kind

        self.assertEqual("WELCOME", self.result(self.in_thread(talk)))

    def test_before_key_b(self) -> None:
        """No stream comes up before Key B was delivered."""
        self.offer()
        self.result(self.tunnel())
        self.assertIsInstance(self.failureResultOf(self.stream()).value, CloudConnectError)

    def test_other_key(self) -> None:
        """A stranger without Key B gets no stream, and does not end the session."""
        self.delivered()
        core = self.mover._by_session[self.package.session].core
        for wrong in (KeyB(OTHER_KEY), IntegrityKey(FRAMES)):
            self.failureResultOf(self.stream(key=wrong), Tampered)
        self.assertIs(SessionState.KEYED, core.state)
        self.result(self.stream())

    def test_other_context(self) -> None:
        """Nor who is of another session, tenant or hop, or moves the connection to it."""
        self.delivered()
        core = self.mover._by_session[self.package.session].core
        for change in (
            {"session": b"t" * 16},
            {"tenant": "evil"},
            {"hop": "target-mover>source-mover"},
            {"preamble": b"CCN1\x02" + b"x" * 16},
        ):
            self.failureResultOf(self.stream(**change), Tampered)
            self.assertIs(SessionState.KEYED, core.state)
        self.result(self.stream())

    def test_number_once(self) -> None:
        """A connection number is used once; who holds Key B and tries again ends the session."""
        self.delivered(streams=2)
        core = self.mover._by_session[self.package.session].core
        self.result(self.stream(0))
        again = self.result(self.stream(0))
        self.assertIsInstance(self.result(again.when_lost()), Truncated)
        self.assertEqual(["replayed"], self.warned())
        self.assertIsInstance(core.error, Replayed)
        self.assertIs(SessionState.ENDED, core.state)

    def test_numbers_beyond(self) -> None:
        """There are as many connections as streams were agreed, whatever their numbers."""
        self.delivered(streams=2)
        core = self.mover._by_session[self.package.session].core
        wild = self.result(self.stream(2))
        self.assertIsInstance(self.result(wild.when_lost()), Truncated)
        self.assertIsInstance(core.error, Replayed)

    def test_after_the_last(self) -> None:
        """When every stream is up there is no Key B to open another with."""
        self.delivered()
        self.result(self.stream(0))
        for number in (0, 1):
            self.assertIsInstance(
                self.failureResultOf(self.stream(number)).value, CloudConnectError
            )
        self.assertEqual([], self.warned())

    def test_race(self) -> None:
        """Two connections of one number that shake hands at the same time: one comes up."""
        self.delivered()
        core = self.mover._by_session[self.package.session].core
        ups: list[int] = []
        real = self.mover.stream_up

        def up(session: RoleSession, stream: Any) -> None:
            ups.append(stream.connection)
            real(session, stream)

        self.mover.stream_up = up  # type: ignore[method-assign]
        recipes = [self.begin_stream(), self.begin_stream()]
        self.reactor.settle()
        for opened in recipes:
            opened.addErrback(lambda failure: None)
        self.assertEqual([0], ups)
        self.assertIsNone(core.key_b)
        self.assertEqual([], self.flushLoggedErrors())

    def begin_stream(self) -> Any:
        """A stream that has not had a turn yet."""
        settle, self.reactor.settle = self.reactor.settle, lambda: None  # type: ignore
        try:
            return self.stream()
        finally:
            self.reactor.settle = settle  # type: ignore[method-assign]

    def test_key_b_expires(self) -> None:
        """Key B that is not used in time is forgotten, and the session ends."""
        self.delivered()
        core = self.mover._by_session[self.package.session].core
        key = core.key_b
        self.reactor.pass_time(KEY_B_SECONDS + 1)
        self.assertTrue(key is not None and key.forgotten)
        self.assertIs(SessionState.ENDED, core.state)

    def test_wrong_frame_key(self) -> None:
        """Key B alone, as an accelerator holds it, is not enough to say a frame."""
        self.delivered()
        session = self.mover._by_session[self.package.session]
        channel = self.channel(self.result(self.stream()), OTHER_KEY)

        def talk() -> None:
            try:
                hello(channel)
            finally:
                channel.abort(Aborted("enough"))

        self.failure_of(self.in_thread(talk), FrameMismatch)
        self.result(DeferredList(session.workers))
        self.assertEqual(["frame_mismatch"], self.warned())
        self.assertIsInstance(session.core.error, FrameMismatch)


class MiddleTests(MoverCase):
    """Somebody on the way changes what goes through the tunnel."""

    def test_later_change(self) -> None:
        """A changed byte after the handshake ends the session, as tampered on the mover's side."""
        session = self.offer()
        wire = Wire(self.reactor)
        layer = tunnel_layer(
            self.mover, session, self.preamble(ConnectionKind.KEY_A_TUNNEL).encode(), _Nobody()
        )
        assert layer is not None
        tunnel = Tunnel(self.reactor)
        recipe = NoiseTunnel(psk=_copy(session.core.key_a), prologue=self.prologue())
        wire.connect(recipe.layer(True, tunnel, self.reactor), layer)
        self.reactor.settle()
        wire.flips[(UP, len(wire.seen[UP]) + 40)] = 1
        self.deliver(tunnel).addErrback(lambda failure: None)
        self.reactor.settle()
        self.assertEqual(["tampered"], self.warned())
        self.assertEqual((SessionState.ENDED, None), (session.core.state, session.core.key_b))
        self.assertIsInstance(session.core.error, Tampered)
        self.assertGreater(len(wire.seen[DOWN]), 0)


class _Nobody:
    """Where a connection comes from that has no address."""

    def getPeer(self) -> object:
        return self


def _copy(key: Any) -> Any:
    return type(key)(key.reveal())
