"""Layer 4: writes the audit log: files in a folder, one a month or more, whose lines are one chain.

What the chain is, and how it is followed, is in :mod:`cloudconnect.provider.audit.chain`. The head
is kept in the accounts data base; a line is durable before the head that names it.

Whoever can change both the files and the data base can write another history: an admin who must be
able to prove something writes the head down elsewhere now and then (``provider audit`` prints it).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from cloudconnect.errors import NoSpace, UsageError
from cloudconnect.provider.audit.chain import (
    FORGOTTEN,
    LINE_MAX,
    Entry,
    Head,
    end_of,
    heads_of,
    is_vouched_for,
    line_of,
    place_of,
    segments,
)
from cloudconnect.provider.values import Values

#: Name of the head among the provider's values.
HEAD: Final = "audit-head"
#: Bytes after which a new segment begins, also within a month: 32 MiB, some hundred thousand lines.
SEGMENT_MAX: Final = 32 << 20


class AuditLog:
    """Appends to the audit log in ``folder``; every method blocks.

    Several processes may append: a lock makes one wait for the other, and what another one wrote is
    looked at first.

    :param folder: made at the first line
    :param heads: keeps the head
    """

    _log = Logger()

    def __init__(self, folder: Path, heads: Values) -> None:
        self._folder = folder
        self._heads = heads
        self._tail: tuple[Head, Path, int] | None = None
        self._limit = 0
        self._bounding = False
        self._cut: list[str] = []

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
                line = line_of(entry, head)
                lines.append(line)
                head = Head(head.number + 1, hashlib.sha256(line).hexdigest())
            path = self._current()
            begun = not path.exists()
            size = _write(path, b"".join(line + b"\n" for line in lines))
            self._tail = (head, path, size)
            self._heads.keep_value(HEAD, str(head).encode())
        if begun and self._limit and not self._bounding:
            try:
                self._bound()
            except (OSError, NoSpace) as error:  # what was to be written is
                self._log.error("the audit log is not kept within its size: {why}", why=str(error))
        return head

    def forget(self, until: int) -> list[str]:
        """Remove the oldest segments all of whose lines are up to a number; never the newest one.

        Before one goes, a line says which one, why, and with which line it ended. Where the chain
        is broken in one, or something is missing before it, it stays, with all behind it: evidence.

        :param until: number of the newest line that may go
        :return: the names of those that went
        :raises OSError, NoSpace: it could not be said; what is there stays
        """
        gone = []
        for path in segments(self._folder)[:-1]:
            last = end_of(path)
            if last is not None and last.number > until:
                break
            self._remove(path, last, "age")
            gone.append(path.name)
        return gone

    def bound(self, limit: int) -> list[str]:
        """Remove the oldest segments while all of them have more bytes than that, now and, by this
        object, whenever another one begins; never the newest one.

        :param limit: bytes; 0: any number
        :return: the names of those that went so since this was called last
        :raises OSError, NoSpace: as :meth:`forget`
        """
        self._limit = limit
        if limit:
            self._bound()
        cut, self._cut = self._cut, []
        return cut

    def _bound(self) -> None:
        self._bounding = True
        try:
            sizes = [(path, path.stat().st_size) for path in segments(self._folder)]
            total = sum(size for _, size in sizes)
            for path, size in sizes[:-1]:
                if total <= self._limit:
                    break
                self._remove(path, end_of(path), "size")
                total -= size
                self._cut.append(path.name)
        finally:
            self._bounding = False

    def _remove(self, path: Path, last: Head | None, why: str) -> None:
        """Say that a segment goes, and remove it.

        :param last: its last line; None: the chain is broken in it
        """
        if last is None or not is_vouched_for(self._folder):
            raise OSError(f"the audit log is damaged in {path.name} or before it: it stays")
        fields = {"segment": path.name, "last": str(last), "why": why}
        self.append([Entry(actor="service", act=FORGOTTEN, fields=fields)])
        with _locked(self._folder / "lock"):
            path.unlink(missing_ok=True)
            _sync_folder(self._folder)

    def _current(self) -> Path:
        """The segment that is written."""
        month = time.strftime("%Y-%m", time.gmtime())
        known = segments(self._folder)
        if not known or known[-1].stem[:7] < month:
            return self._folder / f"{month}.jsonl"
        last = known[-1]  # also where the clock has gone back
        if last.stat().st_size < SEGMENT_MAX:
            return last
        return last.with_name(f"{last.stem[:7]}-{int(last.stem[8:] or 1) + 1:04}.jsonl")

    def _last(self) -> Head:
        """Behind what to go on: the last whole line, or the head where lines are missing."""
        if self._tail is not None:
            head = self._followed(*self._tail)
            if head is not None:
                return head
        kept, last, found = self.head, Head(), False
        for path in reversed(segments(self._folder)):
            _drop_torn(path)
            numbered = list(heads_of(path))
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
                number, previous = place_of(line)
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
