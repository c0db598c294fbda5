"""Tests of :mod:`cloudconnect.commands.repositories`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.repositories import ListRepositoryPoints, WithdrawSession
from tests.commands.boxes import read_again


class RepositoryTests(SynchronousTestCase):
    """What the service has a mover do with a repository."""

    def test_round_trips(self) -> None:
        """Each arrives as it was sent."""
        query = {"host": "", "job": "", "tag": "", "after": 0, "limit": 500, "states": None}
        for command, values in (
            (ListRepositoryPoints, {"repository": b"r" * 16, **query}),
            (WithdrawSession, {"repository": b"r" * 16, "session": b"s" * 16}),
        ):
            self.assertEqual(values, read_again(command, values))
