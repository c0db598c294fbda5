"""A target data mover in memory, with the test as its service and as the tenant's job manager."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.logger import eventAsText, globalLogPublisher
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import DIRECT_HOP
from cloudconnect.commands.lan import EndSession, OfferKeyA, ReportEvent, ReportWarning
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.tunnel import DeliverKeyB, prologue
from cloudconnect.errors import CloudConnectError
from cloudconnect.keys import IntegrityKey, KeyA, KeyB, Secret, frame_key, key_b_context
from cloudconnect.provider.data_mover.mover import TargetDataMover
from cloudconnect.provider.gateway.gateway import Gateway
from cloudconnect.repository.store import Repository
from cloudconnect.sessions.acceptance import RoleTarget
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.sessions.role import RoleSession
from cloudconnect.testing import Recorder
from cloudconnect.transports.blocking import BlockingPipe
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.stream import RecordStream
from cloudconnect.transports.switch import PreambleEndpoint
from cloudconnect.transports.tunnel import NoiseTunnel
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameKind, FrameReader, FrameWriter, encode_body
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.provider.stage import MemoryReactor
from tests.repository.repositories import DESCRIBED, REPOSITORY, keys
from tests.sessions.test_machine import package

KEY_A, KEY_B, FRAMES = bytes(range(32)), bytes(range(32, 64)), bytes(range(64, 96))
OTHER_KEY = b"another key of thirty-two bytes."


class Tunnel(BoundedAMP):
    """The job manager's end of a tunnel.

    :ivar reason: how it ended, or None before
    """

    reason: BaseException | None = None

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self.reason = reason.value


class ToldService(CommandLocator):
    """The service, as the mover knows it.

    :ivar events: names of the events that it was told
    :ivar warnings: the warnings, as maps
    """

    def __init__(self) -> None:
        super().__init__()
        self.events: list[str] = []
        self.warnings: list[dict[str, Any]] = []

    @ReportEvent.responder
    def event(self, event: Any) -> dict[str, Any]:
        self.events.append(event["name"])
        return {}

    @ReportWarning.responder
    def warning(self, warning: Any) -> dict[str, Any]:
        self.warnings.append(warning)
        return {}


class MoverCase(SynchronousTestCase):
    """A test with a mover that has a repository, behind a gateway."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        self.reactor = MemoryReactor()
        self.directory = Path(self.mktemp())
        self.mover = TargetDataMover(self.reactor, self.directory)
        self.mover.startService()
        self.addCleanup(self.stop)
        Repository.create(self.directory / REPOSITORY.hex(), DESCRIBED).close()
        self.told = ToldService()
        self.link, self.mover.link = link_in_process(self.reactor, self.told, self.mover)
        self.public = MemoryEndpoint(self.reactor, "public")
        target = RoleTarget(self.mover)
        self.gateway = Gateway(self.reactor, self.public, lambda name: target)
        self.successResultOf(self.gateway.listen())
        self.package = package(repository=REPOSITORY)

    def stop(self) -> None:
        """Stop the mover, unless the test has done so."""
        if self.mover.running:
            self.result(self.mover.stopService())

    # --- as the service --------------------------------------------------------------------------

    def offer(self, **changes: Any) -> RoleSession:
        """Offer a session; every package has a session and a route of its own if need be."""
        self.package = package(**{"repository": REPOSITORY, **changes})
        self.result(self.link.call(OfferKeyA, package=self.package.as_map(), key_a=KeyA(KEY_A)))
        self.gateway.publish(self.package.route, "", b"g" * 16, 0, 3_600_000)
        session = self.mover.by_route(self.package.route)
        assert session is not None
        return session

    def end(self, outcome: str = "done", session: bytes | None = None) -> Any:
        """Begin to end the session."""
        identifier = session or self.package.session
        return self.link.call(EndSession, timeout=None, session=identifier, outcome=outcome)

    def result(self, waited: Any) -> Any:
        """What it comes to."""
        return self.reactor.result_of(waited)

    def failure_of(self, waited: Any, kind: type[BaseException]) -> Any:
        """The error of just this class that it comes to."""
        try:
            result = self.result(waited)
        except CloudConnectError as error:
            self.assertIs(kind, type(error), error)
            return error
        return self.fail(f"{result!r} in the place of {kind.__name__}")

    def warned(self) -> list[str]:
        """The kinds of the warnings that the service was told."""
        self.reactor.settle()
        return [warning["kind"] for warning in self.told.warnings]

    def points(self) -> list[bytes]:
        """The restore points that can be listed."""
        with Repository.open(self.directory / REPOSITORY.hex()) as repository:
            return [row.point for row in repository.points()]

    def log_text(self) -> str:
        """All that was logged."""
        return "\n".join(f"{eventAsText(event)} {event!r}" for event in self.logged)

    # --- as the job manager ----------------------------------------------------------------------

    def preamble(self, kind: ConnectionKind) -> Preamble:
        return Preamble(kind, self.package.route)

    def prologue(self, told: KeyAPackage | None = None) -> bytes:
        told = told or self.package
        return prologue(
            preamble=self.preamble(ConnectionKind.KEY_A_TUNNEL).encode(),
            session=told.session,
            tenant=told.tenant,
            role=told.role,
            exporter=told.exporter,
            agreed=told.agreed,
        )

    def tunnel(self, key: bytes = KEY_A, told: KeyAPackage | None = None) -> Deferred[Tunnel]:
        """Begin to open a tunnel.

        :param told: what the job manager believes was agreed
        """
        recipe = NoiseTunnel(psk=KeyA(key), prologue=self.prologue(told))
        endpoint = PreambleEndpoint(self.public, self.preamble(ConnectionKind.KEY_A_TUNNEL))
        wrapped = wrap_client_endpoint(recipe, endpoint, self.reactor)
        opened: Deferred[Tunnel] = connectProtocol(wrapped, Tunnel(self.reactor))
        self.reactor.settle()
        return opened

    def deliver(self, tunnel: Tunnel, **changes: Any) -> Deferred[Any]:
        """Deliver Key B."""
        values: dict[str, Any] = {
            "key_b": KeyB(KEY_B),
            "integrity_key": IntegrityKey(FRAMES),
            "hops": [DIRECT_HOP],
            "versions": [1],
            "version": 1,
        }
        return tunnel.call(DeliverKeyB, **{**values, **changes})

    def delivered(self, **changes: Any) -> Tunnel:
        """A session with Key B."""
        self.offer(**changes)
        tunnel: Tunnel = self.result(self.tunnel())
        self.result(self.deliver(tunnel))
        return tunnel

    def stream(
        self, connection: int = 0, key: Secret | None = None, **context: Any
    ) -> Deferred[BlockingPipe]:
        """Begin to open a stream."""
        octets = self.preamble(ConnectionKind.KEY_B_STREAM).encode()
        bound = {
            "preamble": octets,
            "session": self.package.session,
            "tenant": self.package.tenant,
            "hop": DIRECT_HOP,
            **context,
        }
        recipe = RecordStream(key or KeyB(KEY_B), key_b_context(**bound), connection=connection)
        preamble = self.preamble(ConnectionKind.KEY_B_STREAM)
        wrapped = wrap_client_endpoint(
            recipe, PreambleEndpoint(self.public, preamble), self.reactor
        )
        opened: Deferred[BlockingPipe] = connectProtocol(wrapped, BlockingPipe(self.reactor))
        self.reactor.settle()
        return opened

    def channel(self, pipe: BlockingPipe, frames: bytes = FRAMES) -> FrameChannel:
        """The source mover's end of the dialogue."""
        key = IntegrityKey(frames)
        session = self.package.session
        return FrameChannel(
            pipe,
            FrameWriter(frame_key(key, session, 0, 0), 0),
            FrameReader(frame_key(key, session, 0, 1), 0),
        )

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Run the source mover's part in a thread."""
        return self.mover._in_thread(work)

    def stranger(self, data: bytes) -> Recorder:
        """Somebody who saw the route id connects and sends ``data``."""
        client = Recorder()
        client.greeting = data
        connectProtocol(self.public, client)
        self.reactor.settle()
        return client


def hello(channel: FrameChannel, purpose: str = "backup") -> Any:
    """Greet the repository; its answer."""
    body = encode_body(
        versions=[1],
        id_check=keys().id_check,
        codings=[0, 1, 16, 17],
        chunking=DESCRIBED.chunking.as_map(),
        purpose=purpose,
    )
    channel.send(FrameKind.HELLO, 0, body)
    return channel.receive()


def publish(channel: FrameChannel, made: Any) -> Any:
    """Publish a point that needs nothing; the answer."""
    encoded = made.encode()
    body = encode_body(
        record=encoded,
        signature=keys().sign(encoded),
        references=0,
        digest=hashlib.sha256().digest(),
    )
    channel.send(FrameKind.POINT, 9, body)
    return channel.receive()
