"""Tests of :mod:`cloudconnect.provider.audit`: the chain, and what is found when it is touched."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.provider.audit import (
    HEAD,
    ITEMS_MAX,
    LINE_MAX,
    AuditLog,
    Entry,
    Head,
    bounded,
    kept_head,
    read,
    segments,
    verify,
)


class Kept(dict[str, bytes]):
    """Keeps heads in memory."""

    def value(self, name: str) -> bytes | None:
        return self.get(name)

    def keep_value(self, name: str, value: bytes) -> None:
        self[name] = value


class AuditCase(SynchronousTestCase):
    """A test with a log of some lines."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.kept = Kept()
        self.log = AuditLog(self.folder, self.kept)
        for number in range(1, 7):
            self.log.append([Entry(actor="admin", act="act", fields={"what": number})])

    @property
    def path(self) -> Path:
        (path,) = segments(self.folder)
        return path

    def lines(self) -> list[bytes]:
        return self.path.read_bytes().splitlines(keepends=True)

    def wrong(self, against: Head | None = None) -> list[str]:
        return verify(self.folder, kept_head(self.kept), against)[1]


class ChainTests(AuditCase):
    """What is found."""

    def test_intact(self) -> None:
        """What was written is read again in order, and nothing is wrong with it."""
        self.assertEqual((6, []), verify(self.folder, kept_head(self.kept)))
        self.assertEqual(
            list(range(1, 7)), [entry["fields"]["what"] for entry in read(self.folder)]
        )

    def test_changed(self) -> None:
        """A line of which any octet was changed is found, the last one too."""
        whole = self.path.read_bytes()
        ends = [i for i, octet in enumerate(whole) if octet == 10]
        for place in [*range(0, len(whole), 97), *(end - 2 for end in ends)]:
            changed = bytearray(whole)
            changed[place] ^= 1
            self.path.write_bytes(changed)
            self.assertNotEqual([], self.wrong(), place)

    def test_removed(self) -> None:
        """A line that was taken out is found, wherever it stood; so are several at the end."""
        lines = self.lines()
        for number in range(len(lines)):
            self.path.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
            self.assertNotEqual([], self.wrong(), number)
            self.path.write_bytes(b"".join(lines[:number]))
            self.assertNotEqual([], self.wrong(), number)
        self.path.unlink()
        self.assertNotEqual([], self.wrong())

    def test_reordered(self) -> None:
        """Two lines that changed places are found, and one that stands there twice."""
        lines = self.lines()
        for number in range(len(lines) - 1):
            moved = lines[:]
            moved[number : number + 2] = reversed(moved[number : number + 2])
            self.path.write_bytes(b"".join(moved))
            self.assertNotEqual([], self.wrong(), number)
        self.path.write_bytes(b"".join([*lines, lines[-1]]))
        self.assertNotEqual([], self.wrong())

    def test_rewritten(self) -> None:
        """Another history that holds together is found by the kept head, or one kept elsewhere."""
        noted = kept_head(self.kept)
        self.path.unlink()
        other = Kept()
        log = AuditLog(self.folder, other)
        for number in range(1, 8):
            log.append([Entry(actor="admin", act="act", fields={"what": -number})])
        self.assertNotEqual([], self.wrong())
        self.kept = other
        self.assertEqual([], self.wrong())
        self.assertNotEqual([], self.wrong(noted))

    def test_cut_and_continued(self) -> None:
        """Lines that are missing stay missing, also when more is written behind them."""
        self.path.write_bytes(b"".join(self.lines()[:3]))
        self.log.append([Entry(actor="admin", act="later")])
        AuditLog(self.folder, self.kept).append([Entry(actor="admin", act="later still")])
        self.assertNotEqual([], self.wrong())


class WritingTests(AuditCase):
    """How lines are added."""

    def test_two_writers(self) -> None:
        """Two processes that write in turn make one chain."""
        other = AuditLog(self.folder, self.kept)
        for log in (other, self.log, other, other, self.log):
            log.append([Entry(actor="admin", act="act"), Entry(actor="admin", act="act")])
        self.assertEqual((16, []), verify(self.folder, kept_head(self.kept)))

    def test_head_behind(self) -> None:
        """After a crash between a line and its head, the chain goes on behind the line."""
        before = self.kept[HEAD]
        self.log.append([Entry(actor="admin", act="the last before the crash")])
        self.kept[HEAD] = before
        AuditLog(self.folder, self.kept).append([Entry(actor="admin", act="the first after it")])
        self.assertEqual((8, []), verify(self.folder, kept_head(self.kept)))

    def test_torn(self) -> None:
        """A line that a crash has left half written, and that no head names, is dropped."""
        with self.path.open("ab") as file:
            file.write(b'{"act":"ha')
        AuditLog(self.folder, self.kept).append([Entry(actor="admin", act="after the crash")])
        self.assertEqual((7, []), verify(self.folder, kept_head(self.kept)))

    def test_months(self) -> None:
        """The chain goes on from one month's file to the next, and a missing file is found."""
        first = self.folder / "2001-01.jsonl"
        self.path.rename(first)
        self.log.append([Entry(actor="admin", act="another month")])
        self.assertEqual(2, len(segments(self.folder)))
        self.assertEqual((7, []), verify(self.folder, kept_head(self.kept)))
        first.unlink()
        self.assertNotEqual([], self.wrong())

    def test_bounded(self) -> None:
        """However much an act carries, its line stays short; what is no JSON is named by type."""
        fields = {"list": ["x" * 10_000] * 10_000, "map": {str(n): n for n in range(10_000)}}
        self.log.append([Entry(actor="admin", act="act", fields=fields)])
        self.assertLess(max(map(len, self.lines())), LINE_MAX)
        self.assertEqual([], self.wrong())
        self.assertEqual(["(object)", "6162"], bounded([object(), b"ab"]))
        self.assertEqual(ITEMS_MAX + 1, len(bounded(list(range(1000)))))

    def test_private(self) -> None:
        """Nobody else may read the log."""
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assertEqual(0o700, self.folder.stat().st_mode & 0o777)

    def test_head(self) -> None:
        """A head is written as a text and read again; what is none is refused."""
        head = kept_head(self.kept)
        self.assertEqual(head, Head.parse(str(head)))
        self.assertEqual(6, json.loads(self.lines()[-1])["number"])
        for text in ("", "6", f"6:{'0' * 63}", f"x:{'0' * 64}", f"6:{'g' * 64}"):
            self.assertRaises(UsageError, Head.parse, text)
