"""Tests of :mod:`cloudconnect.config.wan`: the directory of a separate WAN accelerator."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config import provider as provider_directory
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.wan import (
    CONFIGURATION,
    AcceleratorSettings,
    Side,
    add_client,
    client_tls,
    enroll,
    initialize,
    load,
)
from cloudconnect.errors import ProviderNotTrusted, UsageError
from cloudconnect.testing import MemoryPair, Recorder

SERVICE, BACKEND, LISTEN = "10.0.0.1:6181", "10.0.0.6:6183", "tcp:6183"


def shake(client: Any, server: Any) -> list[Recorder]:
    """Both ends of a handshake."""
    pair, ends = MemoryPair(), [Recorder(), Recorder()]
    layers = [
        client.client_factory(Factory.forProtocol(lambda: ends[0]), pair.clock),
        server.server_factory(Factory.forProtocol(lambda: ends[1]), pair.clock),
    ]
    pair.connect(*(factory.buildProtocol(None) for factory in layers))
    pair.pump()
    return ends


class TargetTests(SynchronousTestCase):
    """An accelerator of the provider's."""

    def setUp(self) -> None:
        self.provider = provider_directory.initialize(Path(self.mktemp()), ("a.example.com",))
        self.directory = Path(self.mktemp()).absolute()

    def enroll(self, **parts: Any) -> AcceleratorSettings:
        values = {"service": SERVICE, "listen": LISTEN, "backend": BACKEND, **parts}
        name = values.pop("name", "one")
        return enroll(self.provider, name, self.directory, **values)

    def test_whole(self) -> None:
        """The settings come back, files and folder are private, and no authority's key is there."""
        made = self.enroll()
        self.assertEqual(made, load(self.directory))
        self.assertEqual((Side.TARGET, ("10.0.0.1", 6181)), (made.side, made.service_address))
        self.assertEqual(0o700, stat.S_IMODE(self.directory.stat().st_mode))
        self.assertEqual(0o600, stat.S_IMODE((self.directory / "key.pem").stat().st_mode))
        self.assertEqual(
            {"certificate.pem", "key.pem", "ca.pem", CONFIGURATION},
            {path.name for path in self.directory.iterdir()},
        )

    def test_refused(self) -> None:
        """Addresses and names that are none, and folders in use, are refused."""
        for parts in ({"service": "nowhere"}, {"backend": "here"}, {"name": "a/b"}):
            self.assertRaises(UsageError, self.enroll, **parts)
        self.directory.mkdir(exist_ok=True)
        (self.directory / "precious").write_text("mine")
        self.assertIn("not empty", str(self.assertRaises(UsageError, self.enroll)))
        self.assertEqual(["precious"], [path.name for path in self.directory.iterdir()])

    def test_tls(self) -> None:
        """It and the service know each other, and it does not pass for a gateway."""
        self.enroll()
        service = self.provider.node_authority / "service"
        for roles, shaken in ((("gateway", "accelerator"), 1), (("gateway",), 0)):
            ends = shake(load(self.directory).tls, lan_tls(service, *roles))
            self.assertEqual(shaken, ends[1].handshakes)


class SourceTests(SynchronousTestCase):
    """An accelerator of a tenant's."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.settings = initialize(self.directory, LISTEN)
        self.machine = Path(self.mktemp()).absolute()

    def test_whole(self) -> None:
        """The settings come back; the authority is here, as machines are added here."""
        self.assertEqual(self.settings, load(self.directory))
        self.assertIs(Side.SOURCE, self.settings.side)
        self.assertEqual(
            {"certificate.pem", "key.pem", "ca.pem", "lan", CONFIGURATION},
            {path.name for path in self.directory.iterdir()},
        )
        for key in (self.directory / "key.pem", self.settings.authority / "ca-key.pem"):
            self.assertEqual(0o600, stat.S_IMODE(key.stat().st_mode))

    def test_in_use(self) -> None:
        """A folder that is not empty is not taken, neither for it nor for a machine."""
        self.assertRaises(UsageError, initialize, self.directory, LISTEN)
        self.assertRaises(UsageError, add_client, self.settings, "laptop", self.directory)

    def test_client(self) -> None:
        """A machine and the accelerator know each other; another tenant's does not."""
        add_client(self.settings, "laptop", self.machine)
        self.assertEqual(
            {"certificate.pem", "key.pem", "ca.pem"}, {p.name for p in self.machine.iterdir()}
        )
        ends = shake(client_tls(self.machine), self.settings.tls)
        self.assertEqual([1, 1], [end.handshakes for end in ends])
        other = initialize(Path(self.mktemp()), LISTEN)
        ends = shake(client_tls(self.machine), other.tls)
        self.assertEqual([0, 0], [end.handshakes for end in ends])
        self.assertIsInstance(ends[0].reason, ProviderNotTrusted)

    def test_machines_do_not_pass_for_it(self) -> None:
        """One machine's certificate does not make it the accelerator of another one."""
        add_client(self.settings, "laptop", self.machine)
        other = add_client(self.settings, "desktop", Path(self.mktemp()))
        ends = shake(client_tls(other), lan_tls(self.machine, "job-manager"))
        self.assertEqual(0, ends[0].handshakes)

    def test_no_clients(self) -> None:
        """The provider's accelerator has no machines of tenants."""
        target = attrs.evolve(self.settings, side=Side.TARGET)
        self.assertRaises(UsageError, add_client, target, "laptop", self.machine)


class LoadTests(SynchronousTestCase):
    """Reading wan.toml."""

    def test_nothing_there(self) -> None:
        """Where there is no accelerator the text says how to make one, at either side."""
        text = str(self.assertRaises(UsageError, load, Path(self.mktemp())))
        self.assertIn("provider wan enroll", text)
        self.assertIn("wan init", text)

    def test_numbers(self) -> None:
        """Sizes are read."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / CONFIGURATION).write_text('side = "source"\ncache_gb = 7\ncaches_gb = 70\n')
        settings = load(directory)
        self.assertEqual((7, 70), (settings.cache_gb, settings.caches_gb))

    def test_unusable(self) -> None:
        """What cannot be used is refused."""
        directory = Path(self.mktemp())
        directory.mkdir()
        target = f'side = "target"\nservice = "{SERVICE}"\nbackend = "{BACKEND}"\n'
        (directory / CONFIGURATION).write_text(target)
        load(directory)
        for text in (
            "side = ",
            "",
            'side = "middle"',
            'side = "target"',
            f'side = "target"\nservice = "{SERVICE}"',
            f'side = "target"\nservice = "{SERVICE}"\nbackend = "here"',
            target + 'more = "x"',
            target + 'directory = "/"',
            target + "listen = 5",
            target + 'cache_gb = "4"',
            target + "cache_gb = 0",
            target + "caches_gb = 1000000",
        ):
            (directory / CONFIGURATION).write_text(text)
            self.assertRaises(UsageError, load, directory)
