"""What judges in the campaigns sees what it is there to see."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.repository import packs
from tests.crash.ledger import append, sums
from tests.crash.storing import Expected, Storing, create, problems
from tests.crash.trees import change_tree, make_tree, tree_digest
from tests.repository.repositories import flip


class TreeTests(SynchronousTestCase):
    """Trees and their digests."""

    def test_digest(self) -> None:
        """A tree's digest is the same wherever it lies, and another one after any change."""
        one, two = Path(self.mktemp()), Path(self.mktemp())
        for top in (one, two):
            make_tree(top, random.Random(1))
        for path in (*two.rglob("*"), two):
            there = (one / path.relative_to(two)).lstat()
            os.utime(path, ns=(0, there.st_mtime_ns), follow_symlinks=False)
        digests = [tree_digest(one), tree_digest(two)]
        self.assertEqual(digests[0], digests[1])
        change_tree(two, random.Random(2))
        digests.append(tree_digest(two))
        name = next(path for path in one.rglob("file-*") if path.stat().st_size)
        for change in (
            lambda: flip(name, 0),
            lambda: os.utime(name, ns=(0, 1)),
            lambda: name.chmod(0o600),
            lambda: (one / "link").rename(one / "other"),
        ):
            change()
            digests.append(tree_digest(one))
        self.assertEqual(len(set(digests)), 6)


class StoringTests(SynchronousTestCase):
    """The process that stores, and the look at what it has stored."""

    def setUp(self) -> None:
        self.patch(packs, "PACK_SIZE", packs.PACK_SIZE)  # which a storing process changes
        self.place = Path(self.mktemp())
        create(self.place)
        self.expected = Expected()
        said = self.mktemp()
        say = os.open(said, os.O_WRONLY | os.O_CREAT)
        self.addCleanup(os.close, say)
        Storing(say, random.Random(3), range(1000), self.expected).run(self.place, 20)
        self.expected.take(Path(said).read_bytes())

    def problems(self) -> str:
        return "\n".join(problems(self.place, self.expected))

    def test_whole(self) -> None:
        """Nothing is wrong with what nobody has touched."""
        self.assertEqual(self.problems(), "")
        self.assertTrue(self.expected.stored and self.expected.points)

    def test_lost_blob(self) -> None:
        """A blob that was acknowledged and is not there is found."""
        self.expected.stored.add(999_999)
        self.assertIn("acknowledged blob 999999 is not there", self.problems())

    def test_lost_point(self) -> None:
        """A point that was acknowledged and is not there is found."""
        self.expected.points["00" * 16] = []
        self.assertIn(f"acknowledged point {'00' * 16} is not there", self.problems())

    def test_other_point(self) -> None:
        """A point that needs something else than what it was made of is found."""
        point = next(iter(self.expected.points))
        self.expected.asked[point] = [1]
        self.assertIn(f"point {point} has other references", self.problems())

    def test_changed_pack(self) -> None:
        """A changed byte of a pack is found."""
        flip(max((self.place / "packs").iterdir(), key=lambda path: path.stat().st_size), 5000)
        self.assertNotEqual(self.problems(), "")


class LedgerTests(SynchronousTestCase):
    """The ledger."""

    def test_sums(self) -> None:
        """Runs of a campaign over the same code add up."""
        path = Path(self.mktemp())
        append("kills", 1, 10.0, Counter(kills=3), path=path)
        append("kills", 2, 20.0, Counter(kills=4, rounds=1), "something", path)
        append("cuts", 1, 1.0, Counter(cuts=9), path=path)
        kills, cuts = sums(path)
        self.assertEqual(kills["counts"], {"kills": 7, "rounds": 1})
        self.assertEqual((kills["runs"], kills["seeds"], kills["found"]), (2, [1, 2], 1))
        self.assertEqual(cuts["counts"], {"cuts": 9})


_FORKS = """
import sys, pathlib, time
from tests.crash.forks import Child
folder = pathlib.Path(sys.argv[1])
done = Child(lambda: print("said") or 3, folder / "done")
endless = Child(lambda: time.sleep(1000), folder / "endless")
assert done.wait(30) and not endless.wait(0.01)
endless.kill()
print(done.status, done.text().strip(), endless.status)
"""


class ForkTests(SynchronousTestCase):
    """Processes that are forked."""

    def test_child(self) -> None:
        """A child's end, words and death by a signal are seen."""
        import subprocess

        from tests.crash.ledger import ROOT

        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _FORKS, str(folder)], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual(done.stdout.split(), ["3", "said", str(-signal.SIGKILL)], done.stderr)
