"""Layer 4: how far the history had got at which moment of the provider's own clock.

Rows and lines are numbered as they come. Once a day it is noted which numbers were the newest; what
stands before such a mark is older than it, whatever time it bears itself and whatever the time of
day was.
"""

from __future__ import annotations

import json
from typing import Final

import attrs

from cloudconnect.provider.values import Values

DAY: Final = 86400.0
_NAME: Final = "history-marks"


@attrs.frozen
class Mark:
    """The newest numbers at one moment.

    :ivar passed: seconds on the provider's own clock
    :ivar events: of events and warnings
    :ivar sessions: of sessions
    :ivar audit: of the lines of the audit log
    """

    passed: float
    events: int
    sessions: int
    audit: int


def read_marks(values: Values) -> list[Mark]:
    """The marks that were made, oldest first."""
    return [Mark(*row) for row in json.loads(values.value(_NAME) or b"[]")]


def make_mark(values: Values, mark: Mark, days: float) -> list[Mark]:
    """Make a mark where a day has passed since the last one; all there are.

    :param days: what was forgotten by longer than that needs no mark any more
    """
    marks = read_marks(values)
    if marks and mark.passed < marks[-1].passed + DAY:
        return marks
    last = before(marks, mark.passed - days * DAY)
    marks = [one for one in marks if last is None or one.passed >= last.passed] + [mark]
    rows = [attrs.astuple(one) for one in marks]
    values.keep_value(_NAME, json.dumps(rows, separators=(",", ":")).encode())
    return marks


def before(marks: list[Mark], passed: float) -> Mark | None:
    """The newest mark that is not younger than a moment, or None."""
    found = [mark for mark in marks if mark.passed <= passed]
    return found[-1] if found else None
