"""Tests of :mod:`cloudconnect.provider.data_mover.acts`:
what is done to repositories beside sessions.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cloudconnect.commands.control import ACT_POINTS_MAX
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NoSpace, NotFound, ProtocolViolation, Refused
from cloudconnect.provider.data_mover.acts import (
    RepositoryActs,
    read_points,
    read_policy,
    read_states,
)
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.repository.points import STATES
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from tests.repository.repositories import DESCRIBED, REPOSITORY, RepositoryCase

POINTS = [bytes((number,)) * 16 for number in range(1, 6)]
QUERY: dict[str, Any] = {"host": "", "job": "", "tag": "", "after": 0, "limit": 100}


class ActsCase(RepositoryCase):
    """A test with a repository of five points in a folder of repositories."""

    def setUp(self) -> None:
        super().setUp()
        self.repositories = Path(self.mktemp())
        self.repositories.mkdir()
        self.directory = self.repositories / REPOSITORY.hex()
        with Repository.create(self.directory, DESCRIBED) as made:
            for point in POINTS:
                self.published(made, point, 0)
        self.acts = RepositoryActs(self.repositories)

    def listed(self, **query: Any) -> list[str]:
        """The first byte of each point, as digits."""
        rows, _ = self.acts.points(REPOSITORY, {**QUERY, **query})
        return [row["point"][:2] for row in rows]


class PointTests(ActsCase):
    """Listing, deleting, taking back, locking."""

    def test_repositories(self) -> None:
        """Only what has the name of a repository is one."""
        (self.repositories / "lost+found").mkdir()
        (self.repositories / ("ab" * 16)).touch()
        self.assertEqual([REPOSITORY], self.acts.repositories())

    def test_missing(self) -> None:
        """What there is not is not found."""
        self.assertRaises(NotFound, self.acts.delete, b"x" * 16, POINTS, "tenant")

    def test_delete_and_back(self) -> None:
        """What is deleted is listed as such, with its end, and comes back."""
        rows = self.acts.delete(REPOSITORY, [POINTS[1], POINTS[0], POINTS[1]], "tenant")
        self.assertEqual(
            [(POINTS[1].hex(), "deleted"), (POINTS[0].hex(), "deleted")],
            [(row["point"], row["state"]) for row in rows],
        )
        self.assertTrue(all(row["bin_until"] for row in rows))
        self.assertEqual(["03", "04", "05"], self.listed())
        self.assertEqual(["01", "02"], self.listed(states=["deleted"]))
        self.assertEqual(5, len(self.listed(states=list(STATES))))
        (row,) = self.acts.undelete(REPOSITORY, POINTS[:1])
        self.assertEqual(("published", None), (row["state"], row["bin_until"]))
        self.assertEqual(["02"], self.listed(states=["deleted"]))

    def test_lock(self) -> None:
        """A locked point says until when, and is not deleted; nor is what was asked with it."""
        (row,) = self.acts.lock(REPOSITORY, POINTS[:1], 4_000_000_000)
        self.assertEqual(4_000_000_000, row["locked_until"])
        self.assertRaises(Refused, self.acts.delete, REPOSITORY, POINTS, "tenant")
        self.assertEqual(5, len(self.listed()))

    def test_what_peers_send(self) -> None:
        """Lists of points, states and policies are checked before anything is opened."""
        for wrong in (None, [], {}, [b"short"], ["x" * 16], [b"p" * 16] * (ACT_POINTS_MAX + 1)):
            self.assertRaises(ProtocolViolation, read_points, wrong)
        for wrong in ("published", ["gone"], [1], {"published": 1}):
            self.assertRaises(ProtocolViolation, read_states, wrong)
        for wrong in ([], {}, {"keep_last": -1}, {"keep_all": 1}, {1: 1}):
            self.assertRaises(ProtocolViolation, read_policy, wrong)
        self.assertEqual(("published",), read_states(None))
        self.assertIsNone(read_policy(None))
        self.assertEqual(RetentionPolicy(keep_last=3), read_policy({"keep_last": 3}))


class RuleTests(ActsCase):
    """What the provider says reaches the repository."""

    def test_rules(self) -> None:
        """Rules and the freeze are stored, and not written again where they are so already."""
        rules = Rules(bin_days=3, lock_days=1)
        self.assertTrue(self.acts.set_rules(REPOSITORY, rules.as_map(), True))
        with self.opened() as repository:
            self.assertEqual((rules, True), (repository.rules, repository.frozen))
        before = (self.directory / "catalogue.sqlite").read_bytes()
        self.assertTrue(self.acts.set_rules(REPOSITORY, rules.as_map(), True))
        self.assertEqual(before, (self.directory / "catalogue.sqlite").read_bytes())
        self.assertTrue(self.acts.set_rules(REPOSITORY, {}, False))
        with self.opened() as repository:
            self.assertEqual((Rules(), False), (repository.rules, repository.frozen))

    def test_unusable(self) -> None:
        """What are no rules changes nothing."""
        for wrong in (None, [], {"bin_days": -1}, {"days": 1}):
            self.assertRaises(ProtocolViolation, self.acts.set_rules, REPOSITORY, wrong, True)
        with self.opened() as repository:
            self.assertFalse(repository.frozen)

    def test_room_from_the_reserve(self) -> None:
        """What must not fail for want of room lets go of the reserve, and tries once more."""
        path = Path(self.mktemp())
        reserve = Reserve(path, size=4096, enough=0)
        reserve.look()
        acts = RepositoryActs(self.repositories, reserve)
        real, calls = Repository.freeze, []

        def freeze(repository: Repository) -> None:
            calls.append(reserve.held)
            if reserve.held:
                raise NoSpace("full")
            real(repository)

        self.patch(Repository, "freeze", freeze)
        self.assertTrue(acts.set_rules(REPOSITORY, {}, True))
        self.assertEqual([True, False], calls)

    def test_no_room(self) -> None:
        """Where there is no reserve either, it is not written down, and that is said."""

        def freeze(repository: Repository) -> None:
            raise NoSpace("full")

        self.patch(Repository, "freeze", freeze)
        self.assertFalse(self.acts.set_rules(REPOSITORY, {}, True))


class RetentionTests(ActsCase):
    """Policies, and what they would do."""

    def test_set_and_listed(self) -> None:
        """A policy that shortens is pending; pages go on where the last one ended."""
        for job in ("", "a", "b"):
            row = self.acts.set_retention(REPOSITORY, "", job, {"keep_last": 2})
            self.assertEqual((True, None), (row["has_pending"], row["policy"]))
        first, rules, more = self.acts.retention(REPOSITORY, 0, 2)
        then, _, last = self.acts.retention(REPOSITORY, 2, 2)
        self.assertEqual(["", "a", "b"], [row["job"] for row in first + then])
        self.assertEqual((Rules().as_map(), True, False), (rules, more, last))

    def test_preview(self) -> None:
        """What would go is said with its reason, a page at a time, and nothing goes."""
        proposed = ("", "", {"keep_last": 2})
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            after = rows[-1]["arrival"] if rows else 0
            page, more = self.acts.preview_retention(REPOSITORY, proposed, after, 2)
            rows += page
        self.assertEqual([False] * 3 + [True] * 2, [row["keep"] for row in rows])
        self.assertIn("last", rows[-2]["why"])
        rows, _ = self.acts.preview_retention(REPOSITORY, None, 0, 100)
        self.assertEqual([True] * 5, [row["keep"] for row in rows])
        self.assertEqual(5, len(self.listed()))

    def test_labels(self) -> None:
        """A label that no point can have is refused."""
        for label in ("x" * 256, "a\nb"):
            self.assertRaises(
                (ProtocolViolation, Refused),
                self.acts.preview_retention,
                REPOSITORY,
                (label, "", None),
                0,
                1,
            )

    def test_expire_and_apply(self) -> None:
        """What is due leaves; what no policy keeps goes into the bin: the counts are told."""
        self.acts.set_rules(REPOSITORY, Rules(bin_days=0, shorten_days=0).as_map(), False)
        self.acts.set_retention(REPOSITORY, "", "", {"keep_last": 2})
        self.acts.expire(REPOSITORY)
        self.assertEqual(3, self.acts.apply_retention(REPOSITORY))
        self.assertEqual(3, self.acts.expire(REPOSITORY))
        self.assertEqual(["01", "02", "03"], self.listed(states=["removed"]))


class ReadOnlyTests(ActsCase):
    """A file system that cannot be written."""

    def test_nothing_is_written(self) -> None:
        """Points are listed; a freeze is not written down, and that is said."""

        def statvfs(path: Any) -> Any:
            class Found:
                f_flag = os.ST_RDONLY

            return Found

        self.patch(os, "statvfs", statvfs)
        self.assertEqual(5, len(self.listed()))
        self.assertFalse(self.acts.set_rules(REPOSITORY, {}, True))
        self.assertTrue(self.acts.set_rules(REPOSITORY, {}, False))
