"""Tests of :mod:`cloudconnect.tenant.control`: against a real provider, in memory."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail

from cloudconnect.errors import (
    ControlTampered,
    Downgrade,
    FingerprintMismatch,
    HostnameMismatch,
    LoginRefused,
    NotReachable,
)
from cloudconnect.keys import Password
from cloudconnect.tenant import control
from cloudconnect.tenant.jobmanager import JobManager
from cloudconnect.tenant.lines import ControlClient
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire import scram
from cloudconnect.wire.login import make_token
from tests.certificates import self_signed
from tests.provider.stage import HOST, PORT, TENANT, idle
from tests.tenant.managers import ManagerCase


class LoginTests(ManagerCase):
    """Connecting and logging in."""

    def test_account(self) -> None:
        """The account says what the tenant has here."""
        tenant = self.tenant(modes=["tenant"])
        account = tenant.log_in()
        self.assertEqual((b"p" * 16, b"", ("tenant",), False), attrs.astuple(account)[:4])
        self.assertEqual([(HOST, PORT)], self.reactor.dialled)

    def test_round_trip(self) -> None:
        """The line's round trip is not known where there is no TCP socket, and is the kernel's
        where there is one; without a line there is none to ask about."""
        tenant = self.tenant()
        self.assertRaises(NotReachable, lambda: tenant.manager.round_trip)
        tenant.log_in()
        self.assertIsNone(tenant.manager.round_trip)
        asked: list[object] = []
        self.patch(control, "round_trip", lambda line: asked.append(line) or 0.25)
        self.assertEqual(0.25, tenant.manager.round_trip)
        self.assertEqual([tenant.manager.control.transport], asked)

    def test_wrong_password(self) -> None:
        """Another password is refused, and says so."""
        tenant = self.tenant()
        tenant.token = make_token()
        self.failure_of(
            tenant.manager.log_in(TENANT, Password(tenant.token.reveal())), LoginRefused
        )

    def test_not_trusted(self) -> None:
        """A provider with another certificate hears no credential: no log-in was even begun."""
        tenant = self.tenant()
        trust = TrustPolicy(HOST, fingerprints=(self_signed((HOST,)).spki,))
        manager = tenant.manager = JobManager(self.reactor, HOST, PORT, trust)
        self.failure_of(manager.log_in(TENANT, make_token()), FingerprintMismatch)
        trust = TrustPolicy("other.example.com", fingerprints=(self.provider.issued.spki,))
        manager = JobManager(self.reactor, "other.example.com", PORT, trust)
        self.failure_of(manager.log_in(TENANT, make_token()), HostnameMismatch)
        self.reactor.result_of(manager.close())
        self.assertEqual(0.0, self.provider.service.logins.attempts.delay(TENANT, "192.0.2.7"))
        self.assertEqual([], self.provider.events())

    def test_nobody_there(self) -> None:
        """Where nobody listens the text says what to check."""
        tenant = self.tenant()
        self.reactor.network.clear()
        asked = Deferred.fromCoroutine(tenant.manager.log_in(TENANT, make_token()))
        self.reactor.pass_time(10)
        error = self.failure_of(asked, NotReachable)
        self.assertIn(f"{HOST} port {PORT}", str(error))

    def test_lower_version(self) -> None:
        """A provider that chooses another version than the highest common one is not believed."""
        tenant = self.tenant()
        real = self.provider.service.repositories.account

        async def account(name: str) -> Any:
            for protocol in self.control_protocols():
                authentication, *_ = protocol._more
                authentication._version = 0
            return await real(name)

        self.provider.service.repositories.account = account  # type: ignore[method-assign]
        self.failure_of(tenant.manager.log_in(TENANT, Password(tenant.token.reveal())), Downgrade)

    def control_protocols(self) -> list[Any]:
        """The provider's ends of the control channels."""
        return [pair.right.protocol.wrappedProtocol for pair in self.reactor.pairs]

    def test_false_provider(self) -> None:
        """A provider that does not know the verifier cannot pass for it, whatever it answers."""
        tenant = self.tenant()
        self.patch(scram.ScramServer, "final", lambda server, message: "v=" + "A" * 43 + "=")
        manager = tenant.manager
        self.failure_of(manager.log_in(TENANT, Password(tenant.token.reveal())), LoginRefused)
        self.assertNotIn("logged_in", tenant.names())

    def test_answers(self) -> None:
        """A control channel is asked whether it still answers; one that was lost does not, nor one
        on which nothing comes back; one that was changed is an error."""
        tenant = self.connected()
        self.assertTrue(self.come_to(Deferred.fromCoroutine(tenant.manager.answers())))
        self.patch(ControlClient, "call", lambda *_, **__: fail(NotReachable("no answer")))
        self.assertFalse(self.come_to(Deferred.fromCoroutine(tenant.manager.answers())))
        self.cut()
        self.reactor.settle()
        self.assertFalse(self.come_to(Deferred.fromCoroutine(tenant.manager.answers())))
        tenant.manager._control_lost(tenant.manager._dialled, ControlTampered("changed"))
        self.failure_of(tenant.manager.answers(), ControlTampered)

    def test_again(self) -> None:
        """It logs in again on a new control channel, and the old one is gone: what is heard of its
        end changes nothing."""
        tenant = self.connected()
        old = tenant.manager.control
        tenant.log_in()
        self.assertIsNot(old, tenant.manager.control)
        self.reactor.settle()
        self.assertEqual(1, len(self.pairs()))
        self.assertEqual(16, len(self.reactor.result_of(tenant.session(idle(tenant)))))
