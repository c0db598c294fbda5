"""Layer 4: one tenant's control channel: its connection, who has logged in on it, its liveness.

Before the tenant has authenticated, one small request at a time is read, and there is a time limit
(``docs/protocol.rst``, section 2). What it answers is in modules of its own, one for each subject,
which :mod:`cloudconnect.provider.control.control` puts together.
"""

from __future__ import annotations

import datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import GatewaysChanged, Ping
from cloudconnect.errors import Downgrade, LoginRefused, NotReachable
from cloudconnect.provider.service.access import Act, Login
from cloudconnect.provider.service.service import CloudConnectService
from cloudconnect.settings import (
    AUTHENTICATION_SECONDS,
    BOX_MAX,
    BOX_MAX_UNAUTHENTICATED,
    PING_SECONDS,
    REQUESTS_MAX,
    REQUESTS_MAX_PROVING,
    REQUESTS_MAX_UNAUTHENTICATED,
    SILENCE_SECONDS,
)


class TenantChannel(BoundedAMP):
    """A connection of one tenant's job manager.

    :param service: what it asks and tells
    :ivar login: who has logged in, or None
    :ivar proving: the proof of a log-in is looked at: nobody is in yet
    """

    log = Logger()

    def __init__(self, service: CloudConnectService) -> None:
        super().__init__(
            service.reactor,
            box_max=BOX_MAX_UNAUTHENTICATED,
            requests_max=REQUESTS_MAX_UNAUTHENTICATED,
        )
        self.service = service
        self.login: Login | None = None
        self.proving = False
        self._waiting: Deferred[None] | None = None
        self._cut = False
        self._deadline: IDelayedCall | None = None
        self._pinging: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the clock of the authentication."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self._deadline = self.service.reactor.callLater(AUTHENTICATION_SECONDS, self._too_late)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Nobody is there any more."""
        for call in (self._deadline, self._pinging):
            if call is not None and call.active():
                call.cancel()
        self.service.nodes.unfollow(self._gateways_changed)
        if self.login is not None:
            self.service.connections.remove(self.login)
        super().connectionLost(reason)

    def _too_late(self) -> None:
        self.log.warn("no log-in in time from {peer}", peer=self.address())
        self._abort()

    def _abort(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def cut(self) -> None:
        """The provider wants it gone, at once: nothing more can be begun on it."""
        self._cut = True
        self._abort()

    def address(self) -> str:
        """The peer's address as text, or ""."""
        peer: IAddress | None = None if self.transport is None else self.transport.getPeer()
        return str(getattr(peer, "host", "") or "")

    def certificate(self) -> bytes | None:
        """SHA-256 of the SubjectPublicKeyInfo of the certificate that the tenant has shown, whose
        key it has; None where it has shown none, or its time is not now."""
        line: Any = self.transport
        shown = line.getPeerCertificate()
        if shown is None or not line.facts.peer_spki:
            return None
        read, now = shown.to_cryptography(), datetime.datetime.now(datetime.UTC)
        try:
            if not read.not_valid_before_utc <= now <= read.not_valid_after_utc:
                return None
        except ValueError:  # a year that Python does not have
            return None
        return bytes.fromhex(line.facts.peer_spki.removeprefix("SPKI-SHA256:"))

    # --- who has logged in -----------------------------------------------------------------------

    def enter(self, login: Login) -> None:
        """Somebody has proved who he is; from here on he can be cut.

        :raises NotReachable: the connection is gone, or has to go
        :raises Busy: its tenant has too many connections
        """
        if not self.is_up:  # nobody would take it off the list again
            raise NotReachable("the control channel is gone")
        self.service.connections.add(login, self.cut)
        self.login = login

    def leave(self) -> None:
        """Who has proved who he is may not come in."""
        if self.login is not None:
            self.service.connections.remove(self.login)
        self.login = None

    def replace(self, login: Login) -> None:
        """Another log-in takes the place of the one before.

        :raises NotReachable: the connection is gone, or has to go
        """
        if self.login is not None:
            self.service.connections.remove(self.login)
        self.enter(login)

    def prove(self) -> None:
        """The proof of a log-in is looked at from here on: one Start may wait for that."""
        self.proving = True
        self.set_limits(BOX_MAX_UNAUTHENTICATED, REQUESTS_MAX_PROVING)

    def judged(self) -> None:
        """It was looked at, and whoever it is has come in or not; may be called again."""
        self.proving = False
        if self.login is None:
            self.set_limits(BOX_MAX_UNAUTHENTICATED, REQUESTS_MAX_UNAUTHENTICATED)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            # Not inside the log-in, which has more to do.
            self.service.reactor.callLater(0, waiting.callback, None)

    async def once_judged(self) -> None:
        """Wait for what comes of a log-in whose proof is looked at, where there is one.

        :raises NotReachable: the connection is gone meanwhile, or has to go
        """
        if self.proving:
            assert self._waiting is None, "no second request is read meanwhile"
            self._waiting = Deferred()
            await self._waiting
            if not self.is_up:
                raise NotReachable("the control channel is gone")

    def welcome(self) -> None:
        """The log-in is over: no deadline any more, larger requests, and liveness from now on."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self.set_limits(BOX_MAX, REQUESTS_MAX)
        self._ping_later()

    def follow_gateways(self, pool: str) -> None:
        """Tell the tenant from now on which gateways of its pool there are."""
        self.service.nodes.follow(self._gateways_changed, pool)

    def _gateways_changed(self, gateways: list[str], leaving: list[str]) -> None:
        told = self.call(GatewaysChanged, gateways=gateways, leaving=leaving)
        told.addErrback(lambda _: None)  # an older tenant does not know this

    def logged_in(self) -> Login:
        """Who has logged in.

        :raises LoginRefused: nobody yet, or who has to go
        """
        if self.login is None or self.proving or self._cut:
            raise LoginRefused("log in first")
        return self.login

    async def may(self, act: Act) -> str:
        """The tenant, where it may do this now; nothing is read before that is known.

        :raises LoginRefused: nobody has logged in
        :raises LeaseEnded: the tenant is disabled, or its lease has ended
        :raises NotAllowed: its credential does not allow it
        """
        login = self.logged_in()
        await self.service.logins.admit(login, act)
        self.logged_in()
        return login.tenant

    @property
    def is_up(self) -> bool:
        """Whether the connection is there and may go on."""
        return self.transport is not None and not self._cut

    # --- liveness --------------------------------------------------------------------------------

    def _ping_later(self) -> None:
        self._pinging = self.service.reactor.callLater(PING_SECONDS, self._ping)

    def _ping(self) -> None:
        pinged = self.call(Ping, timeout=SILENCE_SECONDS)
        pinged.addCallbacks(lambda _: self._ping_later(), lambda _: self._abort())

    @Ping.responder
    def ping(self) -> dict[str, Any]:
        """Alive."""
        return {}

    def exporter(self, label: bytes, context: bytes, length: int) -> bytes:
        """Keying material of the TLS connection below (RFC 8446, section 7.5).

        :raises Downgrade: there is no TLS below
        """
        export = getattr(self.transport, "exporter", None)
        if export is None:
            raise Downgrade("the control channel does not run over TLS")
        return bytes(export(label, context, length))
