"""Tests of :mod:`cloudconnect.tenant.run`: Finish beside the ends of the accelerators' connections,
and what is found there."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.commands.control import BETWEEN_WANS, Finish, Start
from cloudconnect.commands.lan import PassedWAN
from cloudconnect.errors import (
    ContextMismatch,
    NotReachable,
    ProtocolViolation,
    Tampered,
    Truncated,
)
from cloudconnect.provider.control.session_commands import SessionCommands
from cloudconnect.settings import AMEND_SECONDS
from tests.provider.control_parts import start_of
from tests.provider.stage import TENANT, Tenant, idle
from tests.tenant.managers import ManagerCase


class Late(SourceAccelerator):
    """An accelerator whose part is over when ``go_on`` fires; then it fails with ``error``."""

    error: Exception | None = None

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.go_on: Deferred[None] = Deferred()
        self.asked: list[str] = []

    def pass_part(self, link: Any, session: bytes) -> Any:
        self.asked.append("passed")
        return super().pass_part(link, session)

    async def _end(self, link: Any, session: bytes, aborted: bool) -> dict[str, Any]:
        self.asked.append("end")
        one = self._by_session.get(session)
        answer = await super()._end(link, session, aborted)
        if not aborted:
            await self.go_on
            if self.error is not None:
                if isinstance(self.error, Tampered):
                    assert one is not None
                    self._warn(one, self.error, BETWEEN_WANS)
                raise self.error
        return answer


class LateCase(ManagerCase):
    """A backup whose Finish is answered while the own accelerator's part goes on."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.accelerated(source=Late)
        assert isinstance(self.acme.accelerator, Late)
        self.late = self.acme.accelerator

    def backed_up(self) -> Deferred[Any]:
        """A backup; the provider says that it is done, and the command does not yet."""
        waited = self.acme.back_up(self.source())
        results: list[Any] = []
        waited.addBoth(lambda result: results.append(result) or result)
        while self.states() != ["done"]:
            self.reactor._wait()
            self.reactor.settle()
        self.assertEqual([], results)
        return waited

    def fails(self, error: Exception) -> None:
        self.late.error = error
        self.late.go_on.callback(None)


class BesideTests(LateCase):
    """All is well."""

    def test_waited_for(self) -> None:
        """The result is told once the accelerator's part is over too; what was saved is what it
        says, here and at the provider."""
        waited = self.backed_up()
        self.late.go_on.callback(None)
        self.reactor.result_of(waited)
        self.assertEqual(["passed", "end"], self.late.asked)
        (row,) = self.provider.accounts.sessions(TENANT, 0, 9)
        saved = self.acme.manager.saved
        for name in ("bytes_before", "bytes_after", "line_sent", "line_received"):
            self.assertGreater(saved[name], 0)
            self.assertEqual(saved[name], row["summary"]["wan"][name])
        self.assertEqual((1, []), (len(self.provider.points()), self.acme.warnings))


class FoundTests(LateCase):
    """Something is found once Finish was answered."""

    def test_changed(self) -> None:
        """A change is told at both ends, and no point is left."""
        waited = self.backed_up()
        self.fails(Tampered("the end of a connection was changed"))
        self.failure_of(waited, Tampered)
        self.assertEqual((["security_warning"], []), (self.states(), self.provider.points()))
        self.assertIn("tampered", self.warning_kinds(self.acme))
        rows = self.provider.events(type="warning", tenant=TENANT)
        self.assertIn(
            ("tampered", "source-wan"), [(row["name"], row["reported_by"]) for row in rows]
        )

    def test_cut(self) -> None:
        """A cut leaves no point either: the job is had again."""
        waited = self.backed_up()
        self.fails(Truncated("a connection stopped without its end"))
        self.failure_of(waited, Truncated)
        self.assertEqual((["interrupted"], []), (self.states(), self.provider.points()))

    def test_not_said(self) -> None:
        """Where the line to the provider is gone too the command still fails by what was found."""
        waited = self.backed_up()
        self.reactor.settle()
        self.cut()
        self.fails(Tampered("the end of a connection was changed"))
        self.failure_of(waited, Tampered)
        self.assertIn("tampered", self.warning_kinds(self.acme))

    def test_reading(self) -> None:
        """A session without points is said to have failed all the same."""
        waited = self.acme.session(idle(self.acme))
        while self.states() != ["done"]:
            self.reactor._wait()
            self.reactor.settle()
        self.fails(Tampered("the end of a connection was changed"))
        self.failure_of(waited, Tampered)
        self.assertEqual(["security_warning"], self.states())


class OlderTests(LateCase):
    """One of the others does not know of it: then nothing is left to end once Finish goes."""

    def check(self) -> None:
        self.late.go_on.callback(None)
        self.reactor.result_of(self.acme.back_up(self.source()))
        self.assertEqual(["done"], self.states())

    def test_provider(self) -> None:
        """A provider whose Finish cannot be taken back."""
        real = SessionCommands._start

        async def start(commands: SessionCommands, *a: Any, **asked: Any) -> dict[str, Any]:
            return {**await real(commands, *a, **asked), "amend": None}

        self.patch(SessionCommands, "_start", start)
        self.check()
        self.assertEqual(["end"], self.late.asked)

    def test_accelerator(self) -> None:
        """An accelerator that does not say when it has passed on everything."""
        said: list[Any] = []
        link, control = self.acme.own.link, self.acme.manager.control
        to_accelerator, to_provider = link.call, control.call

        def passed(command: Any, *a: Any, **values: Any) -> Any:
            if command is not PassedWAN:
                return to_accelerator(command, *a, **values)
            said.append(command)
            return fail(ProtocolViolation("there is no such command here"))

        def finish(command: Any, *a: Any, **values: Any) -> Any:
            if command is Finish:
                said.append(list(self.late.asked))
            return to_provider(command, *a, **values)

        self.patch(link, "call", passed)
        self.patch(control, "call", finish)
        self.check()
        self.assertEqual([PassedWAN, ["end"]], said)


class AmendTests(ManagerCase):
    """What a provider takes back."""

    def finish(self, tenant: Tenant, session: bytes, outcome: str = "failed") -> Deferred[Any]:
        values = {"summary": {}, "warnings": []}
        return tenant.manager.control.call(Finish, session=session, outcome=outcome, **values)

    def backed_up(self, tenant: Tenant) -> bytes:
        self.reactor.result_of(tenant.back_up(self.source()))
        return bytes.fromhex(self.provider.accounts.sessions(TENANT, 0, 9)[-1]["session"])

    def test_once(self) -> None:
        """A session that was said to be good is said not to be, once; its point goes, and no
        other."""
        tenant = self.connected()
        first = self.backed_up(tenant)
        second = self.backed_up(tenant)
        self.failure_of(self.finish(tenant, first), ContextMismatch)
        self.reactor.result_of(self.finish(tenant, second))
        self.assertEqual((["done", "failed"], 1), (self.states(), len(self.provider.points())))
        self.failure_of(self.finish(tenant, second), ContextMismatch)

    def test_late(self) -> None:
        """Not for ever."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        self.reactor.pass_time(AMEND_SECONDS + 1)
        self.failure_of(self.finish(tenant, session), ContextMismatch)
        self.assertEqual((["done"], 1), (self.states(), len(self.provider.points())))

    def test_good(self) -> None:
        """Nor to say once more that it was good."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        self.failure_of(self.finish(tenant, session, "done"), ContextMismatch)

    def test_bad_stays(self) -> None:
        """How a session failed is not said anew."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        self.reactor.result_of(self.finish(tenant, session, "security_warning"))
        self.failure_of(self.finish(tenant, session, "failed"), ContextMismatch)
        self.assertEqual(["security_warning"], self.states())

    def start(self, tenant: Tenant) -> Deferred[Any]:
        """The job of the last session goes on in another one."""
        (row,) = self.provider.accounts.sessions(TENANT, 0, 9)
        job = bytes.fromhex(row["job_id"])
        return tenant.manager.control.call(Start, **start_of(tenant, job=job))

    def test_gone_on(self) -> None:
        """Nor once the job goes on: a report that somebody has held up takes no point away that the
        tenant has found since."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        self.reactor.result_of(self.start(tenant))
        self.failure_of(self.finish(tenant, session), ContextMismatch)
        self.assertEqual(("done", 1), (self.states()[0], len(self.provider.points())))

    def test_goes_on_while_it_ends(self) -> None:
        """So it is where the job goes on while its session's good end is being looked at."""
        tenant = self.connected()
        held, endings = Deferred[None](), self.provider.service.endings
        real = endings._keep_for_next

        async def keep(*arguments: Any) -> None:
            await held
            await real(*arguments)

        self.patch(endings, "_keep_for_next", keep)
        backing = tenant.back_up(self.source())
        while not any(live.ending for live in self.provider.service.sessions):
            self.reactor._wait()
            self.reactor.settle()
        (live,) = self.provider.service.sessions
        started = self.start(tenant)
        self.reactor.settle()
        self.assertNoResult(started)
        held.callback(None)
        self.reactor.result_of(started)
        self.reactor.result_of(backing)
        self.failure_of(self.finish(tenant, live.session), ContextMismatch)
        self.assertEqual(1, len(self.provider.points()))

    def test_waited_for(self) -> None:
        """A job that goes on waits until what is taken back of it is gone."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        held, endings = Deferred[None](), self.provider.service.endings
        real = endings._withdraw

        async def withdraw(*arguments: Any) -> None:
            await held
            await real(*arguments)

        self.patch(endings, "_withdraw", withdraw)
        finished = self.finish(tenant, session)
        self.reactor.settle()
        started = self.start(tenant)
        self.reactor.settle()
        self.assertNoResult(started)
        self.assertEqual(1, len(self.provider.points()))
        held.callback(None)
        self.reactor.result_of(started)
        self.assertEqual([], self.provider.points())
        self.reactor.result_of(finished)

    def test_another_channel(self) -> None:
        """Nobody else can say it, on whichever channel."""
        tenant = self.connected()
        session = self.backed_up(tenant)
        tenant.log_in()
        self.failure_of(self.finish(tenant, session), ContextMismatch)
        self.assertEqual(["done"], self.states())

    def test_not_withdrawn(self) -> None:
        """Where the point cannot be withdrawn the tenant is told, and the admin reads it."""
        tenant = self.connected()
        session = self.backed_up(tenant)

        async def withdraw(*asked: Any) -> None:
            raise NotReachable("no data mover")

        self.patch(self.provider.service.endings, "_withdraw", withdraw)
        self.failure_of(self.finish(tenant, session), NotReachable)
        self.assertIn("is not withdrawn", self.log_text())
