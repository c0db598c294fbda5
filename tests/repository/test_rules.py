"""Tests for cloudconnect.repository.rules."""

from __future__ import annotations

import json

import sqlalchemy as sa
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import ProtocolViolation, Refused
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.tables import repository_table
from tests.repository.repositories import RepositoryCase

FLOOR = RetentionPolicy(keep_last=1, keep_daily=7)
CEILING = RetentionPolicy(keep_last=10, keep_daily=30, keep_within=86400)


class RulesTests(SynchronousTestCase):
    """Rules are bounded, and go over a wire."""

    def test_usual(self) -> None:
        """What a provider gets that says nothing."""
        rules = Rules()
        self.assertEqual((rules.bin_days, rules.shorten_days, rules.lock_days), (14, 14, 0))
        self.assertEqual((rules.bin_bytes, rules.grace_hours), (None, 24))
        self.assertEqual(Rules.from_map({}), rules)

    def test_round_trip(self) -> None:
        """They become JSON and come back."""
        rules = Rules(bin_days=3, bin_bytes=10**15, lock_days=1, floor=FLOOR, ceiling=CEILING)
        self.assertEqual(Rules.from_map(json.loads(json.dumps(rules.as_map()))), rules)
        self.assertEqual(Rules.from_map(Rules().as_map()), Rules())

    def test_bounds(self) -> None:
        """What is out of bounds, or unknown, is an error and never a default."""
        for name in ("bin_days", "shorten_days", "lock_days", "grace_hours", "bin_bytes"):
            for bad in (-1, 10**30, 1.5, True, "1"):
                self.assertRaises(ProtocolViolation, Rules.from_map, {name: bad})
        for fields in (
            {"bin_bytes": 0},
            {"bin_days": None},
            {"floor": 5},
            {"floor": {}},
            {"ceiling": {"keep_centuries": 1}},
            {"bin_weeks": 2},
        ):
            self.assertRaises(ProtocolViolation, Rules.from_map, fields)

    def test_floor_above_ceiling(self) -> None:
        """A floor that no policy below the ceiling reaches is no rule."""
        self.assertRaises(ValueError, Rules, floor=CEILING, ceiling=FLOOR)
        self.assertEqual(Rules(floor=FLOOR, ceiling=FLOOR).floor, FLOOR)

    def test_check(self) -> None:
        """A policy has to be between the two in every field; the error says them."""
        rules = Rules(floor=FLOOR, ceiling=CEILING)
        for policy in (FLOOR, CEILING, RetentionPolicy(keep_last=2, keep_daily=30)):
            rules.check(policy)
        little = RetentionPolicy(keep_last=10, keep_daily=6)
        self.assertIn(str(FLOOR), str(self.assertRaises(Refused, rules.check, little)))
        for much in (
            RetentionPolicy(keep_last=11, keep_daily=7),
            RetentionPolicy(keep_last=1, keep_daily=7, keep_yearly=1),
        ):
            self.assertIn(str(CEILING), str(self.assertRaises(Refused, rules.check, much)))

    def test_everything(self) -> None:
        """To keep everything is above every floor, and above every ceiling."""
        Rules(floor=FLOOR).check(None)
        self.assertRaises(Refused, Rules(ceiling=CEILING).check, None)


class StoredTests(RepositoryCase):
    """The repository keeps its rules."""

    def test_kept(self) -> None:
        """Until others come."""
        repository = self.created()
        self.assertEqual(repository.rules, Rules())
        rules = Rules(bin_days=2, floor=FLOOR)
        repository.set_rules(rules)
        self.assertEqual(self.opened().rules, rules)
        repository.set_rules(Rules())
        self.assertEqual(self.opened().rules, Rules())

    def test_newer(self) -> None:
        """Rules that this release cannot follow are an error, not the usual ones."""
        repository = self.created()
        with repository.catalogue.writing() as connection:
            connection.execute(sa.update(repository_table).values(rules={"bin_weeks": 2}))
        self.assertRaises(ProtocolViolation, lambda: repository.rules)
