"""Layer 4: whether a backup brought suspiciously much that is new, seen without any key.

Ransomware that has encrypted a machine's files makes nearly all of its next backup new. The
provider cannot look into it, but it knows how many bytes each restore point of a job has added to
what is stored. It judges by its own count, not by what the tenant reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.watching import SessionEnd, Watcher
from cloudconnect.repository.points import STATES
from cloudconnect.settings import PAGE_ROWS_MAX

#: The points before it that a point is compared with, the newest.
HISTORY: Final = 20
#: With fewer than so many nothing is said.
HISTORY_MIN: Final = 4
#: Fewer bytes than these are never suspicious: 32 MiB.
FLOOR: Final = 32 << 20
#: So many times as much as usual is.
FACTOR: Final = 4


def usual(history: Sequence[int]) -> int | None:
    """The most bytes that one point of a job adds, but for one exception; None: not known yet.

    :param history: bytes that each point added, oldest first; the first one of a job, which has
        everything for the first time, must be left out
    """
    last = sorted(history[-HISTORY:])
    return last[-2] if len(last) >= HISTORY_MIN else None


def is_jump(history: Sequence[int], added: int) -> bool:
    """Whether ``added`` bytes are out of all proportion to a job's history."""
    most = usual(history)
    return most is not None and added > max(FLOOR, FACTOR * most)


class JumpWatch(Watcher):
    """Looks at each backup that has ended, and keeps an event ``new_bytes_jumped`` where it jumps.

    :param service: whose sessions these are
    """

    _log = Logger()

    def __init__(self, service: CloudConnectService) -> None:
        self._service = service
        self._comparing: set[Deferred[None]] = set()

    def compared(self) -> Deferred[Any]:
        """Fires when every comparison that was begun is over."""
        return DeferredList(list(self._comparing))

    def session_ended(self, end: SessionEnd) -> None:
        """A backup is there: compare it with those before it."""
        if end.kind == "backup" and end.state in ("done", "incomplete"):
            comparing = Deferred.fromCoroutine(self._compare(end))
            self._comparing.add(comparing)
            comparing.addBoth(lambda _: self._comparing.discard(comparing))

    async def _compare(self, end: SessionEnd) -> None:
        try:
            rows = await self._rows(end)
        except CloudConnectError as error:
            self._log.info("a backup was not compared with its history: {e}", e=str(error))
            return
        except Exception:
            self._log.failure("a backup was not compared with its history")
            return
        ours = [n for n, row in enumerate(rows) if row["session"] == end.session]
        if not ours:
            return
        added = rows[ours[-1]]["bytes_stored"]
        before = [row["bytes_stored"] for row in rows[1 : ours[-1]]]
        if not is_jump(before, added):
            return
        most = usual(before)
        text = (
            f"the backup {end.host}/{end.job} of tenant {end.tenant} added {added} bytes, where "
            f"{most} is the most that is usual: were its files changed all at once, by ransomware?"
        )
        fields = {"tenant": end.tenant, "host": end.host, "job": end.job}
        point = rows[ours[-1]]["point"]
        await self._service.reports.note(
            "new_bytes_jumped", end.session, text, **fields, added=added, usual=most, point=point
        )

    async def _rows(self, end: SessionEnd) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            page = await self._service.repositories.points(
                end.tenant,
                host=end.host,
                job=end.job,
                tag="",
                after=rows[-1]["arrival"] if rows else 0,
                limit=PAGE_ROWS_MAX,
                states=list(STATES),
            )
            # The first one of all, and the newest, are enough of a long history.
            rows = [*rows[:1], *rows[1:][-HISTORY:], *page["points"]]
            more = page["more"] and bool(page["points"])
        return rows
