"""Walking the sources."""

from __future__ import annotations

import os
import stat

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import walk as walk_module
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.backup.walk import Found, Unreadable, absolute, walk
from cloudconnect.errors import UsageError
from tests.backup.trees import ODD_NAMES, deep_folder, is_root, make_socket, remove_deep, write


class WalkTests(SynchronousTestCase):
    """What a walk finds, and in which order."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)

    def walk(
        self, *paths: bytes, rules: ExcludeRules | None = None, one_file_system: bool = False
    ) -> tuple[list[bytes], dict[bytes, str]]:
        """Paths found, relative to the top and without ancestors, and what was unreadable."""
        before = set(os.listdir("/proc/self/fd"))
        found: list[bytes] = []
        unreadable: dict[bytes, str] = {}
        named = [self.top + path for path in paths or (b"",)]
        for item in walk(named, rules, one_file_system):
            if isinstance(item, Unreadable):
                unreadable[item.path[len(self.top) :]] = item.reason
            elif not item.ancestor:
                found.append(item.path[len(self.top) :])
        # The collector may have closed those of others meanwhile.
        left = set(os.listdir("/proc/self/fd")) - before
        self.assertEqual(left, set(), "descriptors stayed open")
        return found, unreadable

    def excluding(self, *patterns: bytes) -> ExcludeRules:
        return ExcludeRules(patterns=PathPatterns(patterns))

    def test_order(self) -> None:
        """Depth first, a folder before what it holds, names in the order of their bytes."""
        for name in (b"/b/x", b"/b/a", b"/b-", b"/b.txt", b"/B", b"/a/z", b"/\xff"):
            write(self.top + name, b"")
        self.assertEqual(
            self.walk()[0],
            [b"", b"/B", b"/a", b"/a/z", b"/b", b"/b/a", b"/b/x", b"/b-", b"/b.txt", b"/\xff"],
        )

    def test_odd_names(self) -> None:
        """Names of any bytes and of the full length are found."""
        for name in ODD_NAMES:
            write(self.top + b"/" + name, b"")
        self.assertEqual(self.walk()[0][1:], [b"/" + name for name in sorted(ODD_NAMES)])

    def test_all_types(self) -> None:
        """Files, folders, links, FIFOs, sockets and devices are found; links are not followed."""
        write(self.top + b"/folder/file", b"")
        os.symlink(b"folder", self.top + b"/link")
        os.mkfifo(self.top + b"/fifo")
        make_socket(self.top + b"/socket")
        if is_root():
            os.mknod(self.top + b"/device", 0o20600, os.makedev(1, 3))
        types = {
            item.name: stat.S_IFMT(item.status.st_mode)
            for item in walk([self.top])
            if isinstance(item, Found)
        }
        self.assertEqual(types[b"folder"], stat.S_IFDIR)
        self.assertEqual(types[b"file"], stat.S_IFREG)
        self.assertEqual(types[b"link"], stat.S_IFLNK)
        self.assertEqual(types[b"fifo"], stat.S_IFIFO)
        self.assertEqual(types[b"socket"], stat.S_IFSOCK)
        self.assertEqual(types.get(b"device", stat.S_IFCHR), stat.S_IFCHR)

    def test_descriptors(self) -> None:
        """What is found can be opened by its name in its parent; a folder is open already."""
        write(self.top + b"/folder/file", b"content")
        seen = 0
        for item in walk([self.top]):
            assert isinstance(item, Found)
            again = os.stat(item.name, dir_fd=item.parent, follow_symlinks=False)
            self.assertEqual(again.st_ino, item.status.st_ino)
            if item.descriptor is not None and not item.ancestor:
                self.assertEqual(os.fstat(item.descriptor).st_ino, item.status.st_ino)
                seen += 1
        self.assertEqual(seen, 2)

    def test_ancestors(self) -> None:
        """The folders on the way to a source come before it, without the root, marked so."""
        write(self.top + b"/a/b/file", b"")
        write(self.top + b"/a/other", b"")
        items = [item for item in walk([self.top + b"/a/b"]) if isinstance(item, Found)]
        self.assertEqual(next(item.path for item in items if not item.ancestor), self.top + b"/a/b")
        ancestors = [item.path for item in items if item.ancestor]
        parts = (self.top + b"/a").split(b"/")[1:]
        expected = [b"/" + b"/".join(parts[: n + 1]) for n in range(len(parts))]
        self.assertEqual(ancestors, expected)

    def test_overlapping_sources(self) -> None:
        """A source within a source, or named twice, comes once, in the same order."""
        write(self.top + b"/a/b/c", b"")
        write(self.top + b"/a/d", b"")
        expected = [b"/a", b"/a/b", b"/a/b/c", b"/a/d"]
        self.assertEqual(self.walk(b"/a")[0], expected)
        self.assertEqual(self.walk(b"/a/b", b"/a", b"/a/b/c", b"/a")[0], expected)

    def test_several_sources(self) -> None:
        """Several sources come in the order of their bytes, with nothing that was not named."""
        for name in (b"/x/1", b"/x/2", b"/y", b"/z"):
            write(self.top + name, b"")
        self.assertEqual(self.walk(b"/z", b"/x/2", b"/x/1")[0], [b"/x/1", b"/x/2", b"/z"])

    def test_source_that_does_not_exist(self) -> None:
        """A source that does not exist, or lies below something that does not, is reported."""
        write(self.top + b"/file", b"")
        found, unreadable = self.walk(b"/none", b"/file", b"/no/where", b"/file/below")
        self.assertEqual(unreadable[b"/none"], "does not exist")
        self.assertEqual(unreadable[b"/no"], "does not exist")
        self.assertEqual(unreadable[b"/file/below"], "does not exist")
        self.assertEqual(found, [b"/file"])

    def test_source_that_is_a_link(self) -> None:
        """A source that is a link is found as a link; with a slash at its end it is followed."""
        write(self.top + b"/real/file", b"")
        os.symlink(b"real", self.top + b"/link")
        self.assertEqual(self.walk(b"/link")[0], [b"/link"])
        self.assertEqual(self.walk(b"/link/")[0], [b"/link", b"/link/file"])

    def test_link_on_the_way(self) -> None:
        """Links on the way to a source are followed, and come as folders."""
        write(self.top + b"/real/sub/file", b"")
        os.symlink(b"real", self.top + b"/link")
        self.assertEqual(self.walk(b"/link/sub")[0], [b"/link/sub", b"/link/sub/file"])
        on_the_way = [
            item
            for item in walk([self.top + b"/link/sub"])
            if isinstance(item, Found) and item.path == self.top + b"/link"
        ]
        self.assertTrue(stat.S_ISDIR(on_the_way[0].status.st_mode))

    def test_exclude(self) -> None:
        """What a pattern means is left out, folders with everything below them."""
        for name in (b"/a.o", b"/b/c.o", b"/b/d", b"/skip/x", b"/b/skip"):
            write(self.top + name, b"")
        found, _ = self.walk(rules=self.excluding(b"*.o", b"skip/"))
        self.assertEqual(found, [b"", b"/b", b"/b/d", b"/b/skip"])

    def test_source_is_never_excluded(self) -> None:
        """A named source is kept though a pattern means it, or means a folder on the way to it."""
        write(self.top + b"/skip/in/file", b"")
        write(self.top + b"/skip/out", b"")
        rules = self.excluding(b"skip", b"in")
        found, _ = self.walk(b"", b"/skip/in", rules=rules)
        self.assertEqual(found, [b"", b"/skip/in", b"/skip/in/file"])

    def test_larger_than(self) -> None:
        """Files above the limit are left out, unless they are a source themselves."""
        write(self.top + b"/large", b"x" * 11)
        write(self.top + b"/small", b"x" * 10)
        rules = ExcludeRules(larger_than=10)
        self.assertEqual(self.walk(rules=rules)[0], [b"", b"/small"])
        self.assertEqual(self.walk(b"/large", rules=rules)[0], [b"/large"])

    def test_marked_folder(self) -> None:
        """Of a folder that is marked, the folder and the mark are kept, and sources below it."""
        for name in (b"/m/.nobackup", b"/m/x/y", b"/m/z"):
            write(self.top + name, b"")
        rules = ExcludeRules(if_present=frozenset((b".nobackup",)))
        self.assertEqual(self.walk(rules=rules)[0], [b"", b"/m", b"/m/.nobackup"])
        found, _ = self.walk(b"", b"/m/x", rules=rules)
        self.assertEqual(found, [b"", b"/m", b"/m/.nobackup", b"/m/x", b"/m/x/y"])

    def test_one_file_system(self) -> None:
        """Of a folder on another file system only the folder comes; named itself, it is walked."""
        if os.lstat("/dev").st_dev == os.lstat("/dev/pts").st_dev:
            self.skipTest("/dev/pts is no file system of its own here")
        self.top = b""
        found, _ = self.walk(b"/dev", one_file_system=True)
        self.assertIn(b"/dev/pts", found)
        self.assertNotIn(b"/dev/pts/ptmx", found)
        found, _ = self.walk(b"/dev", b"/dev/pts", one_file_system=True)
        self.assertIn(b"/dev/pts/ptmx", found)

    def test_vanished(self) -> None:
        """What vanishes between listing and looking is reported, and the walk goes on."""
        for name in (b"/a", b"/b", b"/c"):
            write(self.top + name, b"")
        found: list[bytes] = []
        unreadable = []
        for item in walk([self.top]):
            if isinstance(item, Unreadable):
                unreadable.append((item.path[len(self.top) :], item.reason))
            else:
                found.append(item.path[len(self.top) :])
                if item.name == b"a":
                    os.unlink(self.top + b"/b")
        self.assertEqual(unreadable, [(b"/b", "vanished while the backup ran")])
        self.assertEqual(found[-2:], [b"/a", b"/c"])

    def test_folder_exchanged_for_a_link(self) -> None:
        """A folder that is exchanged for a link after it was looked at leads nowhere."""
        write(self.top + b"/a/inside", b"")
        os.mkdir(self.top + b"/outside")
        write(self.top + b"/outside/secret", b"")
        real = walk_module.open_quietly

        def exchange(name: bytes, flags: int, parent: int, owner: int) -> int:
            if name == b"a":
                os.rename(self.top + b"/a", self.top + b"/a-moved")
                os.symlink(b"outside", self.top + b"/a")
            return real(name, flags, parent, owner)

        self.patch(walk_module, "open_quietly", exchange)
        found, unreadable = self.walk()
        self.assertNotIn(b"/a/secret", found)
        self.assertNotIn(b"/a", found)
        self.assertIn(b"/a", unreadable)

    def test_folder_that_may_not_be_read(self) -> None:
        """A folder that cannot be opened is found and reported, and the walk goes on."""
        write(self.top + b"/closed/file", b"")
        write(self.top + b"/other", b"")
        real = walk_module.open_quietly

        def refuse(name: bytes, flags: int, parent: int, owner: int) -> int:
            if name == b"closed":
                raise PermissionError(13, "Permission denied")
            return real(name, flags, parent, owner)

        self.patch(walk_module, "open_quietly", refuse)
        found, unreadable = self.walk()
        self.assertEqual(found, [b"", b"/closed", b"/other"])
        self.assertEqual(unreadable, {b"/closed": "Permission denied"})

    def test_long_paths(self) -> None:
        """Paths far longer than the system takes in one call are walked to their end."""
        deep_folder(self.top + b"/deep", 60, b"d" * 200)
        self.addCleanup(remove_deep, self.top + b"/deep")
        found, unreadable = self.walk()
        self.assertEqual(unreadable, {})
        self.assertEqual(found[-1], b"/deep" + (b"/" + b"d" * 200) * 60 + b"/bottom")

    def test_deep_trees_hold_few_folders_open(self) -> None:
        """However deep a branch, only so many folders are open, and nothing is missed after it."""
        self.patch(walk_module, "OPEN_FOLDERS_MAX", 5)
        deep_folder(self.top + b"/a", 40, b"d")
        write(self.top + b"/a/d/d/e", b"")
        write(self.top + b"/b", b"")
        baseline = len(os.listdir("/proc/self/fd"))
        most = 0
        found = []
        for item in walk([self.top]):
            assert isinstance(item, Found)
            if not item.ancestor:
                found.append(item.path[len(self.top) :])
            most = max(most, len(os.listdir("/proc/self/fd")) - baseline)
        self.assertLess(most, 5 + self.top.count(b"/") + 5)
        self.assertEqual(found[-3:], [b"/a" + b"/d" * 40 + b"/bottom", b"/a/d/d/e", b"/b"])

    def test_moved_branch(self) -> None:
        """When a deep branch is moved away meanwhile, what cannot be found again is reported."""
        self.patch(walk_module, "OPEN_FOLDERS_MAX", 3)
        deep_folder(self.top + b"/a", 10, b"d")
        write(self.top + b"/a/z", b"")
        write(self.top + b"/a/d/z", b"")
        write(self.top + b"/elsewhere/x", b"")
        unreadable = []
        found = []
        for item in walk([self.top]):
            if isinstance(item, Unreadable):
                unreadable.append(item.path[len(self.top) :])
                continue
            found.append(item.path[len(self.top) :])
            if item.name == b"bottom":
                os.rename(self.top + b"/a/d/d", self.top + b"/elsewhere/d")
        self.assertNotIn(b"/a/d/z", found)
        self.assertIn(b"/a/d", unreadable)

    def test_closing_early(self) -> None:
        """A walk that is not finished closes its folders when it is closed."""
        write(self.top + b"/a/b/c", b"")
        before = set(os.listdir("/proc/self/fd"))
        items = walk([self.top])
        for _ in range(self.top.count(b"/") + 2):
            next(items)
        self.assertNotEqual(set(os.listdir("/proc/self/fd")), before)
        items.close()  # type: ignore[attr-defined]
        self.assertEqual(set(os.listdir("/proc/self/fd")), before)


class AbsoluteTests(SynchronousTestCase):
    """Source paths as people give them."""

    def test_tidied(self) -> None:
        """Relative paths start at the working folder; dots and double slashes go."""
        here = os.getcwdb()
        self.assertEqual(absolute(b"a/../b"), here + b"/b")
        self.assertEqual(absolute(b"."), here)
        self.assertEqual(absolute(b"//x//y/./z"), b"/x/y/z")
        self.assertEqual(absolute(b"/"), b"/")
        self.assertEqual(absolute(b"/../.."), b"/")

    def test_slash_at_the_end_is_kept(self) -> None:
        """A slash at the end asks for a link to be followed, so it stays."""
        self.assertEqual(absolute(b"/a/b/"), b"/a/b/")

    def test_refused(self) -> None:
        """Nothing, and NUL, are no paths."""
        for path in (b"", b"a\0b"):
            with self.assertRaises(UsageError):
                absolute(path)
