"""Tests of :mod:`cloudconnect.provider.accounts.untold`."""

from __future__ import annotations

import time

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import untold
from tests.provider.accounts.case import VERIFIER, AccountsCase

JOB, OTHER = "aa" * 16, "bb" * 16


def warning(kind: WarningKind = WarningKind.TAMPERED, session: str = "01") -> SecurityWarning:
    return SecurityWarning(
        time=1.0, kind=kind, session=session, tenant="acme", role="target-mover", text="seen"
    )


class UntoldTests(AccountsCase):
    """What a tenant is to be told yet."""

    def of(self, tenant: str = "acme", job: str = JOB) -> list[SecurityWarning]:
        return self.accounts.untold_of(tenant, job)

    def test_kept(self) -> None:
        """Each warning of a job once, as it was, also for another process; of no other job or
        tenant."""
        self.accounts.keep_untold("acme", JOB, [warning(), warning()])
        self.accounts.keep_untold("acme", JOB, [warning(), warning(session="02")])
        self.accounts.close()
        self.accounts = self.opened()
        self.assertEqual([warning(), warning(session="02")], self.of())
        self.assertEqual([], self.of(job=OTHER))
        self.assertEqual([], self.of("other"))

    def test_spent(self) -> None:
        """One that was told is gone, and no other one."""
        self.accounts.keep_untold("acme", JOB, [warning(), warning(session="02")])
        for whose in (("other", JOB), ("acme", OTHER)):
            self.accounts.spend_untold(*whose, warning())
        self.assertEqual(2, len(self.of()))
        self.accounts.spend_untold("acme", JOB, warning())
        self.assertEqual([warning(session="02")], self.of())

    def test_session_told(self) -> None:
        """Of a session whose end was told only what means a change stays; or all but the one that
        the tenant has."""
        cut = warning(WarningKind.TRUNCATED)
        self.accounts.keep_untold("acme", JOB, [cut, warning(), warning(session="02")])
        self.accounts.spend_of_session("other", "01")
        self.assertEqual(3, len(self.of()))
        self.accounts.spend_of_session("acme", "01")
        self.assertEqual([warning(), warning(session="02")], self.of())
        self.accounts.spend_of_session("acme", "01", warning())
        self.assertEqual([warning(session="02")], self.of())

    def test_bounded(self) -> None:
        """Neither a job nor a tenant fills the disk, nor pushes out what is another one's."""
        self.accounts.keep_untold("other", JOB, [warning()])
        many = [warning(session=f"{number:02x}") for number in range(40)]
        self.accounts.keep_untold("acme", JOB, many)
        self.assertEqual(many[: untold.OF_JOB_MAX], self.of())
        self.patch(untold, "OF_TENANT_MAX", 3)
        self.accounts.keep_untold("acme", OTHER, many[:2])
        self.assertEqual((1, 2), (len(self.of()), len(self.of(job=OTHER))))
        self.assertEqual([warning()], self.of("other"))

    def test_cut_makes_room(self) -> None:
        """Lines that were only cut push out nothing that was changed, of the same job or of
        another one: whoever changes bytes can cut as many lines before and behind as he likes."""
        cuts = [warning(WarningKind.TRUNCATED, f"{number:02x}") for number in range(40)]
        for each in cuts:
            self.accounts.keep_untold("acme", JOB, [each])
        self.accounts.keep_untold("acme", JOB, [warning(), warning(), warning(session="02")])
        kept = self.of()
        self.assertEqual(untold.OF_JOB_MAX, len(kept))
        self.assertEqual([warning(), warning(session="02")], kept[-2:])
        self.patch(untold, "OF_TENANT_MAX", 3)
        self.accounts.keep_untold("acme", OTHER, cuts[:5])
        self.assertEqual([warning(), warning(session="02")], self.of())
        self.assertEqual(1, len(self.of(job=OTHER)))

    def test_clock(self) -> None:
        """A time of day that jumps a year ahead takes nobody's warning away."""
        self.accounts.keep_untold("acme", JOB, [warning()])
        now = time.time() + 365 * 86400.0
        self.patch(time, "time", lambda: now)
        self.accounts.keep_untold("acme", OTHER, [warning(session="02")])
        self.accounts.pass_time(now)
        self.accounts.forget_untold(untold.MEMORY_SECONDS)
        self.assertEqual((1, 1), (len(self.of()), len(self.of(job=OTHER))))

    def test_gone_with_the_tenant(self) -> None:
        """A tenant that is dropped leaves nothing to the next one of its name."""
        self.accounts.add_tenant("acme", VERIFIER)
        self.accounts.keep_untold("acme", JOB, [warning()])
        self.accounts.remove("acme", 0.0)
        self.accounts.count_removals(0.0)
        self.accounts.drop_tenant("acme")
        self.assertEqual([], self.of())
