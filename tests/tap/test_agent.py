"""Tests of :mod:`cloudconnect.tap.agent`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.usage import UsageError as OptionError
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.agent.jobs import job_path, save_job
from cloudconnect.agent.state import states_path
from cloudconnect.config.profile import Profile, save
from cloudconnect.tap.agent import Agent, Options, makeService, repository_of
from tests.agent.test_jobs import a_job


class AgentTests(SynchronousTestCase):
    """The scheduler of one user."""

    def setUp(self) -> None:
        self.environment = {"HOME": str(Path(self.mktemp()).absolute())}
        self.patch(os, "environ", self.environment)

    def test_service(self) -> None:
        """It finds its place by the environment; without a home it says so."""
        options = Options()
        options.parseOptions([])
        self.assertIsInstance(makeService(options), Agent)
        self.assertEqual(0o700, states_path(self.environment).parent.stat().st_mode & 0o777)
        self.environment["HOME"] = ""
        self.patch(Path, "expanduser", lambda path: path)
        self.assertRaises(OptionError, Options().parseOptions, [])

    def test_repository(self) -> None:
        """Jobs of two profiles of one repository count as one repository's."""
        save(self.environment, "a", Profile(provider="x", tenant="t", repository="ab" * 16))
        save(self.environment, "b", Profile(provider="y", tenant="t", repository="ab" * 16))
        a, b, c = (repository_of(self.environment, a_job(profile=name)) for name in "abc")
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)

    def test_broken_job(self) -> None:
        """A job that cannot be used is named once, and again only when it was changed."""
        logged: list[str] = []

        def keep(event: Any) -> None:
            logged.append(eventAsText(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        save_job(self.environment, a_job("bad"))
        job_path(self.environment, "bad").write_text("nonsense")
        clock = Clock()
        agent = Agent(clock, self.environment)
        agent.startService()
        self.addCleanup(agent.stopService)
        clock.pump([30.0] * 20)
        self.assertEqual(1, sum("cannot be used" in text for text in logged))
