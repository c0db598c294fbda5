"""Tests of :mod:`cloudconnect.provider.control.control`:
commands on the channel, over TLS in memory.
"""

from __future__ import annotations

import os
from typing import Any

from cloudconnect.commands.control import (
    Finish,
    ListPoints,
    Start,
    Warn,
)
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import (
    ContextMismatch,
    ProtocolViolation,
    Refused,
)
from cloudconnect.provider.control import session_commands
from cloudconnect.provider.control.session_commands import SessionCommands
from cloudconnect.repository.store import Repository
from cloudconnect.settings import (
    PAGE_ROWS_MAX,
    SUMMARY_MAX,
)
from tests.provider.control_parts import LIST, WARNING, ControlCase, start_of
from tests.provider.stage import TENANT, Tenant
from tests.repository.repositories import record


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
        self.assertEqual(1, len(self.provider.service.sessions))
        self.reactor.result_of(self.acme.manager.close())
        self.acme.manager = own
        self.reactor.result_of(self.finish(self.acme, session))
        self.assertEqual(0, len(self.provider.service.sessions))

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
        self.assertEqual([], list(self.provider.service.sessions))

    def test_key_a_is_forgotten(self) -> None:
        """The service forgets Key A as soon as it has handed it over."""
        made: list[Any] = []
        real = self.provider.service.starts.start

        async def start(*arguments: Any) -> Any:
            result = await real(*arguments)
            made.extend(result[2])
            return result

        self.provider.service.starts.start = start  # type: ignore[method-assign]
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
        self.assertEqual(1, len(self.provider.service.sessions))
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

    def test_warning_of_a_sibling(self) -> None:
        """Nor another machine of the tenant's in a session of this one."""
        session = self.started(self.acme)
        _, token = self.provider.administration.tenants.add_credential(TENANT, "other", None)
        assert token is not None
        other = self.acme.make_manager()
        self.addCleanup(lambda: self.reactor.result_of(other.close()))
        self.reactor.result_of(other.log_in(f"{TENANT}/other", token))
        warning = {**WARNING.as_dict(), "session": session.hex()}
        self.failure_of(other.control.call(Warn, warning=warning), ContextMismatch)
        self.assertEqual([], self.provider.names(type="warning"))

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
        for wrong in (
            *(None, [], "text", {"octets": b"x"}, {"deep": {"octets": [b"x"]}}),
            {"text": "x" * SUMMARY_MAX},
            {str(number): number for number in range(1000)},
        ):
            self.failure_of(self.finish(self.acme, session, summary=wrong), ProtocolViolation)
        self.reactor.result_of(self.finish(self.acme, session, summary={"files": 3}))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual(({"files": 3}, "done"), (row["summary"], row["state"]))
        self.assertEqual([], list(self.provider.service.sessions))

    def test_ended_otherwise(self) -> None:
        """Sessions that end without their tenant's word are not remembered for ever."""
        self.patch(session_commands, "ENDED_MAX", 5)
        made: list[SessionCommands] = []
        real = SessionCommands.__init__

        def init(commands: SessionCommands, channel: Any) -> None:
            made.append(commands)
            real(commands, channel)

        self.patch(SessionCommands, "__init__", init)
        tenant, endings = self.connected("third"), self.provider.service.endings
        for _ in range(12):
            self.started(tenant)
            for live in self.provider.service.sessions:
                self.reactor.result_of(endings.end(live, "failed", {}, "failed"))
        session = self.started(tenant)
        self.assertLess(len(made[0]._sessions), 6)
        self.reactor.result_of(self.finish(tenant, session))

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
