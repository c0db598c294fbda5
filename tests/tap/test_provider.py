"""Tests of :mod:`cloudconnect.tap.provider`: the service that ``twist`` starts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import eventAsText, globalLogPublisher
from twisted.python.usage import UsageError as OptionError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, readBody
from twisted.web.server import Site

from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.provider import CONFIGURATION, ProviderSettings, initialize, load, running
from cloudconnect.config.renewal import prepare_next, renew
from cloudconnect.errors import Busy, WarningKind
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.alarms import delivery
from cloudconnect.tap.provider import Options, ProviderProcess, makeService
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from tests.provider.alarms.test_webhook import Hook

LOOPBACK = "tcp:0:interface=127.0.0.1"


class OptionTests(SynchronousTestCase):
    """The options of ``twist cloudconnect-provider``."""

    def setUp(self) -> None:
        self.directory = str(initialize(Path(self.mktemp()), ("localhost",)).directory)

    def test_directory(self) -> None:
        """A directory with a provider is needed."""
        for words in ([], ["--directory", self.mktemp()]):
            self.assertRaises(OptionError, Options().parseOptions, words)

    def test_service(self) -> None:
        """The port is the option's, or that of the configuration."""
        for words, listen in (([], "tcp:6180"), (["--listen", LOOPBACK], LOOPBACK)):
            options = Options()
            options.parseOptions(["--directory", self.directory, *words])
            self.assertEqual(listen, makeService(options)._listen)


class StoppingReactor:
    """The real reactor, which is not stopped but says that it was asked to."""

    def __init__(self) -> None:
        self.stopped: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def addSystemEventTrigger(self, *_: Any) -> None:
        """The process is not to end."""

    def stop(self) -> None:
        self.stopped.callback(None)


class ProcessTests(TestCase):
    """A provider while its process runs."""

    timeout = 120

    def setUp(self) -> None:
        # Not below trial's own folder: the path of a socket has at most 107 bytes.
        temporary = tempfile.TemporaryDirectory(prefix="cloudconnect-")
        self.addCleanup(temporary.cleanup)
        self.settings = initialize(Path(temporary.name, "provider"), ("localhost",))
        self.reactor = StoppingReactor()
        self.logged: list[str] = []
        self.ready: Deferred[int] = Deferred()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self.logged.append(text)
        if text.startswith("provider is ready on") and not self.ready.called:
            self.ready.callback(event["where"].port)

    def start(self, listen: str = LOOPBACK, settings: ProviderSettings | None = None) -> Any:
        process = ProviderProcess(self.reactor, settings or self.settings, listen)
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        return process

    def is_locked(self) -> bool:
        try:
            with running(self.settings):
                return False
        except Busy:
            return True

    @inlineCallbacks
    def test_life(self) -> Any:
        """It says when it is ready, holds the directory while it runs, and lets go of it."""
        process = self.start()
        port: int = yield self.ready
        self.assertTrue(self.is_locked())
        client = yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), Protocol())
        client.transport.abortConnection()
        self.assertTrue(self.settings.admin_socket.is_socket())
        yield maybeDeferred(process.stopService)
        self.assertFalse(self.is_locked())

    @inlineCallbacks
    def test_renewed(self) -> Any:
        """A certificate that changes on the disk is shown from then on; connections stay."""
        self.start()
        port: int = yield self.ready
        seen: Deferred[None] = Deferred()

        def reloaded(event: Any) -> None:
            if "were read again" in eventAsText(event) and not seen.called:
                seen.callback(None)

        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        first = yield connectProtocol(endpoint, Protocol())
        globalLogPublisher.addObserver(reloaded)
        self.addCleanup(globalLogPublisher.removeObserver, reloaded)
        pin = prepare_next(self.settings)
        renew(self.settings, 10, True)
        yield seen
        trust = TrustPolicy("localhost", fingerprints=(pin,))
        wrapped = wrap_client_endpoint(PinnedTLS(trust=trust), endpoint, reactor)
        second: Any = yield connectProtocol(wrapped, Protocol())
        self.assertEqual(pin, second.transport.facts.peer_spki)
        self.assertTrue(first.connected)
        second.transport.abortConnection()
        first.transport.abortConnection()

    @inlineCallbacks
    def test_kept_days(self) -> Any:
        """Limits, how long what is kept, and how often what is stored is tended hold from the
        moment on at which the configuration says so."""
        process = self.start()
        yield self.ready
        provider = process._provider
        self.assertEqual(400, provider.forgetting.keep.events_days)
        self.assertTrue(provider.forgetting.running)
        path = self.settings.directory / CONFIGURATION
        text = path.read_text()
        for name, value in (("events_days", 90), ("tenant_connections", 9), ("scrub_days", 60)):
            text = re.sub(rf"{name} = \d+", f"{name} = {value}", text)
        path.write_text(re.sub(r"grace_days = \d+", "grace_days = 3", text))
        process.reload()
        self.assertEqual(90, provider.forgetting.keep.events_days)
        self.assertEqual(9, provider._gateway._bounds.of_tenant)
        self.assertEqual(60, provider._mover.maintenance._intervals.scrub_days)
        self.assertEqual((60, 3), (provider.health.scrub_days, provider.service.tenants.grace_days))

    @inlineCallbacks
    def test_alarms(self) -> Any:
        """Alarms go where the configuration says, from the moment on at which it says so."""
        process = self.start()
        yield self.ready
        hook = Hook()
        port = reactor.listenTCP(0, Site(hook), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.patch(delivery, "COLLECT_SECONDS", 0.01)
        path = self.settings.directory / CONFIGURATION
        url = f"http://127.0.0.1:{port.getHost().port}/"
        path.write_text(path.read_text().replace('webhook = ""', f'webhook = "{url}"'))
        process.reload()
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, tenant="acme", text="seen")
        yield process._provider.service.reports.warned(warning)
        body, _ = yield hook.posted
        self.assertEqual("tampered", json.loads(body)["alarms"][0]["name"])
        path.write_text(path.read_text().replace(url, "ftp://nowhere"))
        process.reload()
        self.assertTrue(any("no alarms: the webhook" in text for text in self.logged))

    @inlineCallbacks
    def test_metrics(self) -> Any:
        """With a port for metrics where the configuration names one, of each role in the process;
        Prometheus's own tool accepts them."""
        path = self.settings.directory / CONFIGURATION
        text = path.read_text()
        path.write_text(text.replace('metrics_listen = ""', f'metrics_listen = "{LOOPBACK}"'))
        process = self.start(settings=load(self.settings.directory))
        yield self.ready
        site = process._metrics._port.getHost()
        url = f"http://127.0.0.1:{site.port}/readyz".encode()
        response = yield Agent(reactor).request(b"GET", url)
        body = yield readBody(response)
        self.assertEqual((200, True), (response.code, b"mover: ok" in body))
        response = yield Agent(reactor).request(b"GET", url.replace(b"readyz", b"metrics"))
        body = yield readBody(response)
        self.assertIn(b'cloudconnect_role_sessions{role="target-mover"} 0.0', body)
        self.assertIn(b"cloudconnect_gateway_connections 0.0", body)
        promtool = shutil.which("promtool")
        if promtool is not None:
            line = [promtool, "check", "metrics"]
            done = subprocess.run(line, input=body, capture_output=True, timeout=60)
            self.assertEqual((0, b"", b""), (done.returncode, done.stdout, done.stderr))

    @inlineCallbacks
    def test_second(self) -> Any:
        """A second one on the same directory says so and ends; the first one's socket stays."""
        self.start()
        yield self.ready
        self.start()
        yield self.reactor.stopped
        self.assertTrue(any("runs on" in text for text in self.logged))
        self.assertTrue(self.settings.admin_socket.is_socket())

    @inlineCallbacks
    def test_after_a_kill(self) -> Any:
        """The socket of a process that was killed is in nobody's way."""
        self.settings.admin_socket.touch()
        self.start()
        yield self.ready
        self.assertTrue(self.settings.admin_socket.is_socket())

    @inlineCallbacks
    def test_port_in_use(self) -> Any:
        """Where the port is taken it says so, ends, and lets go of the directory."""
        taken: Any = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(Protocol)
        )
        self.addCleanup(taken.stopListening)
        process = self.start(f"tcp:{taken.getHost().port}:interface=127.0.0.1")
        yield self.reactor.stopped
        self.assertTrue(any("cannot start" in text for text in self.logged))
        yield maybeDeferred(process.stopService)
        self.assertFalse(self.is_locked())
        self.assertEqual([], self.flushLoggedErrors())

    @inlineCallbacks
    def test_wrong_endpoint(self) -> Any:
        """An endpoint string that is none is named in a line."""
        self.start("nonsense:1")
        yield self.reactor.stopped
        self.assertTrue(any("'nonsense:1'" in text for text in self.logged))
        self.assertEqual([], self.flushLoggedErrors())

    @inlineCallbacks
    def test_lan(self) -> Any:
        """With ports for gateways of their own process, where the configuration names them."""
        path = self.settings.directory / CONFIGURATION
        text = path.read_text()
        for name, value in (
            ("lan_listen", LOOPBACK),
            ("backend_listen", LOOPBACK),
            ("backend_address", "127.0.0.1:1"),
        ):
            text = text.replace(f'{name} = ""', f'{name} = "{value}"')
        path.write_text(text)
        self.start(settings=load(self.settings.directory))
        yield self.ready
        for name in ("LAN link", "back end", "admin socket"):
            self.assertTrue(any(line.startswith(f"{name} listens") for line in self.logged), name)

    def half_a_certificate(self) -> Path:
        """A crash amid its renewal has left the service in the LAN with another key."""
        key = self.settings.node_authority / "service" / "key.pem"
        key.write_bytes((self.settings.node_authority / "ca-key.pem").read_bytes())
        return key

    @inlineCallbacks
    def test_own_certificate(self) -> Any:
        """The service's certificate in the LAN is made again where it is none, also where there is
        no LAN yet."""
        key = self.half_a_certificate()
        left = key.read_bytes()
        self.start()
        yield self.ready
        self.assertNotEqual(left, key.read_bytes())
        install = lan_tls(key.parent, "gateway").identity.install
        install(SSL.Context(SSL.TLS_METHOD))

    @inlineCallbacks
    def test_authority_elsewhere(self) -> Any:
        """Where the authority's key is kept elsewhere that is said, and the provider runs."""
        self.half_a_certificate()
        (self.settings.node_authority / "ca-key.pem").unlink()
        self.start()
        yield self.ready
        self.assertTrue(any("in the LAN is not renewed" in line for line in self.logged))
