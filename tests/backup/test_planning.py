"""What a restore will make, before anything is made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import planning
from cloudconnect.backup.drafts import FLAG_LINKED, FLAG_ON_THE_WAY
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, RestoreOptions, RestoreResult
from cloudconnect.backup.planning import Plan, Step
from cloudconnect.backup.target import Target
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.points import PointRecord
from cloudconnect.content.runs import Run
from tests.backup.cases import entry_of, file_of
from tests.backup.trees import OLD_NS, write

RECORD = PointRecord(
    point=bytes(16),
    repository=bytes(16),
    session=bytes(16),
    job_id=bytes(16),
    host="h",
    job="j",
    started_ns=0,
    finished_ns=0,
    mode=EncryptionMode.TENANT,
    manifest=(),
    manifest_length=0,
)


class PlanTests(SynchronousTestCase):
    """Steps from entries."""

    def plan(
        self,
        entries: Iterable[Entry],
        privileged: bool = True,
        target: Target | None = None,
        **options: Any,
    ) -> list[Step]:
        self.result = RestoreResult(record=RECORD)
        listed = list(entries)
        metadata = MetadataWriter(self.result.problems.add, privileged)
        chosen = RestoreOptions(target=b"/t", **options)
        self.planned = Plan(chosen, self.result, metadata)
        self.planned.look_ahead(lambda: listed, target)
        return list(self.planned.steps(listed, target))

    def runs(self, count: int) -> tuple[Run, ...]:
        return tuple(Run(bytes(32), 0, 10) for _ in range(count))

    def test_parts(self) -> None:
        """A step knows where its thing belongs, after stripping."""
        entries = [entry_of(b"/a", EntryType.DIRECTORY), file_of(b"/a/b"), file_of(b"/c")]
        self.assertEqual([s.parts for s in self.plan(entries)], [(b"a",), (b"a", b"b"), (b"c",)])
        steps = self.plan(entries, strip_components=1)
        self.assertEqual([step.parts for step in steps], [(b"b",)])

    def test_root(self) -> None:
        """The root of a whole system is the target itself, and so no step."""
        root = entry_of(b"/", EntryType.DIRECTORY)
        self.assertEqual(self.plan([root]), [])

    def test_long_files(self) -> None:
        """A file of many runs takes several steps, the first and the last of them marked."""
        self.patch(planning, "RUNS_STEP", 3)
        for count, sizes in ((0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (9, [3, 3, 3])):
            steps = self.plan([file_of(b"/x", size=10 * count, runs=self.runs(count))])
            self.assertEqual([len(step.runs) for step in steps], sizes)
            marks = [(step.first, step.last) for step in steps]
            self.assertTrue(marks[0][0] and marks[-1][1])
            self.assertEqual(sum(first for first, _ in marks), 1)
            self.assertEqual(sum(last for _, last in marks), 1)

    def test_folders_on_the_way(self) -> None:
        """Folders that are not chosen are planned, but only in case that they are needed."""
        entries = [
            entry_of(b"/a", EntryType.DIRECTORY, flags=FLAG_ON_THE_WAY),
            entry_of(b"/a/b", EntryType.DIRECTORY),
            entry_of(b"/a/b/c", EntryType.DIRECTORY),
        ]
        self.assertEqual([step.selected for step in self.plan(entries)], [False, True, True])
        steps = self.plan(entries, paths=(b"/a/b/c",))
        self.assertEqual([step.selected for step in steps], [False, False, True])

    def test_devices(self) -> None:
        """Devices are left out, and counted, where they cannot be made."""
        entries = [entry_of(b"/d", EntryType.BLOCK, device=1), entry_of(b"/f", EntryType.FIFO)]
        self.assertEqual(len(self.plan(entries)), 2)
        self.assertEqual([s.parts for s in self.plan(entries, privileged=False)], [(b"f",)])
        self.assertEqual(self.planned.devices, 1)

    def test_links(self) -> None:
        """Names of one file are of one group; the first one that is chosen has the content."""
        entries = [
            file_of(b"/a", size=10, runs=self.runs(1), flags=FLAG_LINKED),
            file_of(b"/b", link=b"/a"),
            file_of(b"/c", link=b"/a"),
        ]
        steps = self.plan(entries)
        self.assertEqual({step.group for step in steps}, {b"/a"})
        self.assertEqual([len(step.runs) for step in steps], [1, 0, 0])
        steps = self.plan(entries, paths=(b"/b", b"/c"))
        self.assertEqual({step.group for step in steps}, {b"/a"})
        self.assertEqual([step.parts for step in steps], [(b"b",), (b"c",)])
        self.assertEqual([len(step.runs) for step in steps], [1, 0])
        self.assertIsNone(steps[0].entry.link)
        self.assertEqual(steps[1].entry.link, b"/a")

    def test_long_linked_files(self) -> None:
        """A name that gets the content in another one's place gets all of it."""
        self.patch(planning, "RUNS_STEP", 3)
        entries = [
            file_of(b"/a", size=100, runs=self.runs(10), flags=FLAG_LINKED),
            file_of(b"/b", link=b"/a"),
        ]
        steps = self.plan(entries, paths=(b"/b",))
        self.assertEqual(sum(len(step.runs) for step in steps), 10)
        self.assertEqual({step.parts for step in steps}, {(b"b",)})

    def test_what_is_there(self) -> None:
        """What is there and stays is not planned, so its content is never asked for."""
        top = os.path.abspath(self.mktemp()).encode()
        write(top + b"/same", b"", mtime_ns=OLD_NS + 1)
        write(top + b"/other", b"", mtime_ns=OLD_NS)
        target = Target(top, create=False)
        self.addCleanup(target.close)
        entries = [file_of(b"/new"), file_of(b"/other"), file_of(b"/same"), file_of(b"/x/new")]
        expected = {
            Overwrite.ALWAYS: [b"/new", b"/other", b"/same", b"/x/new"],
            Overwrite.IF_CHANGED: [b"/new", b"/other", b"/x/new"],
            Overwrite.IF_NEWER: [b"/new", b"/other", b"/x/new"],
            Overwrite.NEVER: [b"/new", b"/x/new"],
        }
        for overwrite, paths in expected.items():
            steps = self.plan(entries, target=target, overwrite=overwrite)
            self.assertEqual([step.entry.path for step in steps], paths)
            self.assertEqual(self.result.kept, 4 - len(paths))

    def test_impossible_names(self) -> None:
        """A path that cannot be made is reported, and the plan goes on."""
        steps = self.plan([file_of(b"/" + b"x" * 256), file_of(b"/y")])
        self.assertEqual([step.parts for step in steps], [(b"y",)])
        self.assertEqual(self.result.problems.count, 1)

    def test_missing(self) -> None:
        """Paths that did not come are known at the end."""
        self.plan([file_of(b"/a")], paths=(b"/a", b"/b"))
        self.assertEqual(self.planned.missing, [b"/b"])
