"""Tests of :mod:`cloudconnect.sessions.package`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.wire import canonical

PACKAGE = KeyAPackage(
    version=1,
    session=b"s" * 16,
    tenant="acme",
    role="target-wan",
    route=b"r" * 16,
    exporter=b"e" * 32,
    agreed=b"a" * 32,
    lifetime_ms=60_000,
    kind="backup",
    job=b"j" * 16,
    host="host",
    name="job",
    repository=b"p" * 16,
    quota=None,
    mode="provider",
    capabilities=("write", "read"),
    hops=("source-wan>target-wan", "target-wan>target-mover"),
    streams=4,
    wan=True,
    next_backend="10.0.0.5:6182",
    next_route=b"n" * 16,
)


class PackageTests(SynchronousTestCase):
    """What a role is told."""

    def test_both_ways(self) -> None:
        """It comes out of CBOR as it went in."""
        values: Any = canonical.decode(canonical.encode(PACKAGE.as_map()))
        self.assertEqual(PACKAGE, KeyAPackage.from_map(values))

    def test_fields(self) -> None:
        """A field that is missing, and one too many, are refused."""
        whole = PACKAGE.as_map()
        for name in whole:
            values = {key: value for key, value in whole.items() if key != name}
            self.assertRaises((TypeError, KeyError), KeyAPackage.from_map, values)
        self.assertRaises(TypeError, KeyAPackage.from_map, {**whole, "more": 1})
