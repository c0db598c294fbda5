"""Tests of :mod:`cloudconnect.agent.jobs`: jobs as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.agent.jobs import Job, job_path, load_job, load_jobs, remove_job, save_job
from cloudconnect.agent.schedule import Schedule
from cloudconnect.errors import NotFound, UsageError


def a_job(name: str = "nightly", **parts: Any) -> Job:
    fields = {"schedule": Schedule("@daily"), "words": ("/etc", "--exclude", "*.tmp"), **parts}
    return Job(name=name, **fields)


class JobTests(SynchronousTestCase):
    """Kept and read again."""

    def setUp(self) -> None:
        self.environment = {"HOME": str(Path(self.mktemp()).absolute())}

    def test_round_trip(self) -> None:
        """Every part comes back, odd characters too; nobody else may read it."""
        job = a_job(
            pre="mount '/mnt/a b'", post="umount", on_failure='mail "x"', jitter=60.0, created=5.0
        )
        path = save_job(self.environment, job)
        self.assertEqual(job, load_job(self.environment, "nightly"))
        self.assertEqual(0o600, path.stat().st_mode & 0o777)

    def test_refused(self) -> None:
        """A name, a command or a jitter that is none."""
        for parts in (
            {"name": "../x"},
            {"name": ""},
            {"words": ()},
            {"pre": "'open"},
            {"jitter": 1e9},
        ):
            self.assertRaises(UsageError, a_job, **parts)

    def test_others(self) -> None:
        """A job that others could have changed is not run."""
        save_job(self.environment, a_job()).chmod(0o620)
        self.assertRaises(UsageError, load_job, self.environment, "nightly")

    def test_unusable(self) -> None:
        """A broken file is named, and does not keep the other jobs from running."""
        save_job(self.environment, a_job("good"))
        for number, text in enumerate(("no toml", "words = 5", 'schedule = "x"\nwords = ["/a"]')):
            path = job_path(self.environment, f"bad-{number}")
            path.write_text(text)
            path.chmod(0o600)
        jobs, wrong = load_jobs(self.environment)
        self.assertEqual((["good"], 3), ([job.name for job in jobs], len(wrong)))

    def test_remove(self) -> None:
        """A job that was removed is there no more; one that is none is not found."""
        save_job(self.environment, a_job())
        remove_job(self.environment, "nightly")
        self.assertRaises(NotFound, load_job, self.environment, "nightly")
        self.assertRaises(NotFound, remove_job, self.environment, "nightly")
