"""Tests of :mod:`cloudconnect.cli.main`: what the ends of commands mean."""

from __future__ import annotations

import json
from typing import Any

import click

from cloudconnect.cli.main import _COMMANDS, cloudconnect
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ExitCode,
    NotReachable,
    Tampered,
    Truncated,
    WrongPassphrase,
    error_classes,
)
from tests.cli.commands import CommandCase, Done


class EndTests(CommandCase):
    """Exit statuses and messages."""

    def ending(self, end: Any, *options: str) -> Done:
        """Run a command that ends like this."""

        @click.command()
        @click.option("--json", "as_json", is_flag=True)
        @click.option("--debug", is_flag=True)
        def command(**_: Any) -> Any:
            if isinstance(end, BaseException):
                raise end
            return end

        self.patch(cloudconnect, "get_command", lambda context, name: command)
        return self.call("command", *options)

    def test_done(self) -> None:
        """A command that returns nothing is done, one that returns a status ends with it."""
        for end, status in ((None, 0), (0, 0), (3, 3), (ExitCode.NOT_FOUND, 10)):
            self.assertEqual(Done(status, "", ""), self.ending(end))

    def test_errors(self) -> None:
        """Every error of ours ends with its own status and its text in one line."""
        for cls in error_classes().values():
            if cls.__init__ is CloudConnectError.__init__:
                done = self.ending(cls("what and why"))
                self.assertEqual((int(cls.exit_code), ""), (done.status, done.out))
                self.assertTrue(done.err.startswith("cloudconnect: what and why"), done.err)
                self.assertEqual(1, done.err.count("\n"))

    def test_broken_line(self) -> None:
        """A line that broke says what to do next."""
        for reason in ("it stopped", "it stopped."):
            self.assertIn("it stopped. The line broke", self.ending(Truncated(reason)).err)
        self.assertIn("run the same command again", self.ending(Truncated("it stopped")).err)

    def test_refused_by_the_system(self) -> None:
        """What the system refuses is told with its name first, as in other messages."""
        for name in ("/no/where", b"/no/where"):
            done = self.ending(OSError(2, "No such file or directory", name))
            said = (1, "cloudconnect: /no/where: No such file or directory\n")
            self.assertEqual(said, (done.status, done.err))

    def test_without_text(self) -> None:
        """An error without a text says what its class means."""
        self.assertIn("as many tasks", self.ending(Busy()).err)

    def test_json(self) -> None:
        """A program reads the reason as an object on standard error."""
        done = self.ending(Tampered("flipped"), "--json")
        fields = json.loads(done.err)
        self.assertEqual((20, "tampered"), (fields["code"], fields["reason"]))
        self.assertEqual((20, ""), (done.status, done.out))

    def test_bug(self) -> None:
        """A bug is called one, without its text, which may be anything; with --debug it is
        shown."""
        done = self.ending(ValueError("canary"))
        self.assertEqual(1, done.status)
        self.assertIn("bug", done.err)
        self.assertNotIn("canary", done.err)
        self.assertRaises(ValueError, self.ending, ValueError("canary"), "--debug")

    def test_system(self) -> None:
        """What the system refuses is said in its words."""
        done = self.ending(PermissionError(13, "Permission denied", "/file"))
        self.assertEqual(1, done.status)
        self.assertIn("/file", done.err)

    def test_debug(self) -> None:
        """With --debug an error of ours comes with where it was raised."""
        done = self.ending(NotReachable("nobody there"), "--debug")
        self.assertEqual(22, done.status)
        self.assertIn("Traceback", done.err)

    def test_interrupted(self) -> None:
        """An interrupt has its status."""
        for end in (KeyboardInterrupt(), click.exceptions.Abort()):
            self.assertEqual(130, self.ending(end).status)

    def test_reader_gone(self) -> None:
        """A reader of our output that has gone is no bug."""
        self.assertEqual(Done(1, "", ""), self.ending(BrokenPipeError()))

    def test_terminal(self) -> None:
        """What an error says cannot move the cursor."""
        done = self.ending(WrongPassphrase("evil\x1b[2J\nline"))
        self.assertNotIn("\x1b", done.err)
        self.assertEqual(1, len(done.err.splitlines()))


class CommandTests(CommandCase):
    """Which commands there are."""

    def test_usage(self) -> None:
        """A wrong option or command is a wrong use, for people and for programs."""
        self.assertEqual(2, self.call("nonsense").status)
        self.assertEqual(2, self.call("points", "--nonsense").status)
        done = self.call("points", "--json", "--nonsense")
        self.assertEqual("usage", json.loads(done.err)["reason"])

    def test_all(self) -> None:
        """Every command can be imported, and is listed."""
        context = click.Context(cloudconnect)
        for name in _COMMANDS:
            self.assertIsInstance(cloudconnect.get_command(context, name), click.Command)
        self.assertEqual(sorted(_COMMANDS), cloudconnect.list_commands(context))
        self.assertIn("backup", self.call("--help").out)

    def test_alias(self) -> None:
        """Snapshots are points."""
        context = click.Context(cloudconnect)
        self.assertIs(
            cloudconnect.get_command(context, "points"),
            cloudconnect.get_command(context, "snapshots"),
        )
        self.assertIsNone(cloudconnect.get_command(context, "nonsense"))

    def test_version(self) -> None:
        """--version names the program and its version."""
        self.assertRegex(self.call("--version").out, r"^cloudconnect \d")
