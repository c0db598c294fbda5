"""What every transport layer must do, done by TLS: over memory, over TCP, over itself."""

from __future__ import annotations

import os

from twisted.trial.unittest import TestCase

from cloudconnect.testing.contract import MemoryContract, TCPContract
from cloudconnect.transports.recipe import Recipe
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from tests.certificates import HOST, self_signed


class TLSStack:
    """TLS, pinned.

    Of all bytes of a connection only one in each direction may change without being noticed: the
    minor version of the first record, which TLS 1.3 itself ignores (RFC 8446, section 5.1). So it
    is not ``strict``. The steps are prime and keep the time short; each single byte was tried once.
    """

    depth = 1
    strict = False
    flip_step = 19

    def stack(self) -> list[tuple[Recipe, Recipe]]:
        """A client that knows the server by its fingerprint."""
        issued = self_signed()
        identity = issued.write(f"certificate-{os.urandom(4).hex()}")
        client = PinnedTLS(TrustPolicy(HOST, fingerprints=[issued.spki]))
        return [(client, PinnedTLS(identity=identity))] * self.depth


class TLSOverMemoryTests(TLSStack, MemoryContract, TestCase):
    """In memory, with somebody in the middle."""


class TLSOverTCPTests(TLSStack, TCPContract, TestCase):
    """Over real sockets."""


class TLSOverTLSTests(TLSStack, MemoryContract, TestCase):
    """One inside the other."""

    depth = 2
    flip_step = 131
