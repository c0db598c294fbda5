"""Layer 6: the options that say which files are meant, for every command that reads some."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cloudconnect.backup.options import read_path_list
from cloudconnect.backup.patterns import PathPatterns, read_patterns
from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.backup.walk import absolute
from cloudconnect.cli.completion import FILE
from cloudconnect.cli.values import parse_size
from cloudconnect.errors import UsageError

_C = TypeVar("_C", bound=Callable[..., Any])

_OPTIONS: Final = [
    click.option(
        "-x", "--one-file-system", is_flag=True, help="Stay on the sources' file systems."
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out what matches, such as '*.tmp'; may be repeated.",
    ),
    click.option(
        "--exclude-file",
        "exclude_files",
        multiple=True,
        type=FILE,
        help="File with such patterns, one a line.",
    ),
    click.option("--exclude-caches", is_flag=True, help="Leave out folders with a CACHEDIR.TAG."),
    click.option(
        "--exclude-if-present",
        "if_present",
        multiple=True,
        metavar="NAME",
        help="Leave out folders that hold something called NAME.",
    ),
    click.option("--exclude-larger-than", metavar="SIZE", help="Leave out larger files."),
    click.option(
        "--files-from",
        multiple=True,
        type=FILE,
        help="File with more paths, one a line; - is standard input.",
    ),
]


def selecting_options(function: _C) -> _C:
    """Give a command the options; their values are for :func:`sources_of` and :func:`rules_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def sources_of(paths: tuple[str, ...], lists: tuple[str, ...]) -> tuple[bytes, ...]:
    """What was named, absolute.

    :param paths: arguments
    :param lists: files with more of them, one a line; ``-`` is standard input
    :raises UsageError: a list cannot be read
    """
    sources = [os.fsencode(path) for path in paths]
    for name in lists:
        sources += read_path_list(_content(name))
    return tuple(absolute(source) for source in sources)


def rules_of(choices: dict[str, Any]) -> ExcludeRules:
    """What is left out.

    :param choices: values of the options
    :raises UsageError: a file of patterns cannot be read, or a size is none
    """
    patterns = [os.fsencode(pattern) for pattern in choices["exclude"]]
    for name in choices["exclude_files"]:
        patterns += read_patterns(_content(name))
    larger = choices["exclude_larger_than"]
    return ExcludeRules(
        patterns=PathPatterns(patterns),
        caches=choices["exclude_caches"],
        if_present=frozenset(os.fsencode(name) for name in choices["if_present"]),
        larger_than=None if larger is None else parse_size(larger),
    )


def _content(name: str) -> bytes:
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from None
