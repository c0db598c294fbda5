"""Layer 3: what of a repository is kept, and for how long: rules, bin, locks, retention, freezing.

The part of a :class:`~cloudconnect.repository.store.Repository` that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from cloudconnect.content.retention import RetentionPolicy
from cloudconnect.repository.bin import Bin
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.clock import observe
from cloudconnect.repository.freezing import freeze, is_frozen, thaw
from cloudconnect.repository.points import PointRow
from cloudconnect.repository.retention import Retention, RetentionDecision, RetentionRow
from cloudconnect.repository.rules import Rules, read_rules, write_rules


@attrs.frozen
class Expired:
    """What had its time, and went.

    :ivar removed: points that left the bin for good
    :ivar activated: hosts and jobs of retention policies that came into force
    """

    removed: list[PointRow]
    activated: list[tuple[str, str]]


class Keeping:
    """What is kept; used by one thread at a time.

    :ivar store: where the packs lie
    :ivar catalogue: what lies where
    """

    def __init__(
        self, store: LocalBlobStore, catalogue: Catalogue, clock: Callable[[], float]
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self._clock = clock
        self._bin = Bin(store, catalogue, clock)
        self._retention = Retention(self._bin, catalogue, clock)

    @property
    def rules(self) -> Rules:
        """What the provider demands and allows here."""
        with self.catalogue.reading() as connection:
            return read_rules(connection)

    def set_rules(self, rules: Rules) -> None:
        """Put rules into force; deadlines that are set already stay as they are."""
        if rules != self.rules:
            with self.catalogue.writing() as connection:
                write_rules(connection, rules)

    @property
    def frozen(self) -> bool:
        """Whether nothing is deleted, expires or is collected."""
        with self.catalogue.reading() as connection:
            return is_frozen(connection)

    def freeze(self) -> None:
        """Stop every deletion and expiry, collecting, and the expiry clock, from now on."""
        freeze(self.store, self.catalogue, self._clock())

    def thaw(self) -> None:
        """Let all of that go on."""
        thaw(self.store, self.catalogue, self._clock())

    def observe_clock(self) -> None:
        """Let the expiry clock count: call it more often than every 26 hours."""
        with self.catalogue.writing() as connection:
            observe(connection, self._clock())

    def delete(self, points: Iterable[bytes], by: str = "tenant") -> list[PointRow]:
        """Put points into the bin: all of them, or none. What is there already stays as it is.

        :param points: their ids, 16 bytes each
        :param by: ``tenant``, ``retention`` or ``provider``
        :return: the points, in their order
        :raises NotFound: there is no such point, or it was removed
        :raises Refused: one is locked, or the repository is frozen
        :raises NoSpace: the bin or the disk is full
        """
        return self._bin.delete(points, by)

    def undelete(self, points: Iterable[bytes]) -> list[PointRow]:
        """Take points out of the bin; nothing happens to those that are not in it.

        :param points: their ids, 16 bytes each
        :return: the points, in their order
        :raises NotFound: there is no such point, or it was removed
        """
        return self._bin.undelete(points)

    def lock(self, points: Iterable[bytes], until: float) -> list[PointRow]:
        """See to it that nobody can delete points until then; a longer lock stays.

        :param points: their ids, 16 bytes each
        :param until: in seconds since 1970; rounded up
        :return: the points, in their order
        :raises NotFound: there is no such point
        :raises Refused: one is in the bin, or ``until`` is past or more than 100 years away
        :raises NoSpace: the disk is full
        """
        return self._bin.lock(points, until)

    def expire(self) -> Expired:
        """Remove points whose time in the bin is over, and put pending retention into force.

        Nothing happens while the repository is frozen.

        :raises NoSpace: the disk is full
        """
        return Expired(self._bin.expire(), self._retention.activate())

    def bin_usage(self) -> tuple[int, int | None]:
        """At most so many bytes are in the bin, and with how many it is full, or None."""
        return self._bin.usage()

    def check_bin_room(self) -> None:
        """That the bin is not full: while it is, there is no new backup.

        :raises NoSpace: it is
        """
        self._bin.check_room()

    def retention(self) -> list[RetentionRow]:
        """The retention policies, in the order of hosts and jobs."""
        return self._retention.rows()

    def set_retention(self, host: str, job: str, policy: RetentionPolicy | None) -> RetentionRow:
        """Set what is kept of a job on a host.

        :param host: empty: of every host that has no policy of its own
        :param job: likewise
        :param policy: None: everything
        :raises Refused: outside of the rules
        """
        return self._retention.set(host, job, policy)

    def apply_retention(self, dry_run: bool = False) -> list[RetentionDecision]:
        """Put what no policy keeps into the bin.

        Points that are locked stay, and all once the bin is full or while the repository is frozen:
        the decision says so.

        :param dry_run: only say what would go and what would stay
        :return: a decision on every point that no policy keeps; of a dry run, on all that are
            published
        :raises NoSpace: the disk is full
        """
        return self._retention.apply(dry_run)

    def preview_retention(
        self, host: str, job: str, policy: RetentionPolicy | None
    ) -> list[RetentionDecision]:
        """What would stay and go if this policy were in force for that host and job.

        :raises Refused: outside of the rules
        """
        return self._retention.preview(host, job, policy)
