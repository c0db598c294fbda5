"""Layer 4: what is done to the repositories of a mover beside sessions: keeping and removing.

Every method blocks, opens the repository for itself and closes it again, and may be called in any
thread; none needs a key. The mover calls them for the service
(:mod:`cloudconnect.commands.keeping`), its maintenance by the hour
(:mod:`cloudconnect.provider.data_mover.maintenance`), and the command line where no provider runs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import attrs

from cloudconnect.commands.control import ACT_POINTS_MAX
from cloudconnect.commands.paging import fit_page
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.errors import NoSpace, NotFound, ProtocolViolation
from cloudconnect.provider.data_mover.reserve import Reserve
from cloudconnect.repository.accounting import read_since
from cloudconnect.repository.points import DELETED, PUBLISHED, STATES, PointRow
from cloudconnect.repository.removal import remove_repository
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository

_T = TypeVar("_T")

#: Findings of a scrub that are told as texts, each of so many characters at most: with more an
#: answer would be too long. All are counted.
FINDINGS_MAX, FINDING_MAX = 64, 500


class RepositoryActs:
    """The acts on the repositories below one directory.

    :ivar directory: where repositories lie, each in a folder named by its id in hexadecimal
    :param reserve: what is let go of where the disk is full, and made again when it is not
    """

    def __init__(self, directory: Path, reserve: Reserve | None = None) -> None:
        self.directory = directory
        self._reserve = reserve

    def folder(self, repository: bytes) -> Path:
        """Where a repository lies, whether it is there or not."""
        return self.directory / repository.hex()

    @property
    def read_only(self) -> bool:
        """Whether nothing can be written."""
        return is_read_only(self.directory)

    def look_at_reserve(self) -> bool:
        """Fill the reserve where there is room for it again; whether anything new may be stored."""
        if self._reserve is None:
            return True
        self._reserve.look()
        return not self._reserve.given

    def repositories(self) -> list[bytes]:
        """The repositories that are there."""
        names = sorted(path.name for path in self.directory.iterdir() if path.is_dir())
        return [bytes.fromhex(name) for name in names if _is_name(name)]

    def open(self, repository: bytes) -> Repository:
        """Open a repository; on a read-only file system for reading only.

        Where the disk is full to the last bytes, the reserve makes room for that.

        :raises NotFound: there is none
        """
        if self._reserve is not None:
            self._reserve.look(make=False)
        folder = self.folder(repository)
        return Repository.open(folder, read_only=is_read_only(folder))

    def _with_room(self, act: Callable[[], _T]) -> _T:
        """Do what makes room, or must not fail for want of it; once more where there was none."""
        try:
            return act()
        except NoSpace:
            if self._reserve is None or not self._reserve.release():
                raise
            return act()

    # --- for tenants -----------------------------------------------------------------------------

    def set_rules(self, repository: bytes, rules: Any, frozen: bool) -> bool:
        """Put rules into force, and freeze or thaw; what is so already is not written again.

        :param rules: a map
        :return: whether it is so now; False where nothing can be written (or deleted, for that)
        :raises ProtocolViolation: it is no map that can be used
        """
        wanted = Rules.from_map(_map(rules))

        def act() -> bool:
            with self.open(repository) as opened:
                known = (opened.rules, opened.frozen)
                if known == (wanted, frozen):
                    return True
                if is_read_only(self.folder(repository)):
                    return False
                if known[1] != frozen:
                    opened.freeze() if frozen else opened.thaw()
                if known[0] != wanted:
                    opened.set_rules(wanted)
                return True

        try:
            return self._with_room(act)
        except NoSpace:
            return False

    def points(self, repository: bytes, query: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """One page of restore points as maps, and whether there is more.

        :param query: ``host``, ``job``, ``tag`` (empty: any), ``after``, ``limit``, ``states``
        """
        limit = query["limit"]
        with self.open(repository) as opened:
            rows = opened.points(
                host=query["host"] or None,
                job=query["job"] or None,
                tag=query["tag"] or None,
                after=query["after"],
                limit=limit + 1,
                states=read_states(query.get("states")),
            )
        return fit_page([row.as_map() for row in rows], limit)

    def delete(self, repository: bytes, points: Any, by: str) -> list[dict[str, Any]]:
        """Put points into the bin; what became of them.

        :param by: ``tenant`` or ``provider``
        """
        ids = read_points(points)
        with self.open(repository) as opened:
            return [point_state(row) for row in opened.delete(ids, by)]

    def undelete(self, repository: bytes, points: Any) -> list[dict[str, Any]]:
        """Take points out of the bin; what became of them."""
        ids = read_points(points)
        with self.open(repository) as opened:
            return [point_state(row) for row in opened.undelete(ids)]

    def lock(self, repository: bytes, points: Any, until: int) -> list[dict[str, Any]]:
        """Lock points until a moment, in seconds since 1970; what became of them."""
        ids = read_points(points)
        with self.open(repository) as opened:
            return [point_state(row) for row in opened.lock(ids, until)]

    def withdraw_session(self, repository: bytes, session: bytes) -> int:
        """Withdraw what a session has published lately; how many points that were."""
        with self.open(repository) as opened:
            rows = opened.points(newest_first=True, states=(PUBLISHED, DELETED))
            found = [row.point for row in rows if row.session == session]
            opened.withdraw(found, session)
        return len(found)

    # --- retention -------------------------------------------------------------------------------

    def retention(
        self, repository: bytes, after: int, limit: int
    ) -> tuple[list[dict[str, Any]], dict[str, Any], bool]:
        """One page of the policies, the rules, and whether there is more."""
        with self.open(repository) as opened:
            rows = [row.as_map() for row in opened.retention()]
            rules = opened.rules.as_map()
        page, more = fit_page(rows[after : after + limit + 1], limit)
        return page, rules, more

    def set_retention(self, repository: bytes, host: str, job: str, policy: Any) -> dict[str, Any]:
        """Set a policy; how it stands now."""
        _check_labels(host, job)
        wanted = read_policy(policy)
        with self.open(repository) as opened:
            return opened.set_retention(host, job, wanted).as_map()

    def preview_retention(
        self,
        repository: bytes,
        proposed: tuple[str, str, Any] | None,
        after: int,
        limit: int,
    ) -> tuple[list[dict[str, Any]], bool]:
        """One page of what retention would do, and whether there is more.

        :param proposed: host, job and policy as if they were set; None: what is set
        """
        with self.open(repository) as opened:
            if proposed is None:
                decisions = opened.apply_retention(dry_run=True)
            else:
                host, job, policy = proposed
                _check_labels(host, job)
                decisions = opened.preview_retention(host, job, read_policy(policy))
        rows = sorted((d for d in decisions if d.row.arrival > after), key=lambda d: d.row.arrival)
        return fit_page([decision.as_map() for decision in rows[: limit + 1]], limit)

    # --- for the provider ------------------------------------------------------------------------

    def measure(self, repository: bytes) -> dict[str, Any]:
        """What a repository holds, as numbers."""
        with self.open(repository) as opened:
            measured = opened.measured
            found = {"live": measured.live, "bin": measured.bin, "garbage": measured.garbage}
            return {
                **opened.statistics(),
                **{f"bytes_{name}": count for name, count in found.items()},
                "bin_bytes_max": opened.rules.bin_bytes,
            }

    def report(self, repository: bytes) -> dict[str, Any]:
        """As :meth:`measure`, and when it was tended, in seconds since 1970.

        ``collected_at``: its last collection of garbage, 0: never. ``read_since``: by then all that
        is stored was read and compared, or has come since; 0 where nothing is stored.
        """
        with self.open(repository) as opened:
            collected = opened.measured.time
            with opened.catalogue.reading() as connection:
                since = read_since(connection)
        tended = {"collected_at": int(collected), "read_since": int(since)}
        return {**self.measure(repository), **tended}

    def collect(
        self,
        repository: bytes,
        progress: Callable[..., None] = lambda *_: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Let expire what is due, then give back the room of what nobody needs; the counts."""

        def act() -> dict[str, Any]:
            removed = self.expire(repository)
            with self.open(repository) as opened:
                result = opened.collect(progress, cancelled)
            return {"points_removed": removed, **attrs.asdict(result)}

        return self._with_room(act)

    def remove(self, repository: bytes) -> None:
        """Delete a repository for good; nothing happens where it is gone already.

        :raises Refused: it is frozen, or a restore point is locked
        :raises Busy: somebody has it open
        """
        remove_repository(self.folder(repository), time.time())

    def has_released(self, repository: bytes) -> bool:
        """Whether something is left there of jobs that were refused for want of quota."""
        with self.open(repository) as opened:
            return opened.has_released

    def expire(self, repository: bytes) -> int:
        """Look at the expiry clock, and let go what has had its time; how many points went."""

        def act() -> int:
            with self.open(repository) as opened:
                opened.observe_clock()
                return len(opened.expire().removed)

        return self._with_room(act)

    def apply_retention(self, repository: bytes) -> int:
        """Put what no policy keeps into the bin; how many points that were."""
        with self.open(repository) as opened:
            return sum(1 for decision in opened.apply_retention() if not decision.keep)

    def scrub(
        self,
        repository: bytes,
        limit: int | None = None,
        rate: float | None = None,
        progress: Callable[..., None] = lambda *_: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:
        """Look at stored bytes; numbers, how many findings, and the first of them as texts.

        :param limit: bytes to read; None for all
        :param rate: bytes a second; None as fast as it goes
        """
        with self.open(repository) as opened:
            result = opened.scrub(limit, rate, progress, cancelled).as_map()
        findings = [text[:FINDING_MAX] for text in result["findings"][:FINDINGS_MAX]]
        return {**result, "findings": findings}


def is_read_only(folder: Path) -> bool:
    """Whether a folder lies on a file system that is mounted read-only."""
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except FileNotFoundError:
        raise NotFound("there is no repository in this place") from None


def read_points(points: Any) -> list[bytes]:
    """The ids of points that a peer sent, each once.

    :raises ProtocolViolation: too many or none, or not ids
    """
    if not isinstance(points, list) or not 0 < len(points) <= ACT_POINTS_MAX:
        raise ProtocolViolation(f"points is not a list of 1 to {ACT_POINTS_MAX} ids")
    if not all(type(point) is bytes and len(point) == 16 for point in points):
        raise ProtocolViolation("a restore point is named by 16 bytes")
    return list(dict.fromkeys(points))


def read_states(states: Any) -> tuple[str, ...]:
    """The states that a peer asked for; published where it did not say.

    :raises ProtocolViolation: no list of states
    """
    if states is None:
        return (PUBLISHED,)
    if not isinstance(states, list) or not all(state in STATES for state in states):
        raise ProtocolViolation(f"states is not a list of {', '.join(STATES)}")
    return tuple(states)


def read_policy(policy: Any) -> RetentionPolicy | None:
    """The policy that a peer sent; None keeps everything.

    :raises ProtocolViolation: it cannot be used
    """
    return None if policy is None else RetentionPolicy.from_map(_map(policy))


def _check_labels(*labels: str) -> None:
    for label in labels:
        if len(label) > LABEL_MAX or (label and not label.isprintable()):
            raise ProtocolViolation(
                f"host and job labels have at most {LABEL_MAX} printable characters"
            )


def point_state(row: PointRow) -> dict[str, Any]:
    """What an act on a point says that became of it."""
    return {
        "point": row.point.hex(),
        "state": row.state,
        "bin_until": row.bin_until,
        "locked_until": row.locked_until,
    }


def _map(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ProtocolViolation("that is not a map")
    return value


def _is_name(name: str) -> bool:
    return len(name) == 32 and not set(name) - set("0123456789abcdef")
