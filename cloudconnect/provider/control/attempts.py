"""Layer 4: how long a failed log-in makes the next one wait.

Failures cost growing delays for each (tenant, address) and for each address, so that a guesser is
slow; an address that has logged in before is not slowed by what strangers at other addresses do
(``docs/protocol.rst``, section 2). Guesses at all machines of a tenant count together, and who logs
in as one of them takes back only what was counted for that one.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs
from twisted.internet.interfaces import IReactorTime

from cloudconnect.wire.login import DEFAULT_LABEL

#: Delay after the first failure, in seconds; it doubles with each further one.
FIRST_DELAY: Final = 0.5
#: Longest delay, in seconds: less than the time limit of an authentication.
LONGEST_DELAY: Final = 10.0
#: Enough doublings to be over the longest delay, few enough for any float.
DOUBLINGS_MAX: Final = 16
#: A failure is forgotten after this many seconds.
MEMORY_SECONDS: Final = 900.0
#: Most machines of a tenant that are counted each by itself; nobody takes the others' back.
LABELS_MAX: Final = 16
#: Most failures that are written down in a row, and how many a second beside that: nobody who
#: cannot log in decides how fast the accounts grow, or how long others wait for the disk.
KEPT_MAX: Final = 1000
KEPT_RATE: Final = 1.0
#: Most entries remembered; the oldest go first.
ENTRIES_MAX: Final = 10_000


@attrs.define
class _Record:
    failures: int
    last: float
    of_labels: dict[str, int] = attrs.field(factory=dict)


class LoginAttempts:
    """Remembers failed log-ins in memory.

    :param reactor: clock
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._failed: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._room = float(KEPT_MAX)  # for failures that are written down
        self._filled = reactor.seconds()

    def delay(self, tenant: str, address: str) -> float:
        """How many seconds the next attempt of ``tenant`` from ``address`` has to wait."""
        return max(self._delay((tenant, address)), self._delay(("", address)))

    def failed(self, tenant: str, address: str, label: str = DEFAULT_LABEL) -> int:
        """Note a failure; returns how many there were for this tenant from this address.

        :param label: of the machine as which somebody wanted to log in
        """
        self._count(("", address), "")
        return self._count((tenant, address), label)

    def keeps(self, failures: int) -> bool:
        """Whether a failure is written down, and not in the log alone: the first one, and each with
        which they have doubled, within what is bounded for all of them.

        :param failures: what :meth:`failed` has returned
        """
        if failures & (failures - 1):
            return False
        now = self._reactor.seconds()
        self._room = min(float(KEPT_MAX), self._room + (now - self._filled) * KEPT_RATE)
        self._filled = now
        if self._room < 1.0:
            return False
        self._room -= 1.0
        return True

    def succeeded(self, tenant: str, address: str, label: str = DEFAULT_LABEL) -> None:
        """Forget the failures of this machine of a tenant at this address.

        :param label: of the machine
        """
        self._failed.pop(("", address), None)
        record = self._failed.get((tenant, address))
        if record is not None:
            record.failures -= record.of_labels.pop(label, 0)
            if record.failures <= 0:
                del self._failed[tenant, address]

    def _count(self, key: tuple[str, str], label: str) -> int:
        now = self._reactor.seconds()
        record = self._failed.pop(key, None)
        if record is None or now - record.last > MEMORY_SECONDS:
            record = _Record(0, now)
        record.failures += 1
        if label in record.of_labels or len(record.of_labels) < LABELS_MAX:
            record.of_labels[label] = record.of_labels.get(label, 0) + 1
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
