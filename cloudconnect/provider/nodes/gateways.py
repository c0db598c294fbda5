"""Layer 4: the gateways as the Cloud Connect service knows them.

Each belongs to a pool, reports its load, and gets the routes of the tenants of its pool; tenants
are told those gateways, the one with the least load first. One that is leaving gets no new routes,
and the tenants that use it go on through others (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred, DeferredList, FirstError, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.gateways import DrainGateway, PublishRoute, RetireRoute
from cloudconnect.errors import NotReachable, Refused
from cloudconnect.provider.gateway.load import Load
from cloudconnect.provider.service.planning import HERE, GatewayPlace, Part
from cloudconnect.settings import DEFAULT_POOL, KEY_A_SECONDS, LOAD_SECONDS
from cloudconnect.transports.nodes import GATEWAY

#: A route outlives Key A by the time that Key B may still open connections, in seconds.
ROUTE_SECONDS: Final = 2 * KEY_A_SECONDS
#: A gateway takes a route, and an accelerator a session, within so many seconds, or is taken for
#: lost: less than a tenant waits.
ANSWER_SECONDS: Final = 5.0
#: A gateway of another process that has reported no load for so long, in seconds, is asked whether
#: it is there: three reports are missing.
QUIET_SECONDS: Final = 3 * LOAD_SECONDS
#: Takes where a tenant's gateways are from now on, and which of them it has to go away from.
Follower = Callable[[list[str], list[str]], None]


@attrs.define(eq=False)
class KnownGateway:
    """A gateway that is there.

    :ivar quiet: goes off when it has reported nothing for too long
    """

    link: BoundedAMP
    place: GatewayPlace
    load: Load = attrs.field(factory=Load)
    quiet: IDelayedCall | None = None


class Gateways:
    """The gateways that are there.

    :param advertise: ``HOST:PORT`` of gateways where the admin set them; empty: the tenant goes on
        using the address that it connected to
    :param clock: measures how long gateways are quiet; None: not at all
    """

    _log = Logger()

    def __init__(self, advertise: Iterable[str] = (), clock: IReactorTime | None = None) -> None:
        self._clock = clock
        self._advertise = list(advertise)
        self._gateways: dict[BoundedAMP, KnownGateway] = {}
        self._caps: dict[bytes, int] = {}
        self._followers: dict[Follower, str] = {}

    def advertise(self, gateways: Iterable[str]) -> None:
        """Tell tenants of these gateways from now on; see the parameter."""
        self._advertise = list(gateways)

    def is_leaving(self, role: str, name: str) -> bool:
        """Whether a node is to stop.

        :param role: as its certificate says it
        """
        raise NotImplementedError

    def _leaves(self, known: KnownGateway) -> bool:
        return self.is_leaving(GATEWAY, known.place.name)

    def add_gateway(self, link: BoundedAMP, place: GatewayPlace) -> None:
        """A gateway is there: routes are published to it from now on, unless it is to stop."""
        self.lose_gateway(link)
        self._gateways[link] = known = KnownGateway(link, place)
        self._hear(known)
        if self._leaves(known):
            self._drain(known, True)

    def lose_gateway(self, link: BoundedAMP) -> None:
        """A gateway's link is gone; nothing happens where it is known to be."""
        known = self._gateways.pop(link, None)
        if known is not None and known.quiet is not None and known.quiet.active():
            known.quiet.cancel()

    # --- gateways that hang ----------------------------------------------------------------------

    def _hear(self, known: KnownGateway) -> None:
        """A gateway was heard. Who is in our own process cannot hang without us."""
        if self._clock is None or known.place.backend == HERE:
            return
        if known.quiet is not None and known.quiet.active():
            known.quiet.reset(QUIET_SECONDS)
        else:
            known.quiet = self._clock.callLater(QUIET_SECONDS, self._ask, known)

    def _ask(self, known: KnownGateway) -> None:
        """A gateway is quiet: asked something, it answers, unless it was we who were held up."""
        asked = known.link.call(DrainGateway, timeout=ANSWER_SECONDS, leaving=self._leaves(known))
        asked.addBoth(self._asked, known)

    def _asked(self, answer: Any, known: KnownGateway) -> None:
        if isinstance(answer, Failure) and answer.check(NotReachable):
            self._hangs(known)
        elif self._gateways.get(known.link) is known:  # an older one may not know what it was asked
            self._hear(known)

    def _hangs(self, known: KnownGateway) -> None:
        """A gateway does not answer: it is lost until it registers again, and tenants go on through
        others. Their own connections there look as if they stood."""
        if self._gateways.get(known.link) is not known:
            return
        place = known.place
        self._log.warn("gateway {name} does not answer and is lost", name=place.name)
        self.lose_gateway(known.link)
        cut(known.link)
        self._tell(place.pool, [place.advertise] if place.advertise else [])

    def _tell(self, pool: str, left: list[str]) -> None:
        """Tell the tenants of a pool where its gateways are, and which they have to leave."""
        for follower, followed in list(self._followers.items()):
            if followed == pool:
                follower(self.addresses(self.places(pool)), left)

    def reported(self, link: BoundedAMP, load: Load) -> list[tuple[bytes, int]]:
        """A gateway has said what it has to do.

        :return: for each of its groups with a cap, which part of it is this gateway's, in bytes a
            second
        """
        known = self._gateways.get(link)
        if known is None:
            return []
        known.load = load
        self._hear(known)
        shares = []
        for group, relays in load.groups.items():
            cap = self._caps.get(group, 0)
            if cap:
                others = (other.load.groups.get(group, 0) for other in self._gateways.values())
                shares.append((group, max(1, cap * relays // max(1, sum(others)))))
        return shares

    # --- leaving ---------------------------------------------------------------------------------

    def tell_leaving(self, name: str) -> None:
        """Whether a gateway is to stop has changed: it, and the tenants of its pool, are told."""
        for known in list(self._gateways.values()):
            if known.place.name != name:
                continue
            leaving, pool = self._leaves(known), known.place.pool
            self._drain(known, leaving)
            self._tell(pool, [known.place.advertise] if leaving and known.place.advertise else [])

    def _drain(self, known: KnownGateway, leaving: bool) -> None:
        called = known.link.call(DrainGateway, timeout=ANSWER_SECONDS, leaving=leaving)
        called.addErrback(
            lambda f: self._log.warn(
                "gateway {name} did not answer: {why}",
                name=known.place.name,
                why=f.getErrorMessage(),
            )
        )

    def follow(self, follower: Follower, pool: str) -> None:
        """Have a tenant's connection told when a gateway of its pool leaves or comes back."""
        self._followers[follower] = pool

    def unfollow(self, follower: Follower) -> None:
        """It is gone."""
        self._followers.pop(follower, None)

    def connections_at(self, link: BoundedAMP) -> int:
        """How many connections a gateway has, as it reported last; 0 of one that is not there."""
        known = self._gateways.get(link)
        return 0 if known is None else known.load.connections

    def gateway_fields(self, link: BoundedAMP) -> dict[str, Any]:
        """What is known of a gateway that is there, for listings."""
        known = self._gateways[link]
        return {
            "pool": known.place.pool,
            "advertise": known.place.advertise,
            "connections": known.load.connections,
            "bytes_per_second_up": known.load.up,
            "bytes_per_second_down": known.load.down,
        }

    # --- what tenants are told -------------------------------------------------------------------

    def _open_to(self, pool: str) -> list[KnownGateway]:
        """The gateways of a pool that take routes, the one with the least load first."""
        found = [
            known
            for known in self._gateways.values()
            if known.place.public and known.place.pool == pool and not self._leaves(known)
        ]
        return sorted(found, key=lambda known: known.load.weight)

    def places(self, pool: str = DEFAULT_POOL) -> list[GatewayPlace]:
        """Where the gateways of a pool are, the one with the least load first."""
        return [known.place for known in self._open_to(pool)]

    def addresses(self, places: Iterable[GatewayPlace]) -> list[str]:
        """Where tenants connect to: the gateways at these places, in their order, behind those that
        the admin set and that no gateway here says that it has."""
        own = {known.place.advertise for known in self._gateways.values()}
        told = [place.advertise for place in places if place.advertise]
        return list(dict.fromkeys([*(a for a in self._advertise if a not in own), *told]))

    async def publish(
        self, group: bytes, parts: list[Part], rate: int | None = None, pool: str = DEFAULT_POOL
    ) -> list[GatewayPlace]:
        """Publish the parts' routes to every gateway of a pool, and return those that have taken
        them, the one with the least load first.

        One that does not answer is lost, until it registers again.

        :param group: what a gateway shares bandwidth by, 16 bytes
        :param rate: bytes a second that the group may have, or None
        :raises Refused: no gateway has taken it
        """
        if rate:
            self._caps[group] = rate
        else:
            self._caps.pop(group, None)
        taken: list[KnownGateway] = []
        asked = self._open_to(pool)
        calls = [
            gatherResults(
                [
                    known.link.call(
                        PublishRoute,
                        timeout=ANSWER_SECONDS,
                        route=part.route,
                        backend=part.backend_for(known.place),
                        group=group,
                        rate=rate or 0,
                        lifetime=int(ROUTE_SECONDS * 1000),
                    )
                    for part in parts
                ],
                consumeErrors=True,
            ).addErrback(_first_error)
            for known in asked
        ]
        answers: Any = await DeferredList(calls, consumeErrors=True)
        for known, (accepted, answer) in zip(asked, answers, strict=True):
            if accepted:
                taken.append(known)
                continue
            self._log.warn(
                "gateway {where} did not take a route: {why}",
                where=known.place.name or known.place.advertise or known.place.backend,
                why=answer.getErrorMessage(),
            )
            if answer.check(NotReachable) and not is_only_late(known.link, known.place.backend):
                self._hangs(known)
        if not taken:
            of_pool = "" if pool == DEFAULT_POOL else f" in pool {pool}"
            raise Refused(
                f"the provider has no gateway{of_pool} that takes connections; try again later"
            )
        taken[0].load.planned += 1
        return [known.place for known in taken]

    def retire(self, parts: Iterable[Part]) -> None:
        """The parts' routes are not needed any more."""
        routes = [part.route for part in parts]
        for link in list(self._gateways):
            for route in routes:
                call: Deferred[Any] = link.call(RetireRoute, route=route)
                call.addErrback(
                    lambda f: self._log.warn("gateway did not retire a route: {f.value}", f=f)
                )


def is_only_late(link: BoundedAMP, backend: str) -> bool:
    """Whether a role that did not answer is in this process, on a line that stands: all of us were
    held up, and it would never register again."""
    return backend == HERE and link.transport is not None


def cut(link: BoundedAMP) -> None:
    """The role at the end of ``link`` does not answer: it has to register again."""
    line: Any = link.transport
    if line is not None:
        line.abortConnection()


def _first_error(failure: Failure) -> Failure:
    """What went wrong with the first of several calls that failed."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure
