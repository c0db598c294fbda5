"""Tests of :mod:`cloudconnect.tap.gateway`: the service that ``twist`` starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.usage import UsageError as OptionError
from twisted.trial.unittest import TestCase

from cloudconnect.config.gateway import CONFIGURATION, enroll
from cloudconnect.config.provider import initialize
from cloudconnect.errors import Refused
from cloudconnect.provider.gateway.relay import RelayTo
from cloudconnect.tap.gateway import GatewayProcess, Options, makeService
from cloudconnect.tap.reloading import ChangeWatch
from tests.tap.test_provider import LOOPBACK, StoppingReactor


class GatewayCase(TestCase):
    """A test with a gateway's directory."""

    timeout = 120

    def setUp(self) -> None:
        provider = initialize(Path(self.mktemp()), ("localhost",))
        self.settings = enroll(
            provider, "edge", Path(self.mktemp()), "127.0.0.1:1", LOOPBACK, "gw.example.com:6180"
        )
        self.reactor = StoppingReactor()
        self.logged: list[str] = []
        self.listening: Deferred[None] = Deferred()
        self.refused: Deferred[None] = Deferred()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self.logged.append(text)
        if text.startswith("gateway listens") and not self.listening.called:
            self.listening.callback(None)
        if text.startswith("not registered") and not self.refused.called:
            self.refused.callback(None)

    def start(self, listen: str = LOOPBACK) -> GatewayProcess:
        process = GatewayProcess(self.reactor, self.settings, listen)
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        return process


class OptionTests(GatewayCase):
    """The options of ``twist cloudconnect-gateway``."""

    def options(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(["--directory", str(self.settings.directory), *words])
        return options

    def test_directory(self) -> None:
        """A directory with a gateway is needed."""
        for words in ([], ["--directory", self.mktemp()]):
            self.assertRaises(OptionError, Options().parseOptions, words)

    def test_service(self) -> None:
        """A service is made of what lies there."""
        self.assertIsInstance(makeService(self.options()), GatewayProcess)

    def test_wrong_endpoint(self) -> None:
        """An endpoint string that is none ends the process with a line."""
        end = self.assertRaises(SystemExit, makeService, self.options("--listen", "nonsense:1"))
        self.assertIn("nonsense:1", str(end.code))


class ProcessTests(GatewayCase):
    """A gateway while its process runs."""

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
        """It stops as well while it still connects."""
        process = self.start()
        yield maybeDeferred(process.stopService)
        self.assertEqual([], self.flushLoggedErrors())

    def test_settings_change(self) -> None:
        """Bounds, pool and address hold from the moment on at which gateway.toml says so; for its
        port a new start is needed, which is said."""
        options = Options()
        options.parseOptions(["--directory", str(self.settings.directory)])
        process = makeService(options)
        path = self.settings.directory / CONFIGURATION
        written = path.read_text().replace('pool = "default"', 'pool = "west"')
        path.write_text(written.replace(LOOPBACK, "tcp:1") + "tenant_connections = 7\n")
        (watch,) = [child for child in process if isinstance(child, ChangeWatch)]
        watch._look()
        self.assertEqual(7, process._gateway._bounds.of_tenant)
        self.assertEqual("west", process._registration._pool)
        self.assertTrue(any("listen: used from the next start on" in t for t in self.logged))
        path.write_text(written + "line_rate = -1\n")
        watch._look()
        self.assertTrue(any("not read again: " in text for text in self.logged))
        self.assertEqual(7, process._gateway._bounds.of_tenant)

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """Where its port is taken it says so and ends."""
        taken: Any = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(taken.stopListening)
        self.start(f"tcp:{taken.getHost().port}:interface=127.0.0.1")
        yield self.reactor.stopped
        self.assertTrue(any("cannot start" in text for text in self.logged))

    def test_back_ends(self) -> None:
        """The service names back ends by address; there is none in this process."""
        process = GatewayProcess(self.reactor, self.settings, LOOPBACK)
        target = process._resolve("10.0.0.5:6182")
        self.assertIsInstance(target, RelayTo)
        self.assertEqual("10.0.0.5:6182", target.description)
        for wrong in ("here", "", "service", "10.0.0.5", "10.0.0.5:x"):
            self.assertRaises(Refused, process._resolve, wrong)
