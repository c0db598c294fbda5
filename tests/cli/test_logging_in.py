"""Tests of :mod:`cloudconnect.cli.logging_in`: a command's way to its provider."""

from __future__ import annotations

from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from cloudconnect.cli.logging_in import LOG_IN_SECONDS, dial_next, log_in, log_in_there
from cloudconnect.cli.running import Interrupt
from cloudconnect.cli.tenant import TenantSettings, resolve
from cloudconnect.config.profile import Profile
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    LoginRefused,
    NotReachable,
    Truncated,
)
from cloudconnect.keys import Password
from tests.cli.commands import CommandCase
from tests.cli.test_tenant import NOTHING


class Door:
    """A job manager whose log-ins end with these errors, and at last succeed."""

    def __init__(self, answered: bool, *errors: CloudConnectError) -> None:
        self.answered = answered
        self.errors = list(errors)
        self.asked = 0

    def cancel(self) -> None:
        """Nothing is under way."""

    async def log_in(self, tenant: str, password: Password, *_: object) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "in"


class Named:
    """Who answers a log-in: a provider with this id."""

    def __init__(self, provider: bytes) -> None:
        self.provider = provider


class There(Door):
    """A provider at the address to which one has moved."""

    async def log_in(self, tenant: str, password: Password | None, *_: object) -> Any:
        return Named(b"p" * 16)


class NextTests(CommandCase):
    """A provider that has announced to move."""

    def settings(self, provider: bytes) -> TenantSettings:
        profile = Profile(
            provider="old.example.com",
            tenant="acme",
            next_provider="new.example.com:7000",
            provider_id=provider.hex(),
        )
        return attrs.evolve(resolve(**{**NOTHING, "tenant": "acme"}), profile=profile)

    def test_dialled(self) -> None:
        """It is dialled at its new address, and what the command does is ended there then."""
        interrupt = Interrupt()
        there, manager = dial_next(Clock(), self.settings(b"p" * 16), None, interrupt)
        self.assertEqual(("new.example.com", 7000), there.address)
        self.assertEqual(manager.cancel, interrupt.call)

    def test_same(self) -> None:
        """Only the same provider is taken there."""
        door: Any = There(True)
        for provider, same in ((b"p" * 16, True), (b"q" * 16, False)):
            asked = Deferred.fromCoroutine(log_in_there(self.settings(provider), door, None))
            if same:
                self.assertEqual(b"p" * 16, self.successResultOf(asked).provider)
            else:
                self.failureResultOf(asked, ContextMismatch)


class LogInTests(CommandCase):
    """The first log-in of a command."""

    def log_in(self, door: Door, retry: str = "5m") -> Deferred[Any]:
        self.clock = Clock()
        settings = resolve(**{**NOTHING, "tenant": "acme", "retry": retry})
        asking = log_in(
            self.clock,
            settings,
            door,  # type: ignore[arg-type]
            Password(b"secret"),
            Interrupt(),
        )
        return Deferred.fromCoroutine(asking)

    def test_again(self) -> None:
        """Where the provider has answered and the line breaks then, it is tried again."""
        door = Door(True, Truncated("cut"), NotReachable("not up yet"))
        asked = self.log_in(door)
        self.clock.pump([1.0] * 10)
        self.assertEqual("in", self.successResultOf(asked))
        self.assertEqual(3, door.asked)

    def test_not_there(self) -> None:
        """One that never answered is told at once, and so is where nothing is to be retried."""
        self.failureResultOf(self.log_in(Door(False, NotReachable("refused"))), NotReachable)
        self.failureResultOf(self.log_in(Door(True, Truncated("cut")), "0s"), Truncated)

    def test_refused(self) -> None:
        """A login that is refused is not tried a second time."""
        door = Door(True, Truncated("cut"), LoginRefused("no"))
        asked = self.log_in(door)
        self.clock.pump([1.0] * 10)
        self.failureResultOf(asked, LoginRefused)
        self.assertEqual(2, door.asked)

    def test_not_for_ever(self) -> None:
        """It is given up after a minute."""
        door = Door(True, *(Truncated("cut") for _ in range(100)))
        asked = self.log_in(door)
        # In small steps: a clock that goes by the second makes each pause longer by part of one.
        self.clock.pump([0.02] * int((LOG_IN_SECONDS + 1) / 0.02))
        self.failureResultOf(asked, NotReachable, Truncated)
