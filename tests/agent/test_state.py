"""Tests of :mod:`cloudconnect.agent.state`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.agent.state import JobState, States, is_held, lock_path, states_path, take_lock


class StateTests(SynchronousTestCase):
    """What became of jobs."""

    def setUp(self) -> None:
        self.environment = {"HOME": str(Path(self.mktemp()).absolute())}
        self.path = states_path(self.environment)

    def test_two_processes(self) -> None:
        """What one process notes the other sees, and neither undoes the other's."""
        one, two = States(self.path), States(self.path)
        one.change("a", started=1.0)
        two.change("b", started=2.0)
        one.change("a", ended=3.0)
        self.assertEqual((1.0, 3.0), (two.of("a").started, two.of("a").ended))
        self.assertEqual(2.0, one.of("b").started)
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)

    def test_broken(self) -> None:
        """A file that cannot be read counts as nothing known; odd values as not there."""
        self.assertEqual(JobState(), States(self.path).of("a"))
        self.path.parent.mkdir(parents=True)
        for text in ("no json", "[]", '{"a": 5}', '{"a": {"started": "x", "point": 7}}'):
            self.path.write_text(text)
            self.assertEqual(JobState(), States(self.path).of("a"), text)
        self.path.write_text('{"a": {"started": 5, "point": "ab", "later": 1}}')
        self.assertEqual(
            (5, "ab"), (States(self.path).of("a").started, States(self.path).of("a").point)
        )

    def test_lock(self) -> None:
        """A repository's lock is one process's at a time."""
        path = lock_path(self.environment, "some/../repository")
        self.assertEqual(self.path.parent, path.parent)
        self.assertFalse(is_held(path))
        self.assertFalse(path.exists())
        held = take_lock(path)
        assert held is not None
        self.assertTrue(is_held(path))
        self.assertIsNone(take_lock(path))
        os.close(held)
        self.assertFalse(is_held(path))
        again = take_lock(path)
        assert again is not None
        os.close(again)
