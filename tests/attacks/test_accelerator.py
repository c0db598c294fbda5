"""Compromised accelerators: what they change, invent or leave out is found by the movers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloudconnect.errors import (
    Aborted,
    ExitCode,
    FrameMismatch,
    KeyARejected,
    NotReachable,
    Truncated,
)
from cloudconnect.provider.service.planning import HERE
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.settings import CLOSE_SECONDS
from cloudconnect.wire.frames import FrameKind
from tests.attacks.fields import Way
from tests.attacks.liar_case import BACKUP, LiarCase
from tests.attacks.liars import Ending, Instead, Lie, Swap, flipped

UP, DOWN = Way.UP, Way.DOWN
#: What of a restore is sent, and answered.
RESTORE = {
    UP: (FrameKind.HELLO, FrameKind.OPEN, FrameKind.GET, FrameKind.TOTALS),
    DOWN: (FrameKind.WELCOME, FrameKind.OPENED, FrameKind.CHUNK, FrameKind.TOTALS),
}
#: Where a frame is changed, and how: kind, flags, stream, request, a length that cannot be, body,
#: tag.
PLACES = ((0, 0x01), (1, 0x80), (3, 0x01), (7, 0x01), (8, 0x80), (12, 0x01), (-17, 1), (-1, 0x80))


class ChangeTests(LiarCase):
    """Bytes that an accelerator changes after its checks."""

    def test_backup(self) -> None:
        """A bit flipped anywhere in any frame of a backup, either way, by either accelerator, is a
        ``frame_mismatch`` at both ends, and there is no restore point."""
        before = self.stored()
        for liar in self.liars():
            for way, kind, at, mask in self.places(BACKUP):
                lie = Instead(way, kind, lambda frame, _, a=at, m=mask: flipped(frame, a, m))
                self.found(liar, lie, self.back_up, FrameMismatch)
                self.assertEqual(before[0], self.stored()[0])
        # What had been verified before is kept for the next run, and nothing else.
        self.reactor.result_of(self.back_up(self.acme))

    def test_nothing_stored(self) -> None:
        """Before the first chunk was verified nothing is stored, not one byte."""
        for liar in self.liars():
            for kind in BACKUP[UP][:3]:
                lie = Instead(UP, kind, lambda frame, _: flipped(frame, -20))
                self.found(liar, lie, self.back_up, FrameMismatch)
        self.assertEqual((0, 0), self.stored())

    def test_restore(self) -> None:
        """The same for a restore; nothing that was not verified reaches the target."""
        point = self.reactor.result_of(self.back_up(self.acme)).point
        for liar in self.liars():
            for way, kind, at, mask in self.places(RESTORE):
                lie = Instead(way, kind, lambda frame, _, a=at, m=mask: flipped(frame, a, m))
                self.found(
                    liar, lie, lambda tenant: tenant.restore(point, self.mktemp()), FrameMismatch
                )

    def places(
        self, kinds: dict[Way, tuple[FrameKind, ...]]
    ) -> Iterator[tuple[Way, FrameKind, int, int]]:
        """Each kind of frame at some of the places, so that every place comes up several times."""
        number = 0
        for way, some in kinds.items():
            for kind in some:
                for step in range(3):
                    number += 1
                    yield way, kind, *PLACES[(3 * number + step) % len(PLACES)]


class InventionTests(LiarCase):
    """Frames that an accelerator makes, repeats, moves or swallows."""

    def test_invented(self) -> None:
        """A frame of an accelerator's own has no tag that holds, whatever it says."""
        for liar in self.liars():
            for way, before in (
                (UP, FrameKind.CHUNK),
                (UP, FrameKind.POINT),
                (DOWN, FrameKind.WANT),
            ):
                for made in (
                    bytes([FrameKind.STORED, 0, 0, 0]) + bytes(7) + b"\x20" + bytes(48),
                    bytes([FrameKind.GET, 0, 0, 0]) + bytes(7) + b"\x20" + bytes(48),
                    bytes([FrameKind.TOTALS, 0, 0, 0]) + bytes(7) + b"\x01" + bytes(17),
                    bytes([FrameKind.FAIL, 0, 0, 0]) + bytes(7) + b"\x01" + bytes(17),
                    b"\xff" * 100,
                ):
                    lie = Instead(way, before, lambda frame, _, made=made: made + frame)
                    self.found(liar, lie, self.back_up, FrameMismatch)
        self.assertEqual(0, self.stored()[0])

    def test_repeated_and_reordered(self) -> None:
        """A frame that comes twice, in another order, or not at all before another one."""
        for liar in self.liars():
            for lie in (
                Instead(UP, FrameKind.CHUNK, lambda frame, _: frame * 2),
                Instead(UP, FrameKind.POINT, lambda frame, _: frame * 2),
                Instead(DOWN, FrameKind.WANT, lambda frame, _: frame * 2),
                Instead(UP, FrameKind.CHUNK, lambda frame, _: b""),
                Instead(DOWN, FrameKind.STORED, lambda frame, _: b""),
                Instead(UP, FrameKind.CHUNK, lambda frame, lie: frame + lie.seen[0]),
                Swap(UP, FrameKind.POINT),
            ):
                self.found(liar, lie, self.back_up, FrameMismatch)
        self.assertEqual(0, self.stored()[0])

    def test_sent_back(self) -> None:
        """A frame of the other direction is none of this one."""
        for liar in self.liars():
            seen = Lie(UP)
            liar.lie = seen
            self.reactor.result_of(self.back_up(self.acme))
            lie = Instead(DOWN, FrameKind.WANT, lambda frame, _, seen=seen: seen.seen[1])
            self.found(liar, lie, self.back_up, FrameMismatch)

    def test_replayed(self) -> None:
        """Frames of an earlier session, in the place of just the same ones, open nothing."""
        for liar in self.liars():
            earlier = Lie(UP)
            liar.lie = earlier
            self.reactor.result_of(self.back_up(self.acme))
            points = self.stored()[0]
            for kind in (FrameKind.HELLO, FrameKind.HAVE, FrameKind.POINT):
                old = next(frame for frame in earlier.seen if frame[0] == kind)
                lie = Instead(UP, kind, lambda frame, _, old=old: old)
                self.found(liar, lie, self.back_up, FrameMismatch)
            self.assertEqual(points, self.stored()[0])

    def test_cut(self) -> None:
        """Where an accelerator stops, or swallows the end, the session is cut off: no point."""
        for liar in self.liars():
            for way, kind in (
                (UP, FrameKind.CHUNK),
                (UP, FrameKind.POINT),
                (DOWN, FrameKind.STORED),
            ):
                self.found(liar, Ending(way, kind), self.back_up, Truncated, Aborted)
            for way in (UP, DOWN):
                lie = Instead(way, FrameKind.TOTALS, lambda frame, _: b"")
                self.found(liar, lie, self.back_up, Truncated)
                lie = Instead(way, FrameKind.TOTALS, lambda frame, _: frame + b"x")
                self.found(liar, lie, self.back_up, Truncated, FrameMismatch)
        self.assertEqual(0, self.stored()[0])


class PosingTests(LiarCase):
    """An accelerator in whose hands the mover's tunnel ends up, by a gateway that is no better."""

    def crossed(self, *, with_key: bool = False) -> None:
        """From now on the mover's route leads to the accelerator, which answers with its own Key A.

        :param with_key: it has even got hold of the mover's
        """
        real, provider = self.provider.service.starts.start, self.provider
        accelerator: Any = provider.accelerator

        async def start(*arguments: Any) -> Any:
            session, plan, keys = await real(*arguments)
            routes = {entry["role"]: entry["route"] for entry in plan}
            own = accelerator._by_session[session]
            if with_key:
                own.core.key_a = provider.mover._by_session[session].core.key_a
                accelerator._by_route.pop(routes["target-wan"])
            accelerator._by_route[routes["target-mover"]] = own
            provider.targets[HERE] = RoleTarget(accelerator)
            return session, plan, keys

        provider.service.starts.start = start  # type: ignore[method-assign]

    def assert_nothing(self) -> None:
        tenant = self.acme
        self.assertIn("key_a_rejected", [warning.kind.value for warning in tenant.warnings])
        self.assertIn("key_a_rejected", self.provider.names(type="warning"))
        self.assertNotIn("key_b_confirmed", tenant.names())
        self.reactor.pass_time(2 * CLOSE_SECONDS)
        self.assertEqual((0, 0), self.stored())

    def test_own_key(self) -> None:
        """It does not hold the mover's Key A: the tunnel does not open, and no Key B is made."""
        self.crossed()
        error = self.failure_of(self.back_up(self.acme), KeyARejected)
        self.assertIs(ExitCode.SECURITY_WARNING, error.exit_code)
        self.assert_nothing()

    def test_stolen_key(self) -> None:
        """Nor does the mover's Key A help: each role has an exporter of its own, and its name is in
        the handshake."""
        self.crossed(with_key=True)
        self.failure_of(self.back_up(self.acme), KeyARejected, NotReachable, Truncated)
        self.assertNotIn("key_b_made", self.acme.names())
        self.reactor.pass_time(2 * CLOSE_SECONDS)
        self.assertEqual((0, 0), self.stored())

    def test_gateway_alone(self) -> None:
        """A gateway that takes the routes the other way round, while everybody is honest."""
        real, provider = self.provider.service.starts.start, self.provider
        accelerator: Any = provider.accelerator

        async def start(*arguments: Any) -> Any:
            session, plan, keys = await real(*arguments)
            mover, wan = (entry["route"] for entry in plan)
            provider.mover._by_route[wan] = provider.mover._by_route.pop(mover)
            accelerator._by_route[mover] = accelerator._by_route.pop(wan)
            return session, plan, keys

        provider.service.starts.start = start  # type: ignore[method-assign]
        self.failure_of(self.back_up(self.acme), KeyARejected)
        self.assert_nothing()
