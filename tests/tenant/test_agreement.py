"""Tests of :mod:`cloudconnect.tenant.agreement`: what a provider says, which may be anything."""

from __future__ import annotations

import datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import ProtocolViolation
from cloudconnect.tenant.agreement import Agreement

GOOD: dict[str, Any] = {
    "quota": 5,
    "soft_quota": None,
    "lease_end": "2027-12-31",
    "max_tasks": 4,
    "bytes_counted": 3,
}


class AgreementTests(SynchronousTestCase):
    """The map of ShowAgreement."""

    def test_read(self) -> None:
        """What it says is there; what is left out is null; what is new is left alone."""
        read = Agreement.from_map(GOOD | {"new": [1]})
        self.assertEqual(
            (5, None, 4, 3), (read.quota, read.soft_quota, read.max_tasks, read.bytes_counted)
        )
        self.assertEqual(datetime.date(2027, 12, 31), read.lease_end)
        least = Agreement.from_map({"max_tasks": 1})
        self.assertEqual((None, None, None), (least.quota, least.lease_end, least.bytes_counted))

    def test_refused(self) -> None:
        """What is no agreement is refused in a named error, and nothing of it is shown."""
        for wrong in (
            None,
            [],
            {},
            GOOD | {"max_tasks": None},
            GOOD | {"quota": -1},
            GOOD | {"quota": 1 << 63},
            GOOD | {"quota": True},
            GOOD | {"quota": 1.5},
            GOOD | {"bytes_counted": "3"},
            GOOD | {"lease_end": "2027-13-31"},
            GOOD | {"lease_end": 5},
            GOOD | {"lease_end": "\x1b[2J"},
        ):
            error = self.assertRaises(ProtocolViolation, Agreement.from_map, wrong)
            self.assertNotIn("\x1b", str(error))
