"""Tests of :mod:`cloudconnect.tenant.shared`: the accelerator that several machines share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory
from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.lan import EndWAN
from cloudconnect.commands.renewing import ShowNode
from cloudconnect.errors import (
    NoAccelerator,
    NotReachable,
    ProviderNotTrusted,
    Refused,
    UsageError,
)
from cloudconnect.tenant import shared as shared_module
from cloudconnect.tenant.shared import TRIES, SharedAccelerator
from cloudconnect.transports.endpoints import wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import NodeName, NodeTrust
from cloudconnect.transports.tls import MutualTLS
from tests.certificates import Authority
from tests.provider.stage import MemoryReactor

CACHE = b"c" * 32


class Older(BoundedAMP):
    """The accelerator's end of a line, of an older release.

    :ivar refuses: it does not let the machine in; True: it says so, None: it closes the line
    """

    refuses: bool | None = False

    @EndWAN.responder
    def end(self, session: bytes, aborted: bool) -> dict[str, Any]:
        return {"counts": {"misses": 7}}


class Accelerator(Older):
    """That of today's."""

    @ShowNode.responder
    def show(self) -> dict[str, Any]:
        if self.refuses is None:
            self.transport.abortConnection()  # type: ignore[union-attr]
        if self.refuses:
            raise Refused("machine one has another certificate by now")
        return {"role": "job-manager", "name": "one"}


class SharedTests(SynchronousTestCase):
    """A machine and the accelerator."""

    def setUp(self) -> None:
        self.reactor: Any = MemoryReactor()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority("tenant")
        self.ca = self.authority.write(self.folder / "ca.pem")
        self.place = MemoryEndpoint(self.reactor, "the accelerator")
        self.lines: list[Older] = []
        self.kind: type[Older] = Accelerator
        self.answers: list[bool | None] = []
        self.patch(shared_module, "PAUSE_SECONDS", 0.001)
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
        def made() -> Older:
            self.lines.append(self.kind(self.reactor))
            if self.answers:
                self.lines[-1].refuses = self.answers.pop(0)
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

    def test_renewed_by_another_command(self) -> None:
        """Where a line is not let in, as another command has just renewed the certificate, another
        one is tried with what lies in the folder then."""
        self.serve()
        self.answers = [True, None]
        own = self.reactor.result_of(self.shared.ready())
        self.assertEqual(3, len(self.lines))
        call = own.link.call(EndWAN, session=b"s" * 16, aborted=True)
        self.assertEqual({"counts": {"misses": 7}}, self.reactor.result_of(call))
        self.reactor.settle()
        self.assertEqual([True, True, False], [line.transport is None for line in self.lines])

    def test_half_renewed(self) -> None:
        """Nor does it matter that key and certificate are not a pair for an instant."""
        self.serve()
        key = self.folder / "job-manager" / "key.pem"
        whole = key.read_bytes()
        key.write_bytes((self.folder / "accelerator" / "key.pem").read_bytes())
        self.reactor.callLater(0.0005, key.write_bytes, whole)
        self.reactor.result_of(self.shared.ready())
        key.unlink()
        error = self.assertRaises(UsageError, self.reactor.result_of, self.shared.ready())
        self.assertIn("key.pem", str(error))

    def test_never_let_in(self) -> None:
        """Who is refused again and again is refused."""
        self.serve()
        self.answers = [True] * 9
        self.assertRaises(Refused, self.reactor.result_of, self.shared.ready())
        self.answers = [None] * 9
        self.assertRaises(NotReachable, self.reactor.result_of, self.shared.ready())
        self.assertEqual(2 * TRIES, len(self.lines))

    def test_older_release(self) -> None:
        """An accelerator of an older release, which is asked and does not know what, will do."""
        self.kind = Older
        self.serve()
        own = self.reactor.result_of(self.shared.ready())
        call = own.link.call(EndWAN, session=b"s" * 16, aborted=True)
        self.assertEqual({"counts": {"misses": 7}}, self.reactor.result_of(call))

    def test_again(self) -> None:
        """Another line for a session that was refused on this one takes its place."""
        self.serve()
        own = self.reactor.result_of(self.shared.ready())
        assert own.again is not None
        other = self.reactor.result_of(own.again())
        self.reactor.settle()
        self.assertIsNone(own.link.transport)
        self.assertIsNotNone(other.link.transport)

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
