"""Tests of :mod:`cloudconnect.provider.service.keeping`, from the job manager to the repository."""

from __future__ import annotations

import time
from typing import Any

from cloudconnect.commands.control import DeletePoints, ListPoints
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import LeaseEnded, NoSpace, NotFound, ProtocolViolation, Refused
from cloudconnect.repository.store import Repository
from tests.provider.stage import ENDED, LABELS, TENANT, StageCase


class KeepingTests(StageCase):
    """Deleting, locking and retention, from the job manager to the repository."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.connected()
        source = self.source()
        self.points = [self.reactor.result_of(self.acme.back_up(source)).point for _ in range(3)]

    def call(self, name: str, *arguments: Any) -> Any:
        return self.reactor.result_of(getattr(self.acme.manager, name)(*arguments))

    def refused(self, kind: type[Exception], name: str, *arguments: Any) -> str:
        return str(self.failure_of(getattr(self.acme.manager, name)(*arguments), kind))

    def listed(self, *states: str) -> list[str]:
        rows = self.reactor.result_of(self.acme.manager.points(states=states or ("published",)))
        return [row["point"] for row in rows]

    def lease_over(self) -> None:
        self.provider.accounts.change_tenant(TENANT, {"lease_end": ENDED})

    def test_delete(self) -> None:
        """What is deleted is in the bin, restorable from there, and comes back."""
        (row,) = self.call("delete_points", self.points[:1])
        self.assertEqual((self.points[0].hex(), "deleted"), (row["point"], row["state"]))
        self.assertEqual([point.hex() for point in self.points[1:]], self.listed())
        self.assertEqual([self.points[0].hex()], self.listed("deleted"))
        restored = self.reactor.result_of(self.acme.restore(self.points[0], self.mktemp()))
        self.assertEqual((1, 0), (restored.files, restored.damaged.count))
        self.call("undelete_points", self.points[:1])
        self.assertEqual(3, len(self.listed()))
        names = self.provider.names(tenant=TENANT)
        self.assertTrue({"points_deleted", "points_undeleted"} <= set(names))

    def test_of_another(self) -> None:
        """A tenant can do nothing to another's points, not even learn that they are there."""
        thief = self.connected("thief")
        for name in ("delete_points", "undelete_points"):
            self.failure_of(getattr(thief.manager, name)(self.points), NotFound)
        self.failure_of(thief.manager.lock_points(self.points, 4_000_000_000), NotFound)
        self.assertEqual(3, len(self.listed()))

    def test_all_or_none(self) -> None:
        """One point that cannot be deleted keeps the others of the same act."""
        self.call("lock_points", self.points[2:], 4_000_000_000)
        text = self.refused(Refused, "delete_points", self.points)
        self.assertIn("locked", text)
        self.assertEqual(3, len(self.listed()))

    def test_malformed(self) -> None:
        """What names no points is refused."""
        for points in ([b"short"], []):
            calling = self.acme.manager.control.call(DeletePoints, points=points)
            self.failure_of(calling, ProtocolViolation)
        asked = {"host": "", "job": "", "tag": "", "after": 0, "limit": 10, "states": ["all"]}
        self.failure_of(self.acme.manager.control.call(ListPoints, **asked), ProtocolViolation)

    def test_lease_over(self) -> None:
        """After the lease nothing is deleted, locked or shortened; listing, restore and taking
        back go on."""
        self.call("delete_points", self.points[:1])
        self.lease_over()
        self.assertIn(ENDED, self.refused(LeaseEnded, "delete_points", self.points[1:]))
        self.refused(LeaseEnded, "lock_points", self.points[1:], 4_000_000_000)
        self.refused(LeaseEnded, "set_retention", "", "", {"keep_last": 1})
        self.reactor.result_of(self.acme.restore(self.points[1], self.mktemp()))
        self.call("undelete_points", self.points[:1])
        self.call("retention")
        self.assertEqual(3, len(self.listed()))

    def test_frozen(self) -> None:
        """While the provider has frozen a tenant nothing is deleted, and the text says so."""
        service = self.provider.service
        self.assertTrue(self.reactor.result_of(service.keeping.freeze(TENANT, True)))
        self.assertIn("frozen", self.refused(Refused, "delete_points", self.points))
        with Repository.open(self.provider.mover.acts.folder(self.acme.repository)) as opened:
            self.assertTrue(opened.frozen)
        self.assertTrue(self.reactor.result_of(service.keeping.freeze(TENANT, False)))
        self.call("delete_points", self.points)
        self.assertEqual([], self.listed())

    def test_frozen_without_room(self) -> None:
        """A freeze that cannot be written down holds, and is written down when it can be."""
        accounts, service = self.provider.accounts, self.provider.service
        real = accounts.change_tenant

        def full(*_: Any) -> None:
            raise NoSpace("the disk is full")

        self.patch(accounts, "change_tenant", full)
        self.assertFalse(self.reactor.result_of(service.keeping.freeze(TENANT, True)))
        self.refused(Refused, "delete_points", self.points)
        self.patch(accounts, "change_tenant", real)
        answer = self.reactor.result_of(service.tenants.owner(self.acme.repository))
        self.assertEqual((TENANT, True), (answer["tenant"], answer["frozen"]))
        self.assertTrue(accounts.tenant(TENANT).frozen)

    def test_frozen_unknown_to_the_repository(self) -> None:
        """Nor is garbage collected that an admin asks for, though the repository could not be told
        of the freeze."""
        service = self.provider.service
        self.call("delete_points", self.points[:1])
        self.patch(self.provider.mover.acts, "set_rules", lambda *_: False)
        self.assertFalse(self.reactor.result_of(service.keeping.freeze(TENANT, True)))
        with Repository.open(self.provider.mover.acts.folder(self.acme.repository)) as opened:
            self.assertFalse(opened.frozen)
        self.failure_of(service.keeping.collect(TENANT), Refused)

    def test_rules(self) -> None:
        """The newest rules hold for the next act."""
        self.provider.accounts.change_tenant(TENANT, {"rules": {"bin_days": 3}})
        (row,) = self.call("delete_points", self.points[:1])
        self.assertTrue(2.9 * 86400 < row["bin_until"] - time.time() < 3.1 * 86400)

    def test_retention(self) -> None:
        """A policy is set within the rules, takes force later, and can be tried before."""
        floor = RetentionPolicy(keep_last=2).as_map()
        self.provider.accounts.change_tenant(TENANT, {"rules": {"floor": floor}})
        self.refused(Refused, "set_retention", "", "", {"keep_last": 1})
        row = self.call("set_retention", LABELS[0], "", {"keep_last": 2})
        self.assertTrue(row["has_pending"])
        policies, rules = self.call("retention")
        self.assertEqual([row], policies)
        self.assertEqual(floor, rules["floor"])
        decisions = self.call("preview_retention", (LABELS[0], "", {"keep_last": 2}))
        self.assertEqual([False, True, True], [row["keep"] for row in decisions])
        self.assertEqual(3, len(self.listed()))

    def test_rules_changed(self) -> None:
        """What an admin has changed reaches the repository at once, and a tenant without one is no
        error."""
        keeping = self.provider.service.keeping
        floor = RetentionPolicy(keep_last=2).as_map()
        self.provider.accounts.change_tenant(TENANT, {"rules": {"floor": floor}})
        self.reactor.result_of(keeping.rules_changed(TENANT))
        with Repository.open(self.provider.mover.acts.folder(self.acme.repository)) as opened:
            self.assertEqual(floor, opened.rules.as_map()["floor"])
        self.tenant("nobody")
        self.reactor.result_of(keeping.rules_changed("nobody"))

    def test_for_an_admin(self) -> None:
        """An admin measures, collects and scrubs; of a tenant without a repository nothing."""
        keeping = self.provider.service.keeping
        self.assertEqual(3, self.reactor.result_of(keeping.measure(TENANT))["points"])
        self.reactor.result_of(keeping.collect(TENANT))
        self.assertEqual([], self.reactor.result_of(keeping.scrub(TENANT, 0))["findings"])
        self.tenant("nobody")
        for refused in (
            keeping.measure("nobody"),
            keeping.scrub("nobody", 0),
            keeping.seed("nobody", "", "", 0),
        ):
            self.failure_of(refused, NotFound)

    def test_seed(self) -> None:
        """Where the mover's process has no accelerator there is no cache to seed."""
        self.failure_of(self.provider.service.keeping.seed(TENANT, "", "", 0), Refused)
