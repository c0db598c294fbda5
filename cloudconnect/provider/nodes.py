"""Layer 4: the other roles as the Cloud Connect service knows them: gateways, movers, accelerators.

Each is reached through its LAN link; one of another process that does not answer in time is lost
until it registers again (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.defer import DeferredList, FirstError, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.commands.lan import PublishRoute, RetireRoute
from cloudconnect.errors import CloudConnectError, NoAccelerator, NotReachable, Refused
from cloudconnect.provider.movers import MoverPlace, Movers
from cloudconnect.provider.planning import HERE, GatewayPlace, Part
from cloudconnect.settings import KEY_A_SECONDS
from cloudconnect.transports.nodes import ACCELERATOR, MOVER

#: A route outlives Key A by the time that Key B may still open connections, in seconds.
ROUTE_SECONDS = 2 * KEY_A_SECONDS
#: A gateway takes a route, and an accelerator a session, within so many seconds, or is taken for
#: lost: less than a tenant waits.
ANSWER_SECONDS = 5.0


class Nodes:
    """The roles that take part in sessions.

    :param advertise: ``HOST:PORT`` of the gateways where the admin set them; empty: the tenant goes
        on using the address that it connected to
    :ivar movers: the target data movers
    """

    _log = Logger()

    def __init__(self, advertise: Iterable[str] = ()) -> None:
        self._advertise = list(advertise)
        self._gateways: dict[BoundedAMP, GatewayPlace] = {}
        self._leaving: set[tuple[str, str]] = set()
        self.movers = Movers(self.is_leaving)
        self._accelerators: dict[BoundedAMP, tuple[str, str]] = {}

    # --- nodes that are to stop ------------------------------------------------------------------

    def is_leaving(self, role: str, name: str) -> bool:
        """Whether a node gets no new sessions, because its admin wants to stop it."""
        return (role, name) in self._leaving

    def set_leaving(self, role: str, name: str, leaving: bool) -> None:
        """From now on a node gets no new sessions, or does again.

        :param role: as its certificate says it
        """
        if leaving:
            self._leaving.add((role, name))
        else:
            self._leaving.discard((role, name))

    def named(self, role: str, name: str) -> list[BoundedAMP]:
        """The lines to the mover or accelerator of this role and name, where it is there."""
        if role == MOVER:
            return [link for link, place in self.movers if place.name == name]
        return [link for link, (_, known) in self._accelerators.items() if known == name]

    def add_gateway(self, link: BoundedAMP, place: GatewayPlace) -> None:
        """A gateway is there: routes are published to it from now on."""
        self._gateways[link] = place

    def lose_gateway(self, link: BoundedAMP) -> None:
        """A gateway's link is gone."""
        self._gateways.pop(link, None)

    def set_mover(self, link: BoundedAMP, place: MoverPlace | None = None) -> None:
        """The target data mover of this process is there, in the place of any before it."""
        for other, known in self.movers:
            if known.backend == HERE:
                self.movers.lose(other)
        self.movers.add(link, place or MoverPlace())

    def add_accelerator(self, link: BoundedAMP, backend: str = HERE, name: str = "") -> None:
        """A target WAN accelerator is there: sessions may go through it from now on.

        :param backend: ``HOST:PORT`` where gateways find it, or ``here`` for our own process
        :param name: its name in the provider's LAN
        """
        self._accelerators[link] = (backend, name)

    def lose_accelerator(self, link: BoundedAMP) -> None:
        """A target WAN accelerator is gone."""
        self._accelerators.pop(link, None)

    @property
    def accelerates(self) -> bool:
        """Whether there is a target WAN accelerator."""
        return bool(self._accelerators)

    def accelerator(self, busy: Mapping[BoundedAMP, int]) -> tuple[BoundedAMP, str]:
        """The accelerator with the fewest sessions, and where gateways find it.

        :param busy: how many sessions each has; 0 where it is not in there
        :raises NoAccelerator: there is none that takes new sessions
        """
        taking = [
            (busy.get(link, 0), link, backend)
            for link, (backend, name) in self._accelerators.items()
            if not self.is_leaving(ACCELERATOR, name)
        ]
        if not taking:
            raise NoAccelerator(
                "the provider has no WAN accelerator running; use --wan auto or off, or try later"
            )
        _, link, backend = min(taking, key=lambda found: found[0])
        return link, backend

    @property
    def mover(self) -> BoundedAMP:
        """The link to a target data mover.

        :raises Refused: there is none
        """
        return self.movers.some()

    def lose_if_gone(self, part: Part, error: CloudConnectError) -> None:
        """A mover or accelerator that does not answer is lost until it registers again."""
        if isinstance(error, NotReachable) and not _is_only_late(part.link, part.backend):
            if part.role is Role.TARGET_WAN:
                self.lose_accelerator(part.link)
            else:
                self.movers.lose(part.link)
            _cut(part.link)

    def addresses(self, places: Iterable[GatewayPlace]) -> list[str]:
        """Where tenants connect to: the gateways at these places."""
        known = [place.advertise for place in places if place.advertise]
        return [*self._advertise, *(a for a in known if a not in self._advertise)]

    async def publish(self, group: bytes, parts: list[Part]) -> list[GatewayPlace]:
        """Publish the parts' routes to every gateway, and return those that have taken them.

        One that does not answer is lost, until it registers again.

        :param group: what a gateway may share bandwidth by, 16 bytes
        :raises Refused: no gateway has taken it
        """
        taken = []
        links = list(self._gateways.items())
        calls = [
            gatherResults(
                [
                    link.call(
                        PublishRoute,
                        timeout=ANSWER_SECONDS,
                        route=part.route,
                        backend=part.backend_for(place),
                        group=group,
                        rate=0,
                        lifetime=int(ROUTE_SECONDS * 1000),
                    )
                    for part in parts
                ],
                consumeErrors=True,
            ).addErrback(_first_error)
            for link, place in links
        ]
        answers: Any = await DeferredList(calls, consumeErrors=True)
        for (link, place), (accepted, answer) in zip(links, answers, strict=True):
            if accepted:
                if place.public:
                    taken.append(place)
                continue
            self._log.warn(
                "gateway {where} did not take a route: {why}",
                where=place.advertise or place.backend,
                why=answer.getErrorMessage(),
            )
            if answer.check(NotReachable) and not _is_only_late(link, place.backend):
                self.lose_gateway(link)
                _cut(link)
        if not taken:
            raise Refused("the provider has no gateway that takes connections; try again later")
        return taken

    def retire(self, parts: Iterable[Part]) -> None:
        """The parts' routes are not needed any more."""
        for link in list(self._gateways):
            for part in parts:
                call = link.call(RetireRoute, route=part.route)
                call.addErrback(
                    lambda f: self._log.warn("gateway did not retire a route: {f}", f=f)
                )


def _is_only_late(link: BoundedAMP, backend: str) -> bool:
    """Whether a role that did not answer is in this process, on a line that stands: all of us were
    held up, and it would never register again."""
    return backend == HERE and link.transport is not None


def _cut(link: BoundedAMP) -> None:
    """The role at the end of ``link`` does not answer: it has to register again."""
    line: Any = link.transport
    if line is not None:
        line.abortConnection()


def _first_error(failure: Failure) -> Failure:
    """What went wrong with the first of several calls that failed."""
    error = failure.value
    return error.subFailure if isinstance(error, FirstError) else failure
