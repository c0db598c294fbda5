"""Tests of :mod:`cloudconnect.commands.control`: what the boxes of the control channel carry."""

from __future__ import annotations

from typing import Any

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands import admin, control, lan, tunnel
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.box_parser import encode_box
from cloudconnect.commands.control import (
    DIRECT_HOP,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    Role,
    SessionKind,
    Start,
)
from cloudconnect.commands.fields import may_be_used, read_fields, write_fields
from cloudconnect.content.description import DESCRIPTION_MAX
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import KeyA, KeyB
from cloudconnect.settings import BOX_MAX_UNAUTHENTICATED, PROTOCOL_VERSIONS
from cloudconnect.wire.login import MESSAGE_MAX

KEY = bytes(range(32))


def there_and_back(
    command: type[amp.Command], fields: list[Any], values: dict[str, Any]
) -> dict[str, Any]:
    """``values`` through a box."""
    found: dict[str, Any] = read_fields(
        write_fields(values, fields, command, None), fields, command, None
    )
    return found


def commands_of(module: Any) -> list[type[BoundedCommand]]:
    """The commands that a module makes."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BoundedCommand)
        and value is not BoundedCommand
    ]


START = {
    "kind": SessionKind.BACKUP.value,
    "job": b"j" * 16,
    "host": "hôst",
    "name": "job",
    "repository": b"r" * 16,
    "wan": False,
    "streams": 1,
}


class ControlTests(SynchronousTestCase):
    """The commands of the control channel."""

    def test_every_command_is_usable(self) -> None:
        """No command of any module would change the line, and no two share a name."""
        names = []
        for module in (control, lan, tunnel, admin):
            for command in commands_of(module):
                self.assertTrue(may_be_used(command), command)
                names.append(command.commandName)
        self.assertEqual(sorted(set(names)), sorted(names))
        self.assertGreater(len(names), 15)

    def test_words(self) -> None:
        """Kinds, roles and the hop have the words of the protocol."""
        self.assertEqual(
            ["backup", "restore", "read", "check"], [kind.value for kind in SessionKind]
        )
        self.assertEqual(
            ["source-mover", "target-mover", "source-wan", "target-wan"], [r.value for r in Role]
        )
        self.assertEqual("source-mover>target-mover", DIRECT_HOP)

    def test_start(self) -> None:
        """What Start asks arrives as it was asked."""
        self.assertEqual(START, there_and_back(Start, Start.arguments, START))

    def test_start_answer(self) -> None:
        """Key A arrives as a key beside the plan, and what is printed of the answer holds none."""
        values = {
            "session": b"s" * 16,
            "plan": [{"role": "target-mover", "route": b"o" * 16}],
            "keys_a": [KeyA(KEY)],
            "amend": True,
        }
        answer = there_and_back(Start, Start.response, values)
        self.assertEqual(values, answer)
        self.assertNotIn(repr(KEY)[2:-1], repr(answer))

    def test_start_refuses_other_keys(self) -> None:
        """Neither bare octets nor another kind of key can be answered as Key A."""
        for wrong in (KEY, KeyB(KEY)):
            values = {"session": b"s" * 16, "plan": [], "keys_a": [wrong]}
            error = self.assertRaises(TypeError, write_fields, values, Start.response, Start, None)
            self.assertNotIn(repr(KEY)[2:-1], str(error))

    def test_ids_have_their_size(self) -> None:
        """An id of another size is no Start."""
        box = write_fields(START, Start.arguments, Start, None)
        for name in (b"job", b"repository"):
            wrong = box.copy()
            wrong[name] = b"x" * 15
            self.assertRaises(ProtocolViolation, read_fields, wrong, Start.arguments, Start, None)

    def test_log_in_fits_before_it(self) -> None:
        """The longest messages of a log-in fit into what is read of a stranger."""
        values: dict[str, Any] = {"message": "x" * MESSAGE_MAX, "versions": list(range(20))}
        box = write_fields(values, AuthenticateFirst.arguments, AuthenticateFirst, None)
        box[amp.COMMAND], box[amp.ASK] = AuthenticateFirst.commandName, b"1"
        self.assertLess(len(encode_box(box, BOX_MAX_UNAUTHENTICATED)), BOX_MAX_UNAUTHENTICATED)

    def test_largest_description_fits(self) -> None:
        """The largest description of a repository can be stored, and shown after the log-in."""
        large = b"d" * DESCRIPTION_MAX
        stored = there_and_back(
            CreateRepository, CreateRepository.arguments, {"description": large}
        )
        self.assertEqual({"description": large}, stored)
        answer = {
            "message": "v=",
            "version": PROTOCOL_VERSIONS[-1],
            "provider": b"p" * 16,
            "repository": large,
            "modes": ["tenant"],
            "wan": True,
            "gateways": ["gateway.example.com:6180"] * 64,
            "notice": None,
        }
        self.assertEqual(
            answer, there_and_back(AuthenticateFinal, AuthenticateFinal.response, answer)
        )
