"""The contract for the example: ``python -m twisted.trial test_sealed``, beside ``sealed.py``."""

import os

from sealed import MESSAGES_MAX, Sealed
from twisted.trial.unittest import TestCase

from cloudconnect.testing import MemoryContract, TCPContract, UNIXContract


class SealedStack:
    """How the contract makes, and looks into, the layer."""

    def stack(self):
        """One layer; both sides have the same recipe."""
        recipe = Sealed(os.urandom(32))
        return [(recipe, recipe)]

    def held_keys(self, transport):
        """What must be gone after the end."""
        held = (transport.secret, transport.sending, transport.receiving)
        return [key for key in held if key is not None]

    def use_up(self, transport):
        """Nobody can wait for 2**32 messages."""
        transport.sending.count = MESSAGES_MAX
        return True


class SealedOverMemoryTests(SealedStack, MemoryContract, TestCase):
    """With somebody in the middle."""


class SealedOverTCPTests(SealedStack, TCPContract, TestCase):
    """Over loopback."""


class SealedOverUNIXTests(SealedStack, UNIXContract, TestCase):
    """Over a UNIX socket."""
