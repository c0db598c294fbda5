"""Layer 4: who looks on while the service works: audit log, alarms, metrics.

The service tells each of its watchers what happens, and goes on whatever they do with it: a watcher
that fails is logged, and nobody waits for one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.logger import Logger

from cloudconnect.events import SecurityWarning, SessionEvent


@attrs.frozen(kw_only=True)
class SessionEnd:
    """How a session ended.

    :ivar session: as hexadecimal digits
    :ivar kind: a :class:`~cloudconnect.commands.control.SessionKind`'s word
    :ivar state: how it is kept: an outcome such as ``done`` or ``interrupted``
    :ivar summary: counts that the tenant reported, by name
    """

    session: str
    tenant: str
    kind: str
    host: str
    job: str
    state: str
    summary: dict[str, Any] = attrs.field(factory=dict)


class Watcher:
    """Takes what the service sees. A subclass overrides what it has a use for."""

    def happened(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """A role took a step.

        :param tenant: whose, or ""
        :param reported_by: the role, such as ``service``
        """

    def warned(self, warning: SecurityWarning) -> None:
        """A security warning came in."""

    def logged_in(self, tenant: str, peer: str) -> None:
        """A tenant has logged in."""

    def session_started(self, session: str, tenant: str, kind: str) -> None:
        """A session was asked for, and has its keys."""

    def session_ended(self, end: SessionEnd) -> None:
        """A session is over."""

    def administered(self, act: str, fields: dict[str, Any], outcome: str) -> None:
        """An admin has done something through the admin socket.

        :param act: such as ``set_tenant``
        :param fields: what was asked for; no secret stands in it
        :param outcome: ``done``, or the ``reason`` of the error
        """


class Watchers:
    """All watchers of one service, told one after the other.

    :ivar known: who they are
    """

    _log = Logger()

    def __init__(self) -> None:
        self.known: list[Watcher] = []

    def add(self, watcher: Watcher) -> None:
        """Tell ``watcher`` too from now on."""
        self.known.append(watcher)

    def tell(self, what: Callable[[Watcher], None]) -> None:
        """Call ``what`` with each watcher; one that fails does not keep it from the others."""
        for watcher in self.known:
            try:
                what(watcher)
            except Exception:
                self._log.failure("{watcher} failed", watcher=type(watcher).__name__)
