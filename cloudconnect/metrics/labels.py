"""Layer 5: a bound on how many values a label may have.

Each value of a label is a time series in the data base that collects them: a provider with
thousands of tenants, or a peer that invents names, must not fill it.
"""

from __future__ import annotations

from typing import Final

#: What values beyond the bound are called.
OTHER: Final = "other"
#: Tenants that have time series of their own.
TENANTS_MAX: Final = 200


class BoundedLabels:
    """Lets the first values through that it meets, and calls the rest ``other``.

    :param most: how many values, ``other`` not counted
    """

    def __init__(self, most: int = TENANTS_MAX) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        """The label for ``value``: the same one as long as the process runs."""
        if value in self._known:
            return value
        if len(self._known) < self._most:
            self._known.add(value)
            return value
        return OTHER
