"""Layer 6: a restore point whose acknowledgement was lost with the line.

A backup that goes on in a new session must not make a second point where the first one was
published after all. So each run's point is looked for before the next: its id is random, and the
chain of heads, which only this tenant's key signs, vouches for its record.
"""

from __future__ import annotations

from cloudconnect.backup.options import BackupResult
from cloudconnect.backup.upload import BackupRun
from cloudconnect.cli.line import Line


class Offers:
    """The runs of one job that came to offer their restore point.

    :param line: to the provider
    :param host: label of the points
    :param job: likewise
    """

    def __init__(self, line: Line, host: str, job: str) -> None:
        self._line = line
        self._labels = (host, job)
        self._runs: list[BackupRun] = []

    def add(self, run: BackupRun) -> None:
        """A run begins."""
        self._runs.append(run)

    @property
    def open(self) -> bool:
        """Whether a point was offered of which it is not known that it is not there."""
        return any(run.offered is not None for run in self._runs)

    async def published(self) -> BackupResult | None:
        """What came of a run whose point is there; None where none is, and then none is open.

        :raises StoredDataDamaged: the repository was rolled back
        :raises CloudConnectError: it could not be found out
        """
        offered = {run.offered.point.hex(): run for run in self._runs if run.offered is not None}
        if not offered:
            return None
        rows = await self._line.manager.points(*self._labels)
        found = next((row for row in rows if row["point"] in offered), None)
        if found is not None:
            run = offered[found["point"]]
            record = run.offered
            assert record is not None
            # In a session: an end of the old one that was still under way is over by then.
            description, keys = self._line.keys()
            heads = await self._line.look(description, keys)
            rows = await self._line.manager.points(*self._labels)
            there = found["point"] in {row["point"] for row in rows}
            if there and heads.vouches(record.point, record.encode()):
                result = run.result
                result.point, result.record = record.point, record
                result.arrival, result.time = found["arrival"], found["time"]
                return result
        self._runs.clear()
        return None
