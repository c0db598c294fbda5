"""Tests of :mod:`cloudconnect.cli.sections`: how help is laid out."""

from __future__ import annotations

import click

from cloudconnect.cli.main import _COMMANDS, cloudconnect
from cloudconnect.cli.sections import CommandGroup, SectionedCommand, SharedOption
from tests.cli.commands import CommandCase


class SectionTests(CommandCase):
    """A command's help."""

    def test_own_first(self) -> None:
        """Its own options come first, those that all commands have below headings of their own,
        whatever order they were declared in, and arguments are no options."""

        @click.command(cls=SectionedCommand)
        @click.argument("thing")
        @click.option("--shared", cls=SharedOption, section="Line", help="Of all.")
        @click.option("--own", help="Of this one.")
        def command(**_: object) -> None: ...

        context = click.Context(command, info_name="command")
        lines = [line.strip() for line in command.get_help(context).splitlines()]
        below = lines[lines.index("Options:") :]
        self.assertEqual(
            ["--own TEXT  Of this one.", "--help      Show this message and exit."], below[1:3]
        )
        self.assertEqual(["Line:", "--shared TEXT  Of all."], below[4:])

    def test_every_tenant_command(self) -> None:
        """Whatever has the options of a tenant has them below a heading of their own."""
        for name in _COMMANDS:
            found = cloudconnect.get_command(click.Context(cloudconnect), name)
            commands = list(found.commands.values()) if isinstance(found, click.Group) else [found]
            for command in commands:
                shared = [p for p in command.params if isinstance(p, SharedOption)]
                if shared:
                    self.assertIsInstance(command, SectionedCommand, name)


class GroupTests(CommandCase):
    """A group's help."""

    def test_whole_sentence(self) -> None:
        """The first sentence of a command is shown to its end, on several lines if need be."""
        sentence = "Do a thing " + "that takes many words " * 8 + "to be told."

        @click.group(cls=CommandGroup)
        def group() -> None: ...

        @group.command(help=sentence + " And more, which is not shown.")
        def act() -> None: ...

        @group.command(hidden=True)
        def secret() -> None: ...

        text = group.get_help(click.Context(group, info_name="group"))
        words = " ".join(text.split())
        self.assertIn("act " + sentence.removesuffix("."), words)
        self.assertNotIn("And more", words)
        self.assertNotIn("secret", words)
        self.assertIsInstance(act, SectionedCommand)
