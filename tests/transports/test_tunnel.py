"""Tests of :mod:`cloudconnect.transports.tunnel`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from cloudconnect.keys import KeyA
from cloudconnect.testing import MemoryContract, TCPContract
from cloudconnect.transports.tunnel import NoiseTunnel


class Stack:
    """One tunnel."""

    def stack(self) -> Any:
        tunnel = NoiseTunnel(KeyA.generate(), b"prologue", payload=b"versions")
        return [(tunnel, tunnel)]


class MemoryTests(Stack, MemoryContract, TestCase):
    """The contract over memory."""


class TCPTests(Stack, TCPContract, TestCase):
    """The contract over TCP."""
