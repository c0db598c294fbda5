"""Somebody on the way between two accelerators: changes, swaps and splices of their connections."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from cloudconnect.errors import CloudConnectError, ExitCode
from tests.attacks.fields import END, Line, Part, Way, record_of
from tests.attacks.proxy import Relayed
from tests.attacks.rules import Cut, Flip, Insert, Omit, Rule, at_payload, in_field
from tests.attacks.stage import CHANGES, STREAMS, Stage, make_files

UP, DOWN = Way.UP, Way.DOWN
STREAM, TUNNEL = Line.STREAM, Line.TUNNEL


class BetweenTests(TestCase):
    """Backups whose accelerators' connections pass an attacker."""

    timeout = 240

    async def set_up(self) -> None:
        self.stage = Stage(reactor, hurry=4, wan=True)
        self.addCleanup(self.stage.remove)
        await self.stage.open()
        self.addCleanup(self.stage.close)

    async def attack(self, name: str, rule: Rule, status: ExitCode) -> None:
        """One backup of new files under ``rule``: found, told at both ends, and no point."""
        stage = self.stage
        source = self.mktemp()
        make_files(source)
        tenant = await stage.tenant()
        before = stage.points()
        stage.proxy.rules = [rule]
        with self.assertRaises(CloudConnectError, msg=name) as raised:
            await tenant.back_up(source)
        self.assertIsNotNone(rule.hit, name)
        self.assertEqual(raised.exception.exit_code, status, (name, raised.exception))
        session = next(event.session for event in tenant.events if event.session)
        if status is ExitCode.SECURITY_WARNING:
            self.assertTrue(CHANGES & {w.kind.value for w in tenant.warnings}, name)
            self.assertTrue(CHANGES & {row["name"] for row in stage.warnings(session)}, name)
        self.assertEqual(stage.points(), before, name)
        stage.proxy.forget()
        await stage.leave(tenant)

    async def attack_all(self, rules: dict[str, Rule]) -> None:
        await self.set_up()
        for name, rule in rules.items():
            await self.attack(name, rule, ExitCode.SECURITY_WARNING)

    async def test_honest(self) -> None:
        """Through a proxy that does nothing: that many connections, and the backup succeeds."""
        await self.set_up()
        source = self.mktemp()
        make_files(source)
        tenant = await self.stage.tenant()
        await tenant.back_up(source)
        self.assertEqual(2, len(self.stage.proxy.of(TUNNEL)))
        self.assertEqual(STREAMS, len(self.stage.proxy.of(STREAM)))
        self.assertEqual((1, []), (len(self.stage.points()), tenant.warnings))

    async def test_flips(self) -> None:
        """A bit flipped in the first message of a tunnel, or in a record of one of the connections,
        either way."""
        await self.attack_all(
            {
                "tunnel": Flip(TUNNEL, UP, in_field(Part.MESSAGE, 12, 0)),
                "later in the tunnel": Flip(TUNNEL, UP, in_field(Part.MESSAGE, 9, 1)),
                "begin of a stream": Flip(STREAM, UP, in_field(Part.BEGIN, 3)),
                "greeting": Flip(STREAM, UP, in_field(Part.BODY, 3)),
                "greeting back": Flip(STREAM, DOWN, in_field(Part.BODY, 3)),
                "content": Flip(STREAM, UP, at_payload(2000)),
                "content back": Flip(STREAM, DOWN, at_payload(60)),
                "tag": Flip(STREAM, UP, in_field(Part.TAG, 0)),
                "type": Flip(STREAM, UP, in_field(Part.TYPE, 0, 1), mask=0x02),
                "end": Flip(STREAM, UP, in_field(Part.BODY, 7, type=END)),
                "end back": Flip(STREAM, DOWN, in_field(Part.TAG, 7, type=END)),
            }
        )

    async def test_moved(self) -> None:
        """A record of one connection does not pass on another one, nor twice, nor later, nor back,
        nor in the next session."""
        await self.set_up()
        source = self.mktemp()
        make_files(source)
        tenant = await self.stage.tenant()
        await tenant.back_up(source)
        recorded = [bytes(relayed.came_in[UP]) for relayed in self.stage.proxy.of(STREAM)]
        await self.stage.leave(tenant)
        self.stage.proxy.forget()

        def from_another(way: Way) -> Callable[[Relayed], bytes]:
            def octets(relayed: Relayed) -> bytes:
                others = (r for r in self.stage.proxy.of(STREAM) if r is not relayed)
                found = (record_of(STREAM, way, bytes(r.came_in[way]), 0) for r in others)
                return next((record for record in found if record), b"\x00" * 40)

            return octets

        def earlier(relayed: Relayed) -> bytes:
            return record_of(STREAM, UP, recorded[0], 0)

        where = in_field(Part.TYPE, 0, 1)
        for name, rule in {
            "of another connection": Insert(STREAM, UP, where, octets=from_another(UP)),
            "of another session": Insert(STREAM, UP, where, octets=earlier),
            "back": Insert(STREAM, DOWN, in_field(Part.TYPE, 0, 0), octets=from_another(UP)),
            "left out": Omit(STREAM, UP, where),
        }.items():
            await self.attack(name, rule, ExitCode.SECURITY_WARNING)

    async def test_connections_exchanged(self) -> None:
        """Two connections whose hellos go out the other way round are not mixed up."""
        await self.set_up()
        rule = Flip(STREAM, UP, in_field(Part.PREAMBLE, 9))
        await self.attack("another route", rule, ExitCode.NOT_REACHABLE)
        rule = Flip(STREAM, UP, in_field(Part.HELLO, 1))
        await self.attack("another connection's number", rule, ExitCode.SECURITY_WARNING)

    async def test_cuts(self) -> None:
        """A connection of several that is cut ends the session as truncated."""
        await self.set_up()
        for name, rule in {
            "in the greeting": Cut(STREAM, UP, in_field(Part.BODY, 3)),
            "in the content": Cut(STREAM, UP, at_payload(3000)),
            "reset": Cut(STREAM, DOWN, in_field(Part.BODY, 3), reset=True),
        }.items():
            await self.attack(name, rule, ExitCode.NOT_REACHABLE)

    async def test_at_the_end(self) -> None:
        """Junk behind the end of one connection, or a cut in front of it, spoils the session, or
        comes too late to matter; the tenant always knows which."""
        await self.set_up()
        junk = b"\x01\x00\x00\x00\x00\x00\x00\x20" + bytes(32)
        end = in_field(Part.TAG, -1, type=END)
        for rule in (
            Insert(STREAM, UP, end, octets=lambda _: junk, behind=True),
            Insert(STREAM, DOWN, end, octets=lambda _: junk, behind=True),
            Cut(STREAM, UP, in_field(Part.FLAGS, 0, type=END)),
            Cut(STREAM, DOWN, in_field(Part.FLAGS, 0, type=END), reset=True),
        ):
            source = self.mktemp()
            make_files(source)
            tenant = await self.stage.tenant()
            before = len(self.stage.points())
            self.stage.proxy.rules = [rule]
            try:
                await tenant.back_up(source)
            except CloudConnectError as error:
                cut = isinstance(rule, Cut)
                wanted = ExitCode.NOT_REACHABLE if cut else ExitCode.SECURITY_WARNING
                self.assertEqual(error.exit_code, wanted)
                added = 0
            else:
                added = 1
            self.assertIsNotNone(rule.hit)
            self.assertEqual(len(self.stage.points()), before + added, rule)
            self.stage.proxy.forget()
            await self.stage.leave(tenant)
