"""Layer 4: sharing a line's rate: equally between tenants, then between a tenant's tasks.

Pure: it knows no connection and no clock, and is told what time it is. Who wants to move bytes asks
and is granted some; who has moved them asks again. The next grant goes to the group (a tenant) that
has had the least, in it to the task (a session's route) that has had the least, and in that to who
waits longest. So the number of somebody's connections counts for nothing.

**Who was away.** A connection uses what it was granted, and asks again a moment later. A group that
was away catches up on what it missed in the last moments, or it would lose a turn each time; but
not on more, or a tenant that was idle all night would have the line for itself in the morning.

**Buckets.** The line and each capped group have a bucket that fills with its rate and may be in
debt by one grant. So a rate is never passed by more than a bucket and a grant, over any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Final

import attrs

#: A grant is what the rate moves in so many seconds: long enough that who has used one up asks
#: again before the line is idle ...
GRANT_SECONDS: Final = 0.01
#: ... within these bounds, in bytes.
GRANT_MIN: Final = 4 << 10
GRANT_MAX: Final = 1 << 20
#: What a bucket holds, and what a group that was away may catch up on, in grants.
BURST_GRANTS: Final = 2


def grant_of(rate: int) -> int:
    """The size of one grant at this rate, in bytes.

    :param rate: bytes a second
    """
    return min(GRANT_MAX, max(GRANT_MIN, int(rate * GRANT_SECONDS)))


@attrs.define
class Bucket:
    """Bytes that may be moved now; may be in debt.

    :ivar rate: bytes a second that come in
    """

    rate: int
    grant: int = attrs.field(init=False)
    _level: float = attrs.field(init=False)
    _then: float = attrs.field(init=False, default=float("-inf"))

    def __attrs_post_init__(self) -> None:
        self.grant = grant_of(self.rate)
        self._level = self.grant * BURST_GRANTS

    def level(self, now: float) -> float:
        """What is in it."""
        if now > self._then:
            self._level = min(
                float(self.grant * BURST_GRANTS), self._level + (now - self._then) * self.rate
            )
            self._then = now
        return self._level

    def take(self, count: int) -> None:
        """Take so many bytes out."""
        self._level -= count

    def opens(self, now: float) -> float:
        """When something is in it."""
        return now if self.level(now) > 0 else now + (1 - self._level) / self.rate

    def change(self, rate: int, now: float) -> None:
        """Let it fill at another rate from now on."""
        self.level(now)
        self.rate, self.grant = rate, grant_of(rate)
        self._level = min(self._level, self.grant * BURST_GRANTS)


@attrs.define(eq=False)
class _Task:
    """A session's route: what it has had, and who waits."""

    had: float = 0.0
    waiting: deque[Hashable] = attrs.field(factory=deque)


@attrs.define(eq=False)
class _Group:
    """A tenant: what it has had, its tasks with somebody who waits, and its cap."""

    had: float = 0.0
    cap: Bucket | None = None
    tasks: dict[Hashable, _Task] = attrs.field(factory=dict)

    @property
    def waits(self) -> bool:
        return any(task.waiting for task in self.tasks.values())


class FairShare:
    """One direction of a line.

    :param rate: bytes a second of the line, 0 for no limit
    """

    def __init__(self, rate: int = 0) -> None:
        self._line = Bucket(rate) if rate else None
        self._groups: dict[bytes, _Group] = {}
        self._where: dict[Hashable, tuple[bytes, Hashable]] = {}
        self._served = 0.0

    @property
    def _grant(self) -> int:
        return GRANT_MAX if self._line is None else self._line.grant

    def change(self, rate: int, now: float) -> None:
        """Another rate of the line from now on; 0 for no limit."""
        if not rate:
            self._line = None
        elif self._line is None:
            self._line = Bucket(rate)
        else:
            self._line.change(rate, now)

    def cap(self, group: bytes, rate: int, now: float) -> None:
        """Let a group have no more than ``rate`` bytes a second; 0: as much as the line gives."""
        found = self._groups.setdefault(group, _Group(self._served))
        if not rate:
            found.cap = None
        elif found.cap is None:
            found.cap = Bucket(rate)
        elif found.cap.rate != rate:
            found.cap.change(rate, now)

    def forget(self, group: bytes) -> None:
        """A group has no connections any more."""
        self._groups.pop(group, None)

    def ask(self, flow: Hashable, group: bytes, task: Hashable) -> None:
        """Somebody wants to move bytes; nothing happens if it waits already.

        :param flow: who
        :param group: of which tenant
        :param task: for which of its tasks
        """
        if flow in self._where:
            return
        found = self._groups.setdefault(group, _Group(self._served))
        if not found.waits:
            # What it missed for longer than a moment is gone.
            found.had = max(found.had, self._served - BURST_GRANTS * self._grant)
        entry = found.tasks.get(task)
        if entry is None:
            entry = found.tasks[task] = _Task(min((t.had for t in found.tasks.values()), default=0))
        elif not entry.waiting:
            least = min((t.had for t in found.tasks.values() if t.waiting), default=entry.had)
            entry.had = max(entry.had, least - BURST_GRANTS * self._grant)
        entry.waiting.append(flow)
        self._where[flow] = group, task

    def withdraw(self, flow: Hashable) -> None:
        """It does not want them any more."""
        place = self._where.pop(flow, None)
        if place is not None:
            self._groups[place[0]].tasks[place[1]].waiting.remove(flow)

    def done(self, group: bytes, task: Hashable) -> None:
        """A task has no connections any more."""
        if group in self._groups:
            self._groups[group].tasks.pop(task, None)

    def serve(self, now: float) -> tuple[list[tuple[Hashable, int]], float | None]:
        """Grant what may be granted now.

        :return: who may move how many bytes, in order; and when there is more to grant, or None
            where nobody waits
        """
        granted: list[tuple[Hashable, int]] = []
        while self._where:
            if self._line is not None and self._line.level(now) <= 0:
                return granted, self._line.opens(now)
            group, opens = self._next_group(now)
            if group is None:
                return granted, opens
            granted.append(self._grant_to(group))
        return granted, None

    def _next_group(self, now: float) -> tuple[_Group | None, float | None]:
        """The group whose turn it is; or when one's cap allows it again."""
        best, opens = None, None
        for group in self._groups.values():
            if not group.waits:
                continue
            if group.cap is not None and group.cap.level(now) <= 0:
                at = group.cap.opens(now)
                opens = at if opens is None else min(opens, at)
            elif best is None or group.had < best.had:
                best = group
        return best, opens

    def _grant_to(self, group: _Group) -> tuple[Hashable, int]:
        task = min((t for t in group.tasks.values() if t.waiting), key=lambda t: t.had)
        flow = task.waiting.popleft()
        del self._where[flow]
        count = self._grant
        if group.cap is not None:
            count = min(count, group.cap.grant)
            group.cap.take(count)
        if self._line is not None:
            self._line.take(count)
        self._served = max(self._served, group.had)
        group.had += count
        task.had += count
        return flow, count
