"""Layer 6: what a command prints: for people, for programs (JSON lines), or nothing.

People get sentences, a progress bar on a terminal and a plain line now and then elsewhere. Programs
get one JSON object a line on standard output, each with ``message_type``, the ``summary`` last; an
error is an ``exit_error`` on standard error.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, Final, TextIO

import click

from cloudconnect.errors import ExitCode, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.shown import size_text

#: A program, or a log, hears how far a command is this often, in seconds.
STATUS_SECONDS: Final = 1.0
PLAIN_STATUS_SECONDS: Final = 30.0
#: Of a terminal that does not say how wide it is.
COLUMNS: Final = 80


def report_error(text: str, reason: str, code: ExitCode, as_json: bool) -> None:
    """Say on standard error why a command ends."""
    if as_json:
        fields = {
            "message_type": "exit_error",
            "code": int(code),
            "reason": reason,
            "message": text,
        }
        write_line(fields, sys.stderr)
    else:
        click.echo(f"cloudconnect: {printable(text)}", err=True)


def write_line(fields: dict[str, Any], stream: TextIO) -> None:
    """Write an object as one line of JSON, whole, whichever threads write beside this one."""
    # print() would write the end of the line by itself, behind what another thread has written.
    stream.write(json.dumps(fields) + "\n")
    stream.flush()


def printable(text: str) -> str:
    """``text`` without what could move a terminal's cursor; newlines become spaces."""
    return "".join(c if c.isprintable() or c == " " else " " for c in text)


def shown_path(path: bytes) -> str:
    """A file's name for a person: odd octets escaped, never sent raw to a terminal."""
    text = path.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_path(path: bytes) -> str:
    """A file's name in JSON: what is not UTF-8 becomes lone surrogates, as Python does it."""
    return path.decode("utf-8", "surrogateescape")


def size(count: float) -> str:
    """``count`` bytes in decimal units."""
    return size_text(count)


def counted(count: int, thing: str) -> str:
    """So many things: ``1 file``, ``2 files``.

    :param thing: one of them; its plural ends with an s
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def fitting(text: str, columns: int) -> str:
    """``text``, cut where it would take more than so many columns of a terminal.

    A line that goes on in the next row cannot be drawn over any more.
    """
    taken = 0
    for at, character in enumerate(text):
        taken += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if taken > columns:
            return text[:at]
    return text


def cache_text(taken: int, blocks: int | None) -> str:
    """How large a block cache is.

    :param taken: bytes that it takes
    :param blocks: how many it has, or None where that is not known
    """
    return f"{size(taken)}  {'no index' if blocks is None else f'{blocks} blocks'}"


def local_time(seconds: float) -> str:
    """A moment in the local zone, to the second; what no calendar has, as a number."""
    try:
        moment = datetime.datetime.fromtimestamp(seconds).astimezone()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} s from 1970"
    return moment.strftime("%Y-%m-%d %H:%M:%S %z")


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> list[str]:
    """Rows of a table as lines, with two spaces between columns.

    :param rows: all with the same number of columns
    :param right: the columns, counted from 0, that are aligned to the right
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


class Console:
    """One command's output.

    :param as_json: JSON lines in the place of sentences
    :param quiet: nothing but errors, warnings, and the answer that was asked for
    """

    def __init__(self, as_json: bool = False, quiet: bool = False, verbose: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self._last_status = 0.0
        self._began = time.monotonic()
        self._bar_shown = False

    def say(self, text: str) -> None:
        """A sentence for a person."""
        if not (self.as_json or self.quiet):
            self._clear()
            click.echo(text)

    def note(self, text: str) -> None:
        """A sentence for a person that is not the answer: on standard error."""
        if not self.as_json:
            self._clear()
            click.echo(text, err=True)

    def record(self, message_type: str, fields: dict[str, Any], text: str) -> None:
        """One thing of a listing, or the summary: shown with ``--quiet`` too where it was asked."""
        self._clear()
        if self.as_json:
            write_line({"message_type": message_type, **fields}, sys.stdout)
        elif text:
            click.echo(text)

    def happened(self, event: SessionEvent) -> None:
        """One step of the session."""
        if self.as_json and not self.quiet:
            fields = {
                "time": event.time,
                "name": event.name,
                "session": event.session,
                "text": event.text,
                "fields": event.fields,
            }
            self.record("event", fields, "")
        elif self.verbose and not self.as_json:
            self.say(f"  {event.text}")

    def warned(self, warning: SecurityWarning) -> None:
        """A security warning: never silenced."""
        if self.as_json:
            fields = warning.as_dict()
            self.record("event", {"name": "security_warning", **fields}, "")
        else:
            self._clear()
            where = f"{warning.role}, {warning.hop}" if warning.hop else warning.role
            # A line that broke is not yet an attack: the loud words are for what cannot be chance.
            word = "warning" if warning.kind is WarningKind.TRUNCATED else "SECURITY WARNING"
            text = f"{word} {warning.kind.value} ({where}): {warning.text}"
            click.echo(printable(text), err=True)

    def progress(
        self,
        files: int,
        done: int,
        moved: int,
        path: bytes = b"",
        total: int | None = None,
    ) -> None:
        """How far it is.

        :param done: bytes of content done
        :param moved: bytes that went over the line
        :param total: bytes of content in all, where known
        """
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        due = 0.2 if terminal and not self.as_json else STATUS_SECONDS
        if not terminal and not self.as_json:
            due = PLAIN_STATUS_SECONDS
        if self.quiet or now - max(self._last_status, self._began) < due:
            return
        self._last_status = now
        seconds = now - self._began
        if self.as_json:
            fields = {
                "files": files,
                "bytes_done": done,
                "bytes_moved": moved,
                "bytes_total": total,
                "seconds": round(seconds, 1),
                "path": json_path(path),
            }
            self.record("status", fields, "")
            return
        rate = f"{size(done / max(seconds, 0.001))}/s"
        share = ""
        if total:
            left = (total - done) * seconds / max(done, 1)
            share = f" {min(100.0, 100 * done / total):.0f}%, {left:.0f} s left,"
        line = f"{share} {counted(files, 'file')}, {size(done)}, {rate}, {size(moved)} on the line"
        if terminal:
            name = shown_path(path)[-40:]
            self._bar_shown = True
            shown = fitting(f"{_bar(done, total)}{line}  {name}", _columns() - 1)
            click.echo(f"\r\x1b[K{shown}", nl=False, err=True)
        else:
            click.echo(line.strip(), err=True)

    def _clear(self) -> None:
        if self._bar_shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._bar_shown = False


def _columns() -> int:
    """How wide the terminal is that standard error goes to."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def _bar(done: int, total: int | None) -> str:
    if not total:
        return ""
    filled = min(20, 20 * done // total)
    return "[" + "#" * filled + "." * (20 - filled) + "]"
