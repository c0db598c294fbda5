"""Layer 3: what of a restore's files is in the target already, so that only the rest is fetched.

Stands between the plan and the writing. A file that is there with its content and metadata is left
as it is. Of others, those pieces are used that are there: in an unfinished file that an interrupted
restore left, or in the file that is to be replaced. Every such piece is compared with its chunk's
name (:mod:`cloudconnect.backup.matching`), and it is the bytes that were compared that are written.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Final

import attrs

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.matching import Matcher, Piece, is_hole, open_regular, read_at
from cloudconnect.backup.metadata import MetadataWriter, safe_mode
from cloudconnect.backup.partial import is_partial_name, partial_name, resume
from cloudconnect.backup.planning import IN_PARTIAL, Step
from cloudconnect.backup.target import TEMPORARY, Parts, Target
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import UnsafePath
from cloudconnect.shown import Shown

#: Files of up to so many bytes are read at once.
SMALL: Final = 1 << 20
#: Steps that may wait until it is known whether small files that share a chunk are as they should.
WAITING_STEPS: Final = 2048
#: Names of this restore that look like those of unfinished files, before all are taken for such.
NAMES_MAX: Final = 4096
#: Of a large file, so many runs are compared between two looks at the clock.
_LOOK_RUNS: Final = 64


@attrs.define(repr=False)
class _Waiting(Shown):
    """A step whose pieces are being compared.

    :ivar pieces: one for each run, or none at all
    :ivar same: whether the file that is there has the metadata of the entry
    """

    step: Step
    pieces: list[Piece] = attrs.field(factory=list)
    same: bool = False

    @property
    def decided(self) -> bool:
        return None not in [piece.good for piece in self.pieces]


@attrs.define(repr=False)
class _Large(Shown):
    """A large file of which some steps are still to come.

    :ivar existing: descriptor of the file that is to be replaced, or None
    :ivar partial: descriptor of what an earlier restore left of it, or None
    :ivar same: it is there, content and metadata
    """

    existing: int | None
    partial: int | None
    same: bool = False


class Resumer:
    """Looks, for each step of a plan, what of it is there.

    :param there: the target, opened for looking only
    :param is_chunk: whether some bytes are the chunk of a name
    :param metadata: knows what of a file's metadata can be set
    :param look: called often with the path that is being compared; may raise
    """

    def __init__(
        self,
        there: Target,
        is_chunk: Callable[[bytes, bytes], bool],
        metadata: MetadataWriter,
        look: Callable[[bytes], None],
    ) -> None:
        self._there = there
        self._is_chunk = is_chunk
        self._metadata = metadata
        self._look = look
        self._matcher = Matcher(is_chunk)
        self._waiting: deque[_Waiting] = deque()
        self._large: _Large | None = None
        self._names: set[tuple[bytes, ...]] = set()
        self._missing: Parts | None = None  # a folder that was not there when it was looked for

    def steps(self, planned: Iterator[Step]) -> Generator[Step]:
        """The steps of ``planned``, with what was found.

        Who takes a step with a ``partial`` closes it. Closing the iterator closes what it holds.
        """
        try:
            for step in planned:
                entry = step.entry
                if step.parts[-1].startswith(TEMPORARY):
                    self._note_name(step)
                is_link = entry.link is not None or step.place is not None
                is_file = entry.type is EntryType.FILE and not is_link
                whole = is_file and step.first and step.last and entry.size <= SMALL
                if whole and not self._waiting and self._is_missing(step):
                    yield step  # as most often, in an empty target
                    continue
                if is_file and step.first and self._is_free(step):
                    step.temporary = partial_name(entry.path)
                if not is_file or not entry.size:
                    if not self._waiting:
                        yield step
                        continue
                    self._waiting.append(_Waiting(step))
                elif whole:
                    self._small(step)
                else:
                    self._matcher.flush()
                    yield from self._decided()
                    yield from self._part_of_large(step)
                    continue
                if len(self._waiting) > WAITING_STEPS:
                    self._matcher.flush()
                yield from self._decided()
            self._matcher.flush()
            yield from self._decided()
        finally:
            self._drop_large()

    def _is_free(self, step: Step) -> bool:
        """Whether nothing that is restored itself has the name of this step's unfinished file."""
        name = (*step.parts[:-1], partial_name(step.entry.path))
        return len(self._names) < NAMES_MAX and name not in self._names

    def _note_name(self, step: Step) -> None:
        if is_partial_name(step.parts[-1]) and len(self._names) < NAMES_MAX:
            self._names.add(step.parts)

    def _open(self, step: Step) -> tuple[int | None, int]:
        """The file in a step's place, and the descriptor of its folder or -1.

        Of a folder that was missing when it was looked for first nothing is used: what is in it by
        now comes from this restore.
        """
        if self._is_missing(step):
            return None, -1
        folder = step.parts[:-1]
        try:
            parent = self._there.enter(folder)
        except FileNotFoundError:
            self._missing = folder
            return None, -1
        except (OSError, UnsafePath):
            return None, -1
        self._missing = None
        return open_regular(parent, step.parts[-1], os.O_RDONLY), parent

    def _is_missing(self, step: Step) -> bool:
        """Whether it is known that there is no folder where a step leads."""
        missing = self._missing
        return missing is not None and step.parts[: len(missing)] == missing

    # --- small files ------------------------------------------------------------------------------

    def _small(self, step: Step) -> None:
        entry, data, waiting = step.entry, b"", _Waiting(step)
        descriptor, _ = self._open(step)
        if descriptor is None:  # as most often, in an empty target
            self._matcher.flush()
            self._waiting.append(waiting)
            return
        try:
            status = os.fstat(descriptor)
            if status.st_size == entry.size:
                data = read_at(descriptor, 0, entry.size)
                waiting.same = self._has_metadata(entry, descriptor, status)
        except OSError:
            data = b""
        finally:
            os.close(descriptor)
        position = 0
        for run in step.runs:
            part = data[position : position + run.length]
            position += run.length
            if run.id is not None:
                waiting.pieces.append(self._matcher.offer(run, part))
                continue
            hole = Piece(b"")
            hole.good = len(part) == run.length and not part.strip(b"\0")
            waiting.pieces.append(hole)
        self._waiting.append(waiting)

    def _decided(self) -> Iterator[Step]:
        """Steps of which everything is known."""
        waiting = self._waiting
        while waiting and waiting[0].decided:
            one = waiting.popleft()
            step, pieces = one.step, one.pieces
            step.there = bool(pieces) and one.same and all(piece.good for piece in pieces)
            if not step.there:
                step.found = [piece.data or None if piece.good else None for piece in pieces]
            yield step

    # --- large files ------------------------------------------------------------------------------

    def _part_of_large(self, step: Step) -> Iterator[Step]:
        if step.first:
            self._drop_large()
            self._begin_large(step)
        large, last = self._large, step.last
        assert large is not None
        if not large.same:
            self._find(step, large)
            if step.first and large.partial is not None:
                step.partial = os.dup(large.partial)
            yield step
        elif step.first:
            step.there, step.last, step.runs = True, True, ()
            yield step
        if last:
            self._drop_large()

    def _begin_large(self, step: Step) -> None:
        entry = step.entry
        existing, parent = self._open(step)
        partial = None
        if parent >= 0 and step.temporary:
            partial = resume(parent, step.temporary)
        self._large = large = _Large(existing, partial)
        if existing is not None and self._is_same(entry, existing):
            large.same = True
            if partial is not None:
                with contextlib.suppress(OSError):
                    os.unlink(step.temporary, dir_fd=parent)

    def _is_same(self, entry: Entry, descriptor: int) -> bool:
        """Whether a large file that is there is what it should be, all of it."""
        try:
            status = os.fstat(descriptor)
            if status.st_size != entry.size or not self._has_metadata(entry, descriptor, status):
                return False
            matcher, position = Matcher(self._is_chunk), 0
            open_pieces: deque[Piece] = deque()
            for number, run in enumerate(entry.runs):
                if run.id is None:
                    if not is_hole(descriptor, position, run.length):
                        return False
                else:
                    data = read_at(descriptor, position, run.length)
                    open_pieces.append(matcher.offer(run, data))
                position += run.length
                while open_pieces and open_pieces[0].good is not None:
                    if not open_pieces.popleft().good:
                        return False
                if number % _LOOK_RUNS == 0:
                    self._look(entry.path)
            matcher.flush()
            return all(piece.good for piece in open_pieces)
        except OSError:
            return False

    def _find(self, step: Step, large: _Large) -> None:
        """Look for the pieces of one step of a large file."""
        step.found = [None] * len(step.runs)
        for descriptor, partial in ((large.partial, True), (large.existing, False)):
            if descriptor is None:
                continue
            with contextlib.suppress(OSError):
                self._compare(step, descriptor, partial)

    def _compare(self, step: Step, descriptor: int, partial: bool) -> None:
        matcher, position = Matcher(self._is_chunk), step.start
        offered: list[tuple[int, Piece]] = []
        for number, run in enumerate(step.runs):
            if run.id is not None and step.found[number] is None:
                data = read_at(descriptor, position, run.length)
                offered.append((number, matcher.offer(run, data)))
            position += run.length
        matcher.flush()
        for number, piece in offered:
            if piece.good:
                step.found[number] = IN_PARTIAL if partial else piece.data
        self._look(step.entry.path)

    def _drop_large(self) -> None:
        large, self._large = self._large, None
        if large is not None:
            for descriptor in (large.existing, large.partial):
                if descriptor is not None:
                    os.close(descriptor)

    # --- metadata ---------------------------------------------------------------------------------

    def _has_metadata(self, entry: Entry, descriptor: int, status: os.stat_result) -> bool:
        """Whether a file has all metadata of its entry, and no other name.

        Owner and mode count, so that nobody else keeps a file open for writing, or owns it, that a
        restore made by root was to make safe.
        """
        return (
            status.st_nlink == 1
            and not entry.flags & FLAG_LINKED
            and status.st_mtime_ns == entry.mtime_ns
            and stat.S_IMODE(status.st_mode) == safe_mode(entry, status)
            and self._metadata.has(entry, descriptor, status)
        )
