"""Files of the same content, however they are cut."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.same_content import _differing
from cloudconnect.content.runs import Run


def shapes() -> Iterator[tuple[list[Run], list[Run], list[Any]]]:
    a, b = b"a" * 32, b"b" * 32
    yield [Run(a, 0, 10)], [Run(a, 0, 10)], []
    yield [Run(a, 0, 4), Run(a, 4, 6)], [Run(a, 0, 10)], []
    yield [Run(None, 0, 10)], [Run(None, 0, 3), Run(None, 0, 7)], []
    yield [Run(a, 0, 10)], [Run(a, 1, 10)], [(a, 0, a, 1, 10)]
    yield [Run(a, 0, 10)], [Run(b, 0, 4), Run(a, 4, 6)], [(a, 0, b, 0, 4)]
    yield [Run(a, 5, 4)], [Run(None, 0, 3), Run(b, 9, 1)], [(a, 5, None, 0, 3), (a, 8, b, 9, 1)]


class DifferingTests(SynchronousTestCase):
    """Parts that are not the same by name."""

    def test_shapes(self) -> None:
        """Runs may be cut in any way."""
        for one, two, wanted in shapes():
            self.assertEqual(list(_differing(one, two)), wanted)
