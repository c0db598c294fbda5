"""Layer 5: small files, and TOML files of settings, read and checked."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import attrs

from cloudconnect.errors import UsageError


def read_bounded(path: Path, what: str, limit: int) -> bytes:
    """The content of a small file.

    :param what: what an error calls it
    :param limit: most bytes that it may have
    :raises UsageError: it cannot be read, is empty or too long
    """
    try:
        with path.open("rb") as file:
            octets = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{what}: {path} cannot be read: {error.strerror}") from None
    if len(octets) > limit:
        raise UsageError(f"{what}: {path} has more than {limit} bytes")
    if not octets:
        raise UsageError(f"{what}: {path} is empty")
    return octets


def read_settings(
    path: Path,
    settings: type,
    missing: str,
    numbers: Mapping[str, tuple[int, int]] | None = None,
    lists: Collection[str] = (),
) -> dict[str, Any]:
    """The values in ``path``: texts, but for those that are said to be something else.

    :param settings: the attrs class that they are for, whose ``directory`` is not among them
    :param missing: what to say where there is no such file
    :param numbers: those that are numbers, with the least and the most that each may be
    :param lists: those that are lists of texts; they become tuples
    :raises UsageError: there is no such file, or it cannot be used
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(missing) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from None
    known = {field.name for field in attrs.fields(settings)} - {"directory"}
    unknown = set(values) - known
    if unknown:
        raise UsageError(f"{path}: unknown setting {', '.join(sorted(unknown))}")
    for name, value in values.items():
        if name in lists:
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise UsageError(f"{path}: {name} is a list of texts")
            values[name] = tuple(value)
        elif numbers and name in numbers:
            least, most = numbers[name]
            if type(value) is not int or not least <= value <= most:
                raise UsageError(f"{path}: {name} is a number from {least} to {most}")
        elif not isinstance(value, str):
            raise UsageError(f"{path}: {name} is a text")
    return values
