"""Tests of :mod:`cloudconnect.commands.paging`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box_parser import VALUE_MAX
from cloudconnect.commands.paging import PAGE_BYTES_MAX, fit_page, rows_argument
from cloudconnect.content.points import LABEL_MAX, LABELS_BYTES_MAX, STATISTICS_MAX
from cloudconnect.errors import ProtocolViolation
from cloudconnect.settings import PAGE_ROWS_MAX
from tests.repository.repositories import record


def rows(count: int, size: int) -> list[dict[str, Any]]:
    """So many rows with a text of so many characters."""
    return [{"cursor": number, "text": "x" * size} for number in range(1, count + 1)]


class PagingTests(SynchronousTestCase):
    """How much of a listing goes into one answer."""

    def test_all(self) -> None:
        """What fits is one page, and there is no more."""
        self.assertEqual((rows(3, 10), False), fit_page(rows(3, 10), 5))
        self.assertEqual((rows(5, 10), False), fit_page(rows(5, 10), 5))
        self.assertEqual(([], False), fit_page([], 5))

    def test_row_limit(self) -> None:
        """A page has no more rows than were asked for, and says that there are more."""
        self.assertEqual((rows(5, 10), True), fit_page(rows(6, 10), 5))

    def test_byte_limit(self) -> None:
        """Rows that do not fit into an answer wait for the next page."""
        page, more = fit_page(rows(100, 1000), 100)
        self.assertTrue(more)
        self.assertTrue(1 <= len(page) < 100)
        self.assertLess(len(rows_argument().toString(page)), VALUE_MAX)
        longer = page + rows(100, 1000)[len(page) : len(page) + 1]
        self.assertGreater(len(rows_argument().toString(longer)), PAGE_BYTES_MAX)

    def test_one_large_row(self) -> None:
        """The first row is in the page however large it is: a listing always goes on."""
        self.assertEqual((rows(1, PAGE_BYTES_MAX), True), fit_page(rows(2, PAGE_BYTES_MAX), 9))

    def test_largest_point(self) -> None:
        """Labels that would make a row too large for an answer cannot be published: the most that
        can are one row that can be sent."""
        label = "\U0001f4be" * LABEL_MAX
        tags = (label,) * (LABELS_BYTES_MAX // len(label.encode()) - 2)
        row = {
            "point": "f" * 32,
            "session": "f" * 32,
            "job_id": "f" * 32,
            "host": label,
            "job": label,
            "tags": list(tags),
            "statistics": {f"{n}": 2**63 - 1 for n in range(STATISTICS_MAX)},
            **dict.fromkeys(
                ("arrival", "started_ns", "finished_ns", "manifest_length", "reference_count"),
                2**63 - 1,
            ),
            "time": 1.5,
        }
        statistics = row["statistics"]
        record(b"p" * 16, host=label, job=label, tags=tags, statistics=statistics)
        page, more = fit_page([row], 1)
        self.assertEqual(([row], False), (page, more))
        self.assertLessEqual(len(rows_argument().toString(page)), PAGE_BYTES_MAX)
        self.assertRaises(
            ValueError, record, b"p" * 16, host=label, job=label, tags=(*tags, label, label)
        )

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 30_000), max_size=20), st.integers(1, 8))
    def test_every_row_once(self, sizes: list[int], limit: int) -> None:
        """Page after page, every row comes exactly once and each page can be sent."""
        left = [{"cursor": number, "text": "x" * size} for number, size in enumerate(sizes)]
        wanted, found, more = list(left), [], bool(left)
        while more:
            page, more = fit_page(left, limit)
            self.assertLessEqual(len(rows_argument().toString(page)), VALUE_MAX)
            self.assertTrue(page)
            found += page
            left = left[len(page) :]
        self.assertEqual(wanted, found)

    def test_argument_of_a_full_page(self) -> None:
        """A page of as many rows as there may be goes through the argument and back."""
        page = [{f"k{n}": number for n in range(20)} for number in range(PAGE_ROWS_MAX)]
        argument = rows_argument()
        self.assertEqual(page, argument.fromString(argument.toString(page)))
        self.assertRaises(ProtocolViolation, argument.fromString, argument.toString([[]] * 70_000))
