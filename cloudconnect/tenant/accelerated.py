"""Layer 4: the tenant's own WAN accelerator, as its job manager knows it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import ReportEvent, ReportWarning
from cloudconnect.errors import ProtocolViolation
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.shown import Shown

#: What adds up over sessions.
SUMMED: Final = frozenset(
    {
        "bytes_before",
        "bytes_after",
        "line_sent",
        "line_received",
        "saved_by_reference",
        "saved_by_delta",
        "saved_by_compression",
        "misses",
        "resent",
    }
)


@attrs.frozen(repr=False)
class OwnAccelerator(Shown):
    """The source WAN accelerator that a session goes through.

    :ivar link: the job manager's end of its LAN link to it
    :ivar endpoint: where the mover's connection goes
    :ivar cache: names the tenant's cache there, 32 bytes: the provider's id and the repository's
    :ivar streams: connections from it to the provider's
    :ivar here: whether it is in this process, so that those can be opened ahead
    :ivar again: makes another line to it, on which a session may be let in that was refused here;
        None: there is only this one
    """

    link: BoundedAMP
    endpoint: IStreamClientEndpoint
    cache: bytes
    streams: int
    here: bool = True
    again: Callable[[], Awaitable[OwnAccelerator]] | None = None

    async def ready(self) -> OwnAccelerator:
        """Itself: it is always there."""
        return self


@attrs.define(repr=False)
class Wanted(Shown):
    """Whether the sessions of a job go through accelerators.

    :ivar used: whether the next one does
    :ivar optional: whether the job may go on without
    """

    used: bool = False
    optional: bool = True

    def go_without(self) -> bool:
        """The provider has no accelerator (any more): use none from now on, if that may be."""
        if not (self.used and self.optional):
            return False
        self.used = False
        return True


def read_counts(counts: Any) -> dict[str, int]:
    """What an accelerator says that it has saved: numbers by name.

    :raises ProtocolViolation: it says something else
    """
    if not isinstance(counts, dict):
        raise ProtocolViolation("an accelerator's counts cannot be read")
    for name, count in counts.items():
        if type(name) is not str or type(count) is not int:
            raise ProtocolViolation("an accelerator's counts cannot be read")
    return counts


def added(earlier: dict[str, int], later: dict[str, int]) -> dict[str, int]:
    """The counts of several sessions: sums of those that are bytes, the last of all others."""
    sums = {name: earlier.get(name, 0) + value for name, value in later.items() if name in SUMMED}
    return {**earlier, **later, **sums}


class Reports(CommandLocator):
    """What the tenant's own roles report to their job manager.

    :param happened: takes each step of a session
    :param warned: takes each security warning
    """

    def __init__(
        self,
        happened: Callable[[SessionEvent], None],
        warned: Callable[[SecurityWarning], None],
    ) -> None:
        super().__init__()
        self._happened = happened
        self._warned = warned

    @ReportWarning.responder
    def report_warning(self, warning: Any) -> dict[str, Any]:
        """A role saw something."""
        try:
            self._warned(SecurityWarning.from_dict(warning))
        except (ValueError, KeyError, TypeError):
            raise ProtocolViolation("a warning cannot be read") from None
        return {}

    @ReportEvent.responder
    def report_event(self, event: Any) -> dict[str, Any]:
        """A role took a step."""
        try:
            self._happened(SessionEvent(**event))
        except TypeError:
            raise ProtocolViolation("an event cannot be read") from None
        return {}
