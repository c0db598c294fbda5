"""Tests of :mod:`cloudconnect.provider.control.authenticating`:
log-ins, over real TLS in memory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.control import (
    AcceptWithCertificate,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    Finish,
    ListPoints,
    Ping,
    Start,
)
from cloudconnect.errors import (
    LeaseEnded,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Refused,
)
from cloudconnect.keys import Password
from cloudconnect.settings import (
    AUTHENTICATION_SECONDS,
    TOKEN_ITERATIONS_MIN,
)
from cloudconnect.wire.login import make_token
from tests.provider.control_parts import LIST, Client, ControlCase, start_of
from tests.provider.stage import ENDED, TENANT, Tenant


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
                    self.provider.service.logins.attempts.delay(tenant, "elsewhere"),
                )
            )
            self.provider.service.logins.attempts.succeeded(tenant, "192.0.2.7")
        self.assertEqual(seen[0], seen[1])

    def is_token_like(self, name: str) -> bool:
        return self.provider.service.logins.decoy_iterations(name) == TOKEN_ITERATIONS_MIN

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
        self.assertEqual(0.0, self.provider.service.logins.attempts.delay(TENANT, "198.51.100.1"))

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
        self.assertEqual(0.0, self.provider.service.logins.attempts.delay(TENANT, "192.0.2.7"))

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


class EarlyStartTests(ControlCase):
    """A Start behind the proof of a log-in."""

    def proving(self, tenant: Tenant, password: Password | None = None) -> tuple[Client, Any]:
        """A client whose proof is on its way, and what it will be answered."""
        client = self.client()
        scram = client.scram(TENANT, password or Password(tenant.token.reveal()))
        first = self.reactor.result_of(self.first(client, scram))
        self.assertTrue(first["start"])
        return client, client.call(AuthenticateFinal, message=scram.final(first["message"]))

    def hold(self) -> Deferred[None]:
        """Have log-ins take until this fires, once they are proved."""
        held: Deferred[None] = Deferred()
        logins = self.provider.service.logins
        real = logins.admit

        async def admit(*asked: Any) -> Any:
            if not held.called:
                await held
            return await real(*asked)

        logins.admit = admit  # type: ignore[method-assign]
        return held

    def test_answered(self) -> None:
        """It is looked at once the tenant is in, and its session is one like others."""
        tenant = self.connected()
        held = self.hold()
        client, final = self.proving(tenant)
        started = client.call(Start, **start_of(tenant))
        self.reactor.settle()
        self.assertEqual(0, len(self.provider.service.sessions))
        held.callback(None)
        answer = self.reactor.result_of(started)
        self.reactor.result_of(final)
        values = {"outcome": "done", "summary": {}, "warnings": []}
        self.reactor.result_of(client.call(Finish, session=answer["session"], **values))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 9)
        self.assertEqual("done", row["state"])

    def test_wrong_password(self) -> None:
        """Where the proof is wrong nothing is begun, and both are refused."""
        tenant = self.connected()
        client, final = self.proving(tenant, make_token())
        started = client.call(Start, **start_of(tenant))
        self.failure_of(final, LoginRefused)
        self.failure_of(started, LoginRefused)
        self.assertEqual([], self.provider.accounts.sessions("", 0, 9))

    def test_not_admitted(self) -> None:
        """Nor where the tenant has proved who it is, and may not come in."""
        tenant = self.connected()
        held = self.hold()
        client, final = self.proving(tenant)
        started = client.call(Start, **start_of(tenant))
        self.reactor.settle()
        self.provider.administration.set_tenant(TENANT, None, False, {"lease_end": "2020-01-01"})
        held.callback(None)
        self.failure_of(final, LeaseEnded)
        self.failure_of(started, LoginRefused)
        self.assertEqual([], self.provider.accounts.sessions("", 0, 9))

    def test_half_way(self) -> None:
        """Nor where it came in, and what there is for it cannot be read: the session is over."""
        tenant = self.connected()
        begun: Deferred[None] = Deferred()

        async def account(name: str) -> Any:
            await begun
            raise NotReachable("no data mover")

        self.provider.service.repositories.account = account  # type: ignore[method-assign]
        real = self.provider.service.starts.start

        async def start(*asked: Any) -> Any:
            answer = await real(*asked)
            begun.callback(None)
            return answer

        self.provider.service.starts.start = start  # type: ignore[method-assign]
        client, final = self.proving(tenant)
        started = client.call(Start, **start_of(tenant))
        self.failure_of(final, NotReachable)
        self.failure_of(started, NotReachable)
        (row,) = self.provider.accounts.sessions("", 0, 9)
        self.assertEqual("interrupted", row["state"])

    def test_not_allowed(self) -> None:
        """What is not allowed is refused as ever: a backup once the lease has ended."""
        tenant = self.connected()
        self.provider.administration.set_tenant(TENANT, None, False, {"lease_end": ENDED})
        client, final = self.proving(tenant)
        started = client.call(Start, **start_of(tenant))
        self.reactor.result_of(final)
        self.failure_of(started, LeaseEnded)

    def test_nothing_else(self) -> None:
        """Nobody is in while a proof is looked at: whatever else is sent then is refused, and no
        other log-in begun."""
        tenant = self.connected()
        held = self.hold()
        client, final = self.proving(tenant)
        self.failure_of(client.call(ListPoints, **LIST), LoginRefused)
        self.failure_of(client.call(AcceptWithCertificate), LoginRefused)
        self.failure_of(self.first(client, client.scram(TENANT, make_token())), ProtocolViolation)
        values = {"login": TENANT, "versions": [1]}
        self.failure_of(client.call(AuthenticateCertificate, **values), ProtocolViolation)
        self.failure_of(client.call(AuthenticateFinal, message="c=x,r=x,p=x"), ProtocolViolation)
        self.reactor.result_of(client.call(Ping))
        held.callback(None)
        self.reactor.result_of(final)
        self.reactor.result_of(client.call(ListPoints, **LIST))

    def test_one_waits(self) -> None:
        """One request may wait; a second ends the connection, and with it the first."""
        tenant = self.connected()
        held = self.hold()
        client, final = self.proving(tenant)
        waiting = [final, *(client.call(Start, **start_of(tenant)) for _ in range(2))]
        for asked in waiting:
            asked.addErrback(lambda _: None)
        self.reactor.settle()
        self.assertIsNotNone(client.reason)
        held.callback(None)
        self.reactor.settle()
        self.assertEqual(([], 0), (self.provider.accounts.sessions("", 0, 9), self.channels()))

    def test_gone(self) -> None:
        """Who is gone before the log-in is over gets no session."""
        tenant = self.connected()
        held = self.hold()
        client, final = self.proving(tenant)
        for asked in (final, client.call(Start, **start_of(tenant))):
            asked.addErrback(lambda _: None)
        self.reactor.settle()
        client.transport.abortConnection()  # type: ignore[union-attr]
        self.reactor.settle()
        held.callback(None)
        self.reactor.settle()
        self.assertEqual([], self.provider.accounts.sessions("", 0, 9))

    def test_small_again(self) -> None:
        """After a refused log-in one request at a time is read again."""
        tenant = self.connected()
        client, final = self.proving(tenant, make_token())
        self.failure_of(final, LoginRefused)
        asked = [self.first(client, client.scram(TENANT, make_token())) for _ in range(2)]
        for deferred in asked:
            deferred.addErrback(lambda _: None)
        self.reactor.settle()
        self.assertIsNotNone(client.reason)

    def channels(self) -> int:
        """Control channels but the tenant's own."""
        return len(self.provider.service.connections) - 1
