"""Somebody who sees a running session's route id, or has recorded a session."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from cloudconnect.sessions.unproved import UNPROVED_MAX
from tests.attacks.fields import Line, Part, Way
from tests.attacks.proxy import LOOPBACK
from tests.attacks.rules import Stall, at_offset, in_field
from tests.attacks.stage import Stage, Tenant, make_files

UP, DOWN = Way.UP, Way.DOWN
TUNNEL, STREAM = Line.TUNNEL, Line.STREAM
TUNNEL_KIND, STREAM_KIND = b"\x01", b"\x02"


class Stranger(Protocol):
    """Sends something and waits for what comes of it.

    :ivar answer: all that came back
    :ivar closed: fires with that when the connection is closed
    """

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self.answer = b""
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self._octets)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.answer += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.answer)


class StrangerTests(TestCase):
    """Junk and replays at the gateway's port do not disturb the session that they name."""

    timeout = 120

    async def set_up(self) -> None:
        self.stage = Stage(reactor)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)

    async def begin(self, stall: Stall) -> tuple[Tenant, Deferred[Any]]:
        """Begin a backup that waits at ``stall``; returns when it does."""
        tenant = await self.stage.tenant()
        source = self.mktemp()
        make_files(source)
        self.stage.proxy.rules = [stall]
        backing_up = Deferred.fromCoroutine(tenant.back_up(source))
        # Whatever fails first, the other one would never fire.
        backing_up.addErrback(lambda f: f if stall.hit else stall.happened.errback(f))
        await stall.happened
        return tenant, backing_up

    async def finish(self, backing_up: Deferred[Any]) -> None:
        """Let it go on: it ends well, and has its restore point."""
        self.stage.proxy.release()
        result = await backing_up
        self.assertIn(result.point.hex(), self.stage.points())

    def route(self) -> bytes:
        """The route id that went by last."""
        relayed = self.stage.proxy.of(TUNNEL)[-1]
        return bytes(relayed.came_in[UP][5:21])

    async def send(self, octets: bytes) -> Stranger:
        """Connect to the gateway and send this."""
        place = TCP4ClientEndpoint(reactor, LOOPBACK, self.stage.port)
        stranger: Stranger = await connectProtocol(place, Stranger(octets))
        self.addCleanup(stranger.transport.abortConnection)  # type: ignore[union-attr]
        return stranger

    async def test_junk_before_tunnel(self) -> None:
        """Junk on the route before the tunnel is up does not burn Key A."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(TUNNEL, UP, in_field(Part.LENGTH, 0, 0)))
        here = b"CCN1" + TUNNEL_KIND + self.route()
        for junk in (
            b"\x00\x30" + os.urandom(48),  # a first message of the right size
            b"\x00\x30" + bytes(48),
            b"\xff\xff" + os.urandom(100),
            b"\x00\x00",
        ):
            stranger = await self.send(here + junk)
            self.assertEqual(await stranger.closed, b"")
        stream = await self.send(b"CCN1" + STREAM_KIND + self.route() + os.urandom(36))
        self.assertEqual(await stream.closed, b"")
        await self.finish(backing_up)

    async def test_junk_while_streaming(self) -> None:
        """Junk on the route of a running session does not end it."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, in_field(Part.TYPE, 0, 2)))
        for kind in (TUNNEL_KIND, STREAM_KIND):
            for junk in (b"\x00\x30" + os.urandom(48), os.urandom(200)):
                stranger = await self.send(b"CCN1" + kind + self.route() + junk)
                self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)

    async def test_junk_before_stream(self) -> None:
        """Junk while Key B waits for its stream learns nothing and disturbs nothing."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, at_offset(0)))
        for _ in range(3):
            hello, begin = os.urandom(36), os.urandom(32)
            stranger = await self.send(b"CCN1" + STREAM_KIND + self.route() + hello + begin)
            self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)

    async def test_many_silent_strangers(self) -> None:
        """Silent connections on the route do not keep the tenant's own out."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, at_offset(0)))
        for _ in range(UNPROVED_MAX + 4):
            await self.send(b"CCN1" + STREAM_KIND + self.route() + b"half a hello")
        await self.finish(backing_up)

    async def test_unknown_routes(self) -> None:
        """A route id that nobody gave out is refused, as is one that has ended."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, in_field(Part.TYPE, 0, 2)))
        ended = self.route()
        await self.finish(backing_up)
        for route in (os.urandom(16), ended):
            for kind in (TUNNEL_KIND, STREAM_KIND):
                stranger = await self.send(b"CCN1" + kind + route + b"\x00\x30" + bytes(48))
                self.assertEqual(await stranger.closed, b"")

    async def test_replayed_tunnel(self) -> None:
        """A recorded first message opens no second tunnel, and cannot end the session."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, in_field(Part.TYPE, 0, 2)))
        recorded = bytes(self.stage.proxy.of(TUNNEL)[-1].came_in[UP])
        for octets in (recorded, recorded[: 21 + 2 + 48]):
            stranger = await self.send(octets)
            self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)

    async def test_replayed_in_next_session(self) -> None:
        """Nor does it open, or burn, the next session's tunnel under that one's route."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, in_field(Part.TYPE, 0, 2)))
        recorded = bytes(self.stage.proxy.of(TUNNEL)[-1].came_in[UP])
        await self.finish(backing_up)
        tenant, backing_up = await self.begin(Stall(TUNNEL, UP, in_field(Part.LENGTH, 0, 0)))
        stranger = await self.send(recorded[:5] + self.route() + recorded[21:])
        self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)
        # The provider has told of it; that it did no harm is for the exit code to say.
        kinds = {warning.kind.value for warning in tenant.warnings}
        self.assertLessEqual(kinds, {"key_a_rejected"})

    async def test_replayed_stream(self) -> None:
        """A recorded stream cannot be played again, neither in its session nor in the next."""
        await self.set_up()
        _, backing_up = await self.begin(Stall(STREAM, UP, in_field(Part.TYPE, 0, 2)))
        recorded = bytes(self.stage.proxy.of(STREAM)[-1].came_in[UP])
        stranger = await self.send(recorded)
        self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)
        _, backing_up = await self.begin(Stall(STREAM, UP, at_offset(0)))
        stranger = await self.send(recorded[:5] + self.route() + recorded[21:])
        self.assertEqual(await stranger.closed, b"")
        await self.finish(backing_up)
