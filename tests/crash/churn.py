"""Gateways, movers, accelerators and the service drained and killed in turn while jobs run.

Each is a process of its own, and where that can be has a network namespace of its own. In each
round some tenants back up and restore, and one process is stopped in one of two ways, in turn; it
comes back, and every job must end with 0, as one restore point, which restores to exactly what was
backed up. At the end no key was ever used for two sessions.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

import attrs

from tests.crash import namespaces
from tests.crash.fleet import SERVICE, Fleet, Member
from tests.crash.forks import import_everything
from tests.crash.stage import Command, Failed
from tests.crash.trees import change_tree, make_tree, tree_digest

#: How many of each there are, tenants, and jobs that run at the same time: at full size ...
FULL: Final = ({"gateway": 4, "mover": 2, "wan": 2}, 50, 6)
#: ... and in the suite.
SMALL: Final = ({"gateway": 2, "mover": 2, "wan": 2}, 2, 2)
#: What is done to whom, in turn.
TURNS: Final = [
    ("mover", "kill"),
    ("gateway", "kill"),
    ("mover", "drain"),
    ("wan", "kill"),
    (SERVICE, "kill"),
    ("wan", "drain"),
    ("gateway", "drain"),
    (SERVICE, "stop"),
]
#: Such a line makes a job last some seconds.
RATE: Final = "2MB"
#: A job may take so long, in seconds, with all that happens meanwhile.
JOB_SECONDS: Final = 240.0


@attrs.define
class Job:
    """A command that must succeed, and what must come of it."""

    tenant: int
    kind: str
    command: Command
    tag: str
    digest: str
    target: Path | None = None


class Churn:
    """One fleet, from its making to the last look."""

    def __init__(
        self, fleet: Fleet, choose: random.Random, counts: Counter[str], at_once: int
    ) -> None:
        self.fleet = fleet
        self.choose = choose
        self.counts = counts
        self._at_once = at_once
        self._runs = 0
        self.points: dict[int, dict[str, tuple[str, str]]] = {}  # tenant: point: tag, digest
        members = fleet.members
        fleet.start(members[SERVICE])
        fleet.start(*(member for member in members.values() if member.kind != SERVICE))
        for number in range(len(fleet.tenants)):
            make_tree(self._source(number), choose)
            self.points[number] = {}
            gateway = self._gateway()
            connect = fleet.command(number, gateway, "connect", gateway.place)
            self._expect_done(connect)

    def _source(self, tenant: int) -> Path:
        return self.fleet.folder / self.fleet.tenants[tenant] / "source"

    def _gateway(self) -> Member:
        return self.choose.choice(self.fleet.of("gateway"))

    def round(self, kind: str, act: str) -> None:
        """Some jobs, and one process that goes and comes back.

        :raises Failed: something is not as it must be
        """
        chosen = self.choose.sample(range(len(self.fleet.tenants)), self._at_once)
        jobs = [self._begin(tenant) for tenant in chosen]
        victim = self.choose.choice(self.fleet.of(kind))
        self._wait(jobs, self.choose.uniform(0.3, 2.5))
        before = self.fleet.registrations()
        if act == "drain":
            self._drain(victim)
        else:
            self.fleet.stop(victim, signal.SIGKILL if act == "kill" else signal.SIGTERM)
        self.counts[f"{act} of {kind}"] += 1
        self.counts["rounds"] += 1
        self.counts["jobs under way"] += sum(job.command.child.status is None for job in jobs)
        self._wait(jobs, self.choose.uniform(0.0, 1.0))
        self.fleet.start(victim)
        if kind == SERVICE:
            nodes = len(self.fleet.members) - 1
            self.fleet.wait_until(
                lambda: self.fleet.registrations() >= before + nodes, "all are registered again"
            )
        elif act == "drain":
            self._expect_done(self.fleet.administer(_group(kind), "undrain", victim.name))
        for job in jobs:
            self._judge(job)

    def _drain(self, victim: Member) -> None:
        """As an admin does: it gets no new sessions, and is stopped when it has none."""
        group = _group(victim.kind)
        self._expect_done(self.fleet.administer(group, "drain", victim.name))

        def drained() -> bool:
            rows = self.fleet.rows(group, "list")
            (row,) = [row for row in rows if row["name"] == victim.name]
            return row["state"] == "drained"

        self.fleet.wait_until(drained, f"{victim.name} is drained")
        self.fleet.stop(victim)

    @staticmethod
    def _wait(jobs: list[Job], seconds: float) -> None:
        """Wait so long, or until all have ended."""
        ends = time.monotonic() + seconds
        for job in jobs:
            job.command.child.wait(ends - time.monotonic())

    # --- jobs ------------------------------------------------------------------------------------

    def _begin(self, tenant: int) -> Job:
        """A backup, or now and then a restore."""
        self._runs += 1
        tag, gateway, source = f"run-{self._runs}", self._gateway(), self._source(tenant)
        accelerated = self.fleet.mode(tenant) == "provider"
        way = ("--wan", "auto", "--retry", f"{JOB_SECONDS:g}s")
        known = self.points[tenant]
        if known and self.choose.random() < 0.35:
            point = self.choose.choice(sorted(known))
            target = self.fleet.folder / f"restored-{self._runs}"
            command = self.fleet.command(
                tenant, gateway, "restore", point, "--target", str(target), *way
            )
            return Job(tenant, "restore", command, *known[point], target)
        if known:
            change_tree(source, self.choose)
        self.counts["accelerated"] += accelerated
        command = self.fleet.command(
            tenant,
            gateway,
            *("backup", str(source), "--job", "churn", "--tag", tag, "--limit-upload", RATE),
            *(("--wan", "on", "--retry", f"{JOB_SECONDS:g}s") if accelerated else way),
        )
        return Job(tenant, "backup", command, tag, tree_digest(source))

    def _judge(self, job: Job) -> None:
        """It succeeds, and what it made or restored is right.

        :raises Failed: it does not
        """
        self._expect_done(job.command)
        self.counts["jobs"] += 1
        names = [record.get("name") for record in job.command.records]
        self.counts["sessions in jobs"] += names.count("started")
        self.counts["interruptions"] += names.count("session_interrupted")
        if job.kind == "backup":
            summary = job.command.summary
            assert summary is not None
            self.points[job.tenant][summary["point"]] = (job.tag, job.digest)
            return
        assert job.target is not None
        self._compare(job.target / self._source(job.tenant).relative_to("/"), job.digest)
        shutil.rmtree(job.target)

    def _compare(self, restored: Path, digest: str) -> None:
        self.counts["points compared"] += 1
        if tree_digest(restored) != digest:
            raise Failed(f"{restored} is not what was backed up")

    def _expect_done(self, command: Command) -> None:
        if command.finish(JOB_SECONDS) != 0:
            raise Failed(f"{command.arguments}: {command.child.text()[-3000:]}")

    # --- the end ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Each tenant has exactly the points that were acknowledged, each of which restores to what
        it was made of, and no key was used twice.

        :raises Failed: it is not so
        """
        for tenant, known in self.points.items():
            listed = self.fleet.command(tenant, self._gateway(), "points")
            self._expect_done(listed)
            points = [row["point"] for row in listed.records if "point" in row]
            if sorted(points) != sorted(known):
                raise Failed(f"{self.fleet.tenants[tenant]} has {points} and not {sorted(known)}")
            for point in self.choose.sample(points, min(2, len(points))):
                target = self.fleet.folder / "restored"
                command = self.fleet.command(
                    tenant, self._gateway(), "restore", point, "--target", str(target)
                )
                self._expect_done(command)
                source = self._source(tenant).relative_to("/")
                self._compare(target / source, known[point][1])
                shutil.rmtree(target)
        sessions = [row for row in self.fleet.rows("sessions") if "key_a" in row]
        for name in ("key_a", "key_b"):
            keys = [row[name] for row in sessions if row[name]]
            if len(set(keys)) != len(keys):
                raise Failed(f"a {name} was used for two sessions")
            self.counts[f"different {name}s"] += len(keys)
        rows = self.fleet.rows("events")
        made = [row["fields"]["key"] for row in rows if row.get("name") == "key_a_made"]
        if len(set(made)) != len(made):
            raise Failed("a Key A was made twice")


def _group(kind: str) -> str:
    """The admin's commands for nodes of a kind."""
    return "gateway" if kind == "gateway" else "node"


def run(seed: int, seconds: float, counts: Counter[str], most: int | None = None) -> None:
    """Rounds until the time is over; some more for what was begun.

    :param most: most rounds, and a small fleet
    :raises Failed: something is not as it must be
    """
    import_everything()
    choose = random.Random(seed)
    ends = time.monotonic() + seconds
    numbers, tenants, at_once = FULL if most is None else SMALL
    why = namespaces.missing()
    counts["in namespaces"] += not why
    folder = Path(tempfile.mkdtemp(prefix="cloudconnect-churn-"))
    with contextlib.ExitStack() as held:
        spaces = None if why else held.enter_context(namespaces.Namespaces("ccc"))
        fleet = Fleet(folder / "fleet", numbers, tenants, spaces)
        held.callback(fleet.stop_all)
        try:
            churn = Churn(fleet, choose, counts, at_once)
            turn = 0
            while time.monotonic() < ends and turn != most:
                churn.round(*TURNS[turn % len(TURNS)])
                turn += 1
            churn.look()
            for member in [*fleet.members.values()][::-1]:
                fleet.stop(member)
        except Failed as failure:
            raise Failed(f"seed {seed}, in {folder}: {failure}") from failure
    shutil.rmtree(folder)
