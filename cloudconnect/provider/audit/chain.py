"""Layer 4: the chain of the audit log: its lines, and whether one was touched.

Every line holds its number and the SHA-256 of the line before it, so that whoever changes one,
takes one out or puts two in another order breaks the chain there. The number and hash of the last
line, the *head*, are kept elsewhere: without it, lines could be cut off at the end.
:mod:`cloudconnect.provider.audit.log` writes the lines.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from cloudconnect.errors import UsageError

#: What the first line names as the one before it.
GENESIS: Final = "0" * 64
#: Longest line that is read, in bytes; what is written stays far below.
LINE_MAX: Final = 64 << 10
#: Longest text in a line, and most items of a list or a map in it: the rest is counted.
TEXT_MAX: Final = 500
ITEMS_MAX: Final = 64


@attrs.frozen
class Head:
    """The last line: its number, the first one's being 1, and its SHA-256 in hexadecimal."""

    number: int = 0
    digest: str = GENESIS

    def __str__(self) -> str:
        return f"{self.number}:{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The head that was written down as ``NUMBER:HASH``.

        :raises UsageError: not of this form
        """
        number, _, digest = text.strip().partition(":")
        if not (
            number.isdigit() and len(digest) == 64 and not set(digest) - set("0123456789abcdef")
        ):
            raise UsageError(f"{text!r} is not NUMBER:HASH, as provider audit prints it")
        return cls(int(number), digest)


@attrs.frozen(kw_only=True)
class Entry:
    """What one line says.

    :ivar time: seconds since 1970
    :ivar actor: ``admin``, or the role that saw it
    :ivar act: a stable word
    :ivar fields: JSON values
    """

    actor: str
    act: str
    time: float = attrs.field(factory=time.time)
    fields: dict[str, Any] = attrs.field(factory=dict)


def bounded(value: Any) -> Any:
    """``value`` as JSON of a bounded size; octets in hexadecimal, what is unknown by its type."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= TEXT_MAX else f"{value[:TEXT_MAX]}... ({len(value)})"
    if isinstance(value, bytes):
        return bounded(value.hex())
    if isinstance(value, dict):
        items = [(str(key)[:TEXT_MAX], bounded(value[key])) for key in list(value)[:ITEMS_MAX]]
        return dict(items) | ({"more": len(value)} if len(value) > ITEMS_MAX else {})
    if isinstance(value, list | tuple):
        items = [bounded(item) for item in value[:ITEMS_MAX]]
        return items + ([f"{len(value)} in all"] if len(value) > ITEMS_MAX else [])
    return f"({type(value).__name__})"


def segments(folder: Path) -> list[Path]:
    """The files of the log, oldest first."""
    return sorted(folder.glob("????-??.jsonl"))


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Every line that can be read, as a map, in order; :func:`verify` says what is wrong."""
    for path in segments(folder):
        for line in _lines(path):
            try:
                values = json.loads(line)
            except ValueError:
                continue
            if isinstance(values, dict):
                yield values


def verify(folder: Path, head: Head, against: Head | None = None) -> tuple[int, list[str]]:
    """Follow the chain from its first line to its end.

    :param head: as the accounts data base has it
    :param against: one that was written down elsewhere
    :return: how many lines there are, and a sentence for everything that is wrong
    """
    wrong: list[str] = []
    wanted = {one.number: one for one in (head, against) if one is not None and one.number}
    seen, last = 0, Head()
    for path in segments(folder):
        for line in _lines(path):
            seen += 1
            place = f"{path.name}, line {last.number + 1}"
            number, previous = place_of(line)
            if number is None:
                wrong.append(f"{place} cannot be read")
            elif number != last.number + 1:
                wrong.append(f"{place}: number {number} stands where {last.number + 1} should")
            elif previous != last.digest:
                wrong.append(f"{place}: the line before it was changed or replaced")
            last = Head(
                number if number is not None else last.number + 1, hashlib.sha256(line).hexdigest()
            )
            if last.number in wanted and wanted.pop(last.number) != last:
                wrong.append(f"{place} is not the line whose hash was kept")
    for missing in sorted(wanted):
        wrong.append(f"line {missing}, whose hash was kept, is missing: the log was cut")
    return seen, wrong


# --- lines ---------------------------------------------------------------------------------------


def line_of(entry: Entry, before: Head) -> bytes:
    """The line that stands behind ``before``, without its end."""
    values = {
        "number": before.number + 1,
        "previous": before.digest,
        "time": round(entry.time, 3),
        "actor": entry.actor,
        "act": entry.act,
        "fields": bounded(entry.fields),
    }
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def place_of(line: bytes) -> tuple[int | None, str]:
    """The number of a line and the digest of the one before it; None where it has none."""
    try:
        values = json.loads(line)
        number, previous = values["number"], values["previous"]
    except (ValueError, KeyError, TypeError):
        return None, ""
    return (number, str(previous)) if type(number) is int and number > 0 else (None, "")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LINE_MAX):
            yield line.removesuffix(b"\n")


def heads_of(path: Path) -> Iterator[Head]:
    """The heads behind the lines of one file that can be read, in order."""
    for line in _lines(path):
        number, _ = place_of(line)
        if number is not None:
            yield Head(number, hashlib.sha256(line).hexdigest())
