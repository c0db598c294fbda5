"""Tests of :mod:`cloudconnect.agent.running`: real processes in the place of a backup and hooks."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from cloudconnect.agent import running
from cloudconnect.agent.running import JobRun, backup_words
from tests.agent.test_jobs import a_job

POINT = "ab" * 16


class RunTests(TestCase):
    """One run."""

    timeout = 60

    def setUp(self) -> None:
        self.notes = Path(self.mktemp()).absolute()
        self.backup = self.script(
            f"print('{json.dumps({'message_type': 'summary', 'point': POINT})}')"
        )
        self.patch(running, "backup_words", lambda job: shlex.split(self.backup))

    def script(self, code: str) -> str:
        """A command that runs this Python."""
        return f"{shlex.quote(sys.executable)} -S -c {shlex.quote(code)}"

    def note(self, word: str, status: int = 0) -> str:
        """A command that notes a word, and what it finds in its environment."""
        code = (
            f"import os, sys; e = os.environ.get; f = open({str(self.notes)!r}, 'a'); "
            f"print({word!r}, e('CLOUDCONNECT_JOB'), e('CLOUDCONNECT_STATUS', '-'), "
            f"e('CLOUDCONNECT_POINT', '-')[:4] or '-', file=f); sys.exit({status})"
        )
        return self.script(code)

    async def run_job(self, **parts: Any) -> tuple[running.Outcome, list[str]]:
        outcome = await JobRun(reactor, a_job(**parts), {"PATH": os.environ["PATH"]}).run()
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        return outcome, lines

    async def test_hooks(self) -> None:
        """Before, the backup, behind: in this order, with what they need to know."""
        outcome, lines = await self.run_job(
            pre=self.note("pre"), post=self.note("post"), on_failure=self.note("failed")
        )
        self.assertEqual((0, POINT), (outcome.status, outcome.point))
        self.assertEqual(["pre nightly - -", "post nightly 0 abab"], lines)

    async def test_pre_failed(self) -> None:
        """Where what comes before fails there is no backup, and somebody hears of it."""
        outcome, lines = await self.run_job(
            pre=self.note("pre", 5), post=self.note("post"), on_failure=self.note("failed")
        )
        self.assertEqual((1, ""), (outcome.status, outcome.point))
        self.assertIn("pre failed with status 5", outcome.error)
        self.assertEqual(["pre nightly - -", "failed nightly 1 -"], lines)

    async def test_backup_failed(self) -> None:
        """Where the backup fails its reason is known, and what is to come behind it still does."""
        error = json.dumps({"message_type": "exit_error", "message": "the quota is used up"})
        self.backup = self.script(f"import sys; print('{error}', file=sys.stderr); sys.exit(11)")
        outcome, lines = await self.run_job(post=self.note("post"), on_failure=self.note("failed"))
        self.assertEqual((11, "the quota is used up"), (outcome.status, outcome.error))
        self.assertEqual(["post nightly 11 -", "failed nightly 11 -"], lines)

    async def test_post_failed(self) -> None:
        """Where only what comes behind fails the point is there, and the run failed."""
        outcome, _ = await self.run_job(post=self.note("post", 1))
        self.assertEqual((1, POINT, False), (outcome.status, outcome.point, outcome.good))

    async def test_unreadable(self) -> None:
        """A backup without some sources has made its point: that is no failure."""
        self.backup += "; exit 3"
        line = json.dumps({"message_type": "summary", "point": POINT})
        self.backup = self.script(f"import sys; print('{line}'); sys.exit(3)")
        outcome, lines = await self.run_job(on_failure=self.note("failed"))
        self.assertEqual((3, POINT, True), (outcome.status, outcome.point, outcome.good))
        self.assertEqual([], lines)

    async def test_no_program(self) -> None:
        """A hook that is no program fails like one that does."""
        outcome, _ = await self.run_job(pre="/nowhere/at/all --now")
        self.assertFalse(outcome.good)
        self.assertIn("/nowhere/at/all", outcome.error)

    async def test_much_said(self) -> None:
        """However much a process says, the end of it is kept."""
        self.backup = self.script(
            "for n in range(100_000): print('x' * 60)\n"
            f"print('{json.dumps({'message_type': 'summary', 'point': POINT})}')"
        )
        outcome, _ = await self.run_job()
        self.assertEqual(POINT, outcome.point)

    async def test_stopped(self) -> None:
        """A stop interrupts the backup, which ends by itself."""
        code = (
            "import signal, sys, time; "
            "signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); "
            f"open({str(self.notes)!r}, 'w').close(); time.sleep(60)"
        )
        self.backup = self.script(code)
        run = JobRun(reactor, a_job(), {"PATH": os.environ["PATH"]})
        done = Deferred.fromCoroutine(run.run())
        looking = LoopingCall(lambda: self.notes.exists() and looking.running and looking.stop())
        await looking.start(0.02)
        run.stop()
        outcome = await done
        self.assertEqual(130, outcome.status)

    def test_words(self) -> None:
        """A backup is the command itself, with the job's name, profile and options."""
        words = backup_words(a_job(profile="work"))
        self.assertEqual(sys.executable, words[0])
        self.assertEqual(
            ["--json", "--job", "nightly", "--profile", "work", "/etc", "--exclude", "*.tmp"],
            words[4:],
        )
