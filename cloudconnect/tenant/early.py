"""Layer 4: a session that is asked for together with the log-in, to save a round trip.

What a command's first Start asks is known before it is logged in. It is sent behind the log-in's
proof and answered behind the log-in's answer. Nothing of that answer is looked at before the
provider has proved itself too; where the command then wants another session, or none, the keys are
forgotten and the session ended.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from cloudconnect.commands.control import Finish, SessionKind, Start
from cloudconnect.shown import Shown
from cloudconnect.tenant.ahead import Ahead
from cloudconnect.tenant.lines import ControlClient

#: A session that was not used for so many seconds is not used any more: its Key A ends, and so do
#: connections that nobody speaks on.
EARLY_SECONDS: Final = 10.0


@attrs.frozen(repr=False)
class Foreseen(Shown):
    """What the first session of a command will be, as far as can be known before the log-in.

    :ivar kind: what it is for
    :ivar repository: 16 bytes
    :ivar job_id: 16 bytes
    :ivar host: label of this machine
    :ivar job: the job's
    :ivar streams: connections between the accelerators, or 0: it goes without
    """

    kind: SessionKind
    repository: bytes
    job_id: bytes
    host: str
    job: str
    streams: int = 0

    @property
    def asked(self) -> dict[str, Any]:
        """What Start asks."""
        return {
            "kind": self.kind.value,
            "job": self.job_id,
            "host": self.host,
            "name": self.job,
            "repository": self.repository,
            "wan": self.streams > 0,
            "streams": self.streams or 1,
        }


class EarlyStart:
    """A Start that was sent before it was known whether its answer will be used.

    :param reactor: clock
    :param control: the channel on which the log-in is under way
    :param asked: what it asks
    :param ahead: connections for its session
    :ivar moved: what the last MoveOn meanwhile said: session, lost, text
    """

    def __init__(
        self, reactor: IReactorTime, control: ControlClient, asked: dict[str, Any], ahead: Ahead
    ) -> None:
        self._reactor = reactor
        self._control = control
        self._asked = asked
        self._ends = reactor.seconds() + EARLY_SECONDS
        self.ahead = ahead
        self.moved: tuple[bytes, bool, str] | None = None
        self._answer: Deferred[dict[str, Any]] = control.call(Start, **asked)

    def fits(self, control: ControlClient, asked: dict[str, Any]) -> bool:
        """Whether this is the session that is wanted now, on the channel that is there now."""
        in_time = self._reactor.seconds() < self._ends
        return self._control is control and self._asked == asked and in_time

    def answer(self) -> Deferred[dict[str, Any]]:
        """The answer to Start; once, and only behind a log-in that has succeeded."""
        return self._answer

    def drop(self) -> Deferred[None]:
        """Nobody wants it: forget its keys, and have the provider end the session.

        :return: fires when that was said
        """
        self.ahead.close()
        return self._answer.addCallbacks(self._give_back, lambda _: None)

    def refuse(self) -> None:
        """The log-in has failed: forget its keys, and say nothing more."""
        self.ahead.close()
        self._answer.addCallbacks(_forget, lambda _: None)

    def _give_back(self, answer: dict[str, Any]) -> Deferred[None]:
        _forget(answer)
        over = self._control.call(
            Finish, session=answer["session"], outcome="interrupted", summary={}, warnings=[]
        )
        return over.addCallbacks(lambda _: None, lambda _: None)


def _forget(answer: dict[str, Any]) -> None:
    for key in answer["keys_a"]:
        key.forget()
