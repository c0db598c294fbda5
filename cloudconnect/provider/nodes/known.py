"""Layer 4: the other roles as the Cloud Connect service knows them: gateways, movers, accelerators.

Each is reached through its LAN link; one of another process that does not answer in time is lost
until it registers again (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.errors import CloudConnectError, NoAccelerator, NotReachable
from cloudconnect.provider.nodes.gateways import ANSWER_SECONDS, Gateways, cut, is_only_late
from cloudconnect.provider.nodes.movers import MoverPlace, Movers
from cloudconnect.provider.nodes.settling import Settling
from cloudconnect.provider.service.planning import HERE, GatewayPlace, Part
from cloudconnect.transports.nodes import ACCELERATOR, GATEWAY

__all__ = ["ANSWER_SECONDS", "Nodes"]


class Nodes(Gateways):
    """The roles that take part in sessions.

    :param advertise: ``HOST:PORT`` of the gateways where the admin set them; empty: the tenant goes
        on using the address that it connected to
    :param clock: for how long a mover is waited for where there is none, and gateways may be quiet;
        None: not at all
    :ivar movers: the target data movers
    :ivar settling: waits for nodes in the first seconds
    """

    _log = Logger()

    def __init__(self, advertise: Iterable[str] = (), clock: IReactorTime | None = None) -> None:
        super().__init__(advertise, clock)
        self._leaving: set[tuple[str, str]] = set()
        self._joined: dict[BoundedAMP, tuple[str, str]] = {}
        self.movers = Movers(self.is_leaving, clock)
        self.settling = Settling(clock)
        self._accelerators: dict[BoundedAMP, tuple[str, str]] = {}

    def add_gateway(self, link: BoundedAMP, place: GatewayPlace) -> None:
        """A gateway is there; see :meth:`Gateways.add_gateway`."""
        super().add_gateway(link, place)
        self.settling.changed()

    async def settled(self, wan: bool) -> None:
        """Where the service has just started, wait a little for the nodes of a session.

        :param wan: whether it needs an accelerator
        """
        await self.settling.until(
            lambda: (
                any(known.place.public for known in self._gateways.values())
                and (not wan or self.accelerates)
            )
        )

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
        if role == GATEWAY:
            self.tell_leaving(name)

    def join(self, link: BoundedAMP, role: str, name: str) -> None:
        """A node of another process has proved who it is."""
        self._joined[link] = (role, name)

    def left(self, link: BoundedAMP) -> None:
        """The line of a node is gone, and it with it."""
        self._joined.pop(link, None)
        self.lose_gateway(link)
        self.lose_accelerator(link)
        self.movers.lose(link)

    def named(self, role: str, name: str) -> list[BoundedAMP]:
        """The lines to the node of this role and name: one, where it is there."""
        return [link for link, known in self._joined.items() if known == (role, name)]

    def is_there(self, link: BoundedAMP) -> bool:
        """Whether a node has registered, and takes part in sessions."""
        return link in self._gateways or link in self._accelerators or link in self.movers

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
        self.settling.changed()

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
        if isinstance(error, NotReachable) and not is_only_late(part.link, part.backend):
            if part.role is Role.TARGET_WAN:
                self.lose_accelerator(part.link)
            else:
                self.movers.lose(part.link)
            cut(part.link)
