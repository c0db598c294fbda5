"""Layer 4: what happened long ago is forgotten: events, warnings, sessions, lines of the audit log.

By the hour, in a thread of its own, and in slices of a few rows each: nobody waits for longer than
one of them to write into the data base. Days are those in which a provider runs
(:mod:`cloudconnect.provider.accounts.clock`), so a clock that jumps makes nobody forget. What a
tenant has more of than its share, and what nobody's is, is thinned where it is crowded
(:mod:`cloudconnect.provider.accounts.history`), and that is said by an event.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from cloudconnect.errors import CloudConnectError
from cloudconnect.provider.accounts import Accounts
from cloudconnect.provider.accounts.history import History
from cloudconnect.provider.accounts.untold import MEMORY_SECONDS
from cloudconnect.provider.audit.log import AuditLog, kept_head
from cloudconnect.provider.history.keep import Keep
from cloudconnect.provider.history.marks import DAY, Mark, before, make_mark
from cloudconnect.provider.looking import Looking
from cloudconnect.provider.service.service import CloudConnectService

#: Seconds from one round to the next.
ROUND_SECONDS: Final = 3600.0
#: Rows that go in one transaction: some milliseconds.
SLICE: Final = 500


def rows_of_tenant(keep: Keep, history: History) -> int:
    """How many rows are kept of one tenant."""
    return keep.tenant_sessions if history is History.SESSIONS else keep.tenant_events


def until_row(keep: Keep, history: History, marks: list[Mark], passed: float) -> int:
    """The number of the newest row whose days are over; 0 for none.

    :param passed: seconds on the provider's own clock
    """
    of_sessions = history is History.SESSIONS
    days = keep.sessions_days if of_sessions else keep.events_days
    mark = before(marks, passed - days * DAY) if days else None
    if mark is None:
        return 0
    return mark.sessions if of_sessions else mark.events


def until_line(keep: Keep, marks: list[Mark], passed: float) -> int:
    """The number of the newest line of the audit log whose days are over; 0 for none."""
    mark = before(marks, passed - keep.audit_days * DAY) if keep.audit_days else None
    return 0 if mark is None else mark.audit


class Forgetting(Looking):
    """Forgets by the hour.

    :param reactor: clock
    :param service: keeps what was done
    :param accounts: the accounts data base
    :param in_thread: runs a blocking call in a thread of its own and fires with its result
    :param forget_lines: forgets whole segments of the audit log up to a line, and then while it has
        more than so many bytes (0: any number); fires with how many went for their bytes
    :ivar keep: how long what is kept; it may be changed while this runs
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: CloudConnectService,
        accounts: Accounts,
        in_thread: Callable[..., Deferred[Any]],
        forget_lines: Callable[[int, int], Deferred[int]] | None = None,
        keep: Keep | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(reactor, ROUND_SECONDS, lambda: Deferred.fromCoroutine(self._round()))
        self._service = service
        self._accounts = accounts
        self._run = in_thread
        self._forget_lines = forget_lines
        self._now = now
        self.keep = keep or Keep()

    async def _round(self) -> None:
        try:
            await self.round()
        except CancelledError:
            return
        except (CloudConnectError, OSError) as error:  # such as a full disk: at the next round
            self._log.warn("not all that is old was forgotten: {why}", why=str(error))
        except Exception:
            self._log.failure("not all that is old was forgotten")

    async def round(self) -> None:
        """Forget what has had its time, and thin what is crowded.

        :raises NoSpace: the disk is full or read-only
        :raises OSError: the audit log cannot be written
        """
        keep = self.keep
        passed = await self._run(self._accounts.pass_time, self._now())
        marks = await self._run(self._mark, passed, keep.longest)
        await self._run(self._accounts.forget_untold, MEMORY_SECONDS)
        gone = 0
        for history in History:
            until = until_row(keep, history, marks, passed)
            while until:
                went = await self._run(self._accounts.forget_old, history, until, SLICE)
                gone += went
                if went < SLICE:
                    break
        if gone:
            self._log.info("{count} old events and sessions were forgotten", count=gone)
        for row in [None, *await self._run(self._accounts.tenants)]:
            await self._thin(None if row is None else row["name"], keep)
        await self._give_back()
        if self._forget_lines is not None:
            until = until_line(keep, marks, passed)
            cut = await self._forget_lines(until, keep.audit_gb << 30)
            if cut:
                text = f"the audit log has {keep.audit_gb} GiB: {cut} of its oldest segments went"
                await self._service.reports.note("audit_log_cut", "", text, segments=cut)

    async def _give_back(self) -> None:
        """Make the data base smaller; where that cannot be done, nothing else waits for it."""
        try:
            while await self._run(self._accounts.give_back):
                pass
        except CloudConnectError as error:
            self._log.warn("the data base stays as large as it is: {why}", why=str(error))

    def _mark(self, passed: float, days: int) -> list[Mark]:
        events, sessions = self._accounts.newest_rows()
        audit = kept_head(self._accounts).number
        return make_mark(self._accounts, Mark(passed, events, sessions, audit), days)

    async def _thin(self, tenant: str | None, keep: Keep) -> None:
        for history in History:
            gone = 0
            most = rows_of_tenant(keep, history)
            for crowd in await self._run(self._accounts.crowds, history, tenant, most):
                left = crowd.count
                while left > 0:
                    part = attrs.evolve(crowd, count=left)
                    went = await self._run(
                        self._accounts.forget_crowd, history, tenant, part, SLICE
                    )
                    gone += went
                    left = left - went if went else 0
            if gone:
                whose = "nobody" if tenant is None else f"tenant {tenant}"
                text = (
                    f"{whose} has more than {most} {history.value}s: {gone} of those that came "
                    "close together are not kept"
                )
                self._log.warn("{text}", text=text)
                await self._service.reports.note(
                    "history_thinned",
                    "",
                    text,
                    tenant=tenant or "",
                    history=history.value,
                    rows=gone,
                )


def forgetter(
    log: AuditLog, in_thread: Callable[..., Deferred[Any]]
) -> Callable[[int, int], Deferred[int]]:
    """What forgets the oldest segments of an audit log, in the thread that writes it."""
    logger = Logger(__name__)

    def forget(until: int, size: int) -> tuple[list[str], list[str]]:
        return (log.forget(until) if until else []), log.bound(size)

    def forgotten(names: tuple[list[str], list[str]]) -> int:
        old, large = names
        for name in old:
            logger.info("{name} of the audit log was removed after its days", name=name)
        for name in large:
            logger.warn("{name} of the audit log was removed for its size", name=name)
        return len(large)

    return lambda until, size: in_thread(forget, until, size).addCallback(forgotten)
