"""Layer 4: the sessions that run, between their Start and their end, as the service knows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import SessionKind
from cloudconnect.errors import ContextMismatch
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.service.planning import Part
from cloudconnect.wire.login import DEFAULT_LABEL


@attrs.define(eq=False, kw_only=True)
class LiveSession:
    """A session between its Start and its end.

    :ivar labels: host and job that its restore points belong to
    :ivar notify: tells the tenant of a warning; fires with whether it has it
    :ivar move_on: asks the tenant to go on in a new session; takes the session, whether a role
        of it is lost, and why
    :ivar seen: what the provider's roles have warned of
    :ivar told: those of them that the tenant has said that it has
    :ivar reported: how many warnings the tenant has reported
    :ivar label: the name of the credential with which it was started
    :ivar credential: its number, or None where nobody asked
    :ivar failed: a role of the provider saw that something was changed
    :ivar broken: a role has lost the tenant's tunnel
    :ivar mover_lost: the mover could not be asked at the end
    :ivar succeeded: its job goes on in another session
    """

    session: bytes
    tenant: str
    kind: SessionKind
    job: bytes
    labels: tuple[str, str]
    repository: bytes
    parts: list[Part]
    notify: Callable[[SecurityWarning], Deferred[bool]]
    move_on: Callable[[bytes, bool, str], None] = lambda session, lost, text: None
    seen: list[SecurityWarning] = attrs.field(factory=list)
    told: list[SecurityWarning] = attrs.field(factory=list)
    reported: int = 0
    label: str = DEFAULT_LABEL
    credential: int | None = None
    orphaned: IDelayedCall | None = None
    ending: bool = False
    failed: bool = False
    mover_lost: bool = False
    broken: bool = False
    succeeded: bool = False
    ended: Deferred[None] = attrs.field(factory=Deferred, repr=False)

    @property
    def identifier(self) -> str:
        """The session as hexadecimal digits."""
        return self.session.hex()

    def is_of(self, tenant: str, job: bytes, label: str) -> bool:
        """Whether it is one of this job's, begun with the credential of this name."""
        return (self.tenant, self.job, self.label) == (tenant, job, label)


class LiveSessions:
    """The sessions that run; iterating gives those of this moment."""

    def __init__(self) -> None:
        self._known: dict[bytes, LiveSession] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(list(self._known.values()))

    def __contains__(self, session: object) -> bool:
        return session in self._known

    def add(self, live: LiveSession) -> None:
        """It was asked for; from now on it counts."""
        self._known[live.session] = live

    def remove(self, live: LiveSession) -> None:
        """It is over; nothing happens where that is known."""
        self._known.pop(live.session, None)

    def get(self, session: bytes) -> LiveSession | None:
        """The session of this number, or None."""
        return self._known.get(session)

    def named(self, identifier: str) -> LiveSession | None:
        """The session of these hexadecimal digits, or None.

        :param identifier: "" for none
        """
        return self._known.get(bytes.fromhex(identifier)) if identifier else None

    def of(self, tenant: str, session: bytes) -> LiveSession:
        """The running session of this tenant.

        :raises ContextMismatch: it is not this tenant's, or not running
        """
        live = self._known.get(session)
        if live is None or live.tenant != tenant:
            raise ContextMismatch("no such session is running for this tenant")
        return live

    def taking_part(self, link: BoundedAMP, session: str) -> LiveSession:
        """The running session that the role at the end of ``link`` takes part in.

        :param session: as hexadecimal digits
        :raises ContextMismatch: there is no such one
        """
        for live in self.at(link):
            if live.identifier == session:
                return live
        raise ContextMismatch("this role takes part in no such session")

    def at(self, link: BoundedAMP) -> list[LiveSession]:
        """The sessions that a role takes part in."""
        return [live for live in self if any(part.link is link for part in live.parts)]

    def writing_to(self, repository: bytes) -> list[LiveSession]:
        """The sessions that write to a repository."""
        return [
            live
            for live in self
            if live.repository == repository and live.kind is SessionKind.BACKUP
        ]

    def busy(self) -> Counter[BoundedAMP]:
        """In how many sessions each role takes part."""
        return Counter(part.link for live in self for part in live.parts)
