"""Names by folder, in memory and in a temporary file."""

from __future__ import annotations

import sqlite3

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup import doubtful
from cloudconnect.backup.doubtful import DoubtfulNames
from cloudconnect.errors import LocalError

NAMES = [b"%d\xff" % number for number in range(40)]


class DoubtfulNamesTests(SynchronousTestCase):
    """The same answers, wherever the names are."""

    def each(self) -> list[DoubtfulNames]:
        """Such that hold all, some, and nothing in memory."""
        made = [DoubtfulNames(), *(DoubtfulNames(count) for count in (60, 20, 1, 0))]
        for names in made:
            self.addCleanup(names.close)
        return made

    def test_names(self) -> None:
        """Names are there until they are dropped; a mark is that of one name in one folder."""
        for names in self.each():
            self.assertFalse(names)
            names.begin((b"a",), NAMES)
            names.begin((b"a", b"b"), NAMES)
            self.assertTrue(names)
            self.assertTrue(names.has((b"a", b"b")))
            self.assertFalse(names.has((b"b",)))
            names.set((b"a",), NAMES[3], True)
            names.set((b"a", b"b"), NAMES[4], True)
            names.set((b"a", b"b"), NAMES[4], False)
            names.drop((b"a",), NAMES[5])
            names.set((b"a",), NAMES[5], True)  # which is not there any more
            names.drop((b"b",), NAMES[6])
            self.assertIs(names.mark((b"a",), NAMES[3]), True)
            self.assertIs(names.mark((b"a", b"b"), NAMES[3]), False)
            self.assertIsNone(names.mark((b"a",), NAMES[5]))
            self.assertIsNone(names.mark((b"b",), NAMES[6]))
            expected = {name: name == NAMES[3] for name in NAMES if name != NAMES[5]}
            self.assertEqual(dict(names.names((b"a",))), expected)
            self.assertEqual(dict(names.names((b"a", b"b"))), dict.fromkeys(NAMES, False))
            self.assertEqual(list(names.names((b"b",))), [])

    def test_end(self) -> None:
        """A folder ends with its names, and alone."""
        for names in self.each():
            names.begin((b"a",), NAMES)
            names.begin((b"b",), [])
            names.end((b"a",))
            names.end((b"a",))
            self.assertIsNone(names.mark((b"a",), NAMES[0]))
            self.assertTrue(names.has((b"b",)))
            names.end((b"b",))
            self.assertFalse(names)

    def test_again(self) -> None:
        """What is begun again begins anew, and is one folder."""
        for names in self.each():
            names.begin((b"a",), NAMES)
            names.set((b"a",), NAMES[0], True)
            names.begin((b"a",), NAMES[:2])
            self.assertEqual(dict(names.names((b"a",))), {NAMES[0]: False, NAMES[1]: False})
            names.end((b"a",))
            self.assertFalse(names)

    def test_marks_are_kept(self) -> None:
        """What goes to the file keeps its marks."""
        names = DoubtfulNames(50)
        self.addCleanup(names.close)
        names.begin((b"a",), NAMES)
        names.set((b"a",), NAMES[7], True)
        names.begin((b"b",), NAMES)
        self.assertEqual([name for name, mark in names.names((b"a",)) if mark], [NAMES[7]])

    def test_bound(self) -> None:
        """No more than so many are ever held in memory, and what was dropped does not count."""
        names = DoubtfulNames(100)
        self.addCleanup(names.close)
        for _ in range(5):
            names.begin((b"a",), NAMES)
            for name in NAMES:
                names.drop((b"a",), name)
            names.begin((b"b",), NAMES)
            names.end((b"b",))
        self.assertIsNone(names._database)
        names.begin((b"c",), (b"%d" % number for number in range(1000)))
        self.assertEqual(names._folders, {})
        self.assertEqual(sum(1 for _ in names.names((b"c",))), 1000)

    def test_no_room(self) -> None:
        """A temporary file that cannot be made is said to be that."""

        def fail(table: str) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        self.patch(doubtful, "temporary_base", fail)
        error = self.assertRaises(LocalError, DoubtfulNames(0).begin, (b"a",), NAMES)
        self.assertIn("TMPDIR", str(error))
