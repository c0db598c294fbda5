"""Layer 4: the chain of the audit log: its lines, and whether one was touched.

Every line holds its number and the SHA-256 of the line before it, so that whoever changes one,
takes one out or puts two in another order breaks the chain there. The number and hash of the last
line, the *head*, are kept elsewhere: without it, lines could be cut off at the end.
:mod:`cloudconnect.provider.audit.log` writes the lines.

The log is cut into files, *segments*; the first line of each holds the hash of the last one of the
segment before it. A whole segment is forgotten after its days, or where all have too many bytes:
before it goes, a line says with which line it ended, and that line's hash. So the oldest line that
is there either is the first one of all, or a later one vouches for what stood before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from cloudconnect.errors import LocalError, UsageError

#: What a file of the log is called, without its ending.
_SEGMENT: Final = re.compile(r"\d{4}-\d\d(-\d{4})?")
#: What the first line names as the one before it.
GENESIS: Final = "0" * 64
#: Longest line that is read, in bytes; what is written stays far below.
LINE_MAX: Final = 64 << 10
#: The act of a line that says that a segment goes.
FORGOTTEN: Final = "audit_segment_forgotten"
#: Longest text in a line, and most items of a list or a map in it: the rest is counted.
TEXT_MAX: Final = 500
ITEMS_MAX: Final = 64
#: So often a log is followed that changes meanwhile, before what seems wrong is said.
LOOKS: Final = 5


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
    """The files of the log, oldest first: of one month, or further ones of a month."""
    found = [path for path in folder.glob("????-??*.jsonl") if _SEGMENT.fullmatch(path.stem)]
    return sorted(found, key=lambda path: path.stem)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Every line that can be read, as a map, in order; :func:`verify` says what is wrong."""
    for path in segments(folder):
        with contextlib.suppress(FileNotFoundError):  # it was forgotten just now
            for line in _lines(path):
                try:
                    values = json.loads(line)
                except ValueError:
                    continue
                if isinstance(values, dict):
                    yield values


def verify(folder: Path, head: Head, against: Head | None = None) -> tuple[int, list[str]]:
    """Follow the chain from the first line that is there to its end.

    A provider may run meanwhile, write lines and forget segments: what seems wrong is looked at
    again where the log has changed since.

    :param head: as the accounts data base has it
    :param against: one that was written down elsewhere
    :return: how many lines there are, and a sentence for everything that is wrong
    :raises LocalError: files went away again and again while they were read
    """
    for _ in range(LOOKS):
        before = _shape(folder)
        try:
            followed = _follow(folder, head, against)
        except FileNotFoundError:
            followed = None
        if followed is not None and (not followed[1] or _shape(folder) == before):
            return followed
    if followed is None:
        raise LocalError("files of the audit log went away while they were read: run this again")
    return followed


def _shape(folder: Path) -> list[tuple[str, int]]:
    """The segments that are there, and their sizes: what changes when the log does."""
    shape = []
    for path in segments(folder):
        with contextlib.suppress(FileNotFoundError):
            shape.append((path.name, path.stat().st_size))
    return shape


def _follow(folder: Path, head: Head, against: Head | None) -> tuple[int, list[str]]:
    """Follow the chain once.

    :raises FileNotFoundError: a segment went away meanwhile
    """
    wrong: list[str] = []
    wanted = {one.number: one for one in (head, against) if one is not None and one.number}
    begin = beginning(folder)
    vouched = {Head()}
    seen, last = 0, begin
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
            vouched.update(_vouched(line))
    if begin not in vouched:
        wrong.insert(
            0, f"lines 1 to {begin.number} are missing, and no line says that they were forgotten"
        )
    for missing in sorted(wanted):
        if wanted[missing] == begin:
            continue
        if missing <= begin.number and begin in vouched:
            wrong.append(f"line {missing}, whose hash was kept, is forgotten: nothing to compare")
        else:
            wrong.append(f"line {missing}, whose hash was kept, is missing: the log was cut")
    return seen, wrong


def beginning(folder: Path) -> Head:
    """The line before the first one that is there, as that one names it; of a log that has its
    first line, or none that can be read, the head of an empty one."""
    for path in segments(folder):
        with contextlib.suppress(FileNotFoundError):  # it was forgotten just now
            for line in _lines(path):
                number, previous = place_of(line)
                return Head() if number is None else Head(number - 1, previous)
    return Head()


def is_vouched_for(folder: Path) -> bool:
    """Whether the log has its first line, or a line that says where what was before it ended."""
    begin = beginning(folder)
    # The newest segment first: that line was written when the last one went.
    lines = (line for path in reversed(segments(folder)) for line in _lines(path))
    return begin == Head() or any(begin in _vouched(line) for line in lines)


def _vouched(line: bytes) -> list[Head]:
    """The last line of the segment that a line says goes."""
    if FORGOTTEN.encode() not in line:
        return []
    try:
        values = json.loads(line)
        fields = values["fields"]
        ours = values["actor"] == "service" and values["act"] == FORGOTTEN
        return [Head.parse(fields["last"])] if ours else []
    except (ValueError, KeyError, TypeError, AttributeError, UsageError):
        return []


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


def end_of(path: Path) -> Head | None:
    """The last line of a file in which each one stands behind the one before it; else None."""
    last: Head | None = None
    for line in _lines(path):
        number, previous = place_of(line)
        if number is None or (last is not None and last != Head(number - 1, previous)):
            return None
        last = Head(number, hashlib.sha256(line).hexdigest())
    return last
