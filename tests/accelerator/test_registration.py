"""Tests of :mod:`cloudconnect.accelerator.registration`; with the service's end, over TLS:
:mod:`tests.provider.nodes.test_lan`."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.accelerator.registration import AcceleratorRegistration
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import RegisterAccelerator
from cloudconnect.transports.memory import MemoryEndpoint
from tests.provider.stage import MemoryReactor

BACKEND = "10.0.0.6:6183"


class Service(BoundedAMP):
    """The service's end."""

    backend = ""

    @RegisterAccelerator.responder
    def register(self, backend: str) -> dict[str, Any]:
        self.backend = backend
        return {}


class RegistrationTests(SynchronousTestCase):
    """An accelerator and its line to the service."""

    def test_line(self) -> None:
        """The accelerator reports on the line while it is there, and ends its sessions with it."""
        reactor: Any = MemoryReactor()
        lan = MemoryEndpoint(reactor, "LAN")
        service = Service(reactor)
        lan.listen(Factory.forProtocol(lambda: service))
        nothing: Any = None
        accelerator = TargetAccelerator(reactor, lambda pool: nothing, nothing)
        ended: list[Exception] = []
        accelerator.end_all = lambda reason: ended.append(reason) or []  # type: ignore
        registration = AcceleratorRegistration(reactor, lan, accelerator, BACKEND)
        registration.startService()
        self.addCleanup(registration.stopService)
        reactor.settle()
        self.assertEqual(BACKEND, service.backend)
        assert accelerator.link is not None
        self.assertIsNotNone(accelerator.link.transport)
        service.transport.abortConnection()  # type: ignore[union-attr]
        reactor.settle()
        self.assertIsNone(accelerator.link)
        self.assertEqual(1, len(ended))
