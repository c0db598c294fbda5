"""Tests of :mod:`cloudconnect.metrics.labels`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.metrics.labels import OTHER, BoundedLabels


class LabelTests(SynchronousTestCase):
    """A bound on the values of a label."""

    def test_bound(self) -> None:
        """The first ones keep their names, also later; all others share one."""
        label = BoundedLabels(3)
        seen = [label(f"tenant-{number}") for number in range(1000)]
        self.assertEqual(["tenant-0", "tenant-1", "tenant-2"], seen[:3])
        self.assertEqual({OTHER}, set(seen[3:]))
        self.assertEqual(("tenant-1", OTHER), (label("tenant-1"), label("tenant-999")))
