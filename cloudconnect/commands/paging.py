"""Layer 3: pages of a listing that fit into one answer."""

from __future__ import annotations

from typing import Any, Final

from cloudconnect.commands.arguments import CBORArgument
from cloudconnect.wire import canonical

#: Bytes of rows in one page: an AMP value has at most 65,535, and the rest of the answer is small.
PAGE_BYTES_MAX: Final = 60_000
#: Items in one page (:class:`CBORArgument`): 500 rows of a few dozen fields.
PAGE_ITEMS_MAX: Final = 65_536


def rows_argument() -> CBORArgument:
    """The argument type of a page's rows."""
    return CBORArgument(max_items=PAGE_ITEMS_MAX)


def fit_page(rows: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], bool]:
    """As many of ``rows`` as fit into a page of ``limit`` rows, and whether some were left over.

    At least one row is returned where there is one: a row alone always fits.
    """
    page: list[dict[str, Any]] = []
    left = PAGE_BYTES_MAX
    for row in rows[:limit]:
        left -= len(canonical.encode(row))
        if left < 0 and page:
            break
        page.append(row)
    return page, len(page) < len(rows)
