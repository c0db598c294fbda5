"""Layer 4: the provider's gateways as a tenant knows them, and which one is tried first.

The provider tells where it can be reached, the gateway with the least load first. One that fails is
tried last for a while, wherever it stands in the list; so a job goes on through another one
(``docs/protocol.rst``, section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from cloudconnect.errors import NotReachable, ProtocolViolation, UsageError
from cloudconnect.transports.hosts import join_host_port, split_host_port

#: A gateway that has failed is tried last for so many seconds.
SUSPECT_SECONDS: Final = 120.0
#: Most gateways of a list that are looked at.
GATEWAYS_MAX: Final = 64
#: Most gateways that are remembered, those that are away included.
SEEN_MAX: Final = 16
#: Suspects that are remembered: a provider can name any number of gateways that are to be left.
SUSPECTS_MAX: Final = 64
#: Most gateways that one attempt to connect tries.
TRIED_MAX: Final = 3

#: Host and port.
Place = tuple[str, int]


def read_gateways(told: Any) -> list[Place]:
    """The places of a list that the provider has told.

    :raises ProtocolViolation: it is not such a list
    """
    if told is None:  # an older provider
        return []
    try:
        if not isinstance(told, list) or not all(isinstance(address, str) for address in told):
            raise UsageError("no list of texts")
        return [split_host_port(address) for address in told[:GATEWAYS_MAX]]
    except UsageError:
        raise ProtocolViolation("the provider advertises a gateway that is no HOST:PORT") from None


class KnownGateways:
    """What a job manager knows of its provider's gateways.

    :param clock: the reactor
    :param own: where the tenant was told to connect to
    :param known: ``HOST:PORT`` of those that the provider told in an earlier command
    :param learned: takes all that were seen when the provider tells of a new one
    """

    def __init__(
        self,
        clock: IReactorTime,
        own: Place,
        known: Iterable[str] = (),
        learned: Callable[[list[str]], None] = lambda gateways: None,
    ) -> None:
        self._clock = clock
        self._own = own
        self._learned = learned
        self._told: list[Place] = [split_host_port(address) for address in known]
        self._seen = list(self._told)  # one that is away now may be what is left tomorrow
        self._suspects: dict[Place, float] = {}

    def learn(self, told: Any) -> None:
        """The provider tells where it can be reached.

        :raises ProtocolViolation: it is no list of ``HOST:PORT``
        """
        places = read_gateways(told)
        if not set(places) <= set(self._seen):
            self._seen = list(dict.fromkeys([*places, *self._seen]))[:SEEN_MAX]
            self._learned([join_host_port(*place) for place in self._seen])
        self._told = places

    def suspect(self, place: Place) -> None:
        """Something went wrong with a connection there."""
        now = self._clock.seconds()
        self._suspects.pop(place, None)
        recent = [(p, at) for p, at in self._suspects.items() if now - at < SUSPECT_SECONDS]
        self._suspects = dict(recent[-SUSPECTS_MAX:])
        self._suspects[place] = now

    def in_order(self, places: Sequence[Place]) -> list[Place]:
        """These, those that failed lately last: what has failed longest ago before the others."""
        now = self._clock.seconds()
        recent = {p: at for p, at in self._suspects.items() if now - at < SUSPECT_SECONDS}
        return sorted(dict.fromkeys(places), key=lambda place: recent.get(place, float("-inf")))

    def for_control(self) -> list[Place]:
        """Where to open the control channel: where the tenant was told to, then the others."""
        return self.in_order([self._own, *self._told, *self._seen])[:TRIED_MAX]

    def first_for_data(self, control: Place) -> Place:
        """Where the next session's connections will probably go.

        :param control: where the control channel went
        """
        return self.in_order(self._told or [control])[0]

    def for_data(self, told: Sequence[str], control: Place, ahead: Place) -> list[Place]:
        """Where to open a data connection.

        :param told: the gateways of the session's plan
        :param control: where the control channel went, for a plan that names none
        :param ahead: where a connection was opened already: it comes first, if it is named
        :raises ProtocolViolation: one of them is no ``HOST:PORT``
        """
        places = read_gateways(list(told)) or [control]
        if ahead in places:
            places = [ahead, *places]
        return self.in_order(places)[:TRIED_MAX]


@implementer(IStreamClientEndpoint)
class FirstThatConnects:
    """Connects to the first of several places that takes the connection.

    :param places: in order
    :param make: makes the endpoint of one
    :param failed: takes each that did not
    :param used: takes the one that did
    """

    def __init__(
        self,
        places: Sequence[Place],
        make: Callable[[str, int], IStreamClientEndpoint],
        failed: Callable[[Place], None],
        used: Callable[[Place], None] = lambda place: None,
    ) -> None:
        self._places = places
        self._make = make
        self._failed = failed
        self._used = used

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """As ``IStreamClientEndpoint`` says; fails as the last of them does."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        for at, place in enumerate(self._places):
            try:
                made = await self._make(*place).connect(factory)
            except (ConnectError, DNSLookupError, NotReachable):
                self._failed(place)
                if at == len(self._places) - 1:
                    raise
            else:
                self._used(place)
                return made
        raise NotReachable("the provider names no gateway")
