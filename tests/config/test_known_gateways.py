"""Tests of :mod:`cloudconnect.config.known_gateways`."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.known_gateways import remember_gateways, remembered_gateways

ADDRESS = ("backup.example.com", 6180)


class RememberTests(SynchronousTestCase):
    """What is kept between two commands."""

    def setUp(self) -> None:
        self.environment = {"HOME": self.mktemp()}

    def file(self) -> Path:
        (found,) = [path for path in Path(self.environment["HOME"]).rglob("*") if path.is_file()]
        return found

    def test_kept(self) -> None:
        """The list of one address is found again under that address only."""
        told = ["one.example.com:6180", "[2001:db8::1]:443"]
        remember_gateways(self.environment, ADDRESS, told)
        self.assertEqual(told, remembered_gateways(self.environment, ADDRESS))
        self.assertEqual([], remembered_gateways(self.environment, ("backup.example.com", 6181)))
        self.assertEqual([], remembered_gateways(self.environment, ("2001:db8::1", 6180)))
        self.assertEqual(0o600, self.file().stat().st_mode & 0o777)

    def test_damaged(self) -> None:
        """What cannot be read is nothing, and no error."""
        remember_gateways(self.environment, ADDRESS, ["one.example.com:6180"])
        for octets in (b"\xff\xfe", b"no address\n", b"one.example.com\n"):
            self.file().write_bytes(octets)
            self.assertEqual([], remembered_gateways(self.environment, ADDRESS))

    def test_unwritable(self) -> None:
        """Where nothing can be written nothing happens."""
        os.makedirs(self.environment["HOME"])
        Path(self.environment["HOME"], ".local").write_bytes(b"a file")
        remember_gateways(self.environment, ADDRESS, ["one.example.com:6180"])
        self.assertEqual([], remembered_gateways(self.environment, ADDRESS))
