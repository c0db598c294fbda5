"""Tests of :mod:`cloudconnect.provider.control`: the control channel, over real TLS in memory."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import (
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    Finish,
    ListPoints,
    Ping,
    SessionKind,
    Start,
    Warn,
)
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Refused,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import Password
from cloudconnect.provider.control import WARNINGS_MAX, ControlFactory, read_warnings
from cloudconnect.repository.store import Repository
from cloudconnect.settings import (
    AUTHENTICATION_SECONDS,
    BOX_MAX_UNAUTHENTICATED,
    ORPHAN_SECONDS,
    PAGE_ROWS_MAX,
    PING_SECONDS,
    SILENCE_SECONDS,
    TOKEN_ITERATIONS_MIN,
)
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.scram import ScramClient, make_token
from tests.provider.stage import HOST, PORT, TENANT, StageCase, Tenant, idle
from tests.repository.repositories import record

START: dict[str, Any] = {
    "kind": "backup",
    "job": b"j" * 16,
    "host": "host",
    "name": "job",
    "repository": b"r" * 16,
    "wan": False,
    "streams": 1,
}
LIST: dict[str, Any] = {"host": "", "job": "", "tag": "", "after": 0, "limit": 100}
WARNING = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, session="ab" * 16)


class Client(BoundedAMP):
    """A tenant's end that does what the test says.

    :ivar reason: how the channel ended, or None before
    """

    reason: BaseException | None = None

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self.reason = reason.value

    def scram(self, tenant: str, password: Password) -> ScramClient:
        binding = self.transport.exporter(b"EXPORTER-Channel-Binding", b"", 32)  # type: ignore
        return ScramClient(tenant, password, binding)


class ControlCase(StageCase):
    """A test with clients of the control channel."""

    def client(self) -> Client:
        """A client whose TLS is up."""
        trust = TrustPolicy(HOST, fingerprints=(self.provider.issued.spki,))
        endpoint = wrap_client_endpoint(
            PinnedTLS(trust=trust), HostnameEndpoint(self.reactor, HOST, PORT), self.reactor
        )
        made: Client = self.reactor.result_of(connectProtocol(endpoint, Client(self.reactor)))
        self.addCleanup(self.close, made)
        return made

    def close(self, client: Client) -> None:
        if client.transport is not None:
            client.transport.loseConnection()
        self.reactor.settle()

    def first(self, client: Client, scram: ScramClient, versions: Any = (1,)) -> Deferred[Any]:
        return client.call(AuthenticateFirst, message=scram.first(), versions=list(versions))

    def log_in(self, client: Client, tenant: str, password: Password) -> Any:
        """Authenticate; the provider's last answer."""
        scram = client.scram(tenant, Password(password.reveal()))
        answer = self.reactor.result_of(self.first(client, scram))
        message = scram.final(answer["message"])
        final = self.reactor.result_of(client.call(AuthenticateFinal, message=message))
        scram.verify(final["message"])
        return final

    def logged_in(self, tenant: str = TENANT, **settings: Any) -> Client:
        """A client of a new tenant, logged in."""
        token = self.provider.add_tenant(tenant, **settings)
        client = self.client()
        self.log_in(client, tenant, token)
        return client


class LoginTests(ControlCase):
    """The log-in."""

    def test_answer(self) -> None:
        """Who knows the token is told what it has here."""
        token = self.provider.add_tenant(TENANT, modes=["tenant", "none"])
        final = self.log_in(self.client(), TENANT, token)
        self.assertEqual(
            (1, b"p" * 16, b"", ["tenant", "none"]),
            tuple(final[name] for name in ("version", "provider", "repository", "modes")),
        )

    def test_repository(self) -> None:
        """And its repository's description, once there is one."""
        tenant = self.connected()
        final = self.log_in(self.client(), TENANT, tenant.token)
        self.assertEqual(tenant.description.encode(), final["repository"])

    def test_wrong_password(self) -> None:
        """Another password is refused, an event kept, and no command answered afterwards."""
        self.provider.add_tenant(TENANT)
        client = self.client()
        with self.assertRaises(LoginRefused):
            self.log_in(client, TENANT, make_token())
        (row,) = self.provider.events(type="warning")
        self.assertEqual(("authentication_failed", TENANT), (row["name"], row["tenant"]))
        self.failure_of(client.call(ListPoints, **LIST), LoginRefused)

    def test_unknown_like_known(self) -> None:
        """A tenant that does not exist is answered like one whose password is wrong: the same
        messages, error, text, events and delays."""
        self.provider.add_tenant(TENANT)
        seen: list[Any] = []
        known = [n for n in ("nobody", "nobody2", "nobody3", "nobody4") if self.is_token_like(n)]
        for tenant in (TENANT, known[0]):
            client = self.client()
            scram = client.scram(tenant, make_token())
            calls = len(self.reactor.getDelayedCalls())
            message = self.reactor.result_of(self.first(client, scram))["message"]
            parts = dict(part.split("=", 1) for part in message.split(","))
            final = client.call(AuthenticateFinal, message=scram.final(message))
            error = self.failure_of(final, LoginRefused)
            row = self.provider.events(type="warning", tenant=tenant)[-1]
            seen.append(
                (
                    sorted(parts),
                    parts["i"],
                    [len(parts[name]) for name in ("r", "s")],
                    str(error).replace(tenant, "*"),
                    row["name"],
                    len(self.reactor.getDelayedCalls()) - calls,
                    self.provider.service.attempts.delay(tenant, "elsewhere"),
                )
            )
            self.provider.service.attempts.succeeded(tenant, "192.0.2.7")
        self.assertEqual(seen[0], seen[1])

    def is_token_like(self, name: str) -> bool:
        return self.provider.service.decoy_iterations(name) == TOKEN_ITERATIONS_MIN

    def test_unknown_is_always_the_same(self) -> None:
        """The salt of a name that does not exist does not change from one time to the next."""
        salts = set()
        for _ in range(2):
            client = self.client()
            scram = client.scram("nobody", make_token())
            message = self.reactor.result_of(self.first(client, scram))["message"]
            salts.add(message.split(",")[1])
        self.assertEqual(1, len(salts))

    def test_delays(self) -> None:
        """Failures cost growing delays, of that address and no other."""
        self.provider.add_tenant(TENANT)
        for _ in range(3):
            with self.assertRaises(LoginRefused):
                self.slow_log_in(make_token())
        client = self.client()
        asked = self.first(client, client.scram(TENANT, make_token()))
        self.reactor.pass_time(1.9, 0.1)
        self.assertNoResult(asked)
        self.reactor.pass_time(0.2, 0.1)
        self.successResultOf(asked)
        self.assertEqual(0.0, self.provider.service.attempts.delay(TENANT, "198.51.100.1"))

    def slow_log_in(self, password: Password) -> None:
        """Log in, waiting as long as it takes."""
        client = self.client()
        scram = client.scram(TENANT, password)
        asked = self.first(client, scram)
        self.reactor.pass_time(11)
        message = self.successResultOf(asked)["message"]
        final = client.call(AuthenticateFinal, message=scram.final(message))
        self.reactor.result_of(final)

    def test_success_forgets(self) -> None:
        """Who logs in after failures does not wait the next time."""
        token = self.provider.add_tenant(TENANT)
        for _ in range(2):
            with self.assertRaises(LoginRefused):
                self.slow_log_in(make_token())
        self.slow_log_in(Password(token.reveal()))
        self.assertEqual(0.0, self.provider.service.attempts.delay(TENANT, "192.0.2.7"))

    def test_too_late(self) -> None:
        """Who does not log in within its time is closed, and who did is not."""
        token = self.provider.add_tenant(TENANT)
        late, good = self.client(), self.client()
        self.log_in(good, TENANT, token)
        scram = late.scram(TENANT, make_token())
        self.reactor.result_of(self.first(late, scram))
        self.reactor.pass_time(AUTHENTICATION_SECONDS + 1)
        self.assertIsNotNone(late.reason)
        self.assertIsNone(good.reason)

    def test_other_channel(self) -> None:
        """A log-in that was made for another TLS connection does not fit this one: what a man in
        the middle passes on is worth nothing."""
        token = self.provider.add_tenant(TENANT)
        client, other = self.client(), self.client()
        scram = other.scram(TENANT, Password(token.reveal()))
        message = self.reactor.result_of(self.first(client, scram))["message"]
        final = client.call(AuthenticateFinal, message=scram.final(message))
        self.failure_of(final, LoginRefused)

    def test_order(self) -> None:
        """The second message does not come first, nor the first one twice."""
        token = self.provider.add_tenant(TENANT)
        client = self.client()
        final = client.call(AuthenticateFinal, message="c=biws,r=x,p=x")
        self.failure_of(final, ProtocolViolation)
        scram = client.scram(TENANT, Password(token.reveal()))
        self.reactor.result_of(self.first(client, scram))
        again = client.scram(TENANT, Password(token.reveal()))
        self.failure_of(self.first(client, again), ProtocolViolation)

    def test_again(self) -> None:
        """Who is logged in does not become somebody else."""
        client = self.logged_in()
        self.provider.add_tenant("other")
        scram = client.scram("other", make_token())
        self.failure_of(self.first(client, scram), ProtocolViolation)

    def test_versions(self) -> None:
        """Without a common protocol version there is no log-in, and both sides' are named."""
        self.provider.add_tenant(TENANT)
        for versions in ([], [2, 3], [0]):
            client = self.client()
            scram = client.scram(TENANT, make_token())
            error = self.failure_of(self.first(client, scram, versions), Refused)
            self.assertIn("[1]", str(error))
        for versions in (["1"], [None], [[1]]):
            client = self.client()
            scram = client.scram(TENANT, make_token())
            self.failure_of(self.first(client, scram, versions), ProtocolViolation)

    def test_newer_tenant(self) -> None:
        """A newer tenant is answered with the highest version that both speak."""
        token = self.provider.add_tenant(TENANT)
        client = self.client()
        scram = client.scram(TENANT, Password(token.reveal()))
        message = self.reactor.result_of(self.first(client, scram, [1, 2, 3]))["message"]
        final = client.call(AuthenticateFinal, message=scram.final(message))
        self.assertEqual(1, self.reactor.result_of(final)["version"])

    def test_garbage(self) -> None:
        """What is no message of SCRAM is refused as any wrong log-in."""
        self.provider.add_tenant(TENANT)
        for message in ("", "n,,n=acme,r=x", "p=tls-exporter,,n=,r=", "\0" * 100):
            client = self.client()
            asked = client.call(AuthenticateFirst, message=message, versions=[1])
            self.failure_of(asked, LoginRefused)

    def test_secrets(self) -> None:
        """Neither token nor what proves it is in the log or in what is kept."""
        tenant = self.connected()
        with self.assertRaises(LoginRefused):
            self.log_in(self.client(), TENANT, make_token())
        verifier = self.provider.accounts.verifier(TENANT)
        assert verifier is not None
        self.assert_unsaid(tenant.token.reveal(), verifier.stored_key, verifier.server_key)


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
        self.provider.service.attempts.failed(TENANT, "192.0.2.7")  # so that the answer takes time
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
        self.assertEqual(1, len(self.provider.service._sessions))


def start_of(tenant: Tenant, **changes: Any) -> dict[str, Any]:
    """What a tenant's Start asks."""
    return {**START, "repository": tenant.repository, **changes}


class CommandTests(ControlCase):
    """What a tenant can do."""

    def setUp(self) -> None:
        super().setUp()
        self.acme, self.evil = self.connected(), self.connected("evil")

    def start(self, tenant: Tenant, **changes: Any) -> Any:
        return tenant.manager.control.call(Start, **start_of(tenant, **changes))

    def started(self, tenant: Tenant) -> bytes:
        session: bytes = self.reactor.result_of(self.start(tenant))["session"]
        return session

    def finish(self, tenant: Tenant, session: bytes, **changes: Any) -> Any:
        values = {"outcome": "done", "summary": {}, "warnings": [], **changes}
        return tenant.manager.control.call(Finish, session=session, **values)

    def test_finish_from_another_line(self) -> None:
        """Whoever else has the tenant's login cannot say that a session has failed, and so have
        its restore point taken back."""
        session = self.started(self.acme)
        own, self.acme.manager = self.acme.manager, self.acme.make_manager()
        self.acme.log_in()
        for outcome in ("failed", "done"):
            self.failure_of(self.finish(self.acme, session, outcome=outcome), ContextMismatch)
        self.assertEqual(1, len(self.provider.service._sessions))
        self.reactor.result_of(self.acme.manager.close())
        self.acme.manager = own
        self.reactor.result_of(self.finish(self.acme, session))
        self.assertEqual(0, len(self.provider.service._sessions))

    def test_start_bounds(self) -> None:
        """A kind that is none, labels that are empty or too long, more streams than one: refused,
        and no session is there."""
        for change, kind in (
            ({"kind": "delete"}, ProtocolViolation),
            ({"host": ""}, ProtocolViolation),
            ({"name": ""}, ProtocolViolation),
            ({"host": "x" * (LABEL_MAX + 1)}, ProtocolViolation),
            ({"host": "a\x1b[2Jb"}, ProtocolViolation),
            ({"name": "a\nb"}, ProtocolViolation),
            ({"streams": 0}, Refused),
            ({"streams": 2}, Refused),
        ):
            self.failure_of(self.start(self.acme, **change), kind)
        self.assertEqual({}, self.provider.service._sessions)

    def test_key_a_is_forgotten(self) -> None:
        """The service forgets Key A as soon as it has handed it over."""
        made: list[Any] = []
        real = self.provider.service.start

        async def start(*arguments: Any) -> Any:
            result = await real(*arguments)
            made.extend(result[2])
            return result

        self.provider.service.start = start  # type: ignore[method-assign]
        answer = self.reactor.result_of(self.start(self.acme))
        self.assertFalse(answer["keys_a"][0].forgotten)
        self.assertTrue(made[0].forgotten)
        self.assert_unsaid(answer["keys_a"][0].reveal())

    def test_finish_of_another(self) -> None:
        """A tenant cannot end another's session, nor hear anything of it."""
        session = self.started(self.acme)
        error = self.failure_of(
            self.finish(self.evil, session, outcome="security_warning"), ContextMismatch
        )
        never = self.failure_of(self.finish(self.evil, os.urandom(16)), ContextMismatch)
        self.assertEqual(str(never), str(error))
        self.assertEqual(1, len(self.provider.service._sessions))
        self.assertEqual([], self.provider.names(type="warning"))
        self.reactor.result_of(self.finish(self.acme, session))

    def test_warning_of_another(self) -> None:
        """Nor raise a warning in another's session."""
        session = self.started(self.acme)
        warning = {**WARNING.as_dict(), "session": session.hex(), "tenant": "acme"}
        asked = self.evil.manager.control.call(Warn, warning=warning)
        self.failure_of(asked, ContextMismatch)
        self.assertEqual([], self.provider.names(type="warning"))
        self.assertEqual([], self.acme.warnings)

    def test_warning(self) -> None:
        """A warning of its own session is kept."""
        session = self.started(self.acme)
        warning = {**WARNING.as_dict(), "session": session.hex()}
        self.reactor.result_of(self.acme.manager.control.call(Warn, warning=warning))
        (row,) = self.provider.events(type="warning")
        self.assertEqual((session.hex(), TENANT), (row["session"], row["tenant"]))

    def test_points_of_another(self) -> None:
        """A tenant lists its own points and no others, and there is no way to name a repository."""
        self.publish(self.acme, 3)
        page = self.reactor.result_of(self.evil.manager.control.call(ListPoints, **LIST))
        self.assertEqual(([], False), (page["points"], page["more"]))
        page = self.reactor.result_of(self.acme.manager.control.call(ListPoints, **LIST))
        self.assertEqual(3, len(page["points"]))

    def publish(self, tenant: Tenant, count: int) -> None:
        folder = self.provider.repositories / tenant.repository.hex()
        with Repository.open(folder) as repository:
            for number in range(count):
                made = record(number.to_bytes(16, "big"), repository=tenant.repository)
                encoded = made.encode()
                repository.publish(made, encoded, tenant.keys.sign(encoded), [])

    def test_pages(self) -> None:
        """The listing comes in pages of the size that was asked for, each point once."""
        self.publish(self.acme, 5)
        found, after, more = [], 0, True
        while more:
            asked = {**LIST, "limit": 2, "after": after}
            page = self.reactor.result_of(self.acme.manager.control.call(ListPoints, **asked))
            found += [row["point"] for row in page["points"]]
            self.assertLessEqual(len(page["points"]), 2)
            after, more = page["points"][-1]["arrival"], page["more"]
        self.assertEqual([number.to_bytes(16, "big").hex() for number in range(5)], found)

    def test_page_bounds(self) -> None:
        """A page has a bounded number of rows and begins somewhere."""
        for change in (
            {"limit": 0},
            {"limit": -1},
            {"limit": PAGE_ROWS_MAX + 1},
            {"after": -1},
            {"after": 1 << 63},
        ):
            asked = self.acme.manager.control.call(ListPoints, **{**LIST, **change})
            self.failure_of(asked, ProtocolViolation)
        asked = self.acme.manager.control.call(ListPoints, **{**LIST, "after": (1 << 63) - 1})
        self.assertEqual([], self.reactor.result_of(asked)["points"])

    def test_summary(self) -> None:
        """A summary is a map of what can be kept; with another one the session goes on."""
        session = self.started(self.acme)
        for wrong in (None, [], "text", {"octets": b"x"}, {"deep": {"octets": [b"x"]}}):
            self.failure_of(self.finish(self.acme, session, summary=wrong), ProtocolViolation)
        self.reactor.result_of(self.finish(self.acme, session, summary={"files": 3}))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual(({"files": 3}, "done"), (row["summary"], row["state"]))
        self.assertEqual({}, self.provider.service._sessions)

    def test_no_bug_is_logged(self) -> None:
        """Whatever a tenant sends, it is refused as a peer's doing and not logged as our bug."""
        session = self.started(self.acme)
        control = self.acme.manager.control
        whole = {**WARNING.as_dict(), "session": session.hex()}
        for field in whole:
            for odd in (None, b"x", [], {}, "x", -1, 1 << 62, 1.5, True, "\x1b" * 9):
                control.call(Warn, warning={**whole, field: odd}).addErrback(lambda _: None)
        for odd in (None, b"x", [], "x", 7):
            control.call(Warn, warning=odd).addErrback(lambda _: None)
            for part in ("summary", "warnings"):
                self.finish(self.acme, b"x" * 16, **{part: odd}).addErrback(lambda _: None)
        self.reactor.settle()
        self.assertEqual([], self.flushLoggedErrors())
        self.assertIn("logged in", self.log_text())


class ReadWarningTests(SynchronousTestCase):
    """Warnings that a peer sent."""

    def test_read(self) -> None:
        """What is a warning comes out as it was."""
        self.assertEqual([WARNING], read_warnings([WARNING.as_dict()]))
        self.assertEqual([], read_warnings([]))

    def test_refused(self) -> None:
        """Too many, too long, or something else: refused."""
        whole = WARNING.as_dict()
        for wrong in (
            None,
            {},
            [None],
            [[]],
            [whole] * (WARNINGS_MAX + 1),
            [{**whole, "kind": "nonsense"}],
            [{**whole, "kind": ["tampered"]}],
            [{**whole, "session": "no hexadecimal"}],
            [{**whole, "text": "x" * 1001}],
            [{**whole, "peer": "x" * 5000}],
            [{**whole, "time": "yesterday"}],
            [{**whole, "time": float("nan")}],
            [{**whole, "text": 5}],
            [{name: value for name, value in whole.items() if name != "kind"}],
        ):
            self.assertRaises(ProtocolViolation, read_warnings, wrong)


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
        self.assertEqual(1, len(self.provider.service._sessions))
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.assertEqual({}, self.provider.service._sessions)

    def test_lost_during_start(self) -> None:
        """A tenant that goes while its Start is under way leaves no session behind."""
        tenant = self.connected(max_tasks=1)
        held: Deferred[None] = Deferred()
        real = self.provider.service._run

        def run(call: Any, *arguments: Any, **values: Any) -> Any:
            if call == self.provider.accounts.session_started:
                return held.addCallback(lambda _: real(call, *arguments, **values))
            return real(call, *arguments, **values)

        self.provider.service._run = run
        asked = tenant.manager.control.call(Start, **start_of(tenant))
        self.reactor.settle()
        tenant.manager.control.transport.abortConnection()  # type: ignore[union-attr]
        self.failure_of(asked, NotReachable)
        self.reactor.settle()
        held.callback(None)
        self.reactor.settle()
        self.assertEqual({}, self.provider.service._sessions)
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
        self.assertEqual({}, self.provider.service._sessions)

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
        self.reactor.result_of(self.provider.service.warned(warning))
        self.reactor.settle()
        self.assertEqual(([warning], []), (tenant.warnings, other.warnings))

    def test_whole_session(self) -> None:
        """A session that ended well is done, and its task free."""
        tenant = self.connected()
        session = self.reactor.result_of(tenant.session(idle(tenant), SessionKind.READ))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual((session.hex(), "done"), (row["session"], row["state"]))
        self.assertEqual({}, self.provider.service._sessions)


class _Silent:
    """Answers nothing, ever."""

    _commandDispatch = {Ping.commandName: (Ping, lambda self: Deferred())}
