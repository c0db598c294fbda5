"""``kill -9`` of tenant and provider at random moments, judged by outcome.

A *life* is one provider with one tenant; it goes through rounds. A round starts an operation with
real processes over loopback TCP, kills one of them or both at a moment drawn uniformly from the
operation's usual length, brings the provider up again, and runs the same operation to its end.
After some rounds, and at the end of the life, every restore point is restored and compared.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import tempfile
import time
from collections import Counter, deque
from pathlib import Path
from typing import Final

import attrs

from cloudconnect.repository.store import Repository
from tests.crash.forks import Child, import_everything
from tests.crash.looking import look
from tests.crash.stage import PATIENCE, Command, Failed, Stage
from tests.crash.trees import change_tree, make_tree, tree_digest

#: Rounds of one life: more points make every look at all of them longer.
ROUNDS: Final = 40
#: Rounds between two looks at all points.
LOOK_EVERY: Final = 10
#: How often each operation is chosen.
WEIGHTS: Final = {
    "backup": 9,
    "two backups": 4,
    "restore": 4,
    "start": 1,
    "delete": 4,
    "undelete": 2,
    "gc": 3,
    "gc and backup": 3,
    "scrub": 1,
    "check": 2,
    "rotate": 1,
}
#: Points that stay published at least.
_KEPT: Final = 3
VICTIMS: Final = ("tenant", "provider", "provider", "both")
#: A command whose provider was killed says so: it failed, was cut off, or has to wait.
_CUT: Final = {1, 15, 22}


@attrs.define
class Lengths:
    """How long each operation usually takes, in seconds, from those that ended by themselves."""

    known: dict[str, deque[float]] = attrs.field(factory=dict)

    def learn(self, operation: str, seconds: float) -> None:
        """One more."""
        self.known.setdefault(operation, deque(maxlen=9)).append(seconds)

    def usual(self, operation: str) -> float:
        """The median of the last ones."""
        return statistics.median(self.known.get(operation) or [0.4])


class Life:
    """One provider and one tenant, from ``provider init`` to the last look.

    :param folder: is made
    :param choose: where every choice comes from
    :param counts: what happened is counted there
    :param hurried: what is deleted leaves the bin at once, and what no point needs is collected at
        once; otherwise the provider keeps both for days
    """

    def __init__(
        self,
        folder: Path,
        choose: random.Random,
        lengths: Lengths,
        counts: Counter[str],
        hurried: bool,
    ) -> None:
        self.choose = choose
        self.lengths = lengths
        self.counts = counts
        self.hurried = hurried
        self.stage = Stage(folder, hurried)
        self.sources = [folder / "source", folder / "other"]
        for source in self.sources:
            make_tree(source, choose)
        self.trees: dict[str, str] = {}  # by tag: the digest of what was backed up
        self.acknowledged: dict[str, str] = {}  # by point: its tag
        self.durable: set[bytes] = set()  # ids that some tenant was told are stored
        self.states: dict[str, set[str]] = {}  # by point: what it may be, other than published
        self._runs = 0
        # Two to begin with, one of each tree, so that there is something to restore.
        for source in self.sources:
            self._expect_done(self._note(self._backup(source)))

    # --- rounds ----------------------------------------------------------------------------------

    def round(self) -> None:
        """One operation, killed, and then run to its end.

        :raises Failed: something is not as it must be
        """
        choose = self.choose
        operation = choose.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if operation == "scrub" and not hasattr(Repository, "scrub"):
            operation = "check"
        if operation == "undelete" and not self._in_bin():
            operation = "delete"
        if operation == "delete" and len(self._published()) <= _KEPT:
            operation = "backup"
        victim = "provider" if operation == "start" else choose.choice(VICTIMS)
        moment = choose.random() * 1.1
        self.counts["rounds"] += 1
        if operation == "start":
            self._kill_starting(moment)
            return
        begun = time.monotonic()
        commands = self._begin(operation)
        before = [command.child for command in commands]
        self._wait(before, self.lengths.usual(operation) * moment)
        killed = self._kill(victim, commands)
        if not killed:
            self.counts["too late"] += 1
        for command in commands:
            if command.child.wait(PATIENCE) and command.child.status == 0:
                self.lengths.learn(operation, time.monotonic() - begun)
            self._note(command)
            if command.child.status not in (-9, 0) and command.finish() not in _CUT:
                raise Failed(f"{command.arguments}: {command.child.text()}")
        if self.stage.provider is None:
            self.stage.start_provider()
        for command in commands:
            self._again(command)

    def _kill_starting(self, moment: float) -> None:
        """The provider is killed while it starts."""
        self.stage.kill_provider()
        begun = time.monotonic()
        ready = self.stage.launch_provider()
        provider = self.stage.provider
        assert provider is not None
        provider.wait(self.lengths.usual("start") * moment)
        os.close(ready)
        self.stage.kill_provider()
        self.counts["kills"] += 1
        self.counts["kills of provider"] += 1
        self.counts["kills in start"] += 1
        begun = time.monotonic()
        self.stage.start_provider()
        self.lengths.learn("start", time.monotonic() - begun)

    def _begin(self, operation: str) -> list[Command]:
        choose, stage = self.choose, self.stage
        if operation == "restore":
            return [self._restore()]
        if operation == "delete":
            return [self._keep("delete", choose.sample(self._published()[_KEPT:], 1), "--yes")]
        if operation == "undelete":
            in_bin = self._in_bin()
            return [self._keep("undelete", choose.sample(in_bin, min(2, len(in_bin))))]
        if operation == "rotate":
            return [stage.rotate(choose.random() < 0.5)]
        if operation == "check":
            return [stage.command("check", "--read-data")]
        if operation == "scrub":
            return [stage.administer("scrub")]
        commands = []
        if operation in ("gc", "gc and backup"):
            commands.append(stage.administer("gc"))
            if self.hurried:
                self.durable.clear()  # what no point needs goes
        if operation != "gc":
            both = operation == "two backups"
            sources = self.sources if both else [choose.choice(self.sources)]
            for source in sources:
                change_tree(source, choose)
            commands += [self._backup(source) for source in sources]
        return commands

    def _published(self) -> list[str]:
        """Acknowledged points that are certainly published."""
        return sorted(set(self.acknowledged) - set(self.states))

    def _in_bin(self) -> list[str]:
        """Those that are certainly in the bin."""
        return sorted(point for point, states in self.states.items() if states == {"deleted"})

    def _keep(self, act: str, points: list[str], *options: str) -> Command:
        """Delete or undelete: from now on the points may be the one or the other."""
        for point in points:
            self.states[point] = {"published", "deleted"} | ({"gone"} if self.hurried else set())
        return self.stage.command(act, *points, *options)

    @staticmethod
    def _wait(children: list[Child], seconds: float) -> None:
        """Wait so long, or until all have ended."""
        ends = time.monotonic() + seconds
        for child in children:
            child.wait(ends - time.monotonic())

    def _kill(self, victim: str, commands: list[Command]) -> int:
        """Kill who is meant and still runs; how many processes were killed."""
        running = [command for command in commands if command.child.status is None]
        killed = 0
        if running and victim in ("tenant", "both"):
            chosen = running if self.choose.random() < 0.5 else running[:1]
            for command in chosen:
                command.child.send(9)
                killed += 1
            self.counts["kills of tenant"] += killed
        if running and victim in ("provider", "both"):
            self.stage.kill_provider()
            self.counts["kills of provider"] += 1
            killed += 1
        if killed:
            self.counts["kills"] += killed
            self.counts[f"kills in {commands[0].arguments[0]}"] += killed
        return killed

    def _again(self, command: Command) -> None:
        """The same command once more: it succeeds, and sends nothing that is known to be stored."""
        known = set(self.durable)
        words = command.arguments
        if words[0] in ("gc", "scrub"):
            self._expect_done(self.stage.administer(*words))
            return
        if words[0] == "key":
            again = self.stage.command(*words)
            if again.finish() not in (0, 13):  # 13: the first one had come to its end
                raise Failed(f"{words}: {again.child.text()}")
            self.stage.passphrase = Path(words[-1])
            return
        if words[0] != "backup":
            again = self.stage.command(*words)
            if words[0] == "delete" and self.hurried and again.finish() == 10:
                return  # it has left the bin already
            self._expect_done(again)
        if words[0] == "restore":
            self._compare_restored(words[1], Path(words[words.index("--target") + 1]))
        for point in set(words) & set(self.states):
            if words[0] == "undelete":
                del self.states[point]
            elif words[0] == "delete":
                self.states[point].discard("published")
        if words[0] != "backup":
            return
        source = next(source for source in self.sources if str(source) in words)
        again = self._note(self._backup(source))
        self._expect_done(again)
        twice = [size for name, size in again.told.sent if name in known]
        if twice:
            raise Failed(f"{sum(twice)} bytes in {len(twice)} blobs were sent twice")
        self.counts["bytes sent by next runs"] += sum(size for _, size in again.told.sent)
        self.counts["bytes not sent again"] += sum(
            size for name, size in command.told.sent if name in known
        )

    # --- operations ------------------------------------------------------------------------------

    def _backup(self, source: Path) -> Command:
        self._runs += 1
        tag = f"run-{self._runs}"
        self.trees[tag] = tree_digest(source)
        return self.stage.command("backup", str(source), "--job", source.name, "--tag", tag)

    def _restore(self) -> Command:
        point = self.choose.choice(self._published() + self._in_bin())
        target = self.stage.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        return self.stage.command("restore", point, "--target", str(target))

    def _compare_restored(self, point: str, target: Path) -> None:
        tag = self.acknowledged[point]
        made = [target / source.relative_to("/") for source in self.sources]
        digests = [tree_digest(path) for path in made if path.exists()]
        if digests != [self.trees[tag]]:
            raise Failed(f"point {point} was not restored exactly")
        self.counts["restores through the provider"] += 1

    def _note(self, command: Command) -> Command:
        """Wait for its end and keep what it was told."""
        command.child.wait(PATIENCE)
        told = command.told
        self.durable |= told.stored
        if command.arguments[0] != "backup":
            return command
        tag = command.arguments[command.arguments.index("--tag") + 1]
        summary = command.summary
        points = {summary["point"]} if summary is not None else set()
        if command.child.status == -9:
            # Nobody has told the provider that anything is wrong with it.
            points.update(told.pointed)
        for point in points:
            self.acknowledged[point] = tag
            self.counts["points acknowledged"] += 1
        return command

    @staticmethod
    def _expect_done(command: Command) -> None:
        if command.finish() != 0:
            raise Failed(f"{command.arguments}: {command.child.text()}")

    # --- judging ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Every point that is listed restores exactly, and every acknowledged one is listed.

        :raises Failed: one does not
        """
        stage = self.stage
        log = stage.folder / "look.log"
        log.unlink(missing_ok=True)
        child = Child(self._look, log, stage.environment())
        if not child.wait(10 * PATIENCE) or child.status != 0:
            raise Failed(f"the repository cannot be looked through: {child.text()}")
        shown = {record["point"]: record for record in map(json.loads, child.text().splitlines())}
        for record in shown.values():
            [tag] = record["tags"]
            if record["error"] or record["digest"] != self.trees[tag]:
                raise Failed(f"a listed point does not restore exactly: {record}")
        for point in self.acknowledged:
            state = shown[point]["state"] if point in shown else "gone"
            if state not in self.states.get(point, {"published"}):
                raise Failed(f"the acknowledged point {point} is {state}")
        self.counts["points compared"] += len(shown)

    def _look(self) -> None:
        stage = self.stage
        target = stage.folder / "looked"
        look(stage.repository, stage.passphrase, target, self.sources)

    def end(self) -> None:
        """A last look, a restore through the provider, and its end."""
        self.look()
        restore = self._restore()
        self._expect_done(restore)
        target = Path(restore.arguments[restore.arguments.index("--target") + 1])
        self._compare_restored(restore.arguments[1], target)
        self.stage.kill_provider()


def run(seed: int, seconds: float, counts: Counter[str], kills: int | None = None) -> None:
    """The campaign: lives one after the other.

    :param seed: of every choice; the moments of the kills depend on the machine too
    :param seconds: begin no round after so many
    :param counts: what happened is counted there
    :param kills: begin no round after so many kills
    :raises Failed: what was found; the folder with everything stays, and is named
    """
    import_everything()
    lengths = Lengths()
    ends = time.monotonic() + seconds

    def over() -> bool:
        return time.monotonic() > ends or (kills is not None and counts["kills"] >= kills)

    while not over():
        number = counts["lives"]
        choose = random.Random(f"kills {seed} {number}")
        folder = Path(tempfile.mkdtemp(prefix="cloudconnect-crash-"))
        life: Life | None = None
        try:
            life = Life(folder / "life", choose, lengths, counts, hurried=number % 3 == 1)
            for played in range(1, ROUNDS + 1):
                if over():
                    break
                life.round()
                if played % LOOK_EVERY == 0:
                    life.look()
            life.end()
        except Failed as failure:
            where = f"seed {seed}, life {number}, everything is in {folder}"
            raise Failed(f"{where}: {failure}") from failure
        finally:
            if life is not None:
                life.stage.stop()
        shutil.rmtree(folder)
        counts["lives"] += 1
