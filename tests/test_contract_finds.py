"""The contract finds a wrapper that breaks one item of the list, and says which item it is."""

# mypy: allow-untyped-calls
# (trial's and Twisted's methods have no types)

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import Any
from unittest import TestResult

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITLSTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import alsoProvides

from cloudconnect.errors import Tampered
from cloudconnect.testing import MemoryContract, SocketContract
from cloudconnect.transports.closing import as_failure
from cloudconnect.transports.recipe import LayerFactory
from tests.examples import load

sealed: Any = load("sealed")
SealedStack: Any = load("test_sealed").SealedStack
Good: Any = sealed.SealedLayer

ITEMS = range(1, 15)


def item_of(test: str) -> int:
    """The item of the list that a test of the contract is about."""
    found = re.match(r"test_(\d\d)_", test)
    assert found is not None, test
    return int(found[1])


def tests_of(contract: type) -> list[str]:
    """The names of the tests of a contract."""
    return sorted(name for name in dir(contract) if name.startswith("test"))


def contract_for(layer: Any, factory: Any = LayerFactory) -> Any:
    """The contract over memory for ``layer``, made by ``factory``."""

    class Recipe(sealed.Sealed):  # type: ignore[misc]
        def layer(self, initiator: bool, protocol: Any, clock: Any) -> Any:
            return layer(protocol, clock, self.secret, initiator)

        def client_factory(self, wrapped: Any, reactor: Any) -> Any:
            return factory(wrapped, lambda p: self.layer(True, p, reactor), self.name)

        def server_factory(self, wrapped: Any, reactor: Any) -> Any:
            return factory(wrapped, lambda p: self.layer(False, p, reactor), self.name)

    class Case(SealedStack, MemoryContract, TestCase):  # type: ignore[misc]
        bulk = 1_000_000
        patience = 120
        flip_step = 3

        def stack(self) -> Any:
            recipe = Recipe(os.urandom(32))
            return [(recipe, recipe)]

    return Case


def failing(case: Any, tests: Iterable[str] | None = None) -> list[str]:
    """The tests of ``case`` that do not pass."""
    found = []
    for test in tests_of(case) if tests is None else tests:
        result = TestResult()
        case(test).run(result)
        assert result.testsRun == 1, test
        if not result.wasSuccessful():
            found.append(test)
    return found


# --- one wrong wrapper, or more, for each item --------------------------------------------------


class ClaimsTLS(Good):  # type: ignore[misc]
    """1: says that it provides what is below it."""

    def makeConnection(self, transport: Any) -> None:
        alsoProvides(self, ITLSTransport)
        self.startTLS = getattr(transport, "startTLS", None)
        super().makeConnection(transport)


class WritesPastItself(Good):  # type: ignore[misc]
    """2: only ``write`` goes through the layer."""

    def write(self, data: Any) -> None:
        super().writeSequence((data,))

    def writeSequence(self, data: Any) -> None:
        self.transport.writeSequence(list(data))


class SendsEmpty(Good):  # type: ignore[misc]
    """2: makes a message of nothing, which the other side takes for the end."""

    def writeSequence(self, data: Any) -> None:
        parts = list(data)
        super().writeSequence(parts)
        if not any(parts) and self._is_ready:
            self._write_below(self.seal(b"?"))


class NeedsWholeHeader(Good):  # type: ignore[misc]
    """3: forgets a length of which only a part has come."""

    buffer: bytes

    def next_size(self) -> Any:
        if len(self.buffer) < 3:
            self.buffer = b""
        return super().next_size()


class TakesAnyLength(Good):  # type: ignore[misc]
    """4: gathers whatever the peer says will come."""

    def next_size(self) -> Any:
        if len(self.buffer) < sealed.LENGTH:
            return None
        return max(int.from_bytes(self.buffer[: sealed.LENGTH], "big"), sealed.TAG)


class DeliversPaused(Good):  # type: ignore[misc]
    """5: pauses the transport below, and delivers what it has read."""

    def _deliver(self, piece: Any) -> bool:
        self._paused: bool
        paused, self._paused = self._paused, False
        going_on: bool = super()._deliver(piece)
        self._paused = self._paused or paused
        return going_on


class NeverPauses(Good):  # type: ignore[misc]
    """5: does not tell its producer that the transport below is full."""

    def _update_producer(self) -> None:
        self._producer.pause(False)


class ClosesOverProducer(Good):  # type: ignore[misc]
    """6: closes without waiting for the producer."""

    def loseConnection(self) -> None:
        self._producer.unregister()
        super().loseConnection()


class WaitsForEver(Good):  # type: ignore[misc]
    """6: gives nobody up who takes no part in the handshake."""

    handshake_seconds = 1e9


class KeepsKeys(Good):  # type: ignore[misc]
    """7: has its keys for as long as somebody has it."""

    def _forget_keys(self) -> None:
        """Do nothing."""


class AbortsProducerless(Good):  # type: ignore[misc]
    """7: does not stop the producer when it aborts."""

    def abortConnection(self) -> None:
        self._producer.unregister()
        super().abortConnection()


class BelievesCuts(Good):  # type: ignore[misc]
    """8: passes on the reason of the transport below."""

    def _judge_loss(self, below: Any) -> Any:
        return below


class HidesTampering(Good):  # type: ignore[misc]
    """8: says that a connection has ended that was tampered with."""

    def _final_reason(self) -> Any:
        reason = super()._final_reason()
        return as_failure(ConnectionDone()) if reason.check(Tampered) else reason


class TakesSecondProducer(Good):  # type: ignore[misc]
    """9: the latest producer counts."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer.unregister()
        super().registerProducer(producer, streaming)


class TakesLateProducer(Good):  # type: ignore[misc]
    """9: a producer that comes after the end waits for ever."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if not self._told:
            super().registerProducer(producer, streaming)


class DeliversAborted(Good):  # type: ignore[misc]
    """10: opens all that has come, then delivers it without looking up."""

    def _received(self, data: bytes) -> Any:
        return list(super()._received(data))

    def _deliver(self, piece: Any) -> bool:
        if self._over and not self._told:
            self.wrappedProtocol.dataReceived(piece)
            return True
        return bool(super()._deliver(piece)) or self._over


class LetsErrorsOut(Good):  # type: ignore[misc]
    """11: fails, and raises out of ``dataReceived`` as well."""

    def dataReceived(self, data: bytes) -> None:
        was_over = self._over
        super().dataReceived(data)
        if self._over and not was_over and self._reason.check(Tampered):
            self._reason.raiseException()


class LogsTwice(Good):  # type: ignore[misc]
    """11: two lines for one failure."""

    def _log_failure(self, error: Exception) -> None:
        super()._log_failure(error)
        super()._log_failure(error)


class WrapsRefusals(LayerFactory):
    """12: wraps what was not built."""

    def buildProtocol(self, addr: Any) -> Any:
        return self._make(self.wrappedFactory.buildProtocol(addr))


class NoisyFactory(LayerFactory):
    """12: says in the log when it starts and stops."""

    noisy = True


class AsksForSocket(Good):  # type: ignore[misc]
    """13: takes the transport below for one with a connected socket, as a reactor's are."""

    def _opened(self) -> None:
        if not self.transport.disconnected:
            super()._opened()


class OneNonce(Good):  # type: ignore[misc]
    """14: seals every message with the same nonce."""

    def agree(self, salt: bytes) -> None:
        super().agree(salt)
        for direction in (self.sending, self.receiving):
            direction.nonce = lambda: bytes(12)


class OneKey(Good):  # type: ignore[misc]
    """14: both directions have one key, and count alike."""

    def agree(self, salt: bytes) -> None:
        super().agree(salt)
        keys = (self.sending, self.receiving) if self.is_client else (self.receiving, self.sending)
        keys[1].cipher = keys[0].cipher


class WrapsAround(Good):  # type: ignore[misc]
    """14: begins to count again."""

    def agree(self, salt: bytes) -> None:
        super().agree(salt)
        for direction in (self.sending, self.receiving):
            direction.nonce = lambda direction=direction: self.around(direction)

    def around(self, direction: Any) -> bytes:
        direction.count %= sealed.MESSAGES_MAX
        direction.count += 1
        octets: bytes = direction.count.to_bytes(12, "big")
        return octets


BROKEN: dict[int, list[Any]] = {
    1: [ClaimsTLS],
    2: [WritesPastItself, SendsEmpty],
    3: [NeedsWholeHeader],
    4: [TakesAnyLength],
    5: [DeliversPaused, NeverPauses],
    6: [ClosesOverProducer, WaitsForEver],
    7: [KeepsKeys, AbortsProducerless],
    8: [BelievesCuts, HidesTampering],
    9: [TakesSecondProducer, TakesLateProducer],
    10: [DeliversAborted],
    11: [LetsErrorsOut, LogsTwice],
    12: [WrapsRefusals, NoisyFactory],
    13: [AsksForSocket],
    14: [OneNonce, OneKey, WrapsAround],
}


def broken_contracts(item: int) -> Iterator[tuple[str, Any]]:
    """The contract for each wrong wrapper of ``item``."""
    for wrong in BROKEN[item]:
        if issubclass(wrong, LayerFactory):
            yield wrong.__name__, contract_for(Good, wrong)
        else:
            yield wrong.__name__, contract_for(wrong)


class FindsTests(SynchronousTestCase):
    """The whole contract, run on good and on wrong wrappers."""

    def test_list(self) -> None:
        """Each test of the contract is of one item, and each item has tests."""
        self.assertEqual({item_of(test) for test in tests_of(MemoryContract)}, set(ITEMS))
        self.assertLessEqual(set(tests_of(SocketContract)), set(tests_of(MemoryContract)))
        self.assertEqual(set(BROKEN), set(ITEMS))

    def test_good(self) -> None:
        """The wrapper that all the wrong ones derive from passes."""
        self.assertEqual(failing(contract_for(Good)), [])


def _finds(item: int) -> Any:
    def test(self: SynchronousTestCase) -> None:
        for name, contract in broken_contracts(item):
            found = failing(contract)
            self.assertEqual({item_of(test) for test in found}, {item}, (name, found))
            self.flushLoggedErrors()

    test.__doc__ = f"Each wrapper that breaks item {item} fails tests of that item, and no others."
    return test


for _item in ITEMS:
    setattr(FindsTests, f"test_item_{_item:02}", _finds(_item))
