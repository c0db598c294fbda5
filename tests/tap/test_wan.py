"""Tests of :mod:`cloudconnect.tap.wan`: the service that ``twist`` starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import eventAsText, globalLogPublisher
from twisted.protocols.amp import CommandLocator
from twisted.python.failure import Failure
from twisted.python.usage import UsageError as OptionError
from twisted.trial.unittest import TestCase

from cloudconnect.commands.lan import EndWAN
from cloudconnect.commands.registering import NodeLine
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.provider import initialize
from cloudconnect.config.wan import AcceleratorSettings, add_client, client_tls, enroll
from cloudconnect.config.wan import initialize as initialize_source
from cloudconnect.errors import CloudConnectError, NotReachable, UsageError
from cloudconnect.tap.renewing import renew_over_lan
from cloudconnect.tap.wan import AcceleratorProcess, Options, makeService
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.nodes import ACCELERATOR
from cloudconnect.transports.switch import SayingEndpoint
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.tap.test_provider import LOOPBACK, StoppingReactor

#: Nobody listens there.
NOBODY = "127.0.0.1:1"


class Ending(Protocol):
    """Says when it is closed."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.ended.callback(None)


class AcceleratorCase(TestCase):
    """A test with an accelerator's directory."""

    timeout = 120

    def setUp(self) -> None:
        self.settings = self.make()
        self.reactor = StoppingReactor()
        self.logged: list[str] = []
        self.listening: Deferred[int] = Deferred()
        self.refused: Deferred[None] = Deferred()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def make(self) -> AcceleratorSettings:
        provider = initialize(Path(self.mktemp()), ("localhost",))
        return enroll(provider, "one", Path(self.mktemp()), NOBODY, LOOPBACK, "10.0.0.6:6183")

    def log(self, event: Any) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self.logged.append(text)
        if text.startswith("WAN accelerator listens") and not self.listening.called:
            self.listening.callback(event["where"].port)
        if text.startswith("not registered") and not self.refused.called:
            self.refused.callback(None)

    def start(self, listen: str = LOOPBACK) -> AcceleratorProcess:
        process = AcceleratorProcess(self.reactor, self.settings, listen)
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        return process


class OptionTests(AcceleratorCase):
    """The options of ``twist cloudconnect-wan``."""

    def options(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(["--directory", str(self.settings.directory), *words])
        return options

    def test_directory(self) -> None:
        """A directory with an accelerator is needed."""
        for words in ([], ["--directory", self.mktemp()]):
            self.assertRaises(OptionError, Options().parseOptions, words)

    def test_service(self) -> None:
        """A service is made of what lies there; the key of its caches is made with it."""
        self.assertIsInstance(makeService(self.options()), AcceleratorProcess)
        self.assertTrue((self.settings.directory / "wan.key").is_file())

    def test_wrong_endpoint(self) -> None:
        """An endpoint string that is none ends the process with a line."""
        end = self.assertRaises(SystemExit, makeService, self.options("--listen", "nonsense:1"))
        self.assertIn("nonsense:1", str(end.code))

    def test_open_key(self) -> None:
        """So does a key that others may read."""
        key = self.settings.directory / "wan.key"
        key.write_bytes(bytes(32))
        key.chmod(0o644)
        end = self.assertRaises(SystemExit, makeService, self.options())
        self.assertIn("chmod 600", str(end.code))


class TargetTests(AcceleratorCase):
    """An accelerator of the provider's while its process runs."""

    @inlineCallbacks
    def test_life(self) -> Any:
        """It listens though the service is not there yet, says that it cannot register, and
        stops."""
        process = self.start()
        yield self.listening
        yield self.refused
        yield maybeDeferred(process.stopService)
        self.assertEqual([], self.flushLoggedErrors())

    @inlineCallbacks
    def test_stopped_at_once(self) -> Any:
        """It stops as well before it listens."""
        process = self.start()
        yield maybeDeferred(process.stopService)
        self.assertEqual([], self.flushLoggedErrors())

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """Where its port is taken it says so and ends, and registers nowhere."""
        taken: Any = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(taken.stopListening)
        self.start(f"tcp:{taken.getHost().port}:interface=127.0.0.1")
        yield self.reactor.stopped
        self.assertTrue(any("cannot start" in text for text in self.logged))
        self.assertFalse(self.refused.called)

    @inlineCallbacks
    def test_stranger(self) -> Any:
        """Who does not come through a gateway, or knows no route, is closed; TLS too."""
        self.start()
        port = yield self.listening
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, bytes(16)).encode()
        header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"
        for octets in (preamble, header + preamble, header + b"\x16\x03\x01\x00\x00"):
            stranger = Ending()
            place = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
            yield connectProtocol(SayingEndpoint(place, octets), stranger)
            yield stranger.ended

    def test_mover(self) -> None:
        """The way to the mover begins with a PROXY header that names nobody else."""
        process = self.start()
        way: Any = process._mover("10.0.0.5:6182")
        self.assertEqual(b"\x20\x00\x00\x00", way.octets[12:])
        for wrong in ("here", "", "10.0.0.5"):
            self.assertRaises(NotReachable, process._mover, wrong)


class SourceTests(AcceleratorCase):
    """An accelerator of a tenant's while its process runs."""

    def make(self) -> AcceleratorSettings:
        return initialize_source(Path(self.mktemp()), LOOPBACK)

    @inlineCallbacks
    def test_line(self) -> Any:
        """A machine with a certificate has a line; the same port closes what knows no route."""
        process = self.start()
        port = yield self.listening
        place = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        machine = add_client(self.settings, "laptop", Path(self.mktemp()))
        line = NodeLine(reactor, CommandLocator())
        yield connectProtocol(
            wrap_client_endpoint(client_tls(machine), place, reactor),  # type: ignore[arg-type]
            line,
        )
        answer = yield line.call(EndWAN, session=bytes(16), aborted=True)
        self.assertEqual({"counts": {}}, answer)
        stranger = Ending()
        preamble = Preamble(ConnectionKind.KEY_B_STREAM, bytes(16)).encode()
        yield connectProtocol(SayingEndpoint(place, preamble), stranger)
        yield stranger.ended
        line.transport.loseConnection()  # type: ignore[union-attr]
        yield line.lost
        yield maybeDeferred(process.stopService)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertFalse(self.refused.called)

    @inlineCallbacks
    def test_machines(self) -> Any:
        """A machine gets its next certificate over its line, and is let in with it, and not with
        the one before it; once it was removed, with none."""
        process = self.start()
        port = yield self.listening
        machine = add_client(self.settings, "laptop", Path(self.mktemp()))
        old = Path(self.mktemp())
        shutil.copytree(machine, old)
        where = ("127.0.0.1", port)

        def renewed(folder: Path) -> Deferred[Any]:
            return ensureDeferred(renew_over_lan(reactor, folder, where, ACCELERATOR))

        yield renewed(machine)
        self.assertNotEqual(
            (old / "certificate.pem").read_bytes(), (machine / "certificate.pem").read_bytes()
        )
        yield self.assertFailure(renewed(old), CloudConnectError)
        yield renewed(machine)
        self.settings.machines.remove("laptop")
        yield self.assertFailure(renewed(machine), CloudConnectError)
        self.assertTrue(any("laptop was removed" in text for text in self.logged))
        yield maybeDeferred(process.stopService)

    @inlineCallbacks
    def test_reread(self) -> Any:
        """Another certificate is shown from then on; one that cannot be used changes nothing."""
        process = self.start()
        yield self.listening
        folder = self.settings.directory
        issue_node_certificate(self.settings.authority, ACCELERATOR, ACCELERATOR, folder)
        process.reread()
        (folder / "key.pem").write_bytes(b"no key")
        self.assertRaises(UsageError, process.reread)
        yield maybeDeferred(process.stopService)
