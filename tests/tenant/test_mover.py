"""Tests of :mod:`cloudconnect.tenant.mover`: the source mover against a real target mover."""

from __future__ import annotations

from typing import Any

from cloudconnect.commands.control import DIRECT_HOP
from cloudconnect.commands.lan import HandKeyB
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import Aborted, Cancelled, CloudConnectError, ContextMismatch
from cloudconnect.keys import IntegrityKey, KeyB
from cloudconnect.tenant.mover import UNLIMITED, Rates, SourceDataMover
from cloudconnect.wire.channel import FrameChannel
from tests.provider.sessions import FRAMES, KEY_B, OTHER_KEY, MoverCase, hello


class SourceCase(MoverCase):
    """A test with a source mover and a session at the target."""

    def setUp(self) -> None:
        super().setUp()
        self.source = SourceDataMover(self.reactor)
        self.source.start()
        self.addCleanup(self.source.stop)
        self.lan, _ = link_in_process(self.reactor, None, self.source)
        self.delivered()

    def hand(self, **changes: Any) -> Any:
        """Hand the session's keys over."""
        values = {
            "session": self.package.session,
            "tenant": self.package.tenant,
            "route": self.package.route,
            "hop": DIRECT_HOP,
            "key_b": KeyB(KEY_B),
            "integrity_key": IntegrityKey(FRAMES),
            **changes,
        }
        return self.lan.call(HandKeyB, **values)

    def open(self, rates: Rates = UNLIMITED) -> Any:
        return self.source.open(self.package.session, self.public, rates)

    @staticmethod
    def talk(channel: FrameChannel) -> str:
        kind: str = hello(channel).kind.name
        channel.finish()
        channel.expect_end()
        return kind


class MoverTests(SourceCase):
    """What the source mover does."""

    def test_dialogue(self) -> None:
        """With the keys it opens the stream and runs the dialogue in a thread."""
        self.result(self.hand())
        channel = self.result(self.open())
        self.assertEqual("WELCOME", self.result(self.source.run(self.talk, channel)))

    def test_paced(self) -> None:
        """With a rate as well."""
        self.result(self.hand())
        channel = self.result(self.open(Rates(10_000_000, 10_000_000)))
        self.assertEqual("WELCOME", self.result(self.source.run(self.talk, channel)))

    def test_keys_are_dropped(self) -> None:
        """Once the stream is up it has neither key any more."""
        self.result(self.hand())
        handed = self.source._handed[self.package.session]
        self.result(self.open())
        self.assertTrue(handed.key_b.forgotten and handed.integrity_key.forgotten)
        self.assertEqual({}, self.source._handed)

    def test_printed(self) -> None:
        """What is printed of what it was handed holds no key, nor does the log."""
        self.result(self.hand())
        said = repr(self.source._handed) + self.log_text()
        for octets in (KEY_B, FRAMES):
            self.assertNotIn(octets.hex(), said)
            self.assertNotIn(repr(octets)[2:-1], said)

    def test_once(self) -> None:
        """The keys of a session are handed over once: others do not take their place."""
        self.result(self.hand())
        self.failure_of(self.hand(key_b=KeyB(OTHER_KEY)), ContextMismatch)
        self.result(self.open())

    def test_forget(self) -> None:
        """Keys of a session that is over are dropped; forgetting again is no error."""
        self.result(self.hand())
        handed = self.source._handed[self.package.session]
        self.source.forget(self.package.session)
        self.source.forget(self.package.session)
        self.assertTrue(handed.key_b.forgotten and handed.integrity_key.forgotten)

    def test_wrong_key(self) -> None:
        """With another Key B there is no stream."""
        self.result(self.hand(key_b=KeyB(OTHER_KEY)))
        with self.assertRaises(CloudConnectError):
            self.result(self.open())

    def test_wrong_session(self) -> None:
        """Nor with the keys of this session for another tenant, route or hop."""
        for change in ({"tenant": "evil"}, {"hop": "source-mover>source-wan"}):
            self.result(self.hand(**change))
            with self.assertRaises(CloudConnectError):
                self.result(self.open())
            self.source.forget(self.package.session)

    def test_dialogue_fails(self) -> None:
        """What a dialogue raises comes out, and ends the stream at the other side too."""
        self.result(self.hand())
        channel = self.result(self.open())
        session = self.mover._by_session[self.package.session]

        def work(channel: FrameChannel) -> None:
            hello(channel)
            raise Cancelled("enough")

        self.failure_of(self.source.run(work, channel), Cancelled)
        self.assertIsInstance(self.result(session.running[0].when_lost()), Aborted)

    def test_abort(self) -> None:
        """An abort ends a dialogue that waits, with the reason."""
        self.result(self.hand())
        channel = self.result(self.open())

        def work(channel: FrameChannel) -> None:
            hello(channel)
            self.reactor.callFromThread(self.source.abort, Cancelled("interrupted"))
            channel.receive()

        self.failure_of(self.source.run(work, channel), Cancelled)

    def test_abort_without_a_stream(self) -> None:
        """An abort before there is a stream does nothing."""
        self.source.abort(Cancelled("nothing to do"))
        self.result(self.hand())
        self.result(self.open())
