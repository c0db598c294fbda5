"""Tests of :mod:`cloudconnect.transports.hosts`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.errors import UsageError
from cloudconnect.transports.hosts import is_address, names_in, parse_host, split_host_port
from tests.certificates import self_signed


class HostTests(SynchronousTestCase):
    """How hosts are compared."""

    def test_parse(self) -> None:
        """Lower case, punycode, no final dot; addresses in their shortest form, without a zone."""
        for text, host in (
            ("Backup.Example.COM.", "backup.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8::0:1]", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(host, parse_host(text))

    def test_no_host(self) -> None:
        """What is neither a host name nor an address is refused."""
        for text in (
            "",
            ".",
            "a b",
            "host:6180",
            "*.example.com",
            "ex\0ample",
            "http://a/",
            "a..b",
            "a..",
        ):
            self.assertRaises(UsageError, parse_host, text)

    def test_address(self) -> None:
        """An address is told from a name."""
        for host, address in (("192.0.2.1", True), ("2001:db8::1", True), ("a.example", False)):
            self.assertIs(address, is_address(parse_host(host)))


class NameTests(SynchronousTestCase):
    """What a message says that a certificate is for."""

    def test_names(self) -> None:
        """Names first, then addresses; or that there are none."""
        self.assertEqual(
            "a.example, *.b.example, 192.0.2.1",
            names_in(self_signed(("192.0.2.1", "a.example", "*.b.example")).certificate),
        )
        for hosts, uris in (((), ()), ((), ("https://a.example",))):
            issued = self_signed(hosts, uris=uris)
            self.assertEqual("no name at all", names_in(issued.certificate))

    def test_names_are_printable(self) -> None:
        """Names in a message are short and do nothing to a terminal."""
        issued = self_signed((f"\x1b[2J{'a' * 300}.example",))
        text = names_in(issued.certificate)
        self.assertTrue(text.isprintable(), text)
        self.assertLessEqual(len(text), 200)


class AddressTests(SynchronousTestCase):
    """HOST:PORT."""

    def test_good(self) -> None:
        """Names, and addresses of both families."""
        for text, wanted in (
            ("gw.example.com:6180", ("gw.example.com", 6180)),
            ("192.0.2.1:1", ("192.0.2.1", 1)),
            ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
        ):
            self.assertEqual(wanted, split_host_port(text))

    def test_bad(self) -> None:
        """Everything else is named and refused."""
        for text in ("", "host", ":1", "host:", "host:0", "host:65536", "host:x", "host:-1"):
            error = self.assertRaises(UsageError, split_host_port, text)
            self.assertIn(repr(text), str(error))
