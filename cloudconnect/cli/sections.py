"""Layer 6: how help is laid out: a command's own options first, what all commands share below."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

#: Characters of a command's first sentence in a list of commands: click would cut it to one line.
SHORT_HELP_MAX: Final = 400


class SharedOption(click.Option):
    """An option that many commands have, shown below a heading of its own.

    :param section: the heading
    """

    def __init__(self, *arguments: Any, section: str, **values: Any) -> None:
        super().__init__(*arguments, **values)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose shared options are shown behind its own ones."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section, in the order in which they were declared."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                section = getattr(parameter, "section", "Options")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            if records:
                with formatter.section(section):
                    formatter.write_dl(records)


class CommandGroup(click.Group):
    """A group that lists its commands with the whole first sentence of each."""

    command_class = SectionedCommand

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and what they are for."""
        rows = list(self.summaries(ctx))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """The commands of this group, by name, and the first sentence of each."""
        for name, command in sorted(self.commands.items()):
            if not command.hidden:
                yield name, command.get_short_help_str(SHORT_HELP_MAX)
