"""Tests of :mod:`cloudconnect.provider.control.attempts`."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.control.attempts import (
    ENTRIES_MAX,
    FIRST_DELAY,
    KEPT_MAX,
    KEPT_RATE,
    LABELS_MAX,
    LONGEST_DELAY,
    MEMORY_SECONDS,
    LoginAttempts,
)
from cloudconnect.settings import AUTHENTICATION_SECONDS

HERE, THERE = "192.0.2.1", "198.51.100.1"


class AttemptTests(SynchronousTestCase):
    """What failures cost."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.attempts = LoginAttempts(self.clock)

    def fail_login(self, tenant: str, address: str, times: int = 1) -> int:
        count = 0
        for _ in range(times):
            count = self.attempts.failed(tenant, address)
        return count

    def test_nothing_yet(self) -> None:
        """Who has not failed does not wait."""
        self.assertEqual(0.0, self.attempts.delay("acme", HERE))

    def test_grows(self) -> None:
        """Each failure doubles the delay, up to a limit that is within a log-in's time."""
        delays = []
        for number in range(1, 9):
            self.assertEqual(number, self.fail_login("acme", HERE))
            delays.append(self.attempts.delay("acme", HERE))
        self.assertEqual([0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0], delays)
        self.assertEqual((FIRST_DELAY, LONGEST_DELAY), (delays[0], delays[-1]))
        self.assertLess(LONGEST_DELAY, AUTHENTICATION_SECONDS)

    def test_address(self) -> None:
        """Guessing at many tenants' passwords from one address is slowed too."""
        for number in range(4):
            self.fail_login(f"tenant-{number}", HERE)
        self.assertEqual(4.0, self.attempts.delay("another", HERE))

    def test_other_address(self) -> None:
        """What strangers do elsewhere costs the tenant at its own address nothing."""
        self.fail_login("acme", THERE, 100)
        self.assertEqual(0.0, self.attempts.delay("acme", HERE))

    def test_success(self) -> None:
        """Who has logged in starts anew."""
        self.fail_login("acme", HERE, 5)
        self.attempts.succeeded("acme", HERE)
        self.assertEqual(0.0, self.attempts.delay("acme", HERE))
        self.assertEqual(1, self.fail_login("acme", HERE))

    def test_success_of_another(self) -> None:
        """A guesser who has an account of his own does not wash off his failures at another's."""
        self.fail_login("acme", HERE, 5)
        self.attempts.succeeded("guesser", HERE)
        self.assertEqual(8.0, self.attempts.delay("acme", HERE))

    def test_success_of_a_sibling(self) -> None:
        """Nor does one who has another machine of the same tenant; its own failures are forgotten,
        and of very many machines none takes back what it did not do."""
        for label in ("default", "other"):
            self.fail_login("acme", HERE, 2)
            self.attempts.failed("acme", HERE, label)
            self.attempts.succeeded("acme", HERE, "other")
        self.assertEqual(8.0, self.attempts.delay("acme", HERE))
        self.attempts.succeeded("acme", HERE)
        self.assertEqual(0.0, self.attempts.delay("acme", HERE))
        for number in range(LABELS_MAX + 2):
            self.attempts.failed("acme", HERE, f"machine-{number}")
        for number in range(LABELS_MAX + 2):
            self.attempts.succeeded("acme", HERE, f"machine-{number}")
        self.assertEqual(1.0, self.attempts.delay("acme", HERE))

    def test_kept(self) -> None:
        """Of one guesser's failures fewer and fewer are written down, of all guessers' only so many
        a second, whatever names and addresses they come with."""
        kept = [number for number in range(1, 70) if self.attempts.keeps(number)]
        self.assertEqual([1, 2, 4, 8, 16, 32, 64], kept)
        self.assertEqual(KEPT_MAX - 7, sum(self.attempts.keeps(1) for _ in range(2 * KEPT_MAX)))
        self.clock.advance(10 / KEPT_RATE)
        self.assertEqual(10, sum(self.attempts.keeps(1) for _ in range(100)))

    def test_forgotten(self) -> None:
        """Failures are forgotten after a while, and then counted from the beginning."""
        self.fail_login("acme", HERE, 5)
        self.clock.advance(MEMORY_SECONDS)
        self.assertEqual(8.0, self.attempts.delay("acme", HERE))
        self.clock.advance(1)
        self.assertEqual(0.0, self.attempts.delay("acme", HERE))
        self.assertEqual(1, self.fail_login("acme", HERE))

    def test_bounded(self) -> None:
        """What is remembered is bounded; the failures that are longest ago go first."""
        self.fail_login("first", HERE, 3)
        for number in range(ENTRIES_MAX):
            self.fail_login("x", f"address-{number}")
        self.assertLessEqual(len(self.attempts._failed), ENTRIES_MAX)
        self.assertEqual(0.0, self.attempts.delay("first", HERE))
        self.assertEqual(FIRST_DELAY, self.attempts.delay("x", f"address-{ENTRIES_MAX - 1}"))

    def test_many_names_from_one_address(self) -> None:
        """Inventing names does not push out what the inventing address has cost."""
        for number in range(ENTRIES_MAX):
            self.fail_login(f"name-{number}", HERE)
        self.assertEqual(LONGEST_DELAY, self.attempts.delay("acme", HERE))
