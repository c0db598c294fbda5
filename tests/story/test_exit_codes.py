"""What the tenant's commands end with when something is wrong, with real processes."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from cloudconnect.backup.comparison import compare_trees
from cloudconnect.settings import CONNECT_SECONDS, CONTROL_HANDSHAKE_SECONDS
from cloudconnect.wire.login import make_token
from tests.attacks.fields import Line as Kind
from tests.attacks.fields import Part, Way
from tests.attacks.proxy import LOOPBACK
from tests.attacks.rules import Stall, in_field
from tests.attacks.stage import make_files
from tests.story.processes import Done, Line, Provider, StoryCase, free_port, in_front_of, reactor

STALLED = re.compile(rb'"stream_up"')


class ExitCodeTests(StoryCase):
    """A provider with a tenant whose commands go wrong."""

    async def set_up(self, **limits: Any) -> None:
        self.provider = Provider(self)
        token = self.provider.add_tenant(**limits)
        await self.provider.start()
        self.proxy = in_front_of(self, self.provider.port)
        self.line = Line(self, self.provider, self.proxy.port, token)
        self.source = str(self.folder / "source")
        make_files(self.source)

    async def connect(self) -> None:
        self.assertStatus(await self.line.connect(), 0)

    def assertRefused(self, done: Done, status: int, reason: str) -> None:
        self.assertStatus(done, status)
        self.assertEqual(done.error["message_type"], "exit_error")
        self.assertEqual((done.error["code"], done.error["reason"]), (status, reason))
        self.assertNotIn(b"Traceback", done.err)

    async def test_secrets(self) -> None:
        """A wrong login password is 12, told to the admin; a wrong passphrase 13, at once."""
        await self.set_up()
        await self.connect()
        wrong, token = self.folder / "wrong", self.folder / "wrong-token"
        wrong.write_text("not the secret\n")
        token.write_bytes(make_token().reveal())
        human, other, unopened = await self.all_done(
            self.line.start("points", CLOUDCONNECT_PASSWORD_FILE=str(wrong)),
            self.line.start("points", CLOUDCONNECT_PASSWORD_FILE=str(token)),
            self.line.start("backup", self.source, CLOUDCONNECT_PASSPHRASE_FILE=str(wrong)),
        )
        self.assertRefused(human, 12, "login_refused")
        self.assertRefused(other, 12, "login_refused")
        self.assertRefused(unopened, 13, "wrong_passphrase")
        self.assertEqual(self.proxy.of(Kind.TUNNEL) + self.proxy.of(Kind.STREAM), [])
        self.assertEqual(self.provider.rows("session"), [])
        told = self.provider.rows("event", type="warning")
        self.assertEqual([row["name"] for row in told], ["authentication_failed"])

    async def test_names(self) -> None:
        """An unknown point is 10, a wrong command line 2, an unreadable source 3."""
        await self.set_up()
        await self.connect()
        partly = await self.line.run("backup", self.source, f"{self.folder}/nowhere")
        self.assertStatus(partly, 3)
        self.assertEqual(partly.summary["unreadable"], 1)
        target = str(self.folder / "target")
        unknown, nothing, option, restored = await self.all_done(
            self.line.start("restore", "00000000", "--target", f"{target}-unknown"),
            self.line.start("backup"),
            self.line.start("backup", "--no-such-option"),
            self.line.start("restore", partly.summary["point"], "--target", target),
        )
        self.assertRefused(unknown, 10, "not_found")
        self.assertRefused(nothing, 2, "usage")
        self.assertRefused(option, 2, "usage")
        self.assertStatus(restored, 0)
        source = os.fsencode(self.source)
        self.assertEqual(compare_trees(source, os.fsencode(target) + source), [])

    async def test_lease(self) -> None:
        """After the end of the lease no repository is made: 14."""
        await self.set_up(lease_end="2020-01-31")
        self.assertRefused(await self.line.connect(), 14, "lease_ended")

    async def test_busy_and_interrupted(self) -> None:
        """One task too many is 15; an interrupted one ends with 130 and leaves its place free."""
        await self.set_up(max_tasks=1)
        await self.connect()
        self.proxy.rules = [Stall(Kind.STREAM, Way.DOWN, in_field(Part.TYPE, 0, 0))]
        first = self.line.start("backup", self.source)
        await first.wrote(STALLED)
        self.assertRefused(await self.line.run("backup", self.source), 15, "busy")
        first.send(signal.SIGINT)
        self.assertStatus(await self.done(first), 130)
        self.proxy.release()
        self.assertEqual(self.provider.rows("point", tenant="acme"), [])
        self.assertStatus(await self.line.run("backup", self.source), 0)
        sessions = self.provider.rows("session")
        self.assertEqual([row["state"] for row in sessions], ["interrupted", "done"])
        self.assertEqual(self.provider.rows("event", type="warning"), [])

    async def test_interrupted_while_connecting(self) -> None:
        """An interrupt is obeyed too while nobody answers."""
        token = self.folder / "acme.token"
        token.write_text("cct1-none\n")
        provider = Provider(self)
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface=LOOPBACK)
        self.addCleanup(port.stopListening)
        proxy = in_front_of(self, port.getHost().port)
        stall = Stall(Kind.CONTROL, Way.UP, in_field(Part.TLS))
        proxy.rules = [stall]
        command = Line(self, provider, proxy.port, token).start("points")
        await stall.happened
        command.send(signal.SIGINT)
        self.assertStatus(await self.done(command), 130)

    async def test_away(self) -> None:
        """Nobody there, or somebody who never answers: 22, and within 15 seconds, but for what a
        busy machine takes to run two commands."""
        provider = Provider(self)
        token = self.folder / "acme.token"
        token.write_text("cct1-none\n")
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        silent = reactor.listenTCP(0, factory, interface=LOOPBACK)
        self.addCleanup(silent.stopListening)
        began = time.monotonic()
        waiting = Line(self, provider, silent.getHost().port, token).start("points")
        away = await Line(self, provider, free_port(), token).run("points")
        self.assertRefused(away, 22, "not_reachable")
        self.assertRefused(await self.done(waiting), 22, "not_reachable")
        self.assertLess(CONNECT_SECONDS + CONTROL_HANDSHAKE_SECONDS, 15)
        self.assertLess(time.monotonic() - began, 60)
