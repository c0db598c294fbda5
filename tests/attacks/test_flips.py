"""One changed byte, anywhere on a data connection: noticed at both ends, and no restore point.

Run ``CLOUDCONNECT_FLIPS=500`` for a long form with so many more positions.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from pathlib import Path

import attrs
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cloudconnect.errors import CloudConnectError, ControlTampered, ExitCode, SecurityError
from cloudconnect.wire.frames import FrameKind
from tests.attacks.fields import END, Line, Part, Way
from tests.attacks.rules import Flip, Where, at_offset, at_payload, in_field, in_tag_behind
from tests.attacks.stage import CHANGES, Passed, Stage, make_files

#: Positions of the random choice, beside the named ones.
FLIPS = int(os.environ.get("CLOUDCONNECT_FLIPS", "6"))
SEED = 20261123

UP, DOWN = Way.UP, Way.DOWN
TUNNEL, STREAM = Line.TUNNEL, Line.STREAM


@attrs.frozen
class Place:
    """Where to strike, and what it is called in a failure."""

    name: str
    line: Line
    way: Way
    where: Where
    mask: int = 0x01


@attrs.frozen
class Outcome:
    """What a backup with one changed byte came to."""

    place: Place
    session: str
    at: int
    part: Part | None
    error: BaseException | None
    exit_code: int
    tenant: list[str]
    provider: list[str]
    new_points: int

    def complaints(self) -> list[str]:
        """What is not as promised."""
        found = []
        codes = {int(ExitCode.SECURITY_WARNING)}
        if self.part in (Part.PREAMBLE, Part.LENGTH):
            codes.add(int(ExitCode.NOT_REACHABLE))
        if self.part is None:
            found.append("the byte did not come by")
        if self.exit_code not in codes:
            found.append(f"exit code {self.exit_code} for {self.error!r}")
        if self.new_points:
            found.append("there is a new restore point")
        wanted = CHANGES if self.exit_code == ExitCode.SECURITY_WARNING else {"truncated"} | CHANGES
        for end, kinds in (("tenant", self.tenant), ("provider", self.provider)):
            # One of the change; the side whose peer resets may say that the bytes stopped, too.
            told = [kind for kind in kinds if kind in CHANGES]
            if not wanted & set(kinds) or len(told) > 1:
                found.append(f"the {end}'s warnings are {kinds}")
        return [f"{self.place.name} (byte {self.at}): {what}" for what in found]


class FlipTests(TestCase):
    """A backup over a line on which one byte is changed."""

    timeout = 300 + 3 * FLIPS

    async def set_up(self, hurry: float = 1.0) -> None:
        self.stage = Stage(reactor, hurry)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)

    async def strike(self, place: Place, **files: int) -> Outcome:
        """Back up new files while this byte is changed."""
        stage = self.stage
        source = self.mktemp()
        make_files(source, **files)
        tenant = await stage.tenant()
        before = set(stage.points())
        flip = Flip(place.line, place.way, place.where, mask=place.mask)
        stage.proxy.rules = [flip]
        error: CloudConnectError | None = None
        try:
            await tenant.back_up(source)
        except CloudConnectError as failure:
            error = failure
        stage.proxy.forget()
        session = next((event.session for event in tenant.events if event.session), "none")
        outcome = Outcome(
            place,
            session,
            flip.at,
            flip.hit.field.part if flip.hit is not None else None,
            error,
            int(error.exit_code) if error is not None else 0,
            [warning.kind.value for warning in tenant.warnings],
            [row["name"] for row in stage.warnings(session)],
            len(set(stage.points()) - before),
        )
        await stage.leave(tenant)
        return outcome

    async def strike_all(self, places: Iterable[Place], **files: int) -> None:
        complaints = []
        for place in places:
            outcome = await self.strike(place, **files)
            complaints += outcome.complaints()
        self.assertEqual(complaints, [])
        await self.back_up_cleanly()

    async def back_up_cleanly(self, **files: int) -> tuple[list[Passed], list[Passed]]:
        """Nothing stays broken; returns the frames of a session, as they stand in its streams."""
        source = self.mktemp()
        make_files(source, **files)
        self.stage.proxy.forget()
        tenant = await self.stage.tenant()
        result = await tenant.back_up(source)
        self.assertIn(result.point.hex(), self.stage.points())
        self.assertEqual(tenant.warnings, [])
        assert tenant.channel is not None
        await self.stage.leave(tenant)
        return tenant.channel.up, tenant.channel.down

    async def test_preambles(self) -> None:
        """A changed preamble ends the session, whichever of its fields it is."""
        await self.set_up(hurry=8)
        await self.strike_all(
            Place(f"{line.value} {name}", line, UP, in_field(Part.PREAMBLE, index))
            for line in (TUNNEL, STREAM)
            for name, index in (("first byte", 0), ("magic", 3), ("kind", 4), ("route", 13))
        )

    async def test_tunnel(self) -> None:
        """Changes in the handshake, in Key B's delivery and in its confirmation are noticed."""
        await self.set_up()
        message = Part.MESSAGE
        await self.strike_all(
            [
                Place("ephemeral key", TUNNEL, UP, in_field(message, 7, 0)),
                Place("ephemeral key, top bit", TUNNEL, UP, in_field(message, 31, 0), 0x80),
                Place("tag of the first message", TUNNEL, UP, in_field(message, 40, 0)),
                Place("answered ephemeral key", TUNNEL, DOWN, in_field(message, 0, 0)),
                Place("answered payload", TUNNEL, DOWN, in_field(message, 40, 0)),
                Place("answered tag", TUNNEL, DOWN, in_field(message, -1, 0)),
                Place("delivery", TUNNEL, UP, in_field(message, 60, 1)),
                Place("tag of the delivery", TUNNEL, UP, in_field(message, -1, 1)),
                Place("confirmation", TUNNEL, DOWN, in_field(message, 50, 1)),
            ]
        )

    async def test_end_of_tunnel(self) -> None:
        """A change in the tunnel's end, after everything else went well, is noticed."""
        await self.set_up()
        await self.strike_all(
            [
                Place("tenant's end", TUNNEL, UP, in_field(Part.MESSAGE, 3, 2)),
                Place("provider's end", TUNNEL, DOWN, in_field(Part.MESSAGE, 3, 2)),
            ]
        )

    async def test_handshake_of_stream(self) -> None:
        """Salts, the connection's number and commitments are bound by the commitments."""
        await self.set_up()
        await self.strike_all(
            [
                Place("salt of the hello", STREAM, UP, in_field(Part.HELLO, 5)),
                Place("connection's number", STREAM, UP, in_field(Part.HELLO, 35)),
                Place("salt of the welcome", STREAM, DOWN, in_field(Part.WELCOME, 31)),
                Place("commitment of the welcome", STREAM, DOWN, in_field(Part.WELCOME, 32)),
                Place("commitment of begin", STREAM, UP, in_field(Part.BEGIN, 31)),
            ]
        )

    async def test_headers_of_records(self) -> None:
        """Type, flags and epoch of a record are bound by its tag, in both directions."""
        await self.set_up()
        await self.strike_all(
            Place(f"{part.value} of record 1 {way.value}", STREAM, way, in_field(part, index, 1))
            for way in Way
            for part, index in (
                (Part.TYPE, 0),
                (Part.FLAGS, 0),
                (Part.EPOCH, 1),
                (Part.BODY, 0),
                (Part.TAG, 15),
            )
        )

    async def test_lengths(self) -> None:
        """A changed length is noticed at once, or stalls and is noticed by a time limit."""
        await self.set_up(hurry=8)
        await self.strike_all(
            Place(f"{line.value} {name} {way.value}", line, way, in_field(Part.LENGTH, index, n))
            for line, way, name, index, n in (
                (TUNNEL, UP, "high byte of the first message", 0, 0),
                (TUNNEL, DOWN, "low byte of the first message", 1, 0),
                (TUNNEL, UP, "low byte of the delivery", 1, 1),
                (TUNNEL, DOWN, "low byte of the confirmation", 1, 1),
                (TUNNEL, UP, "low byte of the end", 1, 2),
                (TUNNEL, DOWN, "low byte of the end", 1, 2),
                (STREAM, UP, "top byte of record 0", 0, 0),
                (STREAM, UP, "third byte of record 1", 2, 1),
                (STREAM, UP, "low byte of record 2", 3, 2),
                (STREAM, DOWN, "low byte of record 0", 3, 0),
                (STREAM, DOWN, "second byte of record 1", 1, 1),
            )
        )

    async def test_lengths_of_end(self) -> None:
        """A changed length behind the restore point leaves none either."""
        await self.set_up(hurry=8)
        await self.strike_all(
            Place(f"length of END {way.value}", STREAM, way, in_field(Part.LENGTH, 3, type=END))
            for way in Way
        )

    async def test_every_kind_of_frame(self) -> None:
        """A change under any frame of a backup is noticed, the last ones' too."""
        await self.set_up()
        up, down = await self.back_up_cleanly()
        self.assertIn(FrameKind.CHUNK, {frame.kind for frame in up})
        for frames in (up, down):  # none of them is missing
            ends = [frame.start + frame.size for frame in frames]
            self.assertEqual([frame.start for frame in frames], [0, *ends[:-1]])
        places = []
        for way, frames in ((UP, up), (DOWN, down)):
            for number, frame in enumerate(frames):
                name = f"{way.value} frame {number}, {frame.kind.name}"
                middle = frame.start + frame.size // 2
                places.append(Place(name, STREAM, way, at_payload(middle)))
        last = up[-1].start
        places.append(Place("tag behind the totals", STREAM, UP, in_tag_behind(last + 10)))
        await self.strike_all(places)

    async def test_end_of_stream(self) -> None:
        """A change in either authenticated end withdraws what was published."""
        await self.set_up()
        await self.strike_all(
            Place(f"{part.value} of END {way.value}", STREAM, way, in_field(part, 3, type=END))
            for way in Way
            for part in (Part.BODY, Part.TAG)
        )

    async def test_restore(self) -> None:
        """A change while a point is restored is noticed, and nothing unverified is written."""
        await self.set_up()
        source = self.mktemp()
        make_files(source, count=8, size=40_000)
        wanted = {path.name: path.read_bytes() for path in Path(source).iterdir()}
        tenant = await self.stage.tenant()
        result = await tenant.back_up(source)
        await tenant.restore(result.point, self.mktemp())
        assert tenant.channel is not None
        frames = [(DOWN, frame) for frame in tenant.channel.down]
        frames += [(UP, frame) for frame in tenant.channel.up]
        for way, frame in frames:
            name = f"{frame.kind.name} {way.value}"
            target = Path(self.mktemp())
            tenant = await self.stage.tenant()
            flip = Flip(STREAM, way, at_payload(frame.start + frame.size // 2))
            self.stage.proxy.rules = [flip]
            with self.assertRaises(SecurityError, msg=name):
                await tenant.restore(result.point, str(target))
            self.assertIsNotNone(flip.hit, name)
            session = next(event.session for event in tenant.events if event.session)
            self.assertTrue(CHANGES & {w.kind.value for w in tenant.warnings}, name)
            self.assertTrue(CHANGES & {row["name"] for row in self.stage.warnings(session)}, name)
            for path in target.rglob("file-*"):
                self.assertEqual(wanted[path.name], path.read_bytes(), name)
            self.stage.proxy.forget()
            await self.stage.leave(tenant)

    async def test_control(self) -> None:
        """A change on the control channel at the end of a session is one like any other."""
        await self.set_up()
        await self.back_up_cleanly()
        size = len(self.stage.proxy.of(Line.CONTROL)[-1].came_in[UP])
        # Finish is the last of it, with close_notify behind: some 24 bytes.
        place = Place("Finish", Line.CONTROL, UP, at_offset(size - 60))
        before = self.stage.points()
        outcome = await self.strike(place)
        await self.stage.close()  # the provider ends such a session by itself
        told = [row["name"] for row in self.stage.warnings(outcome.session)]
        outcome = attrs.evolve(outcome, provider=told, new_points=0)
        self.assertEqual(outcome.complaints(), [])
        self.assertEqual(self.stage.points(), before)

    async def test_control_at_start(self) -> None:
        """A change in Start, or in its answer, is told at both ends though there is no session."""
        await self.set_up()
        for way in Way:
            tenant = await self.stage.tenant()
            said = len(self.stage.proxy.of(Line.CONTROL)[-1].came_in[way])
            self.stage.proxy.rules = [Flip(Line.CONTROL, way, at_offset(said + 30))]
            with self.assertRaises(ControlTampered):
                await tenant.back_up(self.mktemp())
            self.assertEqual([w.kind.value for w in tenant.warnings], ["control_tampered"])
            self.stage.proxy.forget()
            await self.stage.leave(tenant)
        await self.back_up_cleanly()
        told = self.stage.listed("event", type="warning")
        self.assertEqual([row["name"] for row in told], ["control_tampered"] * 2)

    async def test_anywhere(self) -> None:
        """Positions chosen by chance, over the whole of both data connections."""
        await self.set_up(hurry=4)
        files = {"count": 20, "size": 20_000}
        await self.back_up_cleanly(**files)
        sizes = {
            (relayed.line, way): len(relayed.came_in[way])
            for relayed in self.stage.proxy.connections
            if relayed.line in (TUNNEL, STREAM)
            for way in Way
        }
        chance = random.Random(SEED)
        places = []
        for number in range(FLIPS):
            line, way = sorted(sizes, key=str)[number % len(sizes)]
            # Records may be cut a little differently each time: not the last bytes of the stream.
            offset = chance.randrange(sizes[line, way] - (300 if line is STREAM else 0))
            mask = 1 << chance.randrange(8)
            name = f"{line.value} {way.value} {offset} mask {mask:#x}"
            places.append(Place(name, line, way, at_offset(offset), mask))
        await self.strike_all(places, **files)
