"""Tests of :mod:`cloudconnect.tenant.shared`: the accelerator that several machines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndWAN
from cloudconnect.errors import NoAccelerator, ProviderNotTrusted
from cloudconnect.tenant.shared import SharedAccelerator
from cloudconnect.transports.endpoints import wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import NodeName, NodeTrust
from cloudconnect.transports.tls import MutualTLS
from tests.certificates import Authority
from tests.provider.stage import MemoryReactor

CACHE = b"c" * 32


class Accelerator(BoundedAMP):
    """The accelerator's end of a line."""

    @EndWAN.responder
    def end(self, session: bytes, aborted: bool) -> dict[str, Any]:
        return {"counts": {"misses": 7}}


class SharedTests(SynchronousTestCase):
    """A machine and the accelerator."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority("tenant")
        self.ca = self.authority.write(self.folder / "ca.pem")
        self.place = MemoryEndpoint(self.reactor, "the accelerator")
        self.lines: list[Accelerator] = []
        self.shared = SharedAccelerator(
            self.reactor,
            self.place,
            self.tls("job-manager", "accelerator"),
            CommandLocator(),
            "wan.example.com:6183",
            CACHE,
            3,
        )
        self.addCleanup(self.shared.close)

    def tls(self, role: str, peer: str) -> MutualTLS:
        issued = self.authority.issue_node(NodeName(role, "one").uri)
        return MutualTLS(NodeTrust(self.ca, (peer,)), issued.write(self.folder / role))

    def serve(self, role: str = "accelerator") -> None:
        def made() -> Accelerator:
            self.lines.append(Accelerator(self.reactor))
            return self.lines[-1]

        lines = wrap_server_endpoint(self.tls(role, "job-manager"), self.place, self.reactor)
        lines.listen(Factory.forProtocol(made))

    def test_renewed_first(self) -> None:
        """What is due is renewed before the first line, and only then."""
        self.serve()
        renewed: list[int] = []

        async def renew() -> None:
            renewed.append(len(self.lines))

        self.shared._renew = renew
        for _ in range(2):
            self.reactor.result_of(self.shared.ready())
        self.assertEqual(([0], 2), (renewed, len(self.lines)))

    def test_ready(self) -> None:
        """It is reached over its line, and its connections are not this process's."""
        self.serve()
        own = self.reactor.result_of(self.shared.ready())
        self.assertEqual((CACHE, 3, False), (own.cache, own.streams, own.here))
        call = own.link.call(EndWAN, session=b"s" * 16, aborted=True)
        self.assertEqual({"counts": {"misses": 7}}, self.reactor.result_of(call))

    def test_new_line(self) -> None:
        """Each session has a line of its own; the one before is closed."""
        self.serve()
        first = self.reactor.result_of(self.shared.ready())
        second = self.reactor.result_of(self.shared.ready())
        self.reactor.settle()
        self.assertIsNone(first.link.transport)
        self.assertIsNotNone(second.link.transport)
        self.shared.close()
        self.reactor.settle()
        self.assertEqual([None, None], [line.transport for line in self.lines])

    def test_not_there(self) -> None:
        """One that is not there is no accelerator, and may be there later."""
        error = self.assertRaises(NoAccelerator, self.reactor.result_of, self.shared.ready())
        self.assertIn("wan.example.com:6183", str(error))
        self.serve()
        self.reactor.result_of(self.shared.ready())

    def test_somebody_else(self) -> None:
        """Somebody else in its place is not trusted: that is not the same as nobody."""
        self.serve("gateway")
        self.assertRaises(ProviderNotTrusted, self.reactor.result_of, self.shared.ready())
