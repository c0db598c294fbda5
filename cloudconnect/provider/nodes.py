"""Layer 4: the other roles as the Cloud Connect service knows them: gateways, mover, accelerators.

Each is reached through its LAN link; one of another process that does not answer in time is lost
until it registers again (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import Role
from cloudconnect.errors import CloudConnectError, NoAccelerator, NotReachable, Refused
from cloudconnect.provider.gateways import ANSWER_SECONDS, Gateways, cut, is_only_late
from cloudconnect.provider.planning import HERE, Part

__all__ = ["ANSWER_SECONDS", "Nodes"]


class Nodes(Gateways):
    """The roles that take part in sessions.

    :param advertise: ``HOST:PORT`` of the gateways where the admin set them; empty: the tenant goes
        on using the address that it connected to
    """

    _log = Logger()

    def __init__(self, advertise: Iterable[str] = ()) -> None:
        super().__init__(advertise)
        self._mover: BoundedAMP | None = None
        self._accelerators: dict[BoundedAMP, str] = {}

    def set_mover(self, link: BoundedAMP) -> None:
        """The target data mover is there."""
        self._mover = link

    def add_accelerator(self, link: BoundedAMP, backend: str = HERE) -> None:
        """A target WAN accelerator is there: sessions may go through it from now on.

        :param backend: ``HOST:PORT`` where gateways find it, or ``here`` for our own process
        """
        self._accelerators[link] = backend

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
        :raises NoAccelerator: there is none
        """
        if not self._accelerators:
            raise NoAccelerator(
                "the provider has no WAN accelerator running; use --wan auto or off, or try later"
            )
        link = min(self._accelerators, key=lambda link: busy.get(link, 0))
        return link, self._accelerators[link]

    @property
    def mover(self) -> BoundedAMP:
        """The link to the target data mover.

        :raises Refused: there is none
        """
        if self._mover is None:
            raise Refused("the provider has no data mover running; try again later")
        return self._mover

    def lose_if_gone(self, part: Part, error: CloudConnectError) -> None:
        """An accelerator that does not answer is lost until it registers again."""
        if part.role is Role.TARGET_WAN and isinstance(error, NotReachable):
            if is_only_late(part.link, part.backend):
                return
            self.lose_accelerator(part.link)
            cut(part.link)
