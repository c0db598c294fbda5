"""Record streams: the list of a transport wrapper on both paths, and what is their own."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from cloudconnect.keys import Secret
from cloudconnect.testing.contract import MemoryContract, TCPContract
from cloudconnect.transports.recipe import Recipe
from cloudconnect.transports.stream import RecordStream


class StreamStack:
    """One record stream."""

    layers = 1
    own_socket = True

    def stack(self) -> list[tuple[Recipe, Recipe]]:
        stream = RecordStream(Secret.generate(), b"contract", own_socket=self.own_socket)
        return [(stream, stream)] * self.layers


class StreamOverMemoryTests(StreamStack, MemoryContract, TestCase):
    """The plain path, in memory, with somebody in the middle."""


class FastStreamOverTCPTests(StreamStack, TCPContract, TestCase):
    """The fast path, over real sockets."""


class PlainStreamOverTCPTests(StreamStack, TCPContract, TestCase):
    """The plain path, over real sockets."""

    own_socket = False


class StreamOverStreamTests(StreamStack, MemoryContract, TestCase):
    """One inside the other."""

    layers = 2
    flip_step = 7
    strict = False


class StreamOverStreamOverTCPTests(StreamStack, TCPContract, TestCase):
    """The plain path over the fast one."""

    layers = 2
