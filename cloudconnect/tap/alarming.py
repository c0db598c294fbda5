"""Layer 6: alarms go where ``provider.toml`` says, also when that changes while it runs."""

from __future__ import annotations

from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.logger import Logger

from cloudconnect.config.alarming import ways
from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import UsageError
from cloudconnect.provider.alarms.alarms import EVENTS, Alarms
from cloudconnect.provider.alarms.delivery import Delivery
from cloudconnect.provider.service.service import CloudConnectService

#: The settings that are about alarms.
SETTINGS: Final = tuple(
    sorted(f.name for f in attrs.fields(ProviderSettings) if f.name.startswith("alarm_"))
)
#: The events that say that alarms do not get through, and that they do again.
UNDELIVERED: Final = "alarms_not_delivered"
DELIVERED: Final = "alarms_delivered_again"


class Alarming(Service):
    """The alarms of a provider, and the ways that they go.

    :param reactor: clock and connections
    :param service: what is watched; it keeps an event where alarms do not get through
    :ivar deliveries: one for each way
    """

    _log = Logger()

    def __init__(self, reactor: Any, service: CloudConnectService) -> None:
        self._reactor = reactor
        self._service = service
        self._alarms = Alarms(reactor.seconds)
        self._applied: tuple[object, ...] = ()
        self.deliveries: list[Delivery] = []
        service.watchers.add(self._alarms)

    def apply(self, settings: ProviderSettings) -> None:
        """Have alarms go where the settings say from now on; what cannot be used is logged.

        What waits for a way is sent by the new way of that kind.
        """
        wanted = tuple(getattr(settings, name) for name in SETTINGS)
        if wanted == self._applied:
            return
        try:
            found = ways(self._reactor, settings)
        except UsageError as error:
            self._log.error("no alarms: {why}", why=str(error))
            return
        self._applied = wanted
        before = {delivery.way: delivery for delivery in self.deliveries}
        for delivery in self.deliveries:
            maybeDeferred(delivery.stopService)
        self.deliveries = [Delivery(self._reactor, way, self._changed) for way in found]
        self._alarms.events = EVENTS | set(settings.alarm_events)
        self._alarms.deliver = [delivery.add for delivery in self.deliveries]
        for delivery in self.deliveries:
            delivery.startService()  # type: ignore[no-untyped-call]
            if delivery.way in before:
                delivery.take_over(before[delivery.way])

    def _changed(self, way: str, why: str) -> None:
        name = UNDELIVERED if why else DELIVERED
        text = f"alarms do not get to the {way}: {why}" if why else f"alarms get to the {way} again"
        self._service.reports.note(name, "", text[:500], way=way)

    def stopService(self) -> Any:
        """Send no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        return DeferredList([maybeDeferred(delivery.stopService) for delivery in self.deliveries])
