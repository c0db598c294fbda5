"""Tests of :mod:`cloudconnect.provider.earlier`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider import earlier
from cloudconnect.provider.earlier import EarlierWarnings

JOB = b"j" * 16


def warning(kind: WarningKind = WarningKind.TAMPERED, session: str = "aa") -> SecurityWarning:
    return SecurityWarning(
        time=1.0, kind=kind, session=session, tenant="acme", role="target-mover", text="seen"
    )


class EarlierTests(SynchronousTestCase):
    """What is remembered of a job."""

    def setUp(self) -> None:
        self.earlier = EarlierWarnings()

    def test_kept(self) -> None:
        """Warnings of all sessions of a job are kept, each once, and of no other job or tenant."""
        self.earlier.keep("acme", JOB, [warning(), warning()], True)
        self.earlier.keep("acme", JOB, [warning(session="bb")], True)
        self.assertEqual(["aa", "bb"], [w.session for w in self.earlier.of("acme", JOB)])
        self.assertEqual([], self.earlier.of("acme", b"k" * 16))
        self.assertEqual([], self.earlier.of("other", JOB))

    def test_told(self) -> None:
        """Of a session whose tenant was told only what means a change is kept."""
        truncated = warning(WarningKind.TRUNCATED)
        self.earlier.keep("acme", JOB, [truncated], False)
        self.assertEqual([], self.earlier.of("acme", JOB))
        self.earlier.keep("acme", JOB, [truncated, warning()], False)
        self.assertEqual([warning()], self.earlier.of("acme", JOB))

    def test_bounded(self) -> None:
        """Neither jobs nor the warnings of one job grow without end."""
        self.patch(earlier, "JOBS_MAX", 2)
        many = [warning(session=f"{number:02x}") for number in range(40)]
        for job in (b"1", b"2", b"3"):
            self.earlier.keep("acme", job, many, True)
        self.assertEqual([], self.earlier.of("acme", b"1"))
        self.assertEqual(earlier.WARNINGS_MAX, len(self.earlier.of("acme", b"3")))
