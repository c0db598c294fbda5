"""A connection that is cut, slowed down, or broken into single bytes."""

from __future__ import annotations

import os

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.errors import ExitCode, Truncated
from tests.attacks.fields import END, Line, Part, Way
from tests.attacks.rules import Cut, Rule, Trickle, at_offset, at_payload, in_field
from tests.attacks.stage import Stage, make_files

UP, DOWN = Way.UP, Way.DOWN
TUNNEL, STREAM = Line.TUNNEL, Line.STREAM


class CutTests(TestCase):
    """A backup over a line that breaks."""

    timeout = 120

    async def set_up(self) -> None:
        self.stage = Stage(reactor)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)

    async def cut(self, name: str, rule: Rule) -> None:
        """Back up new files over a line that is cut: truncated at both ends, and no point."""
        stage = self.stage
        source = self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        before = stage.points()
        stage.proxy.rules = [rule]
        with self.assertRaises(Truncated, msg=name) as raised:
            await tenant.back_up(source)
        self.assertIsNotNone(rule.hit, name)
        self.assertEqual(raised.exception.exit_code, ExitCode.NOT_REACHABLE)
        self.assertEqual({w.kind.value for w in tenant.warnings}, {"truncated"}, name)
        session = next(event.session for event in tenant.events if event.session)
        self.assertEqual({row["name"] for row in stage.warnings(session)}, {"truncated"}, name)
        self.assertEqual(stage.points(), before, name)
        stage.proxy.forget()
        await stage.leave(tenant)

    async def cut_all(self, rules: dict[str, Rule]) -> None:
        for name, rule in rules.items():
            await self.cut(name, rule)
        tenant = await self.stage.tenant()
        source = self.mktemp()
        make_files(source)
        result = await tenant.back_up(source)
        self.assertEqual(self.stage.points(), [result.point.hex()])

    async def test_tunnel(self) -> None:
        """Cut in the preamble, in both handshake messages, around the delivery of Key B."""
        await self.set_up()
        await self.cut_all(
            {
                "preamble": Cut(TUNNEL, UP, at_offset(10)),
                "first message": Cut(TUNNEL, UP, in_field(Part.MESSAGE, 20, 0)),
                "second message": Cut(TUNNEL, DOWN, in_field(Part.MESSAGE, 0, 0), reset=True),
                "delivery": Cut(TUNNEL, UP, in_field(Part.MESSAGE, 9, 1)),
                "confirmation": Cut(TUNNEL, DOWN, in_field(Part.LENGTH, 0, 1)),
            }
        )

    async def test_stream(self) -> None:
        """Cut in the handshake, in a record, between two, and behind the restore point."""
        await self.set_up()
        await self.cut_all(
            {
                "hello": Cut(STREAM, UP, in_field(Part.HELLO, 1)),
                "welcome": Cut(STREAM, DOWN, in_field(Part.WELCOME, 40)),
                "begin": Cut(STREAM, UP, in_field(Part.BEGIN, 31), reset=True),
                "between records": Cut(STREAM, UP, in_field(Part.TYPE, 0, 2)),
                "in a header": Cut(STREAM, DOWN, in_field(Part.EPOCH, 1, 1)),
                "in a chunk": Cut(STREAM, UP, at_payload(9000), reset=True),
                "before the tenant's end": Cut(STREAM, UP, in_field(Part.FLAGS, type=END)),
                "in the provider's end": Cut(STREAM, DOWN, in_field(Part.TAG, -1, type=END)),
            }
        )

    async def test_tunnel_while_streaming(self) -> None:
        """The tunnel is the session's lifeline: when it is cut in the end, nothing is published."""
        await self.set_up()
        await self.cut_all({"end of tunnel": Cut(TUNNEL, UP, in_field(Part.LENGTH, 0, 2))})

    async def test_single_bytes(self) -> None:
        """Any chunking gives the same result: every byte of both data connections for itself."""
        await self.set_up()
        source, target = self.mktemp(), self.mktemp()
        make_files(source)
        tenant = await self.stage.tenant()

        def trickle() -> list[Rule]:
            lines = ((line, way) for line in (TUNNEL, STREAM) for way in Way)
            return [Trickle(line, way, at_offset(0)) for line, way in lines]

        self.stage.proxy.rules = trickle()
        result = await tenant.back_up(source)
        self.stage.proxy.rules = trickle()
        await tenant.restore(result.point, target)
        here = source.encode()

        there = os.fsencode(os.path.abspath(target)) + os.fsencode(os.path.abspath(source))
        self.assertEqual(compare_trees(here, there), [])
        self.assertEqual(tenant.warnings, [])
        self.assertTrue(all(rule.hit for rule in self.stage.proxy.rules))
