"""Tests of :mod:`cloudconnect.commands.answering`: who answers a command."""

from __future__ import annotations

from twisted.protocols.amp import CommandLocator
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.answering import find_responder
from cloudconnect.commands.box import BoundedCommand


class Greet(BoundedCommand):
    """Somebody says something."""

    commandName = b"Greet"


class Leave(BoundedCommand):
    """Nobody answers that."""

    commandName = b"Leave"


class Polite(CommandLocator):
    """Answers with what it was made with."""

    def __init__(self, word: str) -> None:
        super().__init__()
        self.word = word

    @Greet.responder
    def greet(self) -> dict[str, str]:
        return {"word": self.word}


class FindTests(SynchronousTestCase):
    """Several locators as one."""

    def test_first(self) -> None:
        """The first that has a responder answers, as itself."""
        locators = [CommandLocator(), Polite("first"), Polite("second")]
        found = find_responder(locators, b"Greet")
        assert found is not None
        self.assertIs(Greet, found[0])
        self.assertEqual({"word": "first"}, found[1]())

    def test_none(self) -> None:
        """What nobody answers is not found."""
        self.assertIsNone(find_responder([Polite("x")], Leave.commandName))
        self.assertIsNone(find_responder([], b"Greet"))
