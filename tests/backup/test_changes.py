"""What changed between two restore points."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cloudconnect.backup import same_content as same_module
from cloudconnect.backup.changes import Change, ChangeKind, DiffResult, DiffRun
from cloudconnect.backup.drafts import FLAG_LINKED, FLAG_ON_THE_WAY
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.repository.store import Repository
from tests.backup.cases import BackupCase, entry_of, file_of
from tests.backup.trees import age_tree, make_odd_tree, write, write_sparse


class DiffCase(BackupCase):
    """Two points, compared."""

    def setUp(self) -> None:
        super().setUp()
        self.changes: list[Change] = []

    def diff(self, first: bytes, second: bytes, top: bytes | None = None) -> DiffResult:
        self.changes.clear()
        arguments = (self.place.keys, self.place.description, (first, second))
        return DiffRun(self.place.open("read"), *arguments, self.changes.append, top).run()

    def shown(self) -> set[tuple[str, bytes]]:
        return {(change.kind.value, change.path[len(self.top) :]) for change in self.changes}

    def of(self, one: Iterable[Entry], two: Iterable[Entry], *contents: bytes) -> DiffResult:
        """Compare points of just these entries."""
        root = entry_of(b"/", EntryType.DIRECTORY)
        points = [self.place.publish([root, *entries], contents) for entries in (one, two)]
        return self.diff(*points)

    def kinds(self) -> list[tuple[str, bytes]]:
        return [(change.kind.value, change.path) for change in self.changes]


class TreeTests(DiffCase):
    """Real trees."""

    def test_same(self) -> None:
        """A tree that has not changed has no changes, whatever is in it."""
        make_odd_tree(self.top + b"/odd")
        first, second = (self.place.backup(self.top) for _ in range(2))
        result = self.diff(first.point, second.point)
        self.assertEqual(self.changes, [])
        self.assertEqual(result.unchanged, first.files + first.directories + first.other)

    def test_all_kinds(self) -> None:
        """Each kind of change is told as what it is, with sizes."""
        for name in (b"same", b"gone", b"mode", b"content", b"grown", b"becomes-a-link"):
            write(self.top + b"/d/" + name, b"content of " + name)
        os.symlink(b"one", self.top + b"/d/target")
        age_tree(self.top)
        first = self.place.backup(self.top).point
        folder = os.stat(self.top + b"/d").st_mtime_ns
        os.unlink(self.top + b"/d/gone")
        os.chmod(self.top + b"/d/mode", 0o600)
        write(self.top + b"/d/content", b"CONTENT OF content")
        write(self.top + b"/d/grown", b"x" * 1000)
        write(self.top + b"/d/new", b"y" * 50)
        for name, target in ((b"becomes-a-link", b"x"), (b"target", b"two")):
            os.unlink(self.top + b"/d/" + name)
            os.symlink(target, self.top + b"/d/" + name)
        os.utime(self.top + b"/d", ns=(folder, folder))
        result = self.diff(first, self.place.backup(self.top).point)
        self.assertEqual(
            self.shown(),
            {
                ("removed", b"/d/gone"),
                ("metadata", b"/d/mode"),
                ("content", b"/d/content"),
                ("content", b"/d/grown"),
                ("added", b"/d/new"),
                ("type", b"/d/becomes-a-link"),
                ("content", b"/d/target"),
            },
        )
        self.assertEqual(result.bytes_added, 50 + 1000 - len(b"content of grown"))
        lost = len(b"content of gone") + len(b"content of becomes-a-link")
        self.assertEqual(result.bytes_removed, lost)
        aspects = {change.path[len(self.top) :]: change.aspects for change in self.changes}
        self.assertEqual(aspects[b"/d/mode"], ("mode",))
        self.assertEqual(aspects[b"/d/grown"][:2], ("content", "size"))
        self.assertEqual(result.counts[ChangeKind.CONTENT], 3)

    def test_neighbours_of_a_changed_file(self) -> None:
        """Small files share chunks: one whose neighbour changed has not changed itself, though it
        lies in other chunks now; its times may tell more."""
        for number in range(50):
            write(self.top + b"/%02d" % number, os.urandom(3000))
        age_tree(self.top)
        first = self.place.backup(self.top).point
        write(self.top + b"/25", os.urandom(2000), mtime_ns=5)
        os.utime(self.top + b"/30", ns=(7, 7))
        os.utime(self.top, ns=(9, 9))
        result = self.diff(first, self.place.backup(self.top).point)
        self.assertEqual(
            self.shown(), {("content", b"/25"), ("metadata", b"/30"), ("metadata", b"")}
        )
        self.assertEqual(result.damaged.count, 0)

    def test_part(self) -> None:
        """Only a path and what is below it; a path that is in neither point is an error."""
        for name in (b"/a/x", b"/a-b", b"/b/y"):
            write(self.top + name, b"one")
        first = self.place.backup(self.top).point
        for name in (b"/a/x", b"/a-b", b"/b/y"):
            write(self.top + name, b"three")
        second = self.place.backup(self.top).point
        self.diff(first, second, self.top + b"/a")
        self.assertEqual(self.shown(), {("content", b"/a/x")})
        self.diff(first, second, self.top + b"/a-b")
        self.assertEqual(self.shown(), {("content", b"/a-b")})
        with self.assertRaises(NotFound):
            self.diff(first, second, self.top + b"/none")

    def test_other_sources(self) -> None:
        """Folders that are only on the way to a source are not part of the point."""
        write(self.top + b"/a/x", b"one")
        first = self.place.backup(self.top + b"/a").point
        second = self.place.backup(self.top).point
        self.diff(first, second)
        self.assertEqual(self.shown(), {("added", b"")})

    def test_holes(self) -> None:
        """A hole and zeros are the same content."""
        write_sparse(self.top + b"/sparse", {300_000: b"x" * 100_000}, 900_000)
        with open(self.top + b"/sparse", "rb") as file:
            content = file.read()
        age_tree(self.top)
        first = self.place.backup(self.top).point
        os.unlink(self.top + b"/sparse")
        write(self.top + b"/sparse", content)
        age_tree(self.top)
        second = self.place.backup(self.top).point
        self.diff(first, second)
        self.assertEqual(self.changes, [])
        write(self.top + b"/sparse", content[:-1] + b"\x01")
        age_tree(self.top)
        self.diff(first, self.place.backup(self.top).point)
        self.assertEqual(self.shown(), {("content", b"/sparse")})


class EntryTests(DiffCase):
    """Points of chosen entries."""

    def test_order(self) -> None:
        """Names are in the order of the walk, in which a folder's come before "folder-x"."""
        one = [
            entry_of(b"/a", EntryType.DIRECTORY),
            file_of(b"/a/x"),
            file_of(b"/a-b"),
            file_of(b"/b"),
        ]
        self.of(one, [one[0], one[2]])
        self.assertEqual(self.kinds(), [("removed", b"/a/x"), ("removed", b"/b")])
        self.of(one[2:], one)
        self.assertEqual(self.kinds(), [("added", b"/a"), ("added", b"/a/x")])
        self.of([], one[:1])
        self.assertEqual(self.kinds(), [("added", b"/a")])

    def test_manifest_out_of_order(self) -> None:
        """A manifest that is not in that order cannot be compared, and is said to be damaged."""
        with self.assertRaises(StoredDataDamaged):
            self.of([file_of(b"/b"), file_of(b"/a")], [])
        with self.assertRaises(StoredDataDamaged):
            self.of([], [file_of(b"/b"), file_of(b"/b")])

    def test_links(self) -> None:
        """A further name changes with the content that it is a name of; which name came first is
        metadata."""
        contents = [b"1" * 10, b"2" * 10]
        runs = [(Run(self.place.keys.chunk_id(content), 0, 10),) for content in contents]

        def linked(number: int, link: bytes = b"/a") -> list[Entry]:
            first = file_of(b"/a", size=10, runs=runs[number], flags=FLAG_LINKED)
            return [first, file_of(b"/b", link=link, size=10, runs=())]

        self.of(linked(0), linked(1), *contents)
        self.assertEqual(self.kinds(), [("content", b"/a"), ("content", b"/b")])
        alone = [file_of(b"/a", size=10, runs=runs[0]), file_of(b"/b", size=10, runs=runs[0])]
        self.of(linked(0), alone, *contents)
        self.assertEqual(self.kinds(), [("metadata", b"/b")])
        self.assertEqual(self.changes[0].aspects, ("links",))
        self.of(linked(0), linked(0), *contents)
        self.assertEqual(self.changes, [])
        self.of(linked(0), linked(0, b"/none"), *contents)
        self.assertEqual(self.kinds(), [("content", b"/b")])

    def test_metadata(self) -> None:
        """Each sort of metadata is told by its name."""
        plain = file_of(b"/x")
        for fields, aspect in (
            ({"mode": 0o600}, "mode"),
            ({"uid": 77}, "owner"),
            ({"group": "others"}, "owner"),
            ({"mtime_ns": 1}, "mtime"),
            ({"xattrs": ((b"user.a", b"b"),)}, "attributes"),
        ):
            self.of([plain], [file_of(b"/x", **fields)])  # type: ignore[arg-type]
            self.assertEqual([change.aspects for change in self.changes], [(aspect,)])
            self.assertEqual(self.changes[0].kind, ChangeKind.METADATA)
        devices = [entry_of(b"/x", EntryType.BLOCK, device=number) for number in (1, 2)]
        self.of(devices[:1], devices[1:])
        self.assertEqual(self.changes[0].aspects, ("device",))

    def test_on_the_way(self) -> None:
        """In one point on the way only, in the other itself."""
        way = entry_of(b"/a", EntryType.DIRECTORY, flags=FLAG_ON_THE_WAY)
        self.of([way], [entry_of(b"/a", EntryType.DIRECTORY)])
        self.assertEqual(self.kinds(), [("added", b"/a")])

    def test_damaged_content(self) -> None:
        """Where it cannot be told whether content changed, that is said, and the rest compared."""
        there, lost = (self.place.keys.chunk_id(content) for content in (b"abc", b"xyz"))
        one = [file_of(b"/x", size=3, runs=(Run(lost, 0, 3),)), file_of(b"/y", size=9)]
        two = [
            file_of(b"/x", size=3, runs=(Run(there, 0, 3),)),
            file_of(b"/y", size=9, runs=(Run(there, 0, 9),)),
        ]
        points = [
            self.place.publish(entries, [content])
            for entries, content in ((one, b"xyz"), (two, b"abc"))
        ]
        with Repository.open(self.place.directory) as repository:
            repository.catalogue.mark_damaged([lost])
        result = self.diff(*points)
        self.assertEqual([item.path for item in result.damaged.listed], [b"/x", b"/y"])
        self.assertEqual(self.kinds(), [("content", b"/x"), ("content", b"/y")])

    def test_many_parts(self) -> None:
        """More differing parts than are asked for ahead, and an early end."""
        self.patch(same_module, "PARTS_AHEAD", 2)
        contents = [os.urandom(100) for _ in range(20)]
        ids = [self.place.keys.chunk_id(content) for content in contents]
        joined = [
            self.place.keys.chunk_id(b"".join(contents[at : at + 2])) for at in range(0, 20, 2)
        ]
        pairs = [b"".join(contents[at : at + 2]) for at in range(0, 20, 2)]
        one = file_of(b"/x", size=2000, runs=tuple(Run(name, 0, 100) for name in ids))
        two = file_of(b"/x", size=2000, runs=tuple(Run(name, 0, 200) for name in joined))
        self.of([one], [two], *contents, *pairs)
        self.assertEqual(self.changes, [])
        swapped = (*two.runs[1:], two.runs[0])
        self.of([one], [file_of(b"/x", size=2000, runs=swapped)], *contents, *pairs)
        self.assertEqual(self.kinds(), [("content", b"/x")])
