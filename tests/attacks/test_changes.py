"""Bytes that are added, taken away, repeated, or moved from elsewhere on a data connection."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cloudconnect.errors import CloudConnectError, ExitCode
from tests.attacks.fields import END, Line, Part, Way, record_of
from tests.attacks.proxy import Relayed
from tests.attacks.rules import Insert, Omit, Rule, at_payload, in_field
from tests.attacks.stage import CHANGES, Stage, make_files

UP, DOWN = Way.UP, Way.DOWN
TUNNEL, STREAM = Line.TUNNEL, Line.STREAM


def copy_of(line: Line, way: Way, number: int) -> Callable[[Relayed], bytes]:
    """A record of the same connection that has passed already."""
    return lambda relayed: record_of(line, way, bytes(relayed.came_in[way]), number)


def junk(relayed: Relayed) -> bytes:
    """Nothing in particular."""
    return b"\x01\x00\x00\x00\x00\x00\x00\x20" + bytes(32)


class ChangeTests(TestCase):
    """A backup over a line on which more than a bit is changed."""

    timeout = 120

    async def set_up(self) -> None:
        self.stage = Stage(reactor, hurry=8)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)

    async def change(self, name: str, rule: Rule) -> None:
        """Back up new files; noticed by both ends, and no restore point."""
        stage = self.stage
        source = self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        before = stage.points()
        stage.proxy.rules = [rule]
        with self.assertRaises(CloudConnectError, msg=name) as raised:
            await tenant.back_up(source)
        self.assertIsNotNone(rule.hit, name)
        self.assertEqual(raised.exception.exit_code, ExitCode.SECURITY_WARNING, name)
        self.assertTrue(CHANGES & {w.kind.value for w in tenant.warnings}, name)
        session = next(event.session for event in tenant.events if event.session)
        self.assertTrue(CHANGES & {row["name"] for row in stage.warnings(session)}, name)
        self.assertEqual(stage.points(), before, name)
        stage.proxy.forget()
        await stage.leave(tenant)

    async def change_all(self, rules: dict[str, Rule]) -> None:
        await self.set_up()
        for name, rule in rules.items():
            await self.change(name, rule)

    async def test_tunnel(self) -> None:
        """Messages of the tunnel cannot be added to, repeated or sent back."""
        await self.change_all(
            {
                "one byte more": Insert(TUNNEL, UP, in_field(Part.MESSAGE, 5, 1)),
                "repeated": Insert(
                    TUNNEL, UP, in_field(Part.LENGTH, 0, 2), octets=copy_of(TUNNEL, UP, 1)
                ),
                "sent back": Insert(
                    TUNNEL, DOWN, in_field(Part.LENGTH, 0, 1), octets=copy_of(TUNNEL, UP, 1)
                ),
            }
        )

    async def test_records(self) -> None:
        """Records cannot be added, repeated, left out or sent back, in either direction."""
        await self.change_all(
            {
                "added": Insert(STREAM, UP, in_field(Part.TYPE, 0, 1), octets=junk),
                "one byte more": Insert(STREAM, UP, at_payload(9000)),
                "repeated": Insert(
                    STREAM, UP, in_field(Part.TYPE, 0, 2), octets=copy_of(STREAM, UP, 1)
                ),
                "left out": Omit(STREAM, UP, in_field(Part.TYPE, 0, 2)),
                "left out on the way down": Omit(STREAM, DOWN, in_field(Part.TYPE, 0, 1)),
                "sent back": Insert(
                    STREAM, DOWN, in_field(Part.TYPE, 0, 1), octets=copy_of(STREAM, UP, 1)
                ),
                "sent forth": Insert(
                    STREAM, UP, in_field(Part.TYPE, 0, 2), octets=copy_of(STREAM, DOWN, 0)
                ),
            }
        )

    async def test_other_sessions(self) -> None:
        """A record of the same place in an earlier session is not taken for this one's."""
        await self.set_up()
        source = self.mktemp()
        make_files(source)
        tenant = await self.stage.tenant()
        await tenant.back_up(source)
        for line, part in ((TUNNEL, Part.LENGTH), (STREAM, Part.TYPE)):
            recorded = bytes(self.stage.proxy.of(line)[0].came_in[UP])
            old = record_of(line, UP, recorded, 1)
            rule = Insert(line, UP, in_field(part, 0, 1), octets=lambda _, old=old: old)
            await self.change(f"{line.value} of another session", rule)

    async def test_behind_the_end(self) -> None:
        """Junk behind an end either spoils the session, or comes too late to matter."""
        await self.set_up()
        for line, way, where in (
            (STREAM, UP, in_field(Part.TAG, -1, type=END)),
            (STREAM, DOWN, in_field(Part.TAG, -1, type=END)),
            (TUNNEL, UP, in_field(Part.MESSAGE, -1, 2)),
            (TUNNEL, DOWN, in_field(Part.MESSAGE, -1, 2)),
        ):
            source = self.mktemp()
            make_files(source)
            tenant = await self.stage.tenant()
            before = len(self.stage.points())
            rule = Insert(line, way, where, octets=junk, behind=True)
            self.stage.proxy.rules = [rule]
            try:
                await tenant.back_up(source)
            except CloudConnectError as error:
                self.assertEqual(error.exit_code, ExitCode.SECURITY_WARNING)
                wanted = before
            else:
                wanted = before + 1
            self.assertIsNotNone(rule.hit)
            self.assertEqual(len(self.stage.points()), wanted, (line, way))
            self.stage.proxy.forget()
            await self.stage.leave(tenant)
