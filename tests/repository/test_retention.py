"""Tests for cloudconnect.repository.retention."""

from __future__ import annotations

import json
from typing import Any

import attrs
import sqlalchemy as sa

from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NoSpace, Refused
from cloudconnect.repository import retention
from cloudconnect.repository.retention import RetentionRow
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.tables import points_table
from tests.repository.repositories import RepositoryCase, failing

DAY = 86400.0
YEAR = 365 * DAY
LAST_2 = RetentionPolicy(keep_last=2)
LAST_3 = RetentionPolicy(keep_last=3)
DAILY_3 = RetentionPolicy(keep_daily=3)


class RetentionCase(RepositoryCase):
    """A repository with five points of a job on a host, one a day."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1.7e9
        self.repository = self.created()
        self.repository.observe_clock()
        self.number = 0
        self.points("host", "job", 5)

    def points(self, host: str, job: str, count: int) -> None:
        for _ in range(count):
            self.wait(1)
            self.number += 1
            self.published(self.repository, bytes((self.number,)) * 16, 0, host=host, job=job)

    def wait(self, days: int) -> None:
        for _ in range(days):
            self.time += DAY
            self.repository.observe_clock()

    def in_force(self, host: str, job: str, policy: RetentionPolicy) -> None:
        """Set a policy where the rules let it come into force at once."""
        rules = self.repository.rules
        self.repository.set_rules(attrs.evolve(rules, shorten_days=0))
        self.repository.set_retention(host, job, policy)
        self.repository.set_rules(rules)
        self.assertIn((host, job), self.repository.expire().activated)

    def arrivals(self, **query: Any) -> list[int]:
        return [row.arrival for row in self.repository.points(**query)]

    def dropped(self, dry_run: bool = True) -> list[int]:
        decisions = self.repository.apply_retention(dry_run)
        return [decision.row.arrival for decision in decisions if not decision.keep]


class SetTests(RetentionCase):
    """What keeps less comes into force after some days, what keeps more at once."""

    def test_first(self) -> None:
        """The first policy takes its time; until then everything is kept."""
        row = self.repository.set_retention("host", "job", LAST_2)
        wanted = RetentionRow(
            host="host",
            job="job",
            set_time=self.time,
            has_pending=True,
            pending=LAST_2,
            pending_time=self.time + 14 * DAY,
        )
        self.assertEqual(row, wanted)
        self.assertEqual(self.opened().retention(), [wanted])
        self.assertEqual(self.dropped(), [])
        self.wait(13)
        self.assertEqual(self.repository.expire().activated, [])
        self.assertEqual(self.dropped(), [])
        self.wait(1)
        self.assertEqual(self.repository.expire().activated, [("host", "job")])
        self.assertEqual(self.repository.expire().activated, [])
        (row,) = self.repository.retention()
        self.assertEqual((row.policy, row.has_pending, row.pending_time), (LAST_2, False, None))
        self.assertEqual(self.dropped(), [1, 2, 3])

    def test_longer(self) -> None:
        """A policy that keeps more in every field is in force at once; everything too."""
        self.in_force("host", "job", LAST_2)
        for policy in (LAST_3, RetentionPolicy(keep_last=3, keep_daily=1), None):
            row = self.repository.set_retention("host", "job", policy)
            self.assertEqual((row.policy, row.has_pending), (policy, False))
        self.assertEqual(self.dropped(), [])

    def test_other(self) -> None:
        """One that keeps more here and less there waits, and both count until then."""
        self.points("host", "job", 5)
        self.in_force("host", "job", LAST_3)
        row = self.repository.set_retention("host", "job", RetentionPolicy(keep_within=4 * 86400))
        self.assertEqual((row.policy, row.has_pending), (LAST_3, True))
        self.assertEqual(self.dropped(), [1, 2, 3, 4, 5])
        self.repository.set_retention("host", "job", LAST_3)
        self.assertEqual(self.dropped(), [1, 2, 3, 4, 5])

    def test_taken_back(self) -> None:
        """A shortening can be taken back at once."""
        self.in_force("host", "job", LAST_3)
        self.repository.set_retention("host", "job", LAST_2)
        row = self.repository.set_retention("host", "job", LAST_3)
        self.assertEqual((row.policy, row.has_pending), (LAST_3, False))
        self.wait(20)
        self.assertEqual(self.repository.expire().activated, [])
        self.assertEqual(self.dropped(), [1, 2])

    def test_again(self) -> None:
        """To set the same again does not put it off: who sets it every day gets it too."""
        first = self.repository.set_retention("host", "job", LAST_2)
        for _ in range(13):
            self.wait(1)
            self.assertEqual(self.repository.set_retention("host", "job", LAST_2), first)
        self.wait(1)
        self.assertEqual(self.repository.expire().activated, [("host", "job")])

    def test_in_steps(self) -> None:
        """No way round: what has been about to come counts on, until the newest has its time."""
        self.in_force("host", "job", LAST_3)
        self.repository.set_retention("host", "job", DAILY_3)
        row = self.repository.set_retention("host", "job", LAST_2)
        self.assertEqual(row.policy, RetentionPolicy(keep_last=3, keep_daily=3))
        self.assertEqual((row.pending, row.pending_time), (LAST_2, self.time + 14 * DAY))

    def test_year_ahead(self) -> None:
        """A clock that jumps ahead by a year puts nothing into force."""
        self.repository.set_retention("host", "job", LAST_2)
        self.time += YEAR
        self.assertEqual(self.repository.expire().activated, [])
        self.assertEqual(self.dropped(dry_run=False), [])
        self.wait(13)
        self.assertEqual(self.repository.expire().activated, [("host", "job")])

    def test_rules(self) -> None:
        """Outside of floor and ceiling nothing is set; the number of policies is bounded."""
        self.repository.set_rules(Rules(floor=LAST_2, ceiling=LAST_3, shorten_days=1))
        for policy in (RetentionPolicy(keep_last=1), RetentionPolicy(keep_last=4), DAILY_3, None):
            self.assertRaises(Refused, self.repository.set_retention, "", "", policy)
            self.assertRaises(Refused, self.repository.preview_retention, "", "", policy)
        row = self.repository.set_retention("", "", LAST_2)
        self.assertEqual(row.pending_time, self.time + DAY)
        self.patch(retention, "POLICIES_MAX", 1)
        self.assertRaises(Refused, self.repository.set_retention, "host", "", LAST_2)
        self.repository.set_retention("", "", LAST_3)

    def test_labels(self) -> None:
        """A host is one that a point can have."""
        for wrong in ("h" * 256, "a\nb", "\x1b[2J"):
            self.assertRaises(Refused, self.repository.set_retention, wrong, "", LAST_2)
            self.assertRaises(Refused, self.repository.set_retention, "", wrong, LAST_2)

    def test_frozen(self) -> None:
        """Nothing comes into force while the repository is frozen."""
        self.repository.set_retention("host", "job", LAST_2)
        self.wait(14)
        self.repository.freeze()
        self.assertEqual(self.repository.expire().activated, [])
        self.repository.thaw()
        self.assertEqual(self.repository.expire().activated, [("host", "job")])

    def test_map(self) -> None:
        """A row goes over a wire."""
        row = self.repository.set_retention("host", "job", LAST_2)
        fields = json.loads(json.dumps(row.as_map()))
        self.assertEqual(fields["pending"]["keep_last"], 2)
        self.assertIsNone(fields["policy"])


class ApplyTests(RetentionCase):
    """What no policy keeps goes into the bin."""

    def test_nothing_set(self) -> None:
        """Without a policy everything is kept."""
        decisions = self.repository.apply_retention(dry_run=True)
        self.assertEqual({decision.why for decision in decisions}, {("everything",)})
        self.assertEqual(self.repository.apply_retention(), [])
        self.repository.set_retention("", "", LAST_2)
        self.assertEqual(self.repository.apply_retention(), [])
        self.assertEqual(self.arrivals(), [1, 2, 3, 4, 5])

    def test_applied(self) -> None:
        """A dry run says what would happen, and then it does."""
        self.in_force("", "", LAST_2)
        planned = self.repository.apply_retention(dry_run=True)
        self.assertEqual(self.arrivals(), [1, 2, 3, 4, 5])
        self.assertEqual(self.repository.apply_retention(), planned[:3])
        self.assertEqual([each.row.arrival for each in planned], [1, 2, 3, 4, 5])
        self.assertEqual(planned[2].why, ())
        self.assertEqual(planned[4].why, ("newest", "last"))
        self.assertEqual(self.arrivals(), [4, 5])
        rows = self.repository.points(states=["deleted"])
        self.assertEqual({row.deleted_by for row in rows}, {"retention"})
        self.assertEqual(self.dropped(dry_run=False), [])
        self.repository.undelete([rows[0].point])
        self.assertEqual(self.arrivals(), [1, 4, 5])
        fields = json.loads(json.dumps(planned[2].as_map()))
        self.assertEqual((fields["arrival"], fields["keep"], fields["why"]), (3, False, []))

    def test_apart(self) -> None:
        """Each job on each host for itself."""
        self.points("host", "other", 3)
        self.points("other", "job", 3)
        self.in_force("", "", LAST_2)
        self.assertEqual(self.dropped(dry_run=False), [1, 2, 3, 6, 9])

    def test_most_specific(self) -> None:
        """The policy of the job on the host counts first, then the host's, then the job's."""
        self.points("host", "other", 4)
        self.points("other", "job", 4)
        self.points("other", "other", 4)
        kept = {("host", "job"): 4, ("host", ""): 3, ("", "job"): 2, ("", ""): 1}
        for (host, job), count in kept.items():
            self.repository.set_retention(host, job, RetentionPolicy(keep_last=count))
        self.wait(14)
        self.assertEqual(set(self.repository.expire().activated), set(kept))
        self.assertEqual(self.dropped(dry_run=False), [1, 6, 10, 11, 14, 15, 16])

    def test_deleted_do_not_count(self) -> None:
        """What is in the bin already is not one of the last two."""
        self.in_force("", "", LAST_2)
        self.repository.delete([b"\x05" * 16])
        self.assertEqual(self.dropped(dry_run=False), [1, 2])
        self.assertEqual(self.arrivals(), [3, 4])

    def test_locked(self) -> None:
        """A locked point stays, and the decision says why."""
        self.in_force("", "", LAST_2)
        self.repository.lock([b"\x02" * 16], self.time + DAY)
        for dry_run in (True, False):
            decisions = self.repository.apply_retention(dry_run)
            self.assertEqual((decisions[1].keep, decisions[1].why), (True, ("locked",)))
        self.assertEqual(self.arrivals(), [2, 4, 5])
        self.wait(1)
        self.assertEqual(self.dropped(dry_run=False), [2])

    def test_frozen(self) -> None:
        """A frozen repository keeps everything."""
        self.in_force("", "", LAST_2)
        self.repository.freeze()
        decisions = self.repository.apply_retention()
        whys = [decision.why for decision in decisions if decision.row.arrival < 4]
        self.assertEqual(whys, [("frozen",)] * 3)
        self.assertEqual(self.arrivals(), [1, 2, 3, 4, 5])

    def test_bin_full(self) -> None:
        """A full bin takes no more: the rest stays, and the decision says so."""
        self.in_force("", "", LAST_2)
        with self.repository.catalogue.writing() as connection:
            connection.execute(sa.update(points_table).values(bytes_stored=10_000))
        self.repository.set_rules(Rules(bin_bytes=15_000))
        for dry_run in (True, False):
            whys = [each.why for each in self.repository.apply_retention(dry_run)]
            self.assertEqual(whys[:3], [(), (), ("bin full",)])
        self.assertEqual(self.arrivals(), [3, 4, 5])
        self.assertRaises(NoSpace, self.repository.check_bin_room)

    def test_floor_raised(self) -> None:
        """A floor that was raised after a policy was set holds nevertheless."""
        self.in_force("", "", LAST_2)
        self.repository.set_rules(Rules(floor=RetentionPolicy(keep_last=4)))
        self.assertEqual(self.dropped(dry_run=False), [1])

    def test_disk_full(self) -> None:
        """With a full disk nothing is deleted."""
        self.in_force("", "", LAST_2)
        self.patch(self.repository.store, "begin", failing(NoSpace("full"), len)[0])
        self.assertRaises(NoSpace, self.repository.apply_retention)
        self.assertEqual(self.arrivals(), [1, 2, 3, 4, 5])

    def test_attacker(self) -> None:
        """Who shortens everything and makes many points drops nothing for fourteen days."""
        self.in_force("", "", DAILY_3)
        self.repository.set_retention("", "", RetentionPolicy(keep_last=1))
        self.repository.set_retention("host", "job", RetentionPolicy(keep_last=1))
        for number in range(40):
            self.time += 60
            self.published(self.repository, bytes((100 + number,)) * 16, 0)
        self.repository.expire()
        for row in self.repository.points():
            if row.arrival <= 5:
                self.repository.delete([row.point])
        self.repository.apply_retention()
        self.wait(13)
        self.repository.expire()
        self.repository.apply_retention()
        for number in range(1, 6):
            self.assertTrue(self.repository.point(bytes((number,)) * 16).record)


class PreviewTests(RetentionCase):
    """A policy can be tried before it is set."""

    def test_preview(self) -> None:
        """Over the points that it would govern, and nothing changes."""
        self.points("other", "job", 3)
        decisions = self.repository.preview_retention("host", "job", LAST_2)
        self.assertEqual([each.row.arrival for each in decisions], [1, 2, 3, 4, 5])
        self.assertEqual([each.keep for each in decisions], [False, False, False, True, True])
        self.assertEqual(self.repository.retention(), [])
        self.assertEqual(self.dropped(), [])
        every = self.repository.preview_retention("", "job", LAST_2)
        self.assertEqual([each.row.arrival for each in every if not each.keep], [1, 2, 3, 6])

    def test_more_specific(self) -> None:
        """Points that another policy governs are not among them; locks and the floor count."""
        self.points("other", "job", 3)
        self.in_force("other", "", LAST_3)
        self.repository.set_rules(Rules(floor=LAST_2))
        self.repository.lock([b"\x01" * 16], self.time + DAY)
        decisions = self.repository.preview_retention("", "", LAST_2)
        self.assertEqual([each.row.arrival for each in decisions], [1, 2, 3, 4, 5])
        self.assertEqual(decisions[0].why, ("locked",))
        everything = self.repository.preview_retention("", "", None)
        self.assertEqual({each.why for each in everything}, {("everything",)})
