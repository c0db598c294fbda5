"""Tests of :mod:`cloudconnect.config.gateway`: the directory of a separate gateway."""

from __future__ import annotations

import stat
from pathlib import Path

from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.gateway import CONFIGURATION, enroll, lan_tls, load
from cloudconnect.config.provider import ProviderSettings, initialize
from cloudconnect.errors import ProviderNotTrusted, UsageError
from cloudconnect.testing import MemoryPair, Recorder

SERVICE, ADVERTISED = "10.0.0.1:6181", "gw.example.com:6180"


class GatewayCase(SynchronousTestCase):
    """A test with a provider."""

    def setUp(self) -> None:
        self.provider: ProviderSettings = initialize(Path(self.mktemp()), ("a.example.com",))
        self.directory = Path(self.mktemp()).absolute()

    def enroll(self, name: str = "edge", listen: str = "tcp:6180", **parts: str) -> object:
        values = {"service": SERVICE, "advertise": ADVERTISED, **parts}
        return enroll(self.provider, name, self.directory, listen=listen, **values)


class EnrollTests(GatewayCase):
    """Making the directory."""

    def test_whole(self) -> None:
        """The settings come back, and files and folder are private."""
        made = self.enroll()
        self.assertEqual(made, load(self.directory))
        self.assertEqual(("10.0.0.1", 6181), load(self.directory).service_address)
        self.assertEqual(0o700, stat.S_IMODE(self.directory.stat().st_mode))
        key = self.directory / "key.pem"
        self.assertEqual(0o600, stat.S_IMODE(key.stat().st_mode))

    def test_no_authority(self) -> None:
        """The authority's key stays with the provider: whoever takes the gateway's host cannot
        name further nodes."""
        self.enroll()
        authority = next(self.provider.node_authority.glob("*key*")).read_bytes()
        for path in self.directory.iterdir():
            self.assertNotEqual(authority, path.read_bytes())
        self.assertEqual(
            {"certificate.pem", "key.pem", "ca.pem", CONFIGURATION},
            {path.name for path in self.directory.iterdir()},
        )

    def test_ipv6(self) -> None:
        """An endpoint string with backslashes, as IPv6 addresses need them, survives."""
        listen = r"tcp6:6180:interface=2001\:db8\:\:1"
        self.enroll(listen=listen)
        self.assertEqual(listen, load(self.directory).listen)

    def test_refused(self) -> None:
        """Addresses that are none, odd texts and folders in use: nothing is made."""
        for parts in ({"service": "nowhere"}, {"advertise": "nowhere"}, {"name": "a/b"}):
            self.assertRaises(UsageError, self.enroll, **parts)
        self.directory.mkdir(exist_ok=True)
        (self.directory / "precious").write_text("mine")
        error = self.assertRaises(UsageError, self.enroll)
        self.assertIn("not empty", str(error))
        self.assertEqual(["precious"], [path.name for path in self.directory.iterdir()])

    def test_nothing_advertised(self) -> None:
        """A gateway may advertise nothing."""
        self.enroll(advertise="")
        self.assertEqual("", load(self.directory).advertise)


class TLSTests(GatewayCase):
    """What the enrolled gateway and the service think of each other."""

    def shake(self, client: object, server: object) -> list[Recorder]:
        pair, ends = MemoryPair(), [Recorder(), Recorder()]
        layers = [
            client.client_factory(Factory.forProtocol(lambda: ends[0]), pair.clock),  # type: ignore
            server.server_factory(Factory.forProtocol(lambda: ends[1]), pair.clock),  # type: ignore
        ]
        pair.connect(*(factory.buildProtocol(None) for factory in layers))
        pair.pump()
        return ends

    def test_good(self) -> None:
        """They know each other."""
        self.enroll()
        ends = self.shake(
            load(self.directory).tls, lan_tls(self.provider.node_authority / "service", "gateway")
        )
        self.assertEqual([1, 1], [end.handshakes for end in ends])

    def test_other_provider(self) -> None:
        """A gateway of another provider is not let in."""
        self.enroll()
        other = initialize(Path(self.mktemp()), ("b.example.com",))
        ends = self.shake(
            load(self.directory).tls, lan_tls(other.node_authority / "service", "gateway")
        )
        self.assertEqual([0, 0], [end.handshakes for end in ends])
        self.assertIsInstance(ends[0].reason, ProviderNotTrusted)

    def test_gateway_for_a_service(self) -> None:
        """A gateway's certificate does not pass for the service's."""
        self.enroll()
        ends = self.shake(load(self.directory).tls, lan_tls(self.directory, "gateway"))
        self.assertEqual(0, ends[0].handshakes)


class LoadTests(GatewayCase):
    """Reading gateway.toml."""

    def test_nothing_there(self) -> None:
        """Where there is no gateway the text says how to make one."""
        error = self.assertRaises(UsageError, load, self.directory)
        self.assertIn("gateway enroll", str(error))

    def test_unusable(self) -> None:
        """What cannot be used is refused."""
        self.directory.mkdir()
        for text in (
            "service = ",
            "",
            "service = 5",
            'service = "a:1"\nmore = "x"',
            'service = "a:1"\ndirectory = "/"',
            'service = "a:1"\nlisten = ["x"]',
        ):
            (self.directory / CONFIGURATION).write_text(text)
            self.assertRaises(UsageError, load, self.directory)
