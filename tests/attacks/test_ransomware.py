"""An attacker with all of a tenant's credentials, and a provider that goes on as usual.

It deletes every point, shortens what is kept, and makes points by the thousand so that newer ones
push the older ones out. The provider applies retention, expires and collects all the while. Run
``CLOUDCONNECT_FLOOD=10000`` for the long form.
"""

from __future__ import annotations

import os

from blake3 import blake3

from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NoSpace, NotFound, Refused
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from tests.repository.repositories import RepositoryCase, blob, keys, name_of, record

FLOOD = int(os.environ.get("CLOUDCONNECT_FLOOD", "60"))
HOUR = 3600.0
DAY = 24 * HOUR
#: Days that the provider promises to its tenant.
KEPT = 14


class RansomwareTests(RepositoryCase):
    """Five good points, then the attack."""

    def setUp(self) -> None:
        super().setUp()
        self.time = 1.7e9
        self.repository = self.created()
        self.hurry()
        self.rules(Rules(bin_days=KEPT, shorten_days=KEPT))
        self.good: dict[bytes, list[bytes]] = {}
        for day in range(5):
            point, needs = bytes((0xA0 + day,)) * 16, range(10 * day, 10 * day + 10)
            self.publish(point, needs)
            self.good[point] = [name_of(number) for number in needs]
            self.days(1)

    def hurry(self) -> None:
        """No machine is switched off here, and ten thousand points are many."""
        pooled = self.repository.catalogue.engine.raw_connection()
        pooled.cursor().execute("PRAGMA synchronous=OFF")
        pooled.close()

    def rules(self, rules: Rules) -> None:
        self.repository.set_rules(rules)

    def publish(self, point: bytes, needs: range) -> None:
        repository = self.repository
        for number in needs:
            repository.add(blob(number))
        repository.flush()
        made = record(point)
        encoded = made.encode()
        references = [name_of(number) for number in needs]
        repository.publish(made, encoded, keys().sign(encoded), references)

    def days(self, count: int) -> None:
        """Let time pass at the provider, which does what it always does."""
        for _ in range(count):
            self.time += DAY
            self.repository.observe_clock()
        self.housekeeping()

    def housekeeping(self) -> None:
        with Repository.open(self.directory, clock=self.clock, lease=False) as opened:
            opened.expire()
            opened.apply_retention()
            opened.collect()

    def restorable(self, point: bytes) -> None:
        """The point opens, and every byte that it needs is there."""
        stored = self.repository.point(point)
        needed = [name for batch in self.repository.references(stored) for name in batch]
        self.assertEqual(needed, self.good[point])
        self.assertEqual([each.id for each in self.repository.read(needed)], needed)

    def attack(self) -> None:
        """Everything that the credentials allow, within one hour."""
        repository = self.repository
        repository.set_retention("", "", RetentionPolicy(keep_last=1))
        repository.set_retention("host", "job", RetentionPolicy(keep_last=1))
        repository.delete(self.good, "tenant")
        for number in range(FLOOD):
            self.time += HOUR / FLOOD
            self.publish(blake3(b"junk %d" % number).digest(16), range(1000, 1001))
        self.assertEqual(len(repository.points()), min(FLOOD, 500))
        self.housekeeping()

    def test_everything_stays(self) -> None:
        """Every earlier point can be restored on each of the promised days, and be taken back."""
        self.attack()
        for _ in range(KEPT - 1):
            self.days(1)
            for point in self.good:
                self.restorable(point)
        rows = self.repository.undelete(self.good)
        self.assertEqual({row.state for row in rows}, {"published"})
        self.assertTrue(set(self.good) <= {row.point for row in self.repository.points()})

    def test_flood_alone(self) -> None:
        """Points that only a newer one pushes out by a policy in force go through the bin too."""
        self.repository.set_retention("host", "job", RetentionPolicy(keep_last=5))
        self.days(KEPT + 1)
        self.assertEqual([row.has_pending for row in self.repository.retention()], [False])
        for point in self.good:
            self.restorable(point)
        for number in range(FLOOD):
            self.publish(blake3(b"junk %d" % number).digest(16), range(1000, 1001))
        self.housekeeping()
        self.assertEqual(len(self.repository.points()), 5)
        for _ in range(KEPT - 1):
            self.days(1)
            for point in self.good:
                self.restorable(point)

    def test_clock(self) -> None:
        """A provider's clock that jumps a year ahead takes nothing away."""
        self.attack()
        self.time += 365 * DAY
        self.housekeeping()
        self.days(1)
        for point in self.good:
            self.restorable(point)

    def test_locked(self) -> None:
        """A locked point cannot even be put into the bin, nor its lock be shortened."""
        point = min(self.good)
        self.repository.lock([point], self.time + 30 * DAY)
        self.assertRaises(Refused, self.repository.delete, [point])
        (row,) = self.repository.lock([point], self.time + DAY)
        self.assertGreater(row.locked_until or 0, self.time + 29 * DAY)
        self.repository.set_retention("", "", RetentionPolicy(keep_last=1))
        self.days(KEPT + 3)
        self.assertIn(point, {row.point for row in self.repository.points()})

    def test_full_bin(self) -> None:
        """A bin that is full takes nothing more, and nothing leaves it early to make room."""
        self.rules(Rules(bin_days=KEPT, shorten_days=KEPT, bin_bytes=1))
        first, *others = self.good
        self.repository.delete([first])
        self.housekeeping()
        self.assertRaises(NoSpace, self.repository.delete, others)
        self.assertRaises(NoSpace, self.repository.check_bin_room)
        for point in self.good:
            self.restorable(point)

    def test_ends(self) -> None:
        """What nobody has taken back leaves when its time is over, and its space comes back."""
        self.attack()
        before = self.repository.statistics()["bytes_stored"]
        self.repository.close()
        self.repository = self.opened()
        for _ in range(KEPT + 4):
            self.days(1)
        for point in self.good:
            self.assertRaises(NotFound, self.repository.point, point)
        self.repository.close()
        for _ in range(3):
            self.time += DAY
            self.housekeeping()
        self.repository = self.opened()
        self.assertLess(self.repository.statistics()["bytes_stored"], before)
