"""Layer 4: what a tenant asks about what it has stored, on its control channel.

Its history, its repository, its restore points and how they are kept (``docs/protocol.rst``,
section 2). Nothing is read before it is known that the tenant may.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.control import (
    CreateRepository,
    DeletePoints,
    GetRetention,
    ListHistory,
    ListPoints,
    LockPoints,
    NoticeTaken,
    PreviewRetention,
    ReplaceDescription,
    SetRetention,
    ShowAgreement,
    UndeletePoints,
)
from cloudconnect.commands.notice import read_pins
from cloudconnect.content.points import LABEL_MAX
from cloudconnect.errors import ProtocolViolation
from cloudconnect.provider.control.channel import TenantChannel
from cloudconnect.provider.service.access import Act
from cloudconnect.settings import PAGE_ROWS_MAX


class TenantCommands(CommandLocator):
    """Answers what is asked about what a tenant has stored.

    :param channel: who asks
    """

    def __init__(self, channel: TenantChannel) -> None:
        super().__init__()
        self._channel = channel
        self._service = channel.service

    async def _doing(
        self, act: Act, call: Callable[..., Coroutine[Any, Any, Any]], *asked: Any, **named: Any
    ) -> Any:
        """Call it for the tenant, where it may do this now."""
        return await call(await self._channel.may(act), *asked, **named)

    @ListHistory.responder
    def list_history(
        self, what: str, session: str, after: int, limit: int
    ) -> Deferred[dict[str, Any]]:
        """One page of events or sessions."""
        _check_page(after, limit)
        if what not in ("event", "session") or len(session) > 32:
            raise ProtocolViolation("there is a history of events and of sessions")
        asked = (what, session, after, limit)
        return Deferred.fromCoroutine(self._doing(Act.LIST, self._service.tenants.history, *asked))

    @NoticeTaken.responder
    def notice_taken(self, host: str, pins: Any) -> Deferred[dict[str, Any]]:
        """A machine knows what will hold from some day on."""
        if not 0 < len(host) <= LABEL_MAX or not host.isprintable():
            raise ProtocolViolation(f"a host label has 1 to {LABEL_MAX} printable characters")
        known = read_pins(pins)
        done = self._doing(Act.READ, self._service.tenants.notice_taken, host, known)
        return Deferred.fromCoroutine(done).addCallback(lambda _: {})

    @CreateRepository.responder
    def create_repository(self, description: bytes) -> Deferred[dict[str, Any]]:
        """Make the tenant's repository."""
        done = Deferred.fromCoroutine(
            self._doing(Act.CREATE, self._service.repositories.create, description)
        )
        return done.addCallback(lambda _: {})

    @ReplaceDescription.responder
    def replace_description(self, **values: bytes) -> Deferred[dict[str, Any]]:
        """Take a new description of the tenant's repository."""
        done = Deferred.fromCoroutine(
            self._doing(Act.CHANGE_KEYS, self._service.repositories.replace_description, **values)
        )
        return done.addCallback(lambda _: {})

    @ListPoints.responder
    def list_points(
        self, host: str, job: str, tag: str, after: int, limit: int, states: Any
    ) -> Deferred[dict[str, Any]]:
        """One page of restore points."""
        _check_page(after, limit)
        asked = {"host": host, "job": job, "tag": tag, "after": after, "limit": limit}
        return Deferred.fromCoroutine(
            self._doing(Act.LIST, self._service.repositories.points, **asked, states=states)
        )

    @ShowAgreement.responder
    def show_agreement(self) -> Deferred[dict[str, Any]]:
        """What is agreed, and how much of it is used."""
        done = Deferred.fromCoroutine(self._doing(Act.READ, self._service.keeping.agreement))
        return done.addCallback(lambda agreement: {"agreement": agreement})

    # --- how points are kept ---------------------------------------------------------------------

    @DeletePoints.responder
    def delete_points(self, points: Any) -> Deferred[dict[str, Any]]:
        """Put restore points into the bin."""
        return Deferred.fromCoroutine(
            self._doing(Act.DELETE, self._service.keeping.delete_points, points)
        )

    @UndeletePoints.responder
    def undelete_points(self, points: Any) -> Deferred[dict[str, Any]]:
        """Take restore points out of the bin."""
        return Deferred.fromCoroutine(
            self._doing(Act.UNDELETE, self._service.keeping.undelete_points, points)
        )

    @LockPoints.responder
    def lock_points(self, points: Any, until: int) -> Deferred[dict[str, Any]]:
        """Lock restore points."""
        return Deferred.fromCoroutine(
            self._doing(Act.LOCK, self._service.keeping.lock_points, points, until)
        )

    @GetRetention.responder
    def get_retention(self, after: int, limit: int) -> Deferred[dict[str, Any]]:
        """One page of what is kept."""
        _check_page(after, limit)
        return Deferred.fromCoroutine(
            self._doing(Act.SHOW_RETENTION, self._service.keeping.retention, after, limit)
        )

    @SetRetention.responder
    def set_retention(self, host: str, job: str, policy: Any) -> Deferred[dict[str, Any]]:
        """Set what is kept."""
        return Deferred.fromCoroutine(
            self._doing(Act.SET_RETENTION, self._service.keeping.set_retention, host, job, policy)
        )

    @PreviewRetention.responder
    def preview_retention(
        self, proposed: bool, host: str, job: str, policy: Any, after: int, limit: int
    ) -> Deferred[dict[str, Any]]:
        """One page of what retention would do."""
        _check_page(after, limit)
        asked = {"host": host, "job": job, "policy": policy, "after": after, "limit": limit}
        return Deferred.fromCoroutine(
            self._doing(
                Act.SHOW_RETENTION,
                self._service.keeping.preview_retention,
                proposed=proposed,
                **asked,
            )
        )


def _check_page(after: int, limit: int) -> None:
    if not 0 < limit <= PAGE_ROWS_MAX or not 0 <= after < 1 << 63:
        raise ProtocolViolation(f"a page has 1 to {PAGE_ROWS_MAX} rows")
