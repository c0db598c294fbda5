"""Layer 4: a tenant's quota at the mover: counted from what is stored, reserved before it is.

All sessions of one repository in this process share one count, so that two that run at once cannot
pass the quota together. The count begins at what the repository holds when its first session opens.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs

from cloudconnect.errors import NoSpace


@attrs.define
class _Count:
    used: int
    sessions: int = 0


class Quotas:
    """The counts of the repositories that have sessions now; safe in any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[bytes, _Count] = {}

    @contextmanager
    def session(
        self, repository: bytes, quota: int | None, stored: Callable[[], int]
    ) -> Iterator[Callable[[int], None]]:
        """Gives what reserves bytes for one session.

        :param quota: bytes that the repository may hold, or None for any number
        :param stored: bytes that it holds now; asked only for the first session that is open
        :return: called with a number of bytes, before they are stored; raises :class:`NoSpace`
        """
        with self._lock:
            count = self._counts.get(repository)
            if count is None:
                count = self._counts[repository] = _Count(stored())
            count.sessions += 1

        def reserve(size: int) -> None:
            with self._lock:
                if quota is not None and count.used + size > quota:
                    raise NoSpace(
                        f"the quota of {quota} bytes is used up ({count.used} are stored): ask the "
                        "provider for more; what is there stays restorable"
                    )
                count.used += size

        try:
            yield reserve
        finally:
            with self._lock:
                count.sessions -= 1
                if count.sessions == 0:
                    del self._counts[repository]
