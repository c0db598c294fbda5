"""Tests of :mod:`cloudconnect.provider.audit.chain`: what is found when a line is touched."""

from __future__ import annotations

import json

from cloudconnect.errors import UsageError
from cloudconnect.provider.audit.chain import (
    ITEMS_MAX,
    LINE_MAX,
    Entry,
    Head,
    bounded,
    read,
    verify,
)
from cloudconnect.provider.audit.log import AuditLog, kept_head
from tests.provider.audit.test_log import AuditCase, Kept


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


class LineTests(AuditCase):
    """Single lines."""

    def test_bounded(self) -> None:
        """However much an act carries, its line stays short; what is no JSON is named by type."""
        fields = {"list": ["x" * 10_000] * 10_000, "map": {str(n): n for n in range(10_000)}}
        self.log.append([Entry(actor="admin", act="act", fields=fields)])
        self.assertLess(max(map(len, self.lines())), LINE_MAX)
        self.assertEqual([], self.wrong())
        self.assertEqual(["(object)", "6162"], bounded([object(), b"ab"]))
        self.assertEqual(ITEMS_MAX + 1, len(bounded(list(range(1000)))))

    def test_head(self) -> None:
        """A head is written as a text and read again; what is none is refused."""
        head = kept_head(self.kept)
        self.assertEqual(head, Head.parse(str(head)))
        self.assertEqual(6, json.loads(self.lines()[-1])["number"])
        for text in ("", "6", f"6:{'0' * 63}", f"x:{'0' * 64}", f"6:{'g' * 64}"):
            self.assertRaises(UsageError, Head.parse, text)
