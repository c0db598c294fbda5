"""Layer 4: good ends of sessions, for as long as their tenant may take them back.

A tenant reports a good end while it waits for what is left of its own accelerator's connections
(``docs/protocol.rst``, section 2), and takes that back where they do not end well.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from cloudconnect.provider.service.live import LiveSession
from cloudconnect.settings import AMEND_SECONDS


class GoodEnds:
    """Sessions that were said to have ended well, lately.

    It may be taken back for a while, and until their job goes on in another session. Who begins
    that has judged those before it: what comes late, as on a line that somebody has held up, must
    not undo what it has found since.

    :param clock: the reactor, or a ``Clock``
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._known: dict[LiveSession, float] = {}  # until when; oldest first
        self._taking_back: dict[LiveSession, Deferred[None]] = {}

    def add(self, live: LiveSession) -> None:
        """This one was said to have ended well just now."""
        self._forget()
        if not live.succeeded:
            self._known[live] = self._clock.seconds() + AMEND_SECONDS

    def has(self, live: LiveSession) -> bool:
        """Whether the end of this one may be taken back."""
        self._forget()
        return live in self._known

    @contextmanager
    def taking_back(self, live: LiveSession) -> Iterator[None]:
        """That is done inside, and cannot be done again."""
        self._known.pop(live, None)
        over = self._taking_back[live] = Deferred()
        try:
            yield
        finally:
            del self._taking_back[live]
            over.callback(None)

    async def judge(self, tenant: str, job: bytes, label: str) -> None:
        """A job goes on: no end of its sessions is taken back any more; what is being taken back is
        waited for."""
        for live in [one for one in self._known if one.is_of(tenant, job, label)]:
            del self._known[live]
        waited = [over for one, over in self._taking_back.items() if one.is_of(tenant, job, label)]
        await DeferredList(waited)

    def _forget(self) -> None:
        """What was said of these sessions stands by now."""
        now = self._clock.seconds()
        while self._known and next(iter(self._known.values())) < now:
            del self._known[next(iter(self._known))]
