"""Layer 4: a job goes on in a new session when its line breaks.

A broken line, a provider that stops or was killed, a lost control channel: what is durable stays,
and a new session, with keys of its own, goes on from there (``docs/protocol.rst``, section 9).
Where something was changed on the way nothing is ever tried again: such an error passes through.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from cloudconnect.errors import (
    Aborted,
    Busy,
    Cancelled,
    CloudConnectError,
    NotReachable,
    Refused,
    Truncated,
)
from cloudconnect.shown import Shown
from cloudconnect.wire.channel import FrameChannel

_T = TypeVar("_T")

#: So long, in seconds, a job waits and connects without getting farther, where nothing else is
#: said: a restart of the provider, or of a modem, is over by then.
RETRY_SECONDS: Final = 300.0
#: The first pause, in seconds; each further one is twice as long.
PAUSE_FIRST: Final = 1.0
#: The longest pause, in seconds.
PAUSE_LONGEST: Final = 30.0
#: A pause is shorter by up to this part of it, so that the tenants of a provider that has been
#: away do not all come at the same moment.
PAUSE_JITTER: Final = 0.5
#: Sessions in a row that get no farther than one before them. The time alone would let a line that
#: breaks at the same place again and again carry the same bytes without end.
FAILURES_MAX: Final = 20
#: A session got farther when it did so many bytes of content more than any before it.
FARTHER_BYTES: Final = 1 << 20


class Journey:
    """One job over all of its sessions: what they moved, and how far they came.

    :ivar sessions: dialogues that were begun
    :ivar interruptions: how often the job has gone on in a new session, or tried to
    :ivar bytes_sent: bytes of the frames that this side sent, over all sessions that are over
    :ivar bytes_received: likewise
    :ivar talking: the dialogue of the newest session was begun
    """

    def __init__(self) -> None:
        self.sessions = 0
        self.interruptions = 0
        self.bytes_sent = 0
        self.bytes_received = 0
        self.talking = False
        self._here = 0
        self._farthest = 0

    def over(
        self, dialogue: Callable[[FrameChannel, bytes], _T]
    ) -> Callable[[FrameChannel, bytes], _T]:
        """``dialogue``, counted."""

        def counted(channel: FrameChannel, session: bytes) -> _T:
            self.sessions += 1
            self.talking = True
            self._here = 0
            try:
                return dialogue(channel, session)
            finally:
                self.bytes_sent += channel.bytes_sent
                self.bytes_received += channel.bytes_received

        return counted

    def came_to(self, done: int) -> None:
        """The session has done so many bytes of content, those of earlier sessions too."""
        self._here = max(self._here, done)

    def got_farther(self) -> bool:
        """Whether the newest session came farther than all before it; asked once a session."""
        farther = self.talking and self._here >= self._farthest + FARTHER_BYTES
        self._farthest = max(self._farthest, self._here)
        return farther


@attrs.frozen(repr=False)
class Interruption(Shown):
    """A session was interrupted, and another will be tried.

    :ivar error: what has ended it
    :ivar failures: sessions in a row that got no farther, this one counted
    :ivar seconds: the pause before the next
    """

    error: CloudConnectError
    failures: int
    seconds: float


class Retrying:
    """Runs jobs until they are done, or it is no use.

    :param clock: the reactor, or a ``Clock``
    :param limit: so many seconds of pauses and connecting without getting farther; 0: never again
    :param told: takes each interruption, before the pause
    :param stopped: asked whether the user wants to stop
    :param chance: a random number from 0 up to 1
    """

    def __init__(
        self,
        clock: IReactorTime,
        limit: float = RETRY_SECONDS,
        told: Callable[[Interruption], None] = lambda interruption: None,
        stopped: Callable[[], bool] = lambda: False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._clock: Any = clock
        self._limit = limit
        self._told = told
        self._stopped = stopped
        self._chance = chance
        self._pausing: Deferred[None] | None = None
        self._interrupted = False

    def interrupt(self) -> None:
        """The user wants to stop: no pause lasts any longer, and nothing is tried again."""
        self._interrupted = True
        if self._pausing is not None:
            self._pausing.cancel()

    async def pause(self, seconds: float) -> None:
        """Wait.

        :raises Cancelled: :meth:`interrupt` was called
        """
        self.check()
        self._pausing = deferLater(self._clock, seconds)
        try:
            await self._pausing
        except CancelledError:
            self.check()
            raise
        finally:
            self._pausing = None

    def check(self, cause: BaseException | None = None) -> None:
        """Between two steps: go on only if the user does not want to stop.

        :raises Cancelled: the user does
        """
        if self._interrupted or self._stopped():
            raise Cancelled("interrupted; run the same command again to go on") from cause

    async def run(
        self,
        journey: Journey,
        session: Callable[[], Coroutine[Any, Any, _T]],
        connect: Callable[[], Coroutine[Any, Any, None]],
        unrepeatable: Callable[[], str] = lambda: "",
    ) -> _T:
        """Run a session, and another one as long as that may help.

        :param journey: the job; ``session`` must run its dialogue :meth:`Journey.over` it
        :param session: one session
        :param connect: makes sure that there is a control channel for another one
        :param unrepeatable: why the job cannot begin again, or ``""``
        :raises Cancelled: the user wants to stop
        :raises NotReachable: the line broke, and it was tried again for long enough
        :raises CloudConnectError: what another session would not mend
        """
        failures, spent = 0, 0.0
        while True:
            journey.talking = False
            tried = self._clock.seconds()
            try:
                if journey.interruptions:
                    await connect()
                    self.check()
                return await session()
            except (NotReachable, Busy, Refused) as error:
                broken: CloudConnectError = error
            self.check(broken)
            if self._limit <= 0 or not _may_pass(broken, journey):
                raise broken
            why = unrepeatable()
            if why:
                raise _with_text(broken, f"{_text(broken)}; {why}") from broken
            if journey.got_farther():
                failures, spent = 0, 0.0
            elif not journey.talking:
                spent += self._clock.seconds() - tried
            failures += 1
            seconds = self._next_pause(failures)
            if failures > FAILURES_MAX or spent + seconds > self._limit:
                raise _gave_up(broken, failures - 1, spent) from broken
            journey.interruptions += 1
            self._told(Interruption(broken, failures, seconds))
            await self.pause(seconds)
            spent += seconds

    def _next_pause(self, failures: int) -> float:
        longest = min(PAUSE_LONGEST, PAUSE_FIRST * 2.0 ** (failures - 1))
        return longest * (1 - PAUSE_JITTER * self._chance())


def _may_pass(error: CloudConnectError, journey: Journey) -> bool:
    """Whether another session may do better.

    Behind an interruption the old session may still count against the limit of tasks, and a
    provider that starts may not have all of its roles yet: both are said before any dialogue.
    """
    if isinstance(error, NotReachable):
        return True
    return journey.interruptions > 0 and not journey.talking


def _text(error: CloudConnectError) -> str:
    return (str(error) or type(error).__doc__ or "").rstrip(".")


def _with_text(error: CloudConnectError, text: str) -> NotReachable:
    """An error of the same kind that says more; what only followed a broken line is one too."""
    if isinstance(error, Aborted):
        return Aborted(text, error.code)
    return type(error)(text) if isinstance(error, NotReachable) else NotReachable(text)


def _gave_up(error: CloudConnectError, failures: int, spent: float) -> NotReachable:
    text = _text(error)
    if failures:
        times = "once" if failures == 1 else f"{failures} times"
        text += f". It was tried again {times} in {spent:.0f} s and got no farther"
    if not isinstance(error, Truncated):  # of which the command says so itself
        text += ": run the same command again, it goes on from there"
    return _with_text(error, text)
