"""Layer 4: the source WAN accelerator, on the tenant's side, in the command or in its own process.

The job manager hands it a session's Key B and says where the target accelerator is reached; the
source data mover then connects to it as it would have to the target data mover. It never gets the
integrity key.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IDelayedCall, IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from cloudconnect.accelerator.caches import TenantCaches
from cloudconnect.accelerator.passage import MANY, Passage, hop_endpoint, workers
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import STREAMS_MAX, Role
from cloudconnect.commands.lan import EndWAN, HandWAN, PassedWAN, ReportEvent, ReportWarning
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    NoAccelerator,
    NotReachable,
    SecurityError,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.interfaces import IRelayTarget
from cloudconnect.keys import KeyB, key_b_context
from cloudconnect.sessions.acceptance import StreamEnd
from cloudconnect.sessions.unproved import Unproved
from cloudconnect.settings import CLOSE_SECONDS, KEY_B_SECONDS
from cloudconnect.transports.hosts import split_host_port
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import FirstBytesFactory, hand_over
from cloudconnect.wire.preamble import PREAMBLE_SIZE, ConnectionKind, Preamble

#: Seconds that a session which has ended is remembered for who has not asked yet.
REMEMBER_SECONDS = 60.0


@attrs.define(eq=False)
class _Session:
    """A session at this accelerator.

    :ivar link: the line to the job manager that has handed it over
    :ivar taken: whether the mover's connection has proved itself: there is one
    :ivar outcome: how it ended, or None before
    """

    link: BoundedAMP | None
    session: bytes
    tenant: str
    route: bytes
    hops: tuple[str, str]
    key_b: KeyB = attrs.field(repr=False)
    passage: Passage
    expiry: IDelayedCall
    taken: bool = False
    unproved: Unproved = attrs.field(factory=Unproved)
    outcome: tuple[BaseException | None, str] | None = None


class SourceAccelerator(Service, CommandLocator):
    """Serves the sessions of one tenant's machines.

    In the job manager's own process it is its own end of the line; where job managers connect to
    it, each has a :class:`~cloudconnect.accelerator.managers.ManagerLine`.

    :param reactor: clock, connections and threads
    :param caches: makes the caches, with the pool in which everything works
    :param connect: makes the endpoint of a gateway's host and port
    :ivar factory: builds the protocols of the movers' connections, wherever those come in
    :ivar link: the accelerator's end of its LAN link to the job manager
    """

    _log = Logger()
    role = Role.SOURCE_WAN.value

    def __init__(
        self,
        reactor: Any,
        caches: Callable[[ThreadPool], TenantCaches],
        connect: Callable[[str, int], IStreamClientEndpoint],
    ) -> None:
        CommandLocator.__init__(self)
        self._reactor = reactor
        self._pool = ThreadPool(0, workers(), "accelerator")
        self._caches = caches(self._pool)
        self._connect = connect
        self._by_session: dict[bytes, _Session] = {}
        self._by_route: dict[bytes, _Session] = {}
        self.factory = FirstBytesFactory(self._target, None, reactor)
        self.link: BoundedAMP | None = None

    def startService(self) -> None:
        """Start the worker threads."""
        Service.startService(self)
        self._pool.start()

    def stopService(self) -> Deferred[Any]:
        """End every session, then the threads."""
        Service.stopService(self)
        ending = [one.passage.ended for one in self._by_session.values() if one.outcome is None]
        for one in list(self._by_session.values()):
            one.passage.abort(Aborted("the accelerator is stopping"))
        ended = DeferredList(ending)
        return ended.addCallback(lambda _: self._caches.close()).addCallback(self._stopped)

    def _stopped(self, _: object) -> None:
        for one in list(self._by_session.values()):
            self._forget(one)
        self._pool.stop()

    # --- from the job manager --------------------------------------------------------------------

    @HandWAN.responder
    def hand(self, **values: Any) -> Deferred[dict[str, Any]]:
        """Take part in a session of the job manager in this process."""
        return self.take_part(self.link, **values)

    @PassedWAN.responder
    def passed(self, session: bytes) -> Deferred[dict[str, Any]]:
        """Once nothing but ends is due, say what was saved."""
        return self.pass_part(self.link, session)

    @EndWAN.responder
    def end(self, session: bytes, aborted: bool) -> Deferred[dict[str, Any]]:
        """The session is over: the last byte goes out, then say what was saved."""
        return self.end_part(self.link, session, aborted)

    def take_part(self, link: BoundedAMP | None, **values: Any) -> Deferred[dict[str, Any]]:
        """Take part in a session.

        :param link: the line to the job manager that hands it over, and hears of it
        :param values: as HandWAN has them
        """
        return Deferred.fromCoroutine(self._hand(link, **values))

    def pass_part(self, link: BoundedAMP | None, session: bytes) -> Deferred[dict[str, Any]]:
        """Wait until all of a session was passed on; only who has handed it over can."""
        return Deferred.fromCoroutine(self._passed(link, session))

    def end_part(
        self, link: BoundedAMP | None, session: bytes, aborted: bool
    ) -> Deferred[dict[str, Any]]:
        """End a session; only who has handed it over can."""
        return Deferred.fromCoroutine(self._end(link, session, aborted))

    def manager_lost(self, link: BoundedAMP) -> None:
        """A job manager is gone, and so are its sessions."""
        for one in list(self._by_session.values()):
            if one.link is link:
                one.passage.abort(Truncated("the line to the job manager was lost"))

    async def _hand(
        self,
        link: BoundedAMP | None,
        session: bytes,
        tenant: str,
        route: bytes,
        next_route: bytes,
        gateways: Any,
        hops: Any,
        streams: int,
        cache: bytes,
        key_b: KeyB,
    ) -> dict[str, Any]:
        self._check_new(session, route)
        if not (
            1 <= streams <= STREAMS_MAX
            and isinstance(hops, list)
            and [type(hop) for hop in hops] == [str, str]
            and isinstance(gateways, list)
            and gateways
        ):
            raise ContextMismatch("a session for an accelerator cannot be read")
        places = [split_host_port(str(gateway)) for gateway in gateways]
        lease = await self._caches.lease(cache.hex())
        if link is not None and link.transport is None:  # it has gone meanwhile
            lease.release()
            raise Truncated("the line to the job manager was lost")
        try:
            self._check_new(session, route)
        except CloudConnectError:
            lease.release()
            raise
        many = len(self._by_session) >= MANY
        passage = Passage(self._reactor, self._pool, lease, streams, many)
        one = _Session(
            link,
            session,
            tenant,
            route,
            (hops[0], hops[1]),
            key_b,
            passage,
            self._reactor.callLater(KEY_B_SECONDS, self._late, session),
        )
        self._by_session[session] = self._by_route[route] = one
        passage.ended.addCallback(lambda outcome: self._ended(one, outcome))
        if lease.trouble is not None:
            self._report(one, "wan_cache", f"no block cache on disk: {lease.trouble}")
        for number in range(streams):
            reached = Deferred.fromCoroutine(self._reach(one, places, next_route, number))
            reached.addErrback(lambda f: self._log.failure("bug in reaching the far end", f))
        return {}

    def _check_new(self, session: bytes, route: bytes) -> None:
        """Whether a session can be taken.

        :raises NoAccelerator: this accelerator is stopping
        :raises ContextMismatch: it was handed over before
        """
        if not self.running:
            raise NoAccelerator("your own WAN accelerator is stopping")
        if session in self._by_session or route in self._by_route:
            raise ContextMismatch("this session was handed over before")

    async def _end(self, link: BoundedAMP | None, session: bytes, aborted: bool) -> dict[str, Any]:
        one = self._by_session.get(session)
        if one is None or one.link is not link:
            return {"counts": {}}
        if aborted:
            one.passage.abort(Aborted("the session has ended"))
        if one.outcome is None:
            await self._in_time(one, one.passage.ended)
        self._forget(one)
        assert one.outcome is not None
        if not aborted:
            _raise_if_bad(one)
        return {"counts": one.passage.counts()}

    async def _passed(self, link: BoundedAMP | None, session: bytes) -> dict[str, Any]:
        one = self._by_session.get(session)
        if one is None or one.link is not link:
            return {"counts": {}}
        await self._in_time(one, one.passage.passed)
        _raise_if_bad(one)
        return {"counts": one.passage.counts()}

    async def _in_time(self, one: _Session, due: Deferred[Any]) -> None:
        """Wait for one of the passage's last steps, and for no longer than a close may take."""
        late = self._reactor.callLater(
            CLOSE_SECONDS, one.passage.abort, Truncated("the stream did not end in time")
        )
        waiting: Deferred[None] = Deferred()

        def over(result: Any) -> Any:
            waiting.callback(None)
            return result

        due.addCallback(over)
        await waiting
        if late.active():
            late.cancel()

    # --- towards the target accelerator ----------------------------------------------------------

    async def _reach(
        self, one: _Session, places: list[tuple[str, int]], route: bytes, number: int
    ) -> None:
        """Open one of the connections, to the first gateway that takes it; each begins with
        another one, so that they are spread."""
        error: Exception | None = None
        first = number % len(places)
        for place in places[first:] + places[:first]:
            endpoint = hop_endpoint(
                self._reactor,
                self._connect(*place),
                one.key_b,
                route=route,
                session=one.session,
                tenant=one.tenant,
                hop=one.hops[1],
                connection=number,
            )
            waiting = Factory.forProtocol(Protocol)
            waiting.noisy = False
            try:
                made: Any = await endpoint.connect(waiting)
            except (ConnectError, DNSLookupError) as refused:
                error = NotReachable(f"the provider's gateway is not reachable: {refused}")
                continue
            except CloudConnectError as failed:
                error = failed
                break
            one.passage.add(made.transport)
            self._forget_key_if_up(one)
            return
        assert error is not None
        one.passage.fail(error, "far")

    # --- from the mover --------------------------------------------------------------------------

    def _target(self, route: bytes) -> IRelayTarget | None:
        one = self._by_route.get(route)
        return None if one is None else _MoverTarget(self, one)

    def accept(self, one: _Session, octets: bytes) -> IProtocol:
        """What answers a connection on the session's route, until it has proved Key B."""

        def allowed(connection: int) -> bool:
            if connection or one.taken:
                return False
            one.taken = True
            return True

        def proved(end: StreamEnd, stream: Any) -> bool:
            one.unproved.settled(end)
            if one.outcome is not None:
                return False
            one.passage.take_mover(stream)
            self._forget_key_if_up(one)
            return True

        def lost(end: StreamEnd, error: BaseException | None, was_proved: bool) -> None:
            one.unproved.settled(end)
            if isinstance(error, SecurityError):
                if was_proved and one.outcome is None:
                    one.passage.fail(error, "near")  # and that warns
                else:
                    self._warn(one, error, one.hops[0])

        one.unproved.make_room()
        end = StreamEnd(proved, lost)
        one.unproved.append(end)
        context = key_b_context(octets, one.session, one.tenant, one.hops[0])
        recipe = RecordStream(secret=one.key_b, context=context, allow=allowed)
        return recipe.layer(False, end, self._reactor)

    # --- ends ------------------------------------------------------------------------------------

    def _forget_key_if_up(self, one: _Session) -> None:
        """Every connection is up: nobody needs Key B any more."""
        if one.passage.complete:
            one.key_b.forget()
            self._by_route.pop(one.route, None)
            if one.expiry.active():
                one.expiry.cancel()

    def _late(self, session: bytes) -> None:
        one = self._by_session.get(session)
        if one is not None:
            one.passage.abort(Truncated("the next step of the session did not come in time"))

    def _ended(self, one: _Session, outcome: tuple[BaseException | None, str]) -> object:
        one.outcome = outcome
        one.key_b.forget()
        self._by_route.pop(one.route, None)
        if one.expiry.active():
            one.expiry.cancel()
        one.expiry = self._reactor.callLater(REMEMBER_SECONDS, self._forget, one)
        error, where = outcome
        if isinstance(error, SecurityError) or (isinstance(error, Truncated) and where):
            self._warn(one, error, one.hops[0 if where == "near" else 1])
        return outcome

    def _forget(self, one: _Session) -> None:
        self._by_session.pop(one.session, None)
        if one.expiry.active():
            one.expiry.cancel()

    # --- reports ---------------------------------------------------------------------------------

    def _warn(self, one: _Session, error: SecurityError | Truncated, hop: str) -> None:
        warning = SecurityWarning(
            time=time.time(),
            kind=error.kind,
            session=one.session.hex(),
            tenant=one.tenant,
            role=self.role,
            hop=hop,
            text=str(error) or type(error).__doc__ or "",
        )
        self._tell(one, ReportWarning, warning=warning.as_dict())

    def _report(self, one: _Session, name: str, text: str) -> None:
        event = SessionEvent(time=time.time(), name=name, session=one.session.hex(), text=text)
        self._tell(one, ReportEvent, event=attrs.asdict(event))

    def _tell(self, one: _Session, command: Any, **values: Any) -> None:
        if one.link is not None:
            told = one.link.call(command, **values)
            told.addErrback(
                lambda f: self._log.warn("report not taken: {e}", e=f.getErrorMessage())
            )


def _raise_if_bad(one: _Session) -> None:
    """Say how a session ended, where that was not well."""
    error = None if one.outcome is None else one.outcome[0]
    if error is not None:
        if isinstance(error, CloudConnectError):
            raise error
        raise Aborted("an internal error of the accelerator; its log has the details")


@implementer(IRelayTarget)
@attrs.frozen
class _MoverTarget:
    """Takes the mover's connection of one session."""

    accelerator: SourceAccelerator
    session: _Session
    description = "the source accelerator"

    def connect(self, transport: object, data: bytes) -> None:
        """Begin the record stream that must come behind the preamble."""
        accepted: Any = transport
        octets = data[:PREAMBLE_SIZE]
        if Preamble.decode(octets).kind is not ConnectionKind.KEY_B_STREAM:
            accepted.abortConnection()
            return
        protocol = self.accelerator.accept(self.session, octets)
        hand_over(accepted, protocol, data[PREAMBLE_SIZE:])
