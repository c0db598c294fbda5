"""Layer 4: the target data movers as the Cloud Connect service knows them, and who serves what.

Each mover says which *storage* it has: movers on one host that share a folder of repositories have
the same one, and any of them can serve any repository in it. Where there is more than one storage,
the movers are asked which of them has a repository (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from cloudconnect.commands.box import BoundedAMP, BoundedCommand
from cloudconnect.commands.repositories import HasRepository
from cloudconnect.errors import CloudConnectError, NotReachable, Refused
from cloudconnect.provider.service.planning import HERE
from cloudconnect.settings import COMMAND_SECONDS
from cloudconnect.transports.nodes import MOVER

#: Repositories whose storage is remembered; it is asked for again after that.
KNOWN_MAX: Final = 100_000
#: A mover is waited for so long, in seconds, where there is none: they register again with a
#: service that was just started; a log-in has 15 s.
WAIT_SECONDS: Final = 8.0
#: What is said where there is none.
NONE: Final = "the provider has no data mover running; try again later"


@attrs.frozen
class MoverPlace:
    """Where a mover stands.

    :ivar backend: where gateways and accelerators find it: ``here`` for the service's own process,
        else ``HOST:PORT``
    :ivar storage: names the folder of its repositories, 32 hexadecimal digits
    :ivar host: tells the host that it runs on from others
    :ivar name: its name in the provider's LAN
    """

    backend: str = HERE
    storage: str = ""
    host: str = ""
    name: str = ""


class Movers:
    """The movers that are there.

    :param leaving: whether a node of this role and name is to get no new sessions
    :param clock: for how long one is waited for where there is none; None: not at all
    """

    _log = Logger()

    def __init__(
        self,
        leaving: Callable[[str, str], bool] = lambda role, name: False,
        clock: IReactorTime | None = None,
    ) -> None:
        self._leaving = leaving
        self._clock = clock
        self._awaited: list[Deferred[None]] = []
        self._places: dict[BoundedAMP, MoverPlace] = {}
        self._known: dict[bytes, str] = {}

    def add(self, link: BoundedAMP, place: MoverPlace) -> None:
        """A mover is there.

        :raises Refused: its storage is in use on another host: a catalogue is a file that processes
            of one host can share, and no others
        """
        for other in self._places.values():
            if other.storage == place.storage and other.host != place.host:
                raise Refused(
                    f"the data mover {other.name or 'of the provider'} has the same storage on "
                    "another host: movers of one storage run on one host"
                )
        self._places[link] = place
        awaited, self._awaited = self._awaited, []
        for waiting in awaited:
            waiting.callback(None)

    def lose(self, link: BoundedAMP) -> None:
        """A mover is gone."""
        self._places.pop(link, None)

    def __contains__(self, link: object) -> bool:
        return link in self._places

    def __iter__(self) -> Iterator[tuple[BoundedAMP, MoverPlace]]:
        return iter(list(self._places.items()))

    def place(self, link: BoundedAMP) -> MoverPlace:
        """Where the mover at the end of ``link`` stands."""
        return self._places[link]

    def takes(self, link: BoundedAMP) -> bool:
        """Whether a mover is there and gets new sessions."""
        place = self._places.get(link)
        return place is not None and not self._is_leaving(place)

    def _is_leaving(self, place: MoverPlace) -> bool:
        return bool(place.name) and self._leaving(MOVER, place.name)

    def some(self, busy: Mapping[BoundedAMP, int] | None = None) -> BoundedAMP:
        """The mover for what any can do, such as making a repository.

        :param busy: how many sessions each has; 0 where it is not in there
        :raises NotReachable: there is none
        """
        return self._best(self._places, busy or {})

    def best(self, links: Iterable[BoundedAMP], busy: Mapping[BoundedAMP, int]) -> BoundedAMP:
        """Of these movers the one with the fewest sessions; one that is leaving only where all are.

        :raises NotReachable: none of them is there
        """
        return self._best([link for link in links if link in self._places], busy)

    def _best(self, links: Iterable[BoundedAMP], busy: Mapping[BoundedAMP, int]) -> BoundedAMP:
        found = list(links)
        if not found:
            raise NotReachable(NONE)
        return min(found, key=lambda link: (not self.takes(link), busy.get(link, 0)))

    async def of(self, repository: bytes) -> list[BoundedAMP]:
        """The movers that can serve a repository.

        :param repository: its 16 bytes
        A provider that has just started waits a little for movers to register.

        :raises NotReachable: none that can is there
        """
        if not self._places and self._clock is not None:
            waiting: Deferred[None] = Deferred(self._no_longer)
            self._awaited.append(waiting)
            waiting.addTimeout(WAIT_SECONDS, self._clock, lambda *_: None)
            await waiting
        storages = {place.storage for place in self._places.values()}
        if len(storages) > 1:
            storage = self._known.get(repository)
            if storage not in storages:
                storage = await self._find(repository)
            return self._with(storage)
        if not storages:
            raise NotReachable(NONE)
        return list(self._places)

    def _no_longer(self, waiting: Deferred[None]) -> None:
        self._awaited.remove(waiting)

    def _with(self, storage: str | None) -> list[BoundedAMP]:
        found = [link for link, place in self._places.items() if place.storage == storage]
        if not found:
            raise NotReachable(
                "the provider's data mover that has this repository does not run; try again later"
            )
        return found

    async def _find(self, repository: bytes) -> str | None:
        """Ask one mover of each storage."""
        asked = {place.storage: link for link, place in self._places.items()}
        for storage, link in asked.items():
            try:
                answer = await link.call(HasRepository, repository=repository)
            except CloudConnectError as error:
                self._log.warn("a data mover does not say what it has: {why}", why=str(error))
                continue
            if answer["there"]:
                self.remember(repository, storage)
                return storage
        return None

    def remember(self, repository: bytes, storage: str) -> None:
        """A repository lies there."""
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[repository] = storage

    async def call(
        self,
        command: type[BoundedCommand],
        *,
        repository: bytes,
        timeout: float | None = COMMAND_SECONDS,
        **values: Any,
    ) -> dict[str, Any]:
        """Have a mover do something to a repository; where one is lost, the next.

        :param timeout: seconds, or None for however long it takes
        :raises NotReachable: none that can is there
        """
        tried: set[BoundedAMP] = set()
        while True:
            links = [link for link in await self.of(repository) if link not in tried]
            link = self.best(links, {})
            tried.add(link)
            try:
                return await link.call(command, timeout=timeout, repository=repository, **values)
            except NotReachable:
                if link.transport is not None:  # it is only late
                    raise

    def tends(self, link: BoundedAMP, repository: bytes) -> bool:
        """Whether it is this mover, of all that could, that tends a repository by the hour.

        Each repository has one of them, by a hash of both names; who joins or leaves changes it
        only for what he gains or leaves. The locks of the repository hold whatever happens.
        """
        place = self._places.get(link)
        if place is None:
            return False
        others = [other for other in self._places.values() if other.storage == place.storage]
        return max(others, key=lambda other: _weight(other.name, repository)) is place


def _weight(name: str, repository: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + repository).digest()
