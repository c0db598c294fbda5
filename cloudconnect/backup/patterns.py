r"""Layer 3: patterns that say which paths are meant, in the manner of gitignore.

One pattern a line. Matching is by characters (UTF-8; a byte that is not UTF-8 counts as one
character), case-sensitive, without Unicode normalisation, and always over the whole of a name.

========== =========================================================================================
``*``      any number of characters, also none, but not ``/``
``?``      one character, but not ``/``
``[a-c]``  one character of a set; ``[!a-c]`` or ``[^a-c]`` one that is not in it; never ``/``
``**``     between slashes: any number of folders, also none; at the end: everything below
``\x``     the character x itself
========== =========================================================================================

- A pattern without ``/`` (but perhaps at its end) is compared with the last name of a path, in any
  folder: ``*.o``, ``node_modules``.
- A pattern that begins with ``/`` is compared with the whole absolute path: ``/home/*/.cache``.
- A pattern with ``/`` inside only is compared with the last names of a path, in any folder:
  ``.cache/thumbnails`` is ``**/.cache/thumbnails``. (Here gitignore would take the pattern as
  anchored; a backup has no folder to anchor it to.)
- ``/`` at the end: the pattern only means folders.
- ``!`` in front: what matches is *not* meant. The last pattern that matches a path decides.
- What lies below a folder that is meant is meant with it and is not looked at, so ``!`` cannot
  bring back something below a folder that is excluded as a whole: exclude ``/a/*`` and then
  ``!/a/b``, not ``/a`` and ``!/a/b``.

In a file of patterns, empty lines and lines that begin with ``#`` mean nothing (``\#`` is a ``#``),
and spaces at the end of a line are dropped unless the last one is written ``\`` and a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from cloudconnect.errors import UsageError
from cloudconnect.shown import Shown

#: Longest pattern, in bytes: longer than any path that the kernel takes in one call.
PATTERN_MAX: Final = 8192


def read_patterns(data: bytes) -> list[bytes]:
    """The patterns in the content of a file of patterns."""
    found = []
    for raw in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        line = raw.removesuffix(b"\r")
        bare = line.rstrip(b" ")
        if bare.endswith(b"\\") and len(bare) < len(line):
            bare += b" "
        if bare and not bare.startswith(b"#"):
            found.append(bare)
    return found


@attrs.frozen(repr=False)
class _Pattern(Shown):
    """One pattern, translated.

    :ivar meant: False where the pattern began with ``!``
    :ivar name_only: ``regex`` is for the last name, not for the path
    """

    meant: bool
    folders_only: bool
    name_only: bool
    regex: str


class _Group:
    """Patterns in a row that are all meant, or all not, as one regular expression of each sort."""

    def __init__(self, patterns: list[_Pattern]) -> None:
        self.meant = patterns[0].meant
        self.names = _joined(patterns, name_only=True, folders=False)
        self.paths = _joined(patterns, name_only=False, folders=False)
        self.folder_names = _joined(patterns, name_only=True, folders=True)
        self.folder_paths = _joined(patterns, name_only=False, folders=True)

    def matches(self, path: str, name: str, folder: bool) -> bool:
        names, paths = (
            (self.folder_names, self.folder_paths) if folder else (self.names, self.paths)
        )
        return bool((names and names.match(name)) or (paths and paths.match(path)))


class PathPatterns:
    """A list of patterns, ready to be asked.

    :param patterns: in the order in which they were given
    :raises UsageError: one of them cannot be understood
    """

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self._groups: list[_Group] = []
        row: list[_Pattern] = []
        for pattern in map(_parse, patterns):
            if row and row[0].meant is not pattern.meant:
                self._groups.append(_Group(row))
                row = []
            row.append(pattern)
        if row:
            self._groups.append(_Group(row))
        self._groups.reverse()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def means(self, path: bytes, folder: bool) -> bool:
        """Whether the last pattern that matches means ``path``; False where none matches.

        :param path: absolute, without ``/`` at its end
        :param folder: whether it is one
        """
        if not self._groups:
            return False
        text = path.decode("utf-8", "surrogateescape")
        name = text[text.rfind("/") + 1 :]
        for group in self._groups:
            if group.matches(text, name, folder):
                return group.meant
        return False


def _joined(patterns: list[_Pattern], name_only: bool, folders: bool) -> re.Pattern[str] | None:
    wanted = [
        pattern.regex
        for pattern in patterns
        if pattern.name_only is name_only and (folders or not pattern.folders_only)
    ]
    return re.compile(rf"(?s:{'|'.join(wanted)})\Z") if wanted else None


def _parse(raw: bytes) -> _Pattern:
    text = raw.decode("utf-8", "surrogateescape")
    if len(raw) > PATTERN_MAX or "\0" in text:
        raise UsageError(f"a pattern has NUL, or more than {PATTERN_MAX} bytes")
    meant = not text.startswith("!")
    body = text if meant else text[1:]
    parts = [part for part in body.split("/") if part]
    if not parts:
        raise UsageError(f"the pattern {text!r} names nothing")
    anchored = body.startswith("/")
    name_only = not anchored and len(parts) == 1 and parts[0] != "**"
    if name_only:
        regex = _component(parts[0], text)
    else:
        regex = ("" if anchored else ".*") + _folders(parts, text)
    return _Pattern(meant, body.endswith("/"), name_only, regex)


def _folders(parts: list[str], text: str) -> str:
    """The regular expression of a path, from the components of a pattern."""
    regex = ""
    for index, part in enumerate(parts):
        if part == "**":
            regex += "(?:/[^/]+)" + ("+" if index == len(parts) - 1 else "*")
        else:
            regex += "/" + _component(part, text)
    return regex


def _component(part: str, text: str) -> str:
    """The regular expression of one name.

    Between two stars the first match is as good as any, so that is an atomic group: no pattern
    takes more than quadratic time.
    """
    pieces = [""]
    position = 0
    while position < len(part):
        character = part[position]
        position += 1
        if character == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif character == "?":
            pieces[-1] += "[^/]"
        elif character == "[":
            piece, position = _set(part, position, text)
            pieces[-1] += piece
        elif character == "\\":
            if position == len(part):
                raise UsageError(f"the pattern {text!r} ends in a backslash")
            pieces[-1] += re.escape(part[position])
            position += 1
        else:
            pieces[-1] += re.escape(character)
    if len(pieces) == 1:
        return pieces[0]
    between = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1])
    return f"{pieces[0]}{between}[^/]*{pieces[-1]}"


def _set(part: str, position: int, text: str) -> tuple[str, int]:
    """The regular expression of a ``[set]`` whose ``[`` is just before ``position``."""
    start = position
    negated = part[position : position + 1] in ("!", "^")
    position += negated
    members: list[tuple[str, str]] = []
    first = True
    while first or part[position : position + 1] != "]":
        first = False
        if part.startswith("[:", position):
            raise UsageError(f"the pattern {text!r} uses a [:class:], which is not supported")
        low, position = _member(part, position, start, text)
        high = low
        if part[position : position + 1] == "-" and part[position + 1 : position + 2] not in (
            "",
            "]",
        ):
            high, position = _member(part, position + 1, start, text)
        if high < low:
            raise UsageError(f"the pattern {text!r} has the empty range {low}-{high}")
        members.append((low, high))
    inside = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in members)
    return (f"[^/{inside}]" if negated else f"(?!/)[{inside}]"), position + 1


def _member(part: str, position: int, start: int, text: str) -> tuple[str, int]:
    """One character of a set and the position behind it."""
    if part[position : position + 1] == "\\":
        position += 1
    if position >= len(part):
        raise UsageError(f"the pattern {text!r} has a [ without ]: [{part[start:]}")
    return part[position], position + 1
