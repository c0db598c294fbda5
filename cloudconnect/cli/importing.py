"""Layer 6: how commands are imported: late, and without Python's collector of cyclic garbage.

What is imported is never garbage. To look through all of it again and again while it grows takes a
fifth of a short command's time. Afterwards the collector looks more seldom than it usually does:
entries, chunks and frames come and go by the hundred thousand, none of them is in a cycle, and to
look through those that are just in use took a twentieth of a restore's time.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from cloudconnect.cli.sections import CommandGroup

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

#: Objects made and not freed before the collector looks through them, and how many such looks there
#: are before it looks through older ones, and likewise through all; Python's own: 700, 10, 10.
THRESHOLDS: Final = (20_000, 10, 10)

_compile_now: Final = re.compile


@contextlib.contextmanager
def uncollected(for_good: bool = False) -> Iterator[None]:
    """Nothing is collected inside.

    :param for_good: nor is what is there at its end ever looked at again, and at what comes later
        after :data:`THRESHOLDS`
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
        if for_good:
            gc.freeze()
            gc.set_threshold(*THRESHOLDS)
    finally:
        if before:
            gc.enable()


def spare() -> None:
    """Have two things that take 14 of the 330 ms of a command's start made by their first use.

    Twisted's compatibility module imports the HTTP client's cookies, and with them the HTTP client
    and the parser of mail, to hand them on to whoever asks; cryptography compiles a pattern that
    names all of Unicode, for names of certificates that are written as text. To be called before
    either is imported. What another thread wants compiled meanwhile it gets at once.
    """
    _late_cookies()
    ours = threading.get_ident()

    def compile_late(*asked: Any, **named: Any) -> Any:
        made = _LatePattern if threading.get_ident() == ours else _compile_now
        return made(*asked, **named)

    re.compile = compile_late
    try:
        importlib.import_module("cryptography.x509.name")
    finally:
        re.compile = _compile_now


def _late_cookies() -> None:
    """Have ``http.cookiejar`` loaded by its first use, and not by its import."""
    import http
    import importlib.util

    name = "http.cookiejar"
    spec = None if name in sys.modules else importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = http.cookiejar = module  # type: ignore[attr-defined]
    spec.loader.exec_module(module)


class _LatePattern:
    """What ``re.compile`` would give, compiled when something of it is wanted.

    :param asked: as for ``re.compile``
    :param named: likewise
    """

    def __init__(self, *asked: Any, **named: Any) -> None:
        self._asked = asked
        self._named = named

    def __getattr__(self, name: str) -> Any:
        # Which remembers the last few hundred. Not by its name, which may mean this class still.
        return getattr(_compile_now(*self._asked, **self._named), name)


class Listed(NamedTuple):
    """Where a command is.

    :ivar module: that has it
    :ivar name: in there
    :ivar summary: the first sentence of its help
    """

    module: str
    name: str
    summary: str


class LazyGroup(CommandGroup):
    """A group of which some commands, or all, are imported when they are called.

    To list them imports none: in a help text, and where a shell completes a word.

    :param places: of those, by command
    :param aliases: other names of commands
    """

    def __init__(
        self,
        *arguments: Any,
        places: Mapping[str, Listed],
        aliases: Mapping[str, str] = {},
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._places = places
        self._aliases = aliases

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in order."""
        return sorted({*self._places, *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command, or None."""
        place = self._places.get(self._aliases.get(cmd_name, cmd_name))
        if place is None:
            return super().get_command(ctx, cmd_name)
        with uncollected(for_good=ctx.find_root().obj is not None):
            command: click.Command = getattr(importlib.import_module(place.module), place.name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin so, and options."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=summary)
            for name, summary in self.summaries(ctx)
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def summaries(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """As the group's; no module is imported for it."""
        others = dict(super().summaries(ctx))
        for name in self.list_commands(ctx):
            if name in self._places:
                yield name, self._places[name].summary
            elif name in others:
                yield name, others[name]
