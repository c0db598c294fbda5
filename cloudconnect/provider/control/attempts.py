"""Layer 4: how long a failed log-in makes the next one wait.

Failures cost growing delays for each (tenant, address) and for each address, so that a guesser is
slow; an address that has logged in before is not slowed by what strangers at other addresses do
(``docs/protocol.rst``, section 2).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime

#: Delay after the first failure, in seconds; it doubles with each further one.
FIRST_DELAY: Final = 0.5
#: Longest delay, in seconds: less than the time limit of an authentication.
LONGEST_DELAY: Final = 10.0
#: Enough doublings to be over the longest delay, few enough for any float.
DOUBLINGS_MAX: Final = 16
#: A failure is forgotten after this many seconds.
MEMORY_SECONDS: Final = 900.0
#: Most entries remembered; the oldest go first.
ENTRIES_MAX: Final = 10_000


@attrs.define
class _Record:
    failures: int
    last: float


class LoginAttempts:
    """Remembers failed log-ins in memory.

    :param reactor: clock
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._failed: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def delay(self, tenant: str, address: str) -> float:
        """How many seconds the next attempt of ``tenant`` from ``address`` has to wait."""
        return max(self._delay((tenant, address)), self._delay(("", address)))

    def failed(self, tenant: str, address: str) -> int:
        """Note a failure; returns how many there were for this tenant from this address."""
        self._count(("", address))
        return self._count((tenant, address))

    def succeeded(self, tenant: str, address: str) -> None:
        """Forget the failures of this tenant at this address."""
        self._failed.pop((tenant, address), None)
        self._failed.pop(("", address), None)

    def _count(self, key: tuple[str, str]) -> int:
        now = self._reactor.seconds()
        record = self._failed.pop(key, None)
        if record is None or now - record.last > MEMORY_SECONDS:
            record = _Record(0, now)
        record.failures += 1
        record.last = now
        self._failed[key] = record
        while len(self._failed) > ENTRIES_MAX:
            self._failed.popitem(last=False)
        return record.failures

    def _delay(self, key: tuple[str, str]) -> float:
        record = self._failed.get(key)
        if record is None:
            return 0.0
        age = self._reactor.seconds() - record.last
        if age > MEMORY_SECONDS:
            return 0.0
        doublings = min(record.failures - 1, DOUBLINGS_MAX)
        return min(LONGEST_DELAY, FIRST_DELAY * 2.0**doublings)
