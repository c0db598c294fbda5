"""Tests of :mod:`cloudconnect.cli.points`: which point is meant, and how things are shown."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.cli.points import (
    entry_line,
    entry_map,
    find_point,
    is_below,
    point_line,
    point_lines,
)
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import NotFound, UsageError
from cloudconnect.tenant.agreement import Agreement
from tests.cli.commands import CommandCase


def row(point: str, time: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A point as the provider lists it."""
    return {
        "point": point.ljust(32, "0"),
        "arrival": int(time),
        "time": time,
        "host": "here",
        "job": "default",
        "tags": [],
        "statistics": {"files": 3, "bytes_source": 5000, "bytes_new": 1000},
        **changes,
    }


class Line:
    """A line to a provider that lists these points."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)
        self.manager = self
        self.agreed: Agreement | None = None

    async def points(
        self,
        host: str = "",
        job: str = "",
        tag: str = "",
        states: tuple[str, ...] = ("published",),
    ) -> list[dict[str, Any]]:
        rows = [r for r in self.rows if r.get("state", "published") in states]
        return [r for r in rows if host in ("", r["host"]) and job in ("", r["job"])]

    async def agreement(self) -> Agreement | None:
        return self.agreed


class FindTests(CommandCase):
    """Which restore point a person means."""

    def setUp(self) -> None:
        super().setUp()
        self.environment["CLOUDCONNECT_HOST"] = "here"

    def find(self, line: Line, wanted: str, **options: Any) -> Any:
        finding = Deferred.fromCoroutine(find_point(line, wanted, **options))  # type: ignore
        return self.successResultOf(finding)["point"].rstrip("0")

    def refused(self, line: Line, wanted: str, kind: Any, **options: Any) -> str:
        finding = Deferred.fromCoroutine(find_point(line, wanted, **options))  # type: ignore
        return str(self.failureResultOf(finding, kind).value)

    def test_latest(self) -> None:
        """Latest is the newest of this machine, whatever others have."""
        line = Line(row("a", 1), row("b", 2), row("c", 3, host="there"))
        self.assertEqual("b", self.find(line, "latest"))
        self.assertEqual("c", self.find(line, "latest", host="there"))

    def test_latest_of_jobs(self) -> None:
        """Of several jobs one must be named: points of another job are other files."""
        line = Line(row("a", 1), row("b", 2, job="photos"))
        self.assertIn("photos", self.refused(line, "latest", UsageError))
        self.assertEqual("a", self.find(line, "latest", job="default"))

    def test_latest_until(self) -> None:
        """The newest one of a moment, itself included."""
        line = Line(row("a", 1), row("b", 2), row("c", 3))
        self.assertEqual("b", self.find(line, "latest", until=2.0))
        self.refused(line, "latest", NotFound, until=0.5)

    def test_other_machines(self) -> None:
        """Where only others have points they are named."""
        line = Line(row("a", host="there"))
        self.assertIn("there", self.refused(line, "latest", NotFound))
        self.assertIn("nowhere", self.refused(line, "latest", NotFound, host="nowhere"))
        here = Line(row("a"))
        self.assertIn("here and job photos", self.refused(here, "latest", NotFound, job="photos"))
        self.refused(Line(), "latest", NotFound)

    def test_digits(self) -> None:
        """The first digits of an id, of either case, if they are of one point only."""
        line = Line(row("abc1"), row("abd2", host="there"))
        self.assertEqual("abd2", self.find(line, "ABD"))
        self.assertIn("2", self.refused(line, "ab", UsageError))
        self.assertIn("xyz", self.refused(line, "xyz", NotFound))


class ListTests(CommandCase):
    """The listing."""

    def test_last(self) -> None:
        """The newest of those that are asked for, which are last."""
        self.environment["CLOUDCONNECT_HOST"] = "here"
        line = Line(*(row(f"a{n}", n, job="odd" if n % 2 else "even") for n in range(6)))

        def on_line(settings: Any, work: Any, passphrase: bool = True) -> Any:
            return self.successResultOf(Deferred.fromCoroutine(work(line, None)))

        self.patch(sys.modules["cloudconnect.cli.points"], "on_line", on_line)
        words = ("points", "--provider", "x", "--tenant", "t", "--json")
        for options, expected in (
            (("--last", "2"), ["a4", "a5"]),
            (("--last", "2", "--job", "even"), ["a2", "a4"]),
            (("--last", "99", "--job", "odd"), ["a1", "a3", "a5"]),
        ):
            lines = self.call(*words, *options).lines()
            self.assertEqual(expected, [found["point"].rstrip("0") for found in lines])
        self.assertEqual(2, self.call(*words, "--last", "0").status)


class ShownTests(CommandCase):
    """How points and entries are shown."""

    def test_point(self) -> None:
        """A point is one line with what it is found by and how much it is."""
        line = point_line(row("abcdef0123", tags=["one", "two"]))
        for part in ("abcdef01", "here/default", "3 files", "5.0 kB", "1.0 kB new", "[one, two]"):
            self.assertIn(part, line)

    def test_point_is_safe(self) -> None:
        """Whatever the provider says of it, it is one line and moves no cursor."""
        evil = "x\x1b[2J\r\n\x9b"
        line = point_line(row("ab", host=evil, job=evil, tags=[evil]))
        self.assertTrue(line.isprintable())

    def test_points_are_aligned(self) -> None:
        """In a list, what belongs together stands below each other."""
        counts = {"files": 1_000_000, "bytes_source": 9_000_000_000, "bytes_new": 7}
        lines = point_lines([row("a"), row("b", host="a-longer-name", statistics=counts)])
        for word in ("files,", " new"):
            self.assertEqual(lines[0].index(word), lines[1].index(word), lines)
        self.assertEqual(lines[0].index("here/"), lines[1].index("a-longer"), lines)

    def test_points_of_tenants(self) -> None:
        """Whose they are stands in front, and the rest is aligned all the same."""
        lines = point_lines([row("a"), row("b")], ["acme", "a-longer-name"])
        self.assertEqual(["acme", "a-longer-name"], [line.split()[0] for line in lines])
        for word in ("here/", "files,", " new"):
            self.assertEqual(lines[0].index(word), lines[1].index(word), lines)
        self.assertEqual([], point_lines([], []))

    def entry(self, **changes: Any) -> Entry:
        fields: dict[str, Any] = {
            "path": b"/home/a",
            "type": EntryType.FILE,
            "mode": 0o640,
            "uid": 1000,
            "gid": 100,
            "user": "me",
            "group": "",
            "mtime_ns": 1_700_000_000_000_000_000,
            "size": 0,
        }
        return Entry(**{**fields, **changes})

    def test_entry(self) -> None:
        """An entry looks as ls -l shows it: mode, owner by name or number, size, time, name."""
        line = entry_line(self.entry())
        self.assertTrue(line.startswith("-rw-r-----"), line)
        self.assertIn("me/100", line)
        self.assertTrue(line.endswith("/home/a"), line)

    def test_human_sizes(self) -> None:
        """Sizes in bytes, or as people read them."""
        entry = self.entry(size=1_500_000, runs=(Run(None, 0, 1_500_000),))
        self.assertIn(" 1500000 ", entry_line(entry))
        self.assertIn(" 1.5 MB ", entry_line(entry, human=True))

    def test_further_name(self) -> None:
        """A hard link says what it is another name of."""
        entry = self.entry(link=b"/home/first", size=5)
        self.assertTrue(entry_line(entry).endswith("/home/a (another name of /home/first)"))
        self.assertEqual("/home/first", entry_map(entry)["link"])

    def test_types(self) -> None:
        """Each type has its letter; a link shows where it leads."""
        needs: dict[EntryType, dict[str, Any]] = {
            EntryType.SYMLINK: {"target": b"x"},
            EntryType.CHARACTER: {"device": 1},
            EntryType.BLOCK: {"device": 1},
        }
        letters = {
            kind: entry_line(self.entry(type=kind, **needs.get(kind, {})))[0] for kind in EntryType
        }
        self.assertEqual(len(EntryType), len(set(letters.values())))
        link = entry_line(self.entry(type=EntryType.SYMLINK, target=b"../b"))
        self.assertTrue(link.startswith("l") and link.endswith("/home/a -> ../b"), link)

    def test_entry_is_safe(self) -> None:
        """Odd names and targets are escaped for a person, and exact for a program."""
        entry = self.entry(path=b"/a\x1b\xff\n", type=EntryType.SYMLINK, target=b"\x07")
        self.assertTrue(entry_line(entry).isprintable())
        fields = entry_map(entry)
        self.assertEqual(b"/a\x1b\xff\n", fields["path"].encode("utf-8", "surrogateescape"))
        self.assertEqual("\x07", fields["target"])

    def test_below(self) -> None:
        """What is in a folder, and not what merely begins like it."""
        for path, top, wanted in (
            (b"/a", b"/a", True),
            (b"/a/b", b"/a", True),
            (b"/ab", b"/a", False),
            (b"/a", b"/a/b", False),
            (b"/a", b"", True),
        ):
            self.assertEqual(wanted, is_below(path, top), (path, top))
