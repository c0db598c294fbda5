"""Tests of :mod:`cloudconnect.tenant.early`: a session that is asked for with the log-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.amp import Command

from cloudconnect.commands.control import Finish, SessionKind, Start
from cloudconnect.errors import Busy, LoginRefused, MovedOn, NotReachable
from cloudconnect.keys import KeyA, Password
from cloudconnect.provider.control.authenticating import Authentication
from cloudconnect.tenant.control import Account
from cloudconnect.tenant.early import EARLY_SECONDS, EarlyStart, Foreseen
from cloudconnect.tenant.jobmanager import JobManager, new_job_id
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire import scram
from tests.provider.stage import HOST, LABELS, PORT, STREAMS, TENANT, Tenant, idle
from tests.tenant.managers import ManagerCase


class EarlyCase(ManagerCase):
    """A test with a tenant whose repository is known before it logs in."""

    def setUp(self) -> None:
        super().setUp()
        self.job = new_job_id()

    def foreseen(self, tenant: Tenant, **changes: Any) -> Callable[[], Foreseen]:
        values = {
            "kind": SessionKind.READ,
            "repository": tenant.repository,
            "job_id": self.job,
            "host": LABELS[0],
            "job": LABELS[1],
            **changes,
        }
        return lambda: Foreseen(**values)

    def log_in(self, tenant: Tenant, **changes: Any) -> Account:
        """Log in, and ask for a session at the same time."""
        return self.reactor.result_of(self.logging_in(tenant, **changes))  # type: ignore[no-any-return]

    def logging_in(self, tenant: Tenant, **changes: Any) -> Deferred[Account]:
        password = Password(tenant.token.reveal())
        foreseen = self.foreseen(tenant, **changes)
        return Deferred.fromCoroutine(tenant.manager.log_in(TENANT, password, foreseen))

    def run_session(self, tenant: Tenant, **parts: Any) -> bytes:
        """The session of the one job."""
        begun = tenant.session(idle(tenant), job_id=self.job, **parts)
        return self.reactor.result_of(begun)  # type: ignore[no-any-return]


class UsedTests(EarlyCase):
    """The command wants what was foreseen."""

    def test_one_session(self) -> None:
        """The session stands when the log-in does, and is the one that the command gets."""
        tenant = self.connected()
        self.log_in(tenant)
        self.reactor.settle()
        (live,) = self.provider.service.sessions
        self.assertEqual(live.session, self.run_session(tenant))
        self.assertEqual((["done"], []), (self.states(), tenant.warnings))

    def test_once(self) -> None:
        """The next session of the same job is another one."""
        tenant = self.connected()
        self.log_in(tenant)
        self.assertNotEqual(self.run_session(tenant), self.run_session(tenant))
        self.assertEqual(["done", "done"], self.states())

    def test_accelerated(self) -> None:
        """One through accelerators, whose connections were opened with it."""
        tenant = self.accelerated()
        self.log_in(tenant, streams=STREAMS)
        dialled = len(self.reactor.dialled)
        self.run_session(tenant)
        self.assertEqual((dialled, ["done"]), (len(self.reactor.dialled), self.states()))

    def test_refused(self) -> None:
        """What it is answered is what the command is told, as if it had asked then."""
        tenant = self.connected()
        self.lying_start(_busy)
        self.log_in(tenant)
        self.failure_of(tenant.session(idle(tenant), job_id=self.job), Busy)

    def test_moved_on(self) -> None:
        """That it should move on is not lost where the provider says so before it is used."""
        tenant = self.connected()
        self.log_in(tenant)
        self.reactor.settle()
        (live,) = self.provider.service.sessions
        live.move_on(live.session, True, "a role of it is lost")
        self.reactor.settle()
        self.failure_of(tenant.session(idle(tenant), job_id=self.job), MovedOn)


def _busy(*answer: Any) -> Any:
    raise Busy("too many tasks")


class UnusedTests(EarlyCase):
    """The command wants something else, or nothing."""

    def test_another(self) -> None:
        """Another session than was foreseen is asked for as ever, and the early one is over."""
        tenant = self.connected()
        self.log_in(tenant, host="elsewhere")
        self.run_session(tenant)
        self.assertEqual(["interrupted", "done"], self.states())
        self.assertEqual(0, len(self.provider.service.sessions))

    def test_another_repository(self) -> None:
        """So it is where the provider has no such repository: nothing was begun."""
        tenant = self.connected()
        self.log_in(tenant, repository=b"?" * 16)
        self.run_session(tenant)
        self.assertEqual(["done"], self.states())

    def test_no_accelerator(self) -> None:
        """Or no accelerator."""
        tenant = self.connected()
        self.log_in(tenant, streams=STREAMS)
        self.run_session(tenant)
        self.assertEqual(["done"], self.states())

    def test_too_old(self) -> None:
        """One that has waited for long is not used any more."""
        tenant = self.connected()
        self.log_in(tenant)
        self.reactor.pass_time(EARLY_SECONDS + 1)
        self.run_session(tenant)
        self.assertEqual(["interrupted", "done"], self.states())

    def test_given_back(self) -> None:
        """A command that ends without a session leaves none behind, and no connection."""
        tenant = self.connected()
        self.log_in(tenant)
        self.reactor.result_of(tenant.manager.close())
        self.reactor.settle()
        self.assertEqual((["interrupted"], []), (self.states(), self.pairs()))
        tenant.manager = tenant.make_manager()

    def test_new_channel(self) -> None:
        """A session of the channel before is not that of the next one."""
        tenant = self.connected()
        self.log_in(tenant)
        self.reactor.settle()
        tenant.log_in()
        self.run_session(tenant)
        self.assertEqual(["interrupted", "done"], self.states())

    def test_line_lost(self) -> None:
        """Where the line is lost so is the session; the command is told that it is."""
        tenant = self.connected()
        self.log_in(tenant)
        self.cut()
        self.reactor.settle()
        self.failure_of(tenant.session(idle(tenant), job_id=self.job), NotReachable)


class _Nothing:
    """Connections that nobody has opened."""

    def close(self) -> None:
        """There is nothing to close."""


class _Control:
    """A channel on which Start was answered already."""

    def __init__(self) -> None:
        self.key = KeyA.generate()
        self.called: list[type[Command]] = []

    def call(self, command: type[Command], **values: Any) -> Deferred[dict[str, Any]]:
        self.called.append(command)
        return succeed({"session": b"s" * 16, "plan": [], "keys_a": [self.key]})


class UntrustedTests(EarlyCase):
    """Nothing moves earlier than it may."""

    def test_keys(self) -> None:
        """Keys that came before the provider's proof, and are not used, are forgotten; of a log-in
        that has failed nothing more is said on the line."""
        for how, said in ((EarlyStart.refuse, [Start]), (EarlyStart.drop, [Start, Finish])):
            control = _Control()
            early = EarlyStart(self.reactor, control, {}, _Nothing())  # type: ignore[arg-type]
            how(early)
            self.assertEqual((said, True), (control.called, control.key.forgotten))

    def test_false_provider(self) -> None:
        """A provider that answers Start and cannot prove itself: nothing comes of its answer, its
        Key A is forgotten, and it hears nothing more."""
        tenant = self.connected()
        self.patch(scram.ScramServer, "final", lambda server, message: "v=" + "A" * 43 + "=")
        self.failure_of(self.logging_in(tenant), LoginRefused)
        self.reactor.settle()
        self.assertEqual([], self.pairs())
        self.assertEqual(0, tenant.names().count("started"))
        self.failure_of(tenant.session(idle(tenant), job_id=self.job), NotReachable)

    def test_wrong_password(self) -> None:
        """A log-in that the provider refuses begins nothing."""
        tenant = self.connected()
        tenant.token = Password(b"cct1-" + b"a" * 52)
        self.failure_of(self.logging_in(tenant), LoginRefused)
        self.reactor.settle()
        self.assertEqual([], self.states())

    def test_by_authority(self) -> None:
        """Who is known by an authority alone is asked for nothing before it has proved itself."""
        tenant = self.connected()
        self.reactor.result_of(tenant.manager.close())
        trust = TrustPolicy(
            HOST, ca_file=self.provider.issued.write(self.mktemp()).certificate_path
        )
        tenant.manager = JobManager(self.reactor, HOST, PORT, trust)
        self.log_in(tenant)
        self.reactor.settle()
        self.assertEqual([], self.states())
        self.run_session(tenant)
        self.assertEqual(["done"], self.states())

    def test_older_provider(self) -> None:
        """One that does not say that it takes it is asked as ever."""
        tenant = self.connected()
        real = Authentication._first

        async def first(authentication: Authentication, *asked: Any) -> dict[str, Any]:
            return {"message": (await real(authentication, *asked))["message"], "start": None}

        self.patch(Authentication, "_first", first)
        self.log_in(tenant)
        self.reactor.settle()
        self.assertEqual([], self.states())
        self.run_session(tenant)
        self.assertEqual(["done"], self.states())
