"""Layer 4: what was seen of a job's earlier sessions, for the next one.

Who changes bytes on the way and cuts the control channel at the same moment would otherwise not be
noticed by the tenant, whose command goes on in a new session as behind any broken line.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning

#: Jobs that are remembered; those that warned longest ago go first.
JOBS_MAX: Final = 10_000
#: Warnings that are remembered of one job: the first ones.
WARNINGS_MAX: Final = 16


class EarlierWarnings:
    """Warnings of the provider's roles, by tenant and job; in memory."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[tuple[str, bytes], list[SecurityWarning]] = OrderedDict()

    def keep(
        self, tenant: str, job: bytes, warnings: Iterable[SecurityWarning], untold: bool
    ) -> None:
        """A session of a job is over.

        :param job: 16 bytes
        :param untold: its tenant has not asked how it ended; else it was told, and only what
            means that something was changed is kept, in case that the answer is lost
        """
        kept = self._jobs.pop((tenant, job), [])
        for warning in warnings:
            if untold or warning.kind is not WarningKind.TRUNCATED:
                warning.add_to(kept)
        if kept:
            self._jobs[tenant, job] = kept[:WARNINGS_MAX]
        if len(self._jobs) > JOBS_MAX:
            self._jobs.popitem(last=False)

    def of(self, tenant: str, job: bytes) -> list[SecurityWarning]:
        """What was seen of a job's sessions that are over."""
        return list(self._jobs.get((tenant, job), ()))
