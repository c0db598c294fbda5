"""Layer 4: what each tenant has used in a month, for the bill.

A few times a day the provider measures what every tenant has stored; of a month there is kept, for
each tenant, the sum of its days, so that a bill can go by the average, by the most, or by what is
there now. Sessions and bytes sent come from the sessions that are kept anyway, and from what is
counted of those that were (:mod:`cloudconnect.provider.history.session_counts`). Months are those
of UTC.
"""

from __future__ import annotations

import datetime
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from cloudconnect.errors import CloudConnectError, UsageError
from cloudconnect.provider.history.session_counts import SessionCounts, month_of
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.provider.values import Values

#: Seconds from one measuring to the next; of a day the largest counts.
MEASURE_SECONDS: Final = 6 * 3600.0
_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])\Z")


@attrs.frozen
class Month:
    """What one tenant had stored in one month, in bytes.

    :ivar day: the day of the month that was measured last, 1 to 31
    :ivar today: the most of that day
    :ivar days: days before it that were measured
    :ivar total: the most of each of these, added up
    :ivar most: the most of all
    """

    day: int = 0
    today: int = 0
    days: int = 0
    total: int = 0
    most: int = 0

    def measured(self, day: int, stored: int) -> Month:
        """With one more measurement."""
        if day == self.day:
            return attrs.evolve(self, today=max(self.today, stored), most=max(self.most, stored))
        return Month(
            day=day,
            today=stored,
            days=self.days + (self.day != 0),
            total=self.total + self.today,
            most=max(self.most, stored),
        )

    @property
    def average(self) -> int:
        """Over the days that were measured."""
        days = self.days + (self.day != 0)
        return round((self.total + self.today) / days) if days else 0


def check_month(month: str) -> str:
    """``month`` where it is one.

    :raises UsageError: it is not ``YYYY-MM``
    """
    if not _MONTH.match(month):
        raise UsageError(f"{month!r} is not a month: want YYYY-MM")
    return month


def read_months(values: Values, month: str) -> dict[str, Month]:
    """What was measured in one month, by tenant."""
    kept = json.loads(values.value(f"usage-{check_month(month)}") or b"{}")
    return {tenant: Month(*numbers) for tenant, numbers in kept.items()}


def keep_measured(values: Values, moment: float, stored: Mapping[str, int]) -> None:
    """Keep what tenants had stored at a moment.

    :param moment: seconds since 1970
    :param stored: bytes by tenant; who is not in it was not measured
    """
    month = month_of(moment)
    day = datetime.datetime.fromtimestamp(moment, datetime.UTC).day
    months = read_months(values, month)
    for tenant, count in stored.items():
        months[tenant] = months.get(tenant, Month()).measured(day, count)
    kept = {tenant: attrs.astuple(one) for tenant, one in sorted(months.items())}
    values.keep_value(f"usage-{month}", json.dumps(kept, separators=(",", ":")).encode())


def usage_rows(
    months: Mapping[str, Month], counts: Mapping[str, SessionCounts], month: str
) -> list[dict[str, Any]]:
    """One row for each tenant that had something stored, or a session, in a month.

    :param counts: what the sessions of the month count, by tenant
    """
    rows = []
    for tenant in sorted({*months, *counts}):
        measured = months.get(tenant, Month())
        rows.append(
            {
                "tenant": tenant,
                "month": month,
                "days_measured": measured.days + (measured.day != 0),
                "bytes_average": measured.average,
                "bytes_most": measured.most,
                **attrs.asdict(counts.get(tenant, SessionCounts())),
            }
        )
    return rows


class UsageRecorder(Service):
    """Measures what tenants have stored, now and then.

    :param reactor: clock
    :param service: knows the tenants, and asks the mover
    :param tenants: fires with the names of those that have a repository
    :param keep: keeps what was measured, by tenant; fires when it has
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        service: CloudConnectService,
        tenants: Callable[[], Deferred[list[str]]],
        keep: Callable[[dict[str, int]], Deferred[Any]],
    ) -> None:
        self._service = service
        self._tenants = tenants
        self._keep = keep
        self._loop = LoopingCall(lambda: Deferred.fromCoroutine(self.measure()))
        self._loop.clock = reactor
        self._measuring: Deferred[None] | None = None
        #: What each tenant's repository held when it was measured last, and when that was.
        self.measured: dict[str, dict[str, Any]] = {}
        self.measured_at = 0.0

    @property
    def stored(self) -> dict[str, int]:
        """Bytes that each tenant had stored when they were measured last."""
        return {tenant: found["bytes_stored"] for tenant, found in self.measured.items()}

    def startService(self) -> None:
        """Begin, once the mover is there."""
        super().startService()  # type: ignore[no-untyped-call]
        self._loop.start(MEASURE_SECONDS, now=False)
        self._first = self._loop.clock.callLater(60.0, self._begin)

    def _begin(self) -> None:
        Deferred.fromCoroutine(self.measure())

    def stopService(self) -> Deferred[Any]:
        """End; what is being measured is not waited for."""
        if self._loop.running:
            self._loop.stop()
        if self.running and self._first.active():
            self._first.cancel()
        return maybeDeferred(super().stopService)

    async def measure(self) -> None:
        """Measure every tenant once; one that cannot be is left out."""
        measured: dict[str, dict[str, Any]] = {}
        try:
            for tenant in await self._tenants():
                if not self.running:
                    return
                try:
                    measured[tenant] = await self._service.keeping.measure(tenant)
                except CloudConnectError as error:
                    self._log.info("{t} was not measured: {why}", t=tenant, why=str(error))
            self.measured, self.measured_at = measured, time.time()
            await self._keep(self.stored)
        except CloudConnectError as error:
            self._log.warn("what is stored was not measured: {why}", why=str(error))
        except Exception:
            self._log.failure("what is stored was not measured")
