"""Tests of :mod:`cloudconnect.cli.wan_cache`; seeding itself is in the stories."""

from __future__ import annotations

import os
from typing import Any

from cloudconnect.cli import wan_cache
from cloudconnect.cli.own_cache import OwnCache
from cloudconnect.config.profile import Profile, save
from tests.cli.commands import CommandCase
from tests.dedup.pairs import noise

PROVIDER, REPOSITORY = b"p" * 16, b"r" * 16


class CacheCase(CommandCase):
    """A test with a profile, on a machine with a small cache."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "1"
        self.profile = Profile(
            provider="localhost:1",
            tenant="acme",
            encryption="provider",
            provider_id=PROVIDER.hex(),
            repository=REPOSITORY.hex(),
        )
        save(self.environment, "default", self.profile)

    def fill(self) -> OwnCache:
        """Something in this machine's cache."""
        own = OwnCache.of(PROVIDER, REPOSITORY)
        cache = own.open()
        appender = cache.appender()
        for number in range(10):
            appender.append(number.to_bytes(32, "big"), noise(10_000))
        appender.close()
        cache.close()
        return own


class ShowTests(CacheCase):
    """``wan show``."""

    def test_nothing(self) -> None:
        """Without a cache its place and limit are shown, and nothing is made."""
        done = self.call("wan", "show", "--json")
        own = OwnCache.of(PROVIDER, REPOSITORY)
        (row,) = done.lines()
        self.assertEqual(
            (0, str(own.folder), 0, 0, 1 << 30), (done.status, *list(row.values())[1:])
        )
        self.assertIn("nothing yet", self.call("wan", "show").out)
        self.assertFalse(own.folder.exists())

    def test_something(self) -> None:
        """Its bytes and blocks are counted, without asking the provider."""
        self.fill()
        (row,) = self.call("wan", "show", "--json").lines()
        self.assertEqual(10, row["blocks"])
        self.assertGreater(row["bytes"], 100_000)
        self.assertIn("10 blocks", self.call("wan", "show").out)

    def test_no_profile(self) -> None:
        """Where nobody connected yet, it says what to do."""
        for words in (("show",), ("clear",)):
            save(self.environment, "default", Profile(provider="localhost:1", tenant="acme"))
            done = self.call("wan", *words)
            self.assertEqual(2, done.status)
            self.assertIn("cloudconnect connect", done.err)

    def test_wrong_size(self) -> None:
        """A cache size that is none is a usage error, whatever the command."""
        self.environment["CLOUDCONNECT_WAN_CACHE_GB"] = "much"
        self.assertEqual(2, self.call("wan", "show").status)


class ClearTests(CacheCase):
    """``wan clear``."""

    def test_clear(self) -> None:
        """The cache is gone, its room is told, and a second time there is none."""
        own = self.fill()
        (row,) = self.call("wan", "clear", "--json").lines()
        self.assertGreater(row["bytes_removed"], 100_000)
        self.assertFalse(own.folder.exists())
        (row,) = self.call("wan", "clear", "--json").lines()
        self.assertEqual(0, row["bytes_removed"])
        self.fill()

    def test_in_use(self) -> None:
        """What a session uses is not taken from it."""
        self.fill()
        own = OwnCache.of(PROVIDER, REPOSITORY)
        cache = own.open()
        done = self.call("wan", "clear")
        self.assertEqual(2, done.status)
        self.assertIn("used by another process", done.err)
        self.assertIsNotNone(cache.find((1).to_bytes(32, "big")))
        cache.close()


class SeedTests(CacheCase):
    """``wan seed``, as far as it goes without a provider."""

    def setUp(self) -> None:
        super().setUp()
        self.began: list[object] = []

        def on_line(*arguments: Any) -> Any:
            self.began.append(arguments)
            raise AssertionError("the provider was asked")

        self.patch(wan_cache, "on_line", on_line)

    def test_sealed(self) -> None:
        """In mode ``tenant`` it is refused before anybody is asked, and says why."""
        for mode in ("tenant", ""):
            profile = Profile(provider="localhost:1", tenant="acme", encryption=mode)
            save(self.environment, "default", profile)
            done = self.call("wan", "seed", str(self.home))
            self.assertEqual(2, done.status)
            self.assertIn("sealed", done.err)
        self.assertEqual([], self.began)

    def test_shared(self) -> None:
        """So it is where this machine uses an accelerator that it shares with others."""
        profile = Profile(
            provider="localhost:1", tenant="acme", encryption="none", wan_accelerator="a:6183"
        )
        save(self.environment, "default", profile)
        done = self.call("wan", "seed", str(self.home))
        self.assertEqual(2, done.status)
        self.assertIn("a:6183", done.err)
        self.assertEqual([], self.began)

    def test_nothing_named(self) -> None:
        """At least one path is wanted; a limit is a size."""
        for words in ((), ("--limit", "much", str(self.home))):
            self.assertEqual(2, self.call("wan", "seed", *words).status)
        self.assertEqual([], self.began)

    def test_help(self) -> None:
        """The help says what is worth seeding."""
        text = " ".join(self.call("wan", "seed", "--help").out.split())
        for words in ("EARLIER state", "gains nothing", "Before a restore"):
            self.assertIn(words, text)
        self.assertFalse(os.path.exists(OwnCache.of(PROVIDER, REPOSITORY).folder))
