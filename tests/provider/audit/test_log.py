"""Tests of :mod:`cloudconnect.provider.audit.log`:
the chain, and what is found when it is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import LocalError
from cloudconnect.provider.audit import chain as chain_module
from cloudconnect.provider.audit import log as log_module
from cloudconnect.provider.audit.chain import (
    Entry,
    Head,
    beginning,
    read,
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


class SegmentTests(AuditCase):
    """Segments, and how they are forgotten."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(log_module, "SEGMENT_MAX", 1)  # each append begins another one
        for number in range(7, 10):
            self.log.append([Entry(actor="admin", act="act", fields={"what": number})])

    def names(self) -> list[str]:
        return [path.name[7:] for path in segments(self.folder)]

    def heads(self) -> list[Head]:
        """The head behind each line, the first one before all."""
        return [beginning(self.folder), *log_module.heads_of(segments(self.folder)[0])]

    def test_size(self) -> None:
        """A month has as many segments as it needs, and all of them are one chain."""
        self.assertEqual([".jsonl", "-0002.jsonl", "-0003.jsonl", "-0004.jsonl"], self.names())
        self.assertEqual([*range(1, 10)], [entry["number"] for entry in read(self.folder)])
        self.assertEqual((9, []), verify(self.folder, kept_head(self.kept)))
        AuditLog(self.folder, self.kept).append([Entry(actor="admin", act="another process")])
        self.assertEqual((10, []), verify(self.folder, kept_head(self.kept)))

    def test_other_files(self) -> None:
        """What is called otherwise is none of its segments."""
        for name in ("2001-01-abcd.jsonl", "2001-01-00001.jsonl", "abcd-ef.jsonl", "2001-01.txt"):
            (self.folder / name).write_bytes(b"something else\n")
        self.assertEqual(4, len(self.names()))
        self.log.append([Entry(actor="admin", act="goes on")])
        self.assertEqual((10, []), verify(self.folder, kept_head(self.kept)))

    def test_after_the_month(self) -> None:
        """A further segment of a month stands before the next month's."""
        for path in segments(self.folder):
            path.rename(self.folder / f"2001-01{path.name[7:]}")
        self.log.append([Entry(actor="admin", act="another month")])
        self.assertEqual(".jsonl", self.names()[-1])
        self.assertEqual((10, []), verify(self.folder, kept_head(self.kept)))

    def test_forgotten(self) -> None:
        """What is old goes segment by segment, and a line of the log says so of each."""
        self.assertEqual([], self.log.forget(5))
        first = segments(self.folder)[0].name
        self.assertEqual([first], self.log.forget(7 - 1))
        self.assertEqual((4, []), verify(self.folder, kept_head(self.kept)))
        self.assertEqual(6, beginning(self.folder).number)
        (said,) = [entry for entry in read(self.folder) if entry["act"] != "act"]
        self.assertEqual(("service", first), (said["actor"], said["fields"]["segment"]))
        self.assertEqual(2, len(AuditLog(self.folder, self.kept).forget(8)))
        self.assertEqual((4, []), verify(self.folder, kept_head(self.kept)))

    def forgotten_at(self, opening: int) -> None:
        """Just before that opening of a file, two segments are forgotten, whoever reads."""
        real, opened = chain_module._lines, [0]

        def lines(path: Path) -> Iterator[bytes]:
            opened[0] += 1
            if opened[0] == opening:
                self.patch(chain_module, "_lines", real)
                self.log.forget(7)
            return real(path)

        self.patch(chain_module, "_lines", lines)

    def test_forgotten_meanwhile(self) -> None:
        """Whoever follows the chain just then finds nothing wrong; nor does it matter to who only
        reads."""
        for opening in range(1, 6):
            self.forgotten_at(opening)
            self.assertEqual([], self.wrong(), opening)
            self.forgotten_at(opening)
            self.assertIn(9, [entry["number"] for entry in read(self.folder)])
            self.tearDown()
            self.setUp()

    def test_damaged_meanwhile(self) -> None:
        """What is wrong is said also where the log changes all the time; a log that goes away
        again and again is no intact one."""
        path = segments(self.folder)[2]
        path.write_bytes(path.read_bytes().replace(b'"what":8', b'"what":0'))
        real = chain_module._lines

        def lines(path: Path) -> Iterator[bytes]:
            with segments(self.folder)[-1].open("ab") as file:
                file.write(b"\n")
            return real(path)

        self.patch(chain_module, "_lines", lines)
        self.assertNotEqual([], self.wrong())

        def gone(path: Path) -> Iterator[bytes]:
            raise FileNotFoundError(2, "gone")

        self.patch(chain_module, "_lines", gone)
        self.assertRaises(LocalError, self.wrong)

    def size(self) -> int:
        return sum(path.stat().st_size for path in segments(self.folder))

    def test_bound(self) -> None:
        """While all segments have too many bytes the oldest ones go, at once and whenever another
        one begins, and a line says so of each."""
        first = segments(self.folder)[0].name
        self.assertEqual([], self.log.bound(self.size()))
        before = self.size()
        self.assertEqual([first], self.log.bound(before - 1))
        self.assertEqual(6, beginning(self.folder).number)
        self.assertEqual([], self.wrong())
        self.patch(log_module, "SEGMENT_MAX", 4000)
        limit = 20_000
        self.log.bound(limit)
        for number in range(60):
            self.log.append([Entry(actor="admin", act="act", fields={"more": number})] * 5)
            self.assertLess(self.size(), limit + 4000)
            self.assertEqual([], self.wrong())
        self.assertGreater(self.size(), limit - 8000)
        gone = self.log.bound(limit)
        self.assertGreater(len(gone), 5)
        self.assertEqual([], self.log.bound(limit))
        said = [e["fields"] for e in read(self.folder) if e["act"] == log_module.FORGOTTEN]
        self.assertEqual({"size"}, {fields["why"] for fields in said})
        self.assertEqual(gone[-1], said[-1]["segment"])
        AuditLog(self.folder, self.kept).append([Entry(actor="admin", act="another process")])
        self.assertEqual([], self.wrong())

    def test_no_bound(self) -> None:
        """0 is any number of bytes; and the newest segment never goes, however large it is."""
        self.log.bound(0)
        self.log.append([Entry(actor="admin", act="act")])
        self.assertEqual(1, beginning(self.folder).number + 1)
        self.patch(log_module, "SEGMENT_MAX", 1 << 20)
        self.log.bound(1)
        self.assertEqual(1, len(segments(self.folder)))
        self.assertEqual([], self.wrong())

    def test_bound_and_damaged(self) -> None:
        """A damaged segment stays, however large the log is, and what comes is written."""
        self.log.bound(self.size())
        path = segments(self.folder)[0]
        path.write_bytes(path.read_bytes().replace(b'"what":3', b'"what":4'))
        head = self.log.append([Entry(actor="admin", act="act")])
        self.assertEqual(head, kept_head(self.kept))
        self.assertTrue(path.exists())
        self.assertRaises(OSError, self.log.bound, 1)

    def test_newest_stays(self) -> None:
        """The segment that is written never goes."""
        self.patch(log_module, "SEGMENT_MAX", 1 << 20)
        self.assertEqual(3, len(self.log.forget(10_000)))
        self.assertEqual([], self.wrong())

    def test_cut_off(self) -> None:
        """Segments that somebody has removed are found, also where others were forgotten before,
        and nothing is forgotten behind them: that would say that all is well."""
        before = segments(self.folder)
        before[0].unlink()
        (problem,) = self.wrong()
        self.assertIn("lines 1 to 6 are missing", problem)
        self.assertRaises(OSError, self.log.forget, 8)
        self.assertTrue(before[1].exists())

    def test_cut_off_later(self) -> None:
        """So it is where others were forgotten before."""
        self.log.forget(6)
        segments(self.folder)[0].unlink()
        self.assertIn("lines 1 to 7 are missing", self.wrong()[0])
        self.assertRaises(OSError, self.log.forget, 100)

    def test_touched(self) -> None:
        """A segment in which a line was changed stays: it is evidence."""
        path = segments(self.folder)[0]
        path.write_bytes(path.read_bytes().replace(b'"what":3', b'"what":4'))
        self.assertRaises(OSError, self.log.forget, 100)
        self.assertTrue(path.exists())

    def test_killed(self) -> None:
        """Who is killed between saying that a segment goes and its going leaves a whole chain."""
        path = segments(self.folder)[0]
        whole = path.read_bytes()
        self.log.forget(6)
        path.write_bytes(whole)
        self.assertEqual([], self.wrong())
        self.assertEqual(1, len(AuditLog(self.folder, self.kept).forget(6)))
        self.assertEqual([], self.wrong())

    def test_against(self) -> None:
        """With a head that was written down elsewhere the beginning is compared; of one before it
        nothing can be said, and one that was another is found."""
        heads = self.heads()
        self.log.forget(6)
        self.assertEqual([], self.wrong(heads[6]))
        self.assertIn("forgotten: nothing to compare", self.wrong(heads[3])[0])
        self.assertNotEqual([], self.wrong(Head(6, heads[5].digest)))

    def test_who_says_so(self) -> None:
        """Only the log's own word counts: what is called so by others does not hide a cut."""
        fields = {"last": str(self.heads()[6])}
        for actor, act in (("admin", log_module.FORGOTTEN), ("source-mover", "x")):
            self.log.append([Entry(actor=actor, act=act, fields=fields)])
        segments(self.folder)[0].unlink()
        self.assertNotEqual([], self.wrong())
