"""Layer 4: the audit log: a chain of JSON lines in which no line can be changed, removed or moved.

Every line holds its number and the SHA-256 of the line before it, so that whoever changes one,
takes one out or puts two in another order breaks the chain there. The number and hash of the last
line, the *head*, are kept in the accounts data base: without it, lines could be cut off at the end.
A line is durable before the head that names it. ``DIRECTORY/audit`` has one file a month; the chain
goes on from file to file.

Whoever can change both the files and the data base can write another history: an admin who must be
able to prove something writes the head down elsewhere now and then (``provider audit`` prints it).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from cloudconnect.errors import UsageError
from cloudconnect.provider.values import Values

#: Name of the head among the provider's values.
HEAD: Final = "audit-head"
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


class AuditLog:
    """Appends to the audit log in ``folder``; every method blocks.

    Several processes may append: a lock makes one wait for the other, and what another one wrote is
    looked at first.

    :param folder: made at the first line
    :param heads: keeps the head
    """

    def __init__(self, folder: Path, heads: Values) -> None:
        self._folder = folder
        self._heads = heads
        self._tail: tuple[Head, Path, int] | None = None

    @property
    def head(self) -> Head:
        """The head that is kept."""
        return kept_head(self._heads)

    def append(self, entries: Sequence[Entry]) -> Head:
        """Write lines; durable when this returns.

        :return: the new head
        :raises OSError: they could not be written
        :raises NoSpace: the head could not be kept; the next call does that
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(self._folder / "lock"):
            head = self._last()
            lines = []
            for entry in entries:
                line = _line(entry, head)
                lines.append(line)
                head = Head(head.number + 1, hashlib.sha256(line).hexdigest())
            path = self._folder / time.strftime("%Y-%m.jsonl", time.gmtime())
            known = segments(self._folder)
            if known and known[-1].name > path.name:  # the clock has gone back
                path = known[-1]
            size = _write(path, b"".join(line + b"\n" for line in lines))
            self._tail = (head, path, size)
            self._heads.keep_value(HEAD, str(head).encode())
        return head

    def _last(self) -> Head:
        """Behind what to go on: the last whole line, or the head where lines are missing."""
        if self._tail is not None:
            head = self._followed(*self._tail)
            if head is not None:
                return head
        kept, last, found = self.head, Head(), False
        for path in reversed(segments(self._folder)):
            _drop_torn(path)
            numbered = list(_heads_of(path))
            found = found or any(head == kept for head in numbered)
            if last.number == 0 and numbered:
                last = numbered[-1]
            if numbered and numbered[0].number <= kept.number:
                break
        # Going on behind the head leaves the gap for everybody to see.
        return last if found or kept.number == 0 else kept

    def _followed(self, head: Head, path: Path, size: int) -> Head | None:
        """The last line, where others have only added to what we know; else None."""
        known, kept = segments(self._folder), self.head
        if not known or known[-1] != path or path.stat().st_size < size:
            return None
        with path.open("rb") as file:
            file.seek(size)
            while line := file.readline(LINE_MAX):
                number, previous = _place(line)
                if (number, previous) != (head.number + 1, head.digest) or line[-1:] != b"\n":
                    return None
                head = Head(head.number + 1, hashlib.sha256(line[:-1]).hexdigest())
        return head if head == kept else None


def kept_head(heads: Values) -> Head:
    """The head that the data base holds; what cannot be read is none."""
    try:
        return Head.parse((heads.value(HEAD) or b"").decode("ascii"))
    except (UsageError, UnicodeDecodeError):
        return Head()


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
            number, previous = _place(line)
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


def _line(entry: Entry, before: Head) -> bytes:
    values = {
        "number": before.number + 1,
        "previous": before.digest,
        "time": round(entry.time, 3),
        "actor": entry.actor,
        "act": entry.act,
        "fields": bounded(entry.fields),
    }
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()


def _place(line: bytes) -> tuple[int | None, str]:
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


def _heads_of(path: Path) -> Iterator[Head]:
    for line in _lines(path):
        number, _ = _place(line)
        if number is not None:
            yield Head(number, hashlib.sha256(line).hexdigest())


def _drop_torn(path: Path) -> None:
    """Cut off a last line that a crash has left without its end: no head names it."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - LINE_MAX)
        file.seek(start)
        end = file.read().rfind(b"\n") + 1
        if start + end < size and (end or not start):
            file.truncate(start + end)
            file.flush()
            os.fsync(file.fileno())


def _write(path: Path, octets: bytes) -> int:
    """Append and make durable; the file's size then."""
    fresh = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        written = 0
        while written < len(octets):
            written += os.write(descriptor, octets[written:])
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    if fresh:
        _sync_folder(path.parent)
    return size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


#: Adds entries to an audit log, and fires when they are durable.
Append = Callable[[Sequence[Entry]], Any]
