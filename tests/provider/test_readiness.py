"""Tests of :mod:`cloudconnect.provider.readiness`."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail, maybeDeferred

from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.provider.readiness import readiness
from tests.provider.stage import StageCase


class ReadinessTests(StageCase):
    """Whether a provider can serve."""

    def look(self, **parts: object) -> Mapping[str, str]:
        provider = self.provider
        run = parts.pop("run", maybeDeferred)
        checks = readiness(provider.service, provider.accounts, run, **parts)  # type: ignore[arg-type]
        found: Mapping[str, str] = self.reactor.result_of(checks())
        return found

    def test_ready(self) -> None:
        """Everything is there."""
        self.assertEqual({"service": "", "mover": "", "accounts": "", "disk": ""}, self.look())

    def test_no_mover(self) -> None:
        """Without a mover nothing can be stored."""
        movers = self.provider.service.nodes.movers
        for link, _ in list(movers):
            movers.lose(link)
        self.assertIn("mover", self.look()["mover"])

    def test_no_accounts(self) -> None:
        """A data base that does not answer is named, without its error's text."""

        def broken(*_: object) -> Deferred[object]:
            return fail(OSError("/some/path"))

        why = self.look(run=broken)["accounts"]
        self.assertTrue(why and "/some/path" not in why)

    def test_full(self) -> None:
        """Where the reserve was given away, the disk is full."""
        path = self.directory / "reserve"
        path.touch()
        self.assertIn("full", self.look(reserve=Reserve(path))["disk"])
