"""Tests of :mod:`cloudconnect.cli.provider_wan`; the running provider is in the stories."""

from __future__ import annotations

from typing import Any

import attrs

from cloudconnect.accelerator.room import cache_folder
from cloudconnect.cache.blocks import BlockCache
from cloudconnect.cache.keys import read_node_key
from cloudconnect.cli import provider_wan
from cloudconnect.cli.provider_wan import seed_text
from cloudconnect.commands.admin import Seed
from cloudconnect.config.provider import load
from tests.cli.test_provider import DirectoryCase
from tests.dedup.pairs import noise

RESULT = {
    "points": 2,
    "points_total": 3,
    "chunks": 70,
    "bytes_plain": 9_000_000,
    "bytes_added": 8_000_000,
    "damaged": 0,
    "complete": True,
    "seconds": 1.5,
    "limit": 3 << 30,
    "cache": 8_100_000,
}


class WANCase(DirectoryCase):
    """A test with two tenants, while no provider runs."""

    def setUp(self) -> None:
        super().setUp()
        for name in ("acme", "other"):
            self.assertEqual(0, self.call("provider", "tenant", "add", name, *self.where).status)

    def wan(self, *words: str) -> Any:
        return self.call("provider", "wan", *words, *self.where)


class ShowTests(WANCase):
    """``provider wan show``."""

    def test_show(self) -> None:
        """Who has a cache is listed, with what it holds."""
        self.assertEqual(
            (0, []), (self.wan("show", "--json").status, self.wan("show", "--json").lines())
        )
        settings = load(self.directory)
        caches = settings.directory / settings.wan_caches
        caches.mkdir()
        node = read_node_key(settings.node_key, make=True)
        cache = BlockCache(cache_folder(caches, "other"), "other", node, 1 << 30)
        appender = cache.appender()
        appender.append(b"n" * 32, noise(50_000))
        appender.close()
        cache.close()
        (row,) = self.wan("show", "--json").lines()
        self.assertEqual(("other", 1), (row["tenant"], row["blocks"]))
        self.assertGreater(row["bytes"], 50_000)
        self.assertRegex(self.wan("show").out, r"^other  \S+ kB  1 blocks\n$")

    def test_turned_off(self) -> None:
        """Where the admin wants no accelerator, that is said."""
        off = attrs.evolve(load(self.directory), wan_cache_gb=0)
        self.patch(provider_wan, "load", lambda directory: off)
        self.assertIn("wan_cache_gb is 0", self.wan("show").err)


class SeedTests(WANCase):
    """``provider wan seed``."""

    def seeded(self, **changes: Any) -> None:
        """Have the provider answer; what it is asked is kept."""
        self.asked: list[tuple[Any, ...]] = []

        class Acts:
            async def call(inner, command: Any, **values: Any) -> dict[str, Any]:
                self.assertIs(Seed, command)
                self.asked.append(tuple(values.values()))
                return {"result": {**RESULT, **changes}}

        def administrate(directory: Any, work: Any, debug: bool) -> Any:
            coroutine = work(Acts())
            try:
                coroutine.send(None)
            except StopIteration as done:
                return done.value
            raise AssertionError("it waits")

        self.patch(provider_wan, "administrate", administrate)

    def test_not_running(self) -> None:
        """Where no provider runs, it says that one must."""
        done = self.wan("seed", "acme")
        self.assertEqual(1, done.status)
        self.assertIn("no provider runs", done.err)

    def test_asked(self) -> None:
        """Tenant, host, job and limit arrive; the summary has the counts."""
        self.seeded()
        done = self.wan("seed", "acme", "--host", "h", "--job", "j", "--limit", "2kB", "--json")
        self.assertEqual([("acme", "h", "j", 2000)], self.asked)
        (summary,) = done.lines()
        self.assertEqual({"message_type": "summary", "tenant": "acme", **RESULT}, summary)
        self.wan("seed", "acme")
        self.assertEqual([("acme", "", "", 0)], self.asked[1:])

    def test_full(self) -> None:
        """That not all had room is said."""
        self.seeded(complete=False)
        done = self.wan("seed", "acme")
        self.assertEqual(0, done.status)
        self.assertIn("was full before", done.err)

    def test_damaged(self) -> None:
        """Damaged chunks end it with status 20, and the way to look."""
        self.seeded(damaged=3)
        done = self.wan("seed", "acme")
        self.assertEqual(20, done.status)
        self.assertIn("3 chunks are damaged", done.err)
        self.assertIn("scrub", done.err)

    def test_text(self) -> None:
        """A person reads the points, the bytes and the time."""
        text = seed_text("acme", RESULT)
        for words in ("acme", "2 of 3", "70 chunks", "9.0 MB", "8.0 MB", "1.5 s"):
            self.assertIn(words, text)
