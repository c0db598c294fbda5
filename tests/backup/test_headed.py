"""Answers about heads, taken apart."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.headed import (
    ABOUT_MAX,
    Fate,
    ask_fates,
    ask_page,
    bits_of,
    exchange_over,
    page_question,
)
from cloudconnect.content.heads import SignedHead
from cloudconnect.errors import ProtocolViolation
from cloudconnect.testing import PipePair
from cloudconnect.wire import canonical
from cloudconnect.wire.frames import FrameKind, encode_body
from tests.backup.support import channels

CHAIN = b"c" * 32
PAIR = [b"an entry", b"s" * 64]
HEADED = {"number": 3, "chain": CHAIN, "entries": [PAIR, PAIR], "live": b"\5", "about": []}


class ExchangeTests(SynchronousTestCase):
    """Questions over a dialogue."""

    def setUp(self) -> None:
        self.left, self.right = channels(PipePair(timeout=5.0))

    def answer(self, number: int) -> None:
        self.right.send(FrameKind.HEADED, 0, encode_body(**{**HEADED, "number": number}))

    def asked(self) -> bytes:
        """What was asked next."""
        frame = self.right.receive()
        self.assertIs(frame.kind, FrameKind.HEADS)
        return frame.body

    def test_in_turn(self) -> None:
        """Each question is sent, and its answer returned."""
        exchange = exchange_over(self.left)
        for number in (3, 4):
            self.answer(number)
            self.assertEqual(exchange(page_question(number))["number"], number)
            self.assertEqual(self.asked(), page_question(number))

    def test_asked_before(self) -> None:
        """A question that was sent before is not sent again; the next one is."""
        exchange = exchange_over(self.left, page_question(3))
        for number in (3, 4):
            self.answer(number)
            self.assertEqual(exchange(page_question(number))["number"], number)
        self.assertEqual(self.asked(), page_question(4))

    def test_asked_in_vain(self) -> None:
        """Where something else is to be asked by now, the first answer is dropped."""
        exchange = exchange_over(self.left, page_question(3))
        self.answer(3)
        self.answer(4)
        self.assertEqual(exchange(page_question(4))["number"], 4)
        self.assertEqual(self.asked(), page_question(4))


class PageTests(SynchronousTestCase):
    """A page of the chain."""

    def ask(self, after: int = 1, **changes: Any) -> Any:
        asked: list[Any] = []

        def exchange(body: bytes) -> dict[str, Any]:
            asked.append(canonical.decode(body))
            return {**HEADED, **changes}

        page = ask_page(exchange, after)
        self.assertEqual(asked, [{"after": after, "about": []}])
        return page

    def test_page(self) -> None:
        """What was asked, and what came."""
        page = self.ask()
        self.assertEqual((page.number, page.value, page.live), (3, CHAIN, 5))
        self.assertEqual(page.heads, (SignedHead(*PAIR), SignedHead(*PAIR)))

    def test_not_the_last(self) -> None:
        """Before the last page nothing is said of which points are there, and nothing is taken."""
        self.assertEqual(self.ask(number=300, live=b"").live, 0)
        self.assertEqual(self.ask(number=300, live=b"\xff").live, 0)

    def test_shorter(self) -> None:
        """A shorter chain than the one that is known is for the caller to judge."""
        self.assertEqual(self.ask(after=9, number=3, entries=[]).number, 3)

    def test_violations(self) -> None:
        """What cannot be is refused."""
        for changes in (
            {"number": "3"},
            {"number": True, "live": b"\1"},
            {"chain": "c"},
            {"entries": {}},
            {"entries": [PAIR, [b"x"]]},
            {"entries": [PAIR, [b"x", "y"]]},
            {"entries": [PAIR, b"x"]},
            {"entries": [PAIR] * 3},
            {"entries": []},
            {"live": b""},
            {"live": b"\5\0"},
            {"live": b"\x0d"},
            {"live": 5},
        ):
            with self.assertRaises(ProtocolViolation, msg=str(changes)):
                self.ask(**changes)
        for name in ("number", "chain", "entries", "live"):
            with self.assertRaises(ProtocolViolation, msg=name):
                ask_page(lambda body, name=name: {k: HEADED[k] for k in HEADED if k != name}, 1)


class FateTests(SynchronousTestCase):
    """What became of points."""

    def ask(self, answer: Any, numbers: tuple[int, ...] = (7,)) -> list[Fate]:
        return list(ask_fates(lambda body: {**HEADED, "about": answer}, 9, numbers))

    def test_answer(self) -> None:
        """State, by whom, and when it had arrived."""
        self.assertEqual(
            self.ask([[7, "removed", "retention", 1.5]]), [Fate(7, "removed", "retention", 1.5)]
        )

    def test_many(self) -> None:
        """So many at a time; nobody is asked about none."""
        sizes = []

        def exchange(body: bytes) -> dict[str, Any]:
            about = canonical.decode(body)["about"]
            sizes.append(len(about))
            return {"about": [[number, "deleted", "tenant", 0] for number in about]}

        numbers = range(1, 2 * ABOUT_MAX + 2)
        fates = list(ask_fates(exchange, 1000, numbers))
        self.assertEqual([fate.number for fate in fates], list(numbers))
        self.assertEqual(sizes, [ABOUT_MAX, ABOUT_MAX, 1])
        self.assertEqual(list(ask_fates(exchange, 1000, [])), [])

    def test_violations(self) -> None:
        """What is shown to a person is a short word that moves no cursor."""
        for answer in (
            None,
            [],
            [[7, "deleted", "tenant", 0], [8, "deleted", "tenant", 0]],
            [[8, "deleted", "tenant", 0]],
            [[7, "deleted", "tenant"]],
            [[7, "deleted", 1, 0]],
            [[7, "x" * 17, "tenant", 0]],
            [[7, "deleted", "\x1b[2J", 0]],
            [[7, "deleted\n", "", 0]],
            [[7, "deleted", "", True]],
            [[7, "deleted", "", 1e300]],
            [[7, "deleted", "", float("nan")]],
            [7],
        ):
            with self.assertRaises(ProtocolViolation, msg=str(answer)):
                self.ask(answer)

    @given(st.sets(st.integers(1, 5000)))
    def test_bits(self, numbers: set[int]) -> None:
        """The numbers of set bits come in order."""
        mask = sum(1 << (number - 1) for number in numbers)
        self.assertEqual(list(bits_of(mask)), sorted(numbers))
