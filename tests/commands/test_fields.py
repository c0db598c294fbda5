"""Tests of :mod:`cloudconnect.commands.fields`."""

from __future__ import annotations

from twisted.protocols import amp
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.arguments import FixedBytes, SecretArgument
from cloudconnect.commands.fields import (
    ERROR_TEXT_MAX,
    BoundedCommand,
    carried_error,
    error_box,
    may_be_used,
    read_fields,
    write_fields,
)
from cloudconnect.errors import (
    CloudConnectError,
    LocalError,
    ProtocolViolation,
    Refused,
    Tampered,
    UsageError,
    error_classes,
)
from cloudconnect.keys import KeyA

CANARY = b"0123456789abcdef0123456789abcdef"


class Give(BoundedCommand):
    """A command with all kinds of fields."""

    arguments = [
        (b"count", amp.Integer()),
        (b"key", SecretArgument(KeyA)),
        (b"session-id", FixedBytes(4, optional=True)),
    ]


class FieldTests(SynchronousTestCase):
    """Values and boxes."""

    def setUp(self) -> None:
        self.values = {"count": 3, "key": KeyA(CANARY), "session_id": b"abcd"}
        self.box = write_fields(self.values, Give.arguments, Give, None)

    def test_round_trip(self) -> None:
        """What was written is read, and the box stays as it was."""
        before = dict(self.box)
        self.assertEqual(self.values, read_fields(self.box, Give.arguments, Give, None))
        self.assertEqual(before, self.box)

    def test_unknown_fields(self) -> None:
        """A field that is not known is left alone: a later version may have it."""
        self.box[b"later"] = b"more"
        self.assertEqual(self.values, read_fields(self.box, Give.arguments, Give, None))

    def test_missing(self) -> None:
        """An optional one may be missing, another is named."""
        del self.box[b"session-id"]
        self.assertIsNone(read_fields(self.box, Give.arguments, Give, None)["session_id"])
        del self.box[b"key"]
        error = self.assertRaises(
            ProtocolViolation, read_fields, self.box, Give.arguments, Give, None
        )
        self.assertIn("key of Give", str(error))

    def test_malformed(self) -> None:
        """A value that does not fit is named and not repeated, in either direction."""
        for name, value in ((b"key", CANARY + b"0"), (b"count", CANARY), (b"session-id", CANARY)):
            box = self.box.copy()
            box[name] = value
            error = self.assertRaises(
                ProtocolViolation, read_fields, box, Give.arguments, Give, None
            )
            self.assertIn(f"{name.decode()} of Give", str(error))
            self.assertNotIn(CANARY.decode(), str(error))
            self.assertTrue(error.__suppress_context__)
        for name in ("key", "count"):
            values = {**self.values, name: CANARY}
            error = self.assertRaises(TypeError, write_fields, values, Give.arguments, Give, None)
            self.assertIn(f"{name} of Give", str(error))
            self.assertNotIn(CANARY.decode(), str(error))

    def test_line_changers(self) -> None:
        """Commands that would change the line may not be used."""

        class Switch(amp.ProtocolSwitchCommand):
            """Another protocol on the same line."""

        class Quit(BoundedCommand):
            """Has an answer that closes."""

            responseType = amp.QuitBox

        for command in (amp.StartTLS, Switch, Quit):
            self.assertFalse(may_be_used(command))
        self.assertTrue(may_be_used(Give))
        self.assertTrue(may_be_used(amp.Command))


class ErrorTests(SynchronousTestCase):
    """Errors that travel."""

    def test_every_class(self) -> None:
        """Each error of a peer arrives as one of the same class with the same text.

        What is wrong at the other side itself arrives as a refusal, but for a wrong use.
        """
        classes = error_classes()
        self.assertGreater(len(classes), 30)
        for reason, error_class in classes.items():
            found = carried_error(error_box(error_class("what happened")))
            ours = issubclass(error_class, LocalError) and error_class is not UsageError
            self.assertIs(Refused if ours else error_class, type(found), reason)
            self.assertIn("what happened", str(found))

    def test_subclass(self) -> None:
        """A class that has no reason of its own travels as the one that it comes from."""

        class Later(Tampered):
            """Made somewhere else."""

        self.assertIs(Tampered, type(carried_error(error_box(Later("x")))))

    def test_unknown_reason(self) -> None:
        """A reason that is not known here is a refusal with its text."""
        for reason in (b"some_later_reason", b"", b"\xff"):
            found = carried_error(amp.AmpBox(_error_code=reason, _error_description=b"because"))
            self.assertEqual((Refused, "because"), (type(found), str(found)))

    def test_unexpected(self) -> None:
        """Of any other error nothing is told."""
        box = error_box(ValueError(CANARY.decode()))
        self.assertNotIn(CANARY, box.serialize())
        found = carried_error(box)
        self.assertIs(CloudConnectError, type(found))
        self.assertIn("did not expect", str(found))

    def test_text_is_bounded(self) -> None:
        """A long text is cut where it is made, and where it is believed."""
        self.assertEqual(ERROR_TEXT_MAX, len(str(carried_error(error_box(Refused("x" * 9999))))))
        box = amp.AmpBox(_error_code=b"refused", _error_description=b"x" * 9999)
        self.assertEqual(ERROR_TEXT_MAX, len(str(carried_error(box))))

    def test_text_is_printable(self) -> None:
        """A text does nothing to a terminal, and is one line."""
        box = amp.AmpBox(_error_code=b"refused", _error_description="a\x1b[2Jä\nb\xad".encode())
        self.assertEqual("a [2Jä b ", str(carried_error(box)))
