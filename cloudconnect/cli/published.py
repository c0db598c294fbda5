"""Layer 6: a restore point whose acknowledgement was lost with the line.

A backup that goes on in a new session must not make a second point where the first one was
published after all. So each run's point is looked for before the next: its id is random, and the
chain of heads, which only this tenant's key signs, vouches for its record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudconnect.backup.options import BackupResult
from cloudconnect.cli.line import Line
from cloudconnect.errors import NotAllowed

if TYPE_CHECKING:
    from cloudconnect.backup.upload import BackupRun


class Offers:
    """The runs of one job that came to offer their restore point.

    :param line: to the provider
    :param host: label of the points
    :param job: likewise
    :param job_id: names the job over all its sessions, 16 bytes
    """

    def __init__(self, line: Line, host: str, job: str, job_id: bytes) -> None:
        self._line = line
        self._job_id = job_id
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
        # In a session of the same job: with its Start the old one is over, however its line broke,
        # and what either side's roles saw of it has been judged.
        description, keys = self._line.keys()
        heads = await self._line.look(description, keys, self._job_id)
        try:
            listed = await self._line.manager.points(*self._labels)
        except NotAllowed:
            # This machine may only write, and cannot see whether its point was withdrawn meanwhile:
            # rather a second one of the same than none.
            listed = []
        for row in listed:
            run = offered.get(row["point"])
            record = None if run is None else run.offered
            if run is None or record is None or not heads.vouches(record.point, record.encode()):
                continue
            result = run.result
            result.point, result.record = record.point, record
            result.arrival, result.time = row["arrival"], row["time"]
            return result
        self._runs.clear()
        return None
