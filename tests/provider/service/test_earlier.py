"""Tests of :mod:`cloudconnect.provider.service.earlier`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed

from cloudconnect.errors import NoSpace
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.service import earlier
from cloudconnect.provider.service.earlier import EarlierWarnings
from tests.provider.accounts.case import AccountsCase
from tests.provider.accounts.test_untold import warning

JOB = b"j" * 16


class EarlierTests(AccountsCase):
    """What is remembered of a job."""

    def setUp(self) -> None:
        super().setUp()
        self.full = False
        self.hears = True
        self.earlier = EarlierWarnings(self.accounts, self.run_call)

    def run_call(self, call: Any, *arguments: Any) -> Deferred[Any]:
        if self.full and not call.__name__.startswith("untold"):
            return fail(NoSpace("the disk is full"))
        return maybeDeferred(call, *arguments)

    def keep(self, *warnings: SecurityWarning, job: bytes = JOB) -> None:
        self.successResultOf(self.earlier.keep("acme", "default", job, warnings))

    def told(
        self, tenant: str = "acme", job: bytes = JOB, label: str = "default"
    ) -> list[SecurityWarning]:
        """What the tenant is told at a Start."""
        heard: list[SecurityWarning] = []

        def notify(warning: SecurityWarning) -> Deferred[bool]:
            heard.append(warning)
            return succeed(self.hears)

        telling = self.earlier.tell(tenant, label, job, notify)
        self.successResultOf(Deferred.fromCoroutine(telling))
        return heard

    def test_told_once(self) -> None:
        """The next Start of the job is told what was seen, and the one after that nothing."""
        self.keep(warning(), warning(session="02"))
        self.assertEqual([], self.told("other"))
        self.assertEqual([], self.told(job=b"k" * 16))
        self.assertEqual([warning(), warning(session="02")], self.told())
        self.assertEqual([], self.told())

    def test_another_machine(self) -> None:
        """A machine with another credential that knows the job's id is not told in its place."""
        for self.full in (False, True):
            self.keep(warning())
            self.assertEqual([], self.told(label="other"))
            self.assertEqual([warning()], self.told())

    def test_answered_late(self) -> None:
        """A tenant that answers twice, late, does not take another one's warning with it, whatever
        number that has got by then."""
        answers: list[Deferred[bool]] = []

        def notify(warning: SecurityWarning) -> Deferred[bool]:
            answers.append(Deferred())
            return answers[-1]

        self.keep(warning())
        for _ in range(2):
            telling = self.earlier.tell("acme", "default", JOB, notify)
            self.successResultOf(Deferred.fromCoroutine(telling))
        answers[0].callback(True)
        self.successResultOf(self.earlier.keep("victim", "default", JOB, [warning()]))
        answers[1].callback(True)
        self.assertEqual([warning()], self.told("victim"))

    def test_not_heard(self) -> None:
        """A tenant that is gone before it has said that it has a warning is told it again."""
        self.hears = False
        self.keep(warning())
        for _ in range(2):
            self.assertEqual([warning()], self.told())
        self.hears = True
        self.told()
        self.assertEqual([], self.told())

    def test_killed(self) -> None:
        """A service that was killed tells what the one before has kept."""
        self.keep(warning())
        self.accounts.close()
        self.earlier = EarlierWarnings(self.opened(), self.run_call)
        self.assertEqual([warning()], self.told())

    def test_has(self) -> None:
        """What the tenant has said that it has while the session ran is not told again."""
        self.keep(warning(), warning(session="02"))
        self.successResultOf(self.earlier.has("acme", warning()))
        self.assertEqual([warning(session="02")], self.told())

    def test_full(self) -> None:
        """Where the disk takes nothing it is remembered in memory, within bounds, and told."""
        self.patch(earlier, "JOBS_MAX", 2)
        self.full = True
        for job in (b"1" * 16, b"2" * 16, JOB):
            self.keep(warning(), job=job)
        self.successResultOf(self.earlier.reported("acme", "01"))
        self.assertEqual([], self.told(job=b"1" * 16))
        self.hears = False
        for _ in range(2):
            self.assertEqual([warning()], self.told())
        self.hears = True
        self.told()
        self.assertEqual([], self.told())
