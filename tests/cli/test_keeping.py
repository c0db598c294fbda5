"""Tests of :mod:`cloudconnect.cli.keeping`: what is asked, done and said of restore points."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred

import cloudconnect.cli.keeping
from cloudconnect.config.profile import Profile, save
from tests.cli.commands import CommandCase, Done
from tests.cli.test_points import Line, row

module = sys.modules[cloudconnect.cli.keeping.__name__]


class ToldLine(Line):
    """A line whose provider does what it is asked.

    :ivar acts: what that was
    """

    def __init__(self, *rows: dict[str, Any]) -> None:
        super().__init__(*rows)
        self.acts: list[tuple[Any, ...]] = []
        self.locked = 0.0

    def _became(self, points: list[bytes], **changes: Any) -> list[dict[str, Any]]:
        state = {"state": "published", "bin_until": None, "locked_until": None}
        return [{"point": point.hex(), **state, **changes} for point in points]

    async def delete_points(self, points: list[bytes]) -> list[dict[str, Any]]:
        self.acts.append(("delete", *points))
        return self._became(points, state="deleted", bin_until=2_000_000_000.0)

    async def undelete_points(self, points: list[bytes]) -> list[dict[str, Any]]:
        self.acts.append(("undelete", *points))
        return self._became(points)

    async def lock_points(self, points: list[bytes], until: int) -> list[dict[str, Any]]:
        self.acts.append(("lock", until, *points))
        return self._became(points, locked_until=max(float(until), self.locked))


class KeepingCase(CommandCase):
    """A test with a profile, and a line that is in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["CLOUDCONNECT_HOST"] = "here"
        save(self.environment, "default", Profile(provider="p.example", tenant="acme"))
        self.line = ToldLine(row("abc1"), row("abd2"), row("ffff", state="deleted"))
        self.patch(module, "on_line", self.on_line)

    def on_line(
        self, settings: Any, work: Callable[..., Coroutine[Any, Any, Any]], **options: Any
    ) -> Any:
        self.assertEqual({"passphrase": False}, options)
        doing = Deferred.fromCoroutine(work(self.line, None))
        if doing.called and not isinstance(doing.result, list):
            self.failureResultOf(doing).raiseException()
        return self.successResultOf(doing)

    def on_terminal(self, typed: bytes) -> None:
        stream = io.TextIOWrapper(io.BytesIO(typed))
        stream.isatty = lambda: True  # type: ignore[method-assign]
        self.patch(sys, "stdin", stream)

    def points(self, done: Done) -> list[str]:
        """The points of the JSON lines."""
        self.assertEqual("summary", done.lines()[-1]["message_type"])
        return [line["point"].rstrip("0") for line in done.lines()[:-1]]


class DeleteTests(KeepingCase):
    """Into the bin."""

    def test_says_until_when(self) -> None:
        """Each point is named with where it is and until when; and how it comes back."""
        done = self.call("delete", "abc", "abd", "--yes")
        self.assertEqual(0, done.status, done.err)
        self.assertEqual(1, len(self.line.acts))
        for words in ("abc10000", "here/default", "in the bin until 2033", "undelete abc10000"):
            self.assertIn(words, done.out)

    def test_asks(self) -> None:
        """On a terminal it asks first; without a terminal it must be told."""
        self.assertEqual(2, self.call("delete", "abc").status)
        self.on_terminal(b"n\n")
        self.assertEqual(130, self.call("delete", "abc").status)
        self.assertEqual([], self.line.acts)
        self.on_terminal(b"y\n")
        done = self.call("delete", "abc")
        self.assertEqual(0, done.status)
        self.assertIn("restore point abc into the bin?", done.err)
        self.assertEqual(1, len(self.line.acts))

    def test_json(self) -> None:
        """A line for each point with all that is known of it, the summary last."""
        done = self.call("delete", "abd", "ABC1", "abd2", "--yes", "--json")
        self.assertEqual(["abd2", "abc1"], self.points(done))
        first = done.lines()[0]
        self.assertEqual(("point", "deleted"), (first["message_type"], first["state"]))
        self.assertEqual(("here", 2), (first["host"], done.lines()[-1]["points"]))

    def test_which(self) -> None:
        """An unknown id, one of several points, or latest: nothing is deleted."""
        for word, status in (("eee", 10), ("ab", 2), ("latest", 2), ("", 10)):
            self.assertEqual(status, self.call("delete", "abc", word, "--yes").status, word)
        self.assertEqual([], self.line.acts)


class UndeleteTests(KeepingCase):
    """Out of the bin."""

    def test_by_id(self) -> None:
        """A point in the bin is found by its id like others."""
        done = self.call("undelete", "ff", "--json")
        self.assertEqual(["ffff"], self.points(done))
        self.assertEqual("published", done.lines()[0]["state"])


class LockTests(KeepingCase):
    """Locks."""

    def test_until(self) -> None:
        """A day means its end, in the local zone; the newest point may be meant."""
        done = self.call("lock", "latest", "--until", "2033-05-18", "--json")
        self.assertEqual(["abd2"], self.points(done))
        until = self.line.acts[0][1]
        self.assertTrue(abs(until - 2_000_073_599) <= 14 * 3600)
        self.assertEqual(until, done.lines()[0]["locked_until"])

    def test_of_a_job(self) -> None:
        """Where a machine has several jobs, or another one is meant, latest can be told which."""
        self.line.rows += [row("aaaa", job="other"), row("bbbb", host="there")]
        refused = self.call("lock", "latest", "--until", "2033-05-18")
        self.assertEqual(2, refused.status)
        self.assertIn("give --job", refused.err)
        for words, point in ((("--job", "other"), "aaaa"), (("--host", "there"), "bbbb")):
            done = self.call("lock", "latest", *words, "--until", "2033-05-18", "--json")
            self.assertEqual([point], self.points(done))

    def test_shorter(self) -> None:
        """A lock that ends later stays as it is, and that is said."""
        self.assertNotIn("ends later", self.call("lock", "abc", "--until", "2033-05-18").out)
        self.line.locked = 3e9
        self.assertIn("ends later", self.call("lock", "abc", "--until", "2033-05-18").out)

    def test_past(self) -> None:
        """A day that is over locks nothing."""
        self.assertEqual(2, self.call("lock", "abc", "--until", "2020-01-01").status)
        self.assertEqual([], self.line.acts)
