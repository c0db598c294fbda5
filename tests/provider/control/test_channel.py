"""Tests of :mod:`cloudconnect.provider.control.channel`:
what comes before a log-in, how channels end.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudconnect.commands.control import (
    AuthenticateFirst,
    CreateRepository,
    Finish,
    ListPoints,
    Ping,
    SessionKind,
    Start,
    Warn,
)
from cloudconnect.errors import (
    CloudConnectError,
    LoginRefused,
    NotReachable,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.control.control import ControlFactory
from cloudconnect.settings import (
    BOX_MAX_UNAUTHENTICATED,
    ORPHAN_SECONDS,
    PING_SECONDS,
    SILENCE_SECONDS,
)
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.wire.login import make_token
from tests.provider.control_parts import LIST, START, WARNING, Client, ControlCase, start_of
from tests.provider.stage import TENANT, idle


class UnauthenticatedTests(ControlCase):
    """What a stranger can do."""

    def test_commands(self) -> None:
        """No command is answered before the log-in."""
        client = self.client()
        for command, values in (
            (Start, START),
            (ListPoints, LIST),
            (CreateRepository, {"description": b"x"}),
            (
                Finish,
                {"session": b"s" * 16, "outcome": "done", "summary": {}, "warnings": []},
            ),
            (Warn, {"warning": WARNING.as_dict()}),
        ):
            self.failure_of(client.call(command, **values), LoginRefused)

    def test_large_box(self) -> None:
        """A stranger's box is not read beyond a small limit."""
        client = self.client()
        client.set_limits(1 << 17, 64)
        client.call(CreateRepository, description=b"x" * BOX_MAX_UNAUTHENTICATED).addErrback(
            lambda _: None
        )
        self.reactor.settle()
        self.assertIsNotNone(client.reason)

    def test_many_requests(self) -> None:
        """Nor more than one request at a time."""
        self.provider.add_tenant(TENANT)
        self.provider.service.logins.attempts.failed(
            TENANT, "192.0.2.7"
        )  # so that the answer takes time
        client = self.client()
        client.set_limits(1 << 17, 64)
        asked = [self.first(client, client.scram(TENANT, make_token())) for _ in range(2)]
        for deferred in asked:
            deferred.addErrback(lambda _: None)
        self.reactor.settle()
        self.assertIsNotNone(client.reason)

    def test_without_tls(self) -> None:
        """Without TLS below there is no log-in at all."""
        clock = Clock()
        server = ControlFactory(self.provider.service).buildProtocol(None)
        client = Client(clock)
        MemoryPair(clock).connect(client, server)
        asked = client.call(AuthenticateFirst, message="p=tls-exporter,,n=acme,r=x", versions=[1])
        clock.advance(0)
        self.assertIsInstance(self.failureResultOf(asked).value, CloudConnectError)
        server.transport.abortConnection()  # type: ignore[union-attr]
        clock.advance(0)

    def test_guessing_a_session(self) -> None:
        """A stranger who knows a session's id can do nothing with it."""
        tenant = self.connected()
        session = self.reactor.result_of(tenant.manager.control.call(Start, **start_of(tenant)))
        stranger = self.client()
        values = {"outcome": "security_warning", "summary": {}, "warnings": []}
        asked = stranger.call(Finish, session=session["session"], **values)
        self.failure_of(asked, LoginRefused)
        self.assertEqual(1, len(self.provider.service.sessions))


class ChannelTests(ControlCase):
    """How the channel ends."""

    def test_ping(self) -> None:
        """A tenant that answers pings stays; one that does not is closed."""
        good = self.connected()
        silent = self.logged_in("silent")
        silent.pauseProducing = lambda: None  # type: ignore[attr-defined]
        silent._locator = _Silent()
        self.reactor.pass_time(PING_SECONDS + SILENCE_SECONDS + 2)
        self.assertIsNotNone(silent.reason)
        self.reactor.result_of(good.manager.control.call(Ping))

    def test_sessions_of_a_lost_channel(self) -> None:
        """Sessions of a lost channel end after a while; their task is free then."""
        tenant = self.connected(max_tasks=1)
        self.reactor.result_of(tenant.manager.control.call(Start, **start_of(tenant)))
        tenant.manager.control.transport.abortConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        self.assertEqual(1, len(self.provider.service.sessions))
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.assertEqual([], list(self.provider.service.sessions))

    def test_lost_during_start(self) -> None:
        """A tenant that goes while its Start is under way leaves no session behind."""
        tenant = self.connected(max_tasks=1)
        held: Deferred[None] = Deferred()
        reports = self.provider.service.reports
        real = reports._run

        def run(call: Any, *arguments: Any, **values: Any) -> Any:
            if call == self.provider.accounts.session_started:
                return held.addCallback(lambda _: real(call, *arguments, **values))
            return real(call, *arguments, **values)

        reports._run = run
        asked = tenant.manager.control.call(Start, **start_of(tenant))
        self.reactor.settle()
        tenant.manager.control.transport.abortConnection()  # type: ignore[union-attr]
        self.failure_of(asked, NotReachable)
        self.reactor.settle()
        held.callback(None)
        self.reactor.settle()
        self.assertEqual([], list(self.provider.service.sessions))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual("interrupted", row["state"])
        self.assertEqual([], self.flushLoggedErrors())

    def test_tampered(self) -> None:
        """A changed byte of the channel while a session runs is a warning of that session."""
        tenant = self.connected()
        answer = self.reactor.result_of(tenant.manager.control.call(Start, **start_of(tenant)))
        pair = self.reactor.pairs[0]
        pair.left.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.reactor.settle()
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            ("control_tampered", answer["session"].hex(), TENANT),
            (row["name"], row["session"], row["tenant"]),
        )

    def test_tampered_without_a_session(self) -> None:
        """Without a session it is a warning of the tenant's."""
        self.connected()
        self.reactor.pairs[0].left.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.reactor.settle()
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            ("control_tampered", "", TENANT), (row["name"], row["session"], row["tenant"])
        )

    def test_tampered_before_the_login(self) -> None:
        """Before the log-in it is none: anybody can send junk to a port."""
        client = self.client()
        self.reactor.pairs[0].left.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.reactor.settle()
        self.assertIsNotNone(client.reason)
        self.assertEqual([], self.provider.events())

    def test_tampered_ends_the_session(self) -> None:
        """The session of a changed channel ends at once, and its task is free."""
        tenant = self.connected(max_tasks=1)
        self.reactor.result_of(tenant.manager.control.call(Start, **start_of(tenant)))
        self.reactor.pairs[0].left.write(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.reactor.settle()
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual("security_warning", row["state"])
        self.assertEqual([], list(self.provider.service.sessions))

    def test_told_of_warnings(self) -> None:
        """What the mover sees in a session goes to its tenant at once."""
        tenant, other = self.connected(), self.connected("other")
        answer = self.reactor.result_of(tenant.manager.control.call(Start, **start_of(tenant)))
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.FRAME_MISMATCH,
            session=answer["session"].hex(),
            role="target-mover",
        )
        self.reactor.result_of(self.provider.service.reports.warned(warning))
        self.reactor.settle()
        self.assertEqual(([warning], []), (tenant.warnings, other.warnings))

    def test_whole_session(self) -> None:
        """A session that ended well is done, and its task free."""
        tenant = self.connected()
        session = self.reactor.result_of(tenant.session(idle(tenant), SessionKind.READ))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual((session.hex(), "done"), (row["session"], row["state"]))
        self.assertEqual([], list(self.provider.service.sessions))


class _Silent:
    """Answers nothing, ever."""

    _commandDispatch = {Ping.commandName: (Ping, lambda self: Deferred())}
