"""Tests of :mod:`cloudconnect.cli.job`: jobs on the command line, without an agent."""

from __future__ import annotations

import os

import attrs

from cloudconnect.agent.jobs import load_job, save_job
from cloudconnect.agent.state import States, lock_path, states_path, take_lock
from cloudconnect.config.profile import Profile, save
from tests.cli.commands import CommandCase


class JobTests(CommandCase):
    """What a person does with jobs."""

    def add(self, *words: str, name: str = "nightly") -> None:
        done = self.call("job", "add", name, "--schedule", "30 2 * * *", *words)
        self.assertEqual(0, done.status, done.err)

    def test_add(self) -> None:
        """Paths become absolute, options of backup are kept and checked."""
        self.add("docs", "--exclude", "*.tmp", "-x", "--pre", "mount /mnt", "--jitter", "10m")
        job = load_job(os.environ, "nightly")
        self.assertEqual((os.path.abspath("docs"), "--exclude", "*.tmp", "-x"), job.words)
        self.assertEqual(("mount /mnt", 600.0), (job.pre, job.jitter))

    def test_command(self) -> None:
        """The output of a command is backed up as it would be by hand."""
        self.add("--stdin-from-command", "dump.sql", "--", "pg_dump", "--all")
        words = load_job(os.environ, "nightly").words
        self.assertEqual(("--stdin-from-command", "dump.sql", "--", "pg_dump", "--all"), words)

    def test_refused(self) -> None:
        """What backup would not take, and what a job has of itself, is refused at once."""
        schedule = ("--schedule", "@daily")
        for words in (
            ("/etc", "--no-such-option"),
            ("/etc", "--job", "other"),
            ("--stdin", "name"),
            ("same", "--exclude", "same"),
            (),
        ):
            done = self.call("job", "add", "nightly", *schedule, *words)
            self.assertEqual(2, done.status, words)
        self.assertEqual(2, self.call("job", "add", "x", "--schedule", "never", "/etc").status)

    def test_list(self) -> None:
        """With when they are due, and what became of them."""
        self.assertIn("There are no jobs", self.call("job", "list").out)
        self.add("/etc")
        self.assertIn("has not run yet", self.call("job", "list").out)
        states = States(states_path(os.environ))
        states.change("nightly", started=5.0, ended=9.0, status=12, error="refused")
        (line,) = self.call("job", "list", "--json").lines()
        self.assertEqual(("nightly", 12, "refused"), (line["name"], line["status"], line["error"]))
        self.assertIn("FAILED", self.call("job", "list").out)

    def test_alone(self) -> None:
        """What a job will lack when nobody can be asked is said while somebody is there."""
        words = ("job", "add", "nightly", "--schedule", "@daily", "/etc")
        self.assertIn("no profile default yet", self.call(*words).err)
        files = ("--password-file", "/f", "--passphrase-file", "/f")
        reached = Profile(provider="p.example", tenant="acme")
        for profile, environment, missing in (
            (reached, {}, ["login password", "encryption passphrase"]),
            (attrs.evolve(reached, password_file="/f"), {}, ["encryption passphrase"]),
            (attrs.evolve(reached, certificate="/f", encryption="provider"), {}, []),
            (attrs.evolve(reached, password_file="/f", key_file="/f"), {}, []),
            (reached, {"PASSWORD_FILE": "/f", "PASSPHRASE_COMMAND": "cat /f"}, []),
        ):
            save(os.environ, "default", profile)
            for name, value in environment.items():
                self.environment[f"CLOUDCONNECT_{name}"] = value
            err = self.call(*words).err
            self.assertEqual("", self.call(*words, *files).err)
            self.assertEqual(len(missing), err.count("note:"), err)
            for what in missing:
                self.assertIn(f"no file with the {what}", err)

    def test_late(self) -> None:
        """A job that came due long ago, and was not begun, makes one think of the agent."""
        self.add("/etc")
        self.assertNotIn("agent", self.call("job", "list").out)
        save_job(os.environ, attrs.evolve(load_job(os.environ, "nightly"), created=5.0))
        done = self.call("job", "list")
        self.assertIn("WAS DUE", done.out)
        self.assertIn("twist cloudconnect-agent", done.out)

    def test_cut_off(self) -> None:
        """A run that nobody brought to its end does not run any more; one that is under way has
        the repository's lock."""
        self.add("/etc")
        States(states_path(os.environ)).change("nightly", started=5.0)
        self.assertIn("CUT OFF", self.call("job", "list").out)
        self.assertIs(True, self.call("job", "list", "--json").lines()[0]["cut_off"])
        held = take_lock(lock_path(os.environ, "profile default"))
        assert held is not None
        self.addCleanup(os.close, held)
        self.assertIn("runs since", self.call("job", "list").out)
        self.assertIs(False, self.call("job", "list", "--json").lines()[0]["cut_off"])

    def test_remove(self) -> None:
        """A job is forgotten; one that is none is not found."""
        self.add("/etc")
        self.assertEqual(0, self.call("job", "remove", "nightly").status)
        self.assertEqual(10, self.call("job", "remove", "nightly").status)

    def test_busy(self) -> None:
        """While another job of the repository runs it is not run."""
        self.add("/etc")
        held = take_lock(lock_path(os.environ, "profile default"))
        assert held is not None
        self.addCleanup(os.close, held)
        self.assertEqual(15, self.call("job", "run", "nightly").status)
