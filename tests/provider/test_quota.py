"""Tests of :mod:`cloudconnect.provider.quota`."""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NoSpace
from cloudconnect.provider.quota import Quotas

ONE, TWO = b"1" * 16, b"2" * 16


class QuotaTests(SynchronousTestCase):
    """What may be stored."""

    def setUp(self) -> None:
        self.quotas = Quotas()

    def test_up_to(self) -> None:
        """Bytes fit up to the quota and not one more; what did not fit was not counted."""
        with self.quotas.session(ONE, 100, lambda: 40) as reserve:
            reserve(50)
            self.assertRaises(NoSpace, reserve, 11)
            reserve(10)
            self.assertRaises(NoSpace, reserve, 1)

    def test_none(self) -> None:
        """Without a quota everything fits."""
        with self.quotas.session(ONE, None, lambda: 1 << 60) as reserve:
            reserve(1 << 60)

    def test_together(self) -> None:
        """Sessions of one repository that run at once share one count, others have their own."""
        with (
            self.quotas.session(ONE, 100, lambda: 0) as first,
            self.quotas.session(ONE, 100, lambda: 0) as second,
            self.quotas.session(TWO, 100, lambda: 0) as other,
        ):
            first(60)
            self.assertRaises(NoSpace, second, 50)
            second(40)
            other(100)

    def test_counted_anew(self) -> None:
        """When the last session has ended, the next one counts what is stored then."""
        with self.quotas.session(ONE, 100, lambda: 0) as reserve:
            reserve(100)
        with self.quotas.session(ONE, 100, lambda: 30) as reserve:
            reserve(70)

    def test_after_a_failure(self) -> None:
        """However it ended."""
        with self.assertRaises(ValueError), self.quotas.session(ONE, 100, lambda: 0):
            raise ValueError
        with self.quotas.session(ONE, 100, lambda: 100) as reserve:
            self.assertRaises(NoSpace, reserve, 1)

    def test_uncountable(self) -> None:
        """Where what is stored cannot be counted nothing is stored, and the next one counts."""

        def broken() -> int:
            raise OSError

        with self.assertRaises(OSError), self.quotas.session(ONE, 100, broken):
            self.fail("a session began")
        with self.quotas.session(ONE, 100, lambda: 0) as reserve:
            reserve(100)

    def test_threads(self) -> None:
        """Many threads do not pass the quota together."""
        fitted: list[int] = []
        with self.quotas.session(ONE, 1000, lambda: 0) as reserve:

            def work() -> None:
                for _ in range(200):
                    try:
                        reserve(1)
                    except NoSpace:
                        continue
                    fitted.append(1)

            threads = [threading.Thread(target=work) for _ in range(10)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
        self.assertEqual(1000, len(fitted))
