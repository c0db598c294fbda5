"""Tests of :mod:`cloudconnect.provider.alarms.expected`: missed backups, under a fake clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import NoSpace
from cloudconnect.provider.alarms.expected import (
    FORGOTTEN_SECONDS,
    LOOK_SECONDS,
    SOON_SECONDS,
    ExpectedBackups,
    expected,
)
from cloudconnect.provider.watching import SessionEnd
from tests.provider.stage import StageCase

HOUR = 3600.0
EVERY = 26 * HOUR


def tenant(name: str, **changed: Any) -> dict[str, Any]:
    return {"name": name, "disabled": False, "created": 0.0, "expect_every": EVERY, **changed}


def last(name: str, host: str, ended: float, job: str = "job") -> dict[str, Any]:
    return {"tenant": name, "host": host, "job": job, "ended": ended}


class ExpectedTests(SynchronousTestCase):
    """What is due when."""

    def test_each(self) -> None:
        """For each host and job; for a tenant without any, the first one of all."""
        tenants = [tenant("a"), tenant("b"), tenant("c", expect_every=None)]
        tenants.append(tenant("d", disabled=True))
        made = [last("a", "x", 5.0), last("a", "y", 6.0), last("c", "z", 7.0)]
        found = {(e.tenant, e.host): e.due for e in expected(tenants, made, 10.0)}
        self.assertEqual({("a", "x"): 5 + EVERY, ("a", "y"): 6 + EVERY, ("b", ""): EVERY}, found)

    def test_given_up(self) -> None:
        """A machine that was given up long ago is not waited for."""
        made = [last("a", "x", 5.0)]
        self.assertEqual([], expected([tenant("a")], made, FORGOTTEN_SECONDS + 10))


class AlarmTests(StageCase):
    """With a service that keeps the events."""

    def setUp(self) -> None:
        super().setUp()
        self.tenants = [tenant("acme")]
        self.made: list[dict[str, Any]] = [last("acme", "x", 0.0), last("acme", "y", 0.0)]
        self.told: bytes | None = None
        self.broken = False
        self.watch = self.begin()

    def begin(self) -> ExpectedBackups:
        def read() -> Deferred[Any]:
            if self.broken:
                return fail(NoSpace("full"))
            return succeed((self.tenants, self.made, self.told))

        def keep(told: bytes) -> Deferred[None]:
            self.told = told
            return succeed(None)

        service = self.provider.service
        watch = ExpectedBackups(self.reactor, service, read, keep, self.reactor.seconds)
        service.watchers.add(watch)
        watch.startService()
        self.addCleanup(watch.stopService)
        return watch

    def pass_hours(self, hours: float) -> None:
        self.reactor.pass_time(hours * HOUR, HOUR / 4)

    def missed(self) -> list[tuple[str, str]]:
        names = ("backup_missed", "backup_recovered")
        rows = [row for row in self.provider.events() if row["name"] in names]
        return [(row["name"], row["fields"]["host"]) for row in rows]

    def end(self, host: str) -> None:
        """A backup has ended well."""
        self.made = [row for row in self.made if row["host"] != host]
        self.made.append(last("acme", host, self.reactor.seconds()))
        self.watch.session_ended(
            SessionEnd(session="", tenant="acme", kind="backup", host=host, job="job", state="done")
        )

    def test_in_its_window(self) -> None:
        """The alarm comes when the time is over, not before, and once for each host and job."""
        self.pass_hours(20)
        self.end("x")
        self.pass_hours(5.9)
        self.assertEqual([], self.missed())
        self.pass_hours(0.25)
        self.assertEqual([("backup_missed", "y")], self.missed())
        self.pass_hours(19)
        self.assertEqual([("backup_missed", "y")], self.missed())
        self.pass_hours(2)
        self.assertEqual([("backup_missed", "y"), ("backup_missed", "x")], self.missed())

    def test_comes_again(self) -> None:
        """When it comes after all that is told too, and the next one is waited for."""
        self.pass_hours(27)
        self.end("y")
        self.reactor.pass_time(SOON_SECONDS + 1)
        self.assertEqual(("backup_recovered", "y"), self.missed()[-1])
        self.pass_hours(25)
        count = len(self.missed())
        self.pass_hours(2)
        self.assertEqual(count + 1, len(self.missed()))

    def test_restart(self) -> None:
        """What was told is not told again after a restart."""
        self.pass_hours(27)
        before = self.missed()
        self.assertEqual(2, len(before))
        self.watch.stopService()
        self.watch = self.begin()
        self.pass_hours(2)
        self.assertEqual(before, self.missed())

    def test_settings(self) -> None:
        """What an admin changes holds at once."""
        self.tenants = [tenant("acme", expect_every=None)]
        self.watch.administered("set_tenant", {}, "done")
        self.pass_hours(40)
        self.assertEqual([], self.missed())
        self.tenants = [tenant("acme", expect_every=HOUR)]
        self.watch.administered("set_tenant", {}, "done")
        self.assertEqual(2, len(self.missed()))

    def test_broken(self) -> None:
        """A data base that cannot be read is asked again."""
        self.broken = True
        self.pass_hours(30)
        self.broken = False
        self.pass_hours(LOOK_SECONDS / HOUR + 0.5)
        self.assertEqual(2, len(self.missed()))


class AccountsTests(StageCase):
    """What the accounts know."""

    def test_last(self) -> None:
        """The last good backup of each host and job is found; a restore is none."""
        tenant = self.connected()
        self.assertEqual([], self.provider.accounts.last_backups())
        result = self.reactor.result_of(tenant.back_up(self.source()))
        self.reactor.result_of(tenant.restore(result.point, self.mktemp()))
        (row,) = self.provider.accounts.last_backups()
        self.assertEqual(
            ("acme", "some-host", "some-job"), (row["tenant"], row["host"], row["job"])
        )
        self.assertGreater(row["ended"], 1e9)
