"""Tests of :mod:`cloudconnect.provider.audit.log`:
the chain, and what is found when it is touched.
"""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.audit.chain import (
    Entry,
    Head,
    segments,
    verify,
)
from cloudconnect.provider.audit.log import HEAD, AuditLog, kept_head


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

    def test_private(self) -> None:
        """Nobody else may read the log."""
        self.assertEqual(0o600, self.path.stat().st_mode & 0o777)
        self.assertEqual(0o700, self.folder.stat().st_mode & 0o777)
