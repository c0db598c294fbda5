"""Tests of :mod:`cloudconnect.provider.service.tenants`: what a tenant is told."""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import (
    NoSpace,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import Password
from cloudconnect.provider.service.tenants import UNTOLD_MAX
from tests.provider.stage import TENANT, StageCase


class TellingTests(StageCase):
    """What is written down of a tenant, and told to it."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.connected()

    def damaged(self, text: str, tenant: str = TENANT, session: str = "") -> None:
        """Something was found in a tenant's repository."""
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.STORED_DATA_DAMAGED,
            tenant=tenant,
            session=session,
            role="target-mover",
            text=text,
        )
        self.reactor.result_of(self.provider.service.reports.warned(warning))

    def test_told_of_damage(self) -> None:
        """A tenant is told at its next log-in what was found in its repository, once."""
        self.damaged("pack 1 is damaged")
        self.damaged("of another", tenant="other")
        self.damaged("of a session", session="ab" * 16)
        for count in (1, 0):
            self.acme.warnings.clear()
            manager = self.acme.make_manager()
            self.reactor.result_of(manager.log_in(TENANT, Password(self.acme.token.reveal())))
            self.reactor.pass_time(1)
            self.assertEqual(
                ["pack 1 is damaged"] * count, [warning.text for warning in self.acme.warnings]
            )
            self.reactor.result_of(manager.close())

    def test_told_later(self) -> None:
        """Who has gone before it was told is told the next time; many are told bit by bit."""
        for number in range(UNTOLD_MAX + 2):
            self.damaged(f"pack {number} is damaged")
        heard: list[str] = []
        for _ in range(3):
            self.acme.warnings.clear()
            manager = self.acme.make_manager()
            self.reactor.result_of(manager.log_in(TENANT, Password(self.acme.token.reveal())))
            self.reactor.pass_time(1)
            heard += [warning.text for warning in self.acme.warnings]
            self.reactor.result_of(manager.close())
        wanted = [f"pack {number} is damaged" for number in range(UNTOLD_MAX + 2)]
        self.assertEqual(wanted, heard)

    def test_disk_full(self) -> None:
        """Where nothing can be written down a restore goes on."""

        def full(*_: Any, **__: Any) -> None:
            raise NoSpace("the disk is full")

        point = self.reactor.result_of(self.acme.back_up(self.source())).point
        for name in ("keep_event", "keep_warning", "session_started", "session_ended"):
            self.patch(self.provider.accounts, name, full)
        restored = self.reactor.result_of(self.acme.restore(point, self.mktemp()))
        self.assertEqual((1, 0), (restored.files, restored.damaged.count))

    def test_nobodys(self) -> None:
        """A repository of nobody has no owner."""
        answer = self.reactor.result_of(self.provider.service.tenants.owner(b"x" * 16))
        self.assertEqual("", answer["tenant"])
