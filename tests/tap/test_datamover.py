"""Tests of :mod:`cloudconnect.tap.datamover`: the service that ``twist`` starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import IServiceMaker
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import eventAsText, globalLogPublisher
from twisted.plugin import getPlugins
from twisted.python.usage import UsageError as OptionError
from twisted.trial.unittest import TestCase

from cloudconnect.config.mover import CONFIGURATION, MoverSettings
from cloudconnect.config.node_certificates import issue_node_certificate
from cloudconnect.config.provider import initialize
from cloudconnect.provider.data_mover.storage import STORAGE_FILE
from cloudconnect.tap.datamover import MoverProcess, Options, makeService
from cloudconnect.tap.reloading import ChangeWatch
from tests.tap.test_provider import LOOPBACK, StoppingReactor


class MoverCase(TestCase):
    """A test with a mover's directory."""

    timeout = 120

    def setUp(self) -> None:
        provider = initialize(Path(self.mktemp()), ("localhost",))
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        issue_node_certificate(provider.node_authority, "one", "mover", directory)
        self.settings = MoverSettings(
            directory=directory, service="127.0.0.1:1", backend="127.0.0.1:2", listen=LOOPBACK
        )
        (directory / CONFIGURATION).write_text(self.settings.to_toml())
        self.reactor = StoppingReactor()
        self.logged: list[str] = []
        self.refused: Deferred[None] = Deferred()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def log(self, event: Any) -> None:
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        self.logged.append(text)
        if text.startswith("not registered") and not self.refused.called:
            self.refused.callback(None)

    def start(self, listen: str = LOOPBACK) -> MoverProcess:
        process = MoverProcess(self.reactor, self.settings, listen)
        self.addCleanup(lambda: maybeDeferred(process.stopService))
        process.startService()
        return process


class OptionTests(MoverCase):
    """The options of ``twist cloudconnect-datamover``."""

    def options(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(["--directory", str(self.settings.directory), *words])
        return options

    def test_plugin(self) -> None:
        """``twist`` finds it."""
        self.assertIn("cloudconnect-datamover", [p.tapname for p in getPlugins(IServiceMaker)])

    def test_directory(self) -> None:
        """A directory with a mover is needed."""
        for words in ([], ["--directory", self.mktemp()]):
            self.assertRaises(OptionError, Options().parseOptions, words)

    def test_service(self) -> None:
        """A service is made of what lies there; its storage has a name from then on."""
        self.assertIsInstance(makeService(self.options()), MoverProcess)
        self.assertTrue((self.settings.directory / "repositories" / STORAGE_FILE).exists())

    def test_wrong(self) -> None:
        """What cannot be used ends the process with a line."""
        end = self.assertRaises(SystemExit, makeService, self.options("--listen", "nonsense:1"))
        self.assertIn("nonsense:1", str(end.code))
        damaged = self.settings.directory / "repositories" / STORAGE_FILE
        damaged.write_text("00")
        end = self.assertRaises(SystemExit, makeService, self.options())
        self.assertIn("repositories", str(end.code))


class ProcessTests(MoverCase):
    """A mover while its process runs."""

    @inlineCallbacks
    def test_life(self) -> Any:
        """It listens, says that it cannot register where no service is there, and stops."""
        process = self.start()
        yield self.refused
        yield maybeDeferred(process.stopService)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertTrue(any("data mover listens" in text for text in self.logged))

    def test_settings_change(self) -> None:
        """How often it tends what is stored holds from the moment on at which mover.toml says so;
        for its folders a new start is needed, which is said."""
        options = Options()
        options.parseOptions(["--directory", str(self.settings.directory)])
        process = makeService(options)
        changed = attrs.evolve(self.settings, scrub_days=90, keys="elsewhere")
        (self.settings.directory / CONFIGURATION).write_text(changed.to_toml())
        (watch,) = [child for child in process if isinstance(child, ChangeWatch)]
        watch._look()
        self.assertEqual(90, process._mover.maintenance._intervals.scrub_days)
        self.assertTrue(any("keys: used from the next start on" in t for t in self.logged))

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
