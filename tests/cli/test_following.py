"""Tests of :mod:`cloudconnect.cli.following`: what a tenant's command notes by itself."""

from __future__ import annotations

import os
import time
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed

from cloudconnect.cli.console import Console
from cloudconnect.cli.following import PINS_MAX, follow, moved
from cloudconnect.cli.tenant import TenantSettings
from cloudconnect.commands.notice import Notice
from cloudconnect.config.profile import Profile, load, save
from cloudconnect.tenant.control import Account
from tests.cli.commands import CommandCase

OLD, NEW = (f"SPKI-SHA256:{pair * 32}" for pair in ("ab", "cd"))
PROVIDER = b"p" * 16
DAY = 86400.0


class Manager:
    """A line to a provider."""

    def __init__(self, ends: float) -> None:
        self.certificate_ends = ends
        self.known: tuple[str, ...] = ()

    def notice_taken(self, host: str, pins: Any) -> Deferred[None]:
        self.known = tuple(pins)
        return succeed(None)


class FollowingTests(CommandCase):
    """With a saved profile."""

    def setUp(self) -> None:
        super().setUp()
        self.profile = Profile(
            provider="a.example.com",
            tenant="acme",
            fingerprints=(OLD,),
            provider_id=PROVIDER.hex(),
        )
        save(os.environ, "default", self.profile)
        self.manager = Manager(time.time() + 100 * DAY)

    def saved(self) -> Profile:
        saved = load(os.environ, "default")
        assert saved is not None
        return saved

    def follow(self, notice: Notice, profile: Profile | None = None, **account: Any) -> str:
        """What is said of a notice."""
        self.fresh_output()
        settings = TenantSettings(
            profile=profile or self.saved(),
            profile_name="default",
            console=Console(),
            debug=False,
        )
        answer = attrs.evolve(Account(PROVIDER, b"", (), False, notice), **account)
        self.successResultOf(
            Deferred.fromCoroutine(follow(settings, self.manager, answer))  # type: ignore[arg-type]
        )
        return self.err.text()

    def test_pin(self) -> None:
        """The next pin goes into the profile beside the old one, is said once, and answered."""
        self.assertIn(NEW, self.follow(Notice(pins=(NEW,))))
        self.assertEqual((OLD, NEW), self.saved().fingerprints)
        self.assertEqual((NEW,), self.manager.known)
        self.assertEqual("", self.follow(Notice(pins=(NEW,))))
        self.assertEqual(
            0o600, (self.home / ".config/cloudconnect/default.toml").stat().st_mode & 0o777
        )

    def test_many(self) -> None:
        """However many keys a provider has in its life, a profile holds the newest."""
        for number in range(PINS_MAX + 3):
            self.follow(Notice(pins=(f"SPKI-SHA256:{number:064x}",)))
        pins = self.saved().fingerprints
        self.assertEqual(PINS_MAX, len(pins))
        self.assertEqual(f"SPKI-SHA256:{PINS_MAX + 2:064x}", pins[-1])

    def test_no_pins(self) -> None:
        """Who checks by an authority needs no pin: none is added, which would change the policy."""
        save(os.environ, "default", attrs.evolve(self.profile, fingerprints=()))
        self.assertEqual("", self.follow(Notice(pins=(NEW,))))
        self.assertEqual((), self.saved().fingerprints)
        self.assertEqual((NEW,), self.manager.known)

    def test_by_option(self) -> None:
        """Who gives pins as options is told which one to give too, and does not know it yet."""
        said = self.follow(Notice(pins=(NEW,)), provider=b"q" * 16)
        self.assertIn("--fingerprint", said)
        self.assertEqual((OLD,), self.saved().fingerprints)
        self.assertEqual((), self.manager.known)

    def test_address(self) -> None:
        """The next address stands in the profile until the provider is found there."""
        said = self.follow(Notice(address="b.example.com:6180"))
        self.assertIn("b.example.com:6180", said)
        self.assertEqual("b.example.com:6180", self.saved().next_provider)
        self.assertEqual("a.example.com", self.saved().provider)
        self.assertEqual("", self.follow(Notice(address="b.example.com:6180")))
        settings = TenantSettings(
            profile=self.saved(), profile_name="default", console=Console(), debug=False
        )
        moved(settings, Account(PROVIDER, b"", ()))
        self.assertEqual("b.example.com:6180", self.saved().provider)
        self.assertEqual("", self.saved().next_provider)

    def test_end(self) -> None:
        """The certificate's end is told 30, 14 and 3 days before, once each; then always."""
        told = []
        self.manager.certificate_ends = 4e9
        for days in (40, 29, 28, 13, 12, 2, 1):
            self.patch(time, "time", lambda days=days: 4e9 - days * DAY - 60)
            if "expires on" in self.follow(Notice()):
                told.append(days)
        self.assertEqual([29, 13, 2, 1], told)
