"""Layer 3: what a restore makes, step by step, in walk order.

Whether something is restored at all is decided here, from the choice of paths and from what is in
the target already, before any of its content is asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import attrs

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.fetching import Slot
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.names import FirstNames, NamesThere, Standing, is_at, looks_right
from cloudconnect.backup.options import Overwrite, RestoreOptions, RestoreResult
from cloudconnect.backup.placing import Place, replaces
from cloudconnect.backup.selection import Selection
from cloudconnect.backup.spilling import PathTable
from cloudconnect.backup.target import Parts, PathParts, Target
from cloudconnect.backup.unfinished import UnfinishedFolders
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from cloudconnect.errors import UnsafePath
from cloudconnect.shown import Shown

#: Runs of a file that are one step.
RUNS_STEP: Final = 64
#: In :attr:`Step.found`: the piece is in its place in the unfinished file already.
IN_PARTIAL: Final = b""

_DEVICES: Final = (EntryType.CHARACTER, EntryType.BLOCK)


@attrs.define(repr=False)
class Step(Shown):
    """Something to make; a file of many runs takes several steps, one behind the other.

    :ivar parts: where, below the target
    :ivar selected: False for a folder that is only made if something in it is
    :ivar group: what its further names call it, where it has any
    :ivar start: where in the file its runs begin, in bytes
    :ivar temporary: the name to write the file under; empty for one that nobody knows
    :ivar there: the file is there, content and metadata
    :ivar cut: something is there that is to be kept, unless it is how this file begins
    :ivar found: for each run the bytes that were found in the target, or IN_PARTIAL, or None;
        empty where nothing was looked for
    :ivar partial: descriptor of the unfinished file of an earlier restore, or None
    :ivar slots: where the other runs' content comes; None for holes, and for what was found
    :ivar asked: bytes that were asked for only because of this step, and that were found
    :ivar place: of a name that was there before: this becomes a link to that ...
    :ivar like: ... where that is still what this entry says, the one of the first name
    """

    entry: Entry
    parts: Parts
    selected: bool = True
    group: bytes = b""
    runs: Sequence[Run] = ()
    first: bool = True
    last: bool = True
    start: int = 0
    temporary: bytes = b""
    there: bool = False
    cut: bool = False
    found: list[bytes | None] = attrs.field(factory=list)
    partial: int | None = None
    slots: list[Slot | None] = attrs.field(factory=list)
    asked: int = 0
    place: Place | None = None
    like: Entry | None = None


class Plan:
    """Plans one restore.

    :param options: what is restored, and where to
    :param result: gets what is kept, and paths that cannot be restored
    :param metadata: knows what of it can be set, and whether devices can be made
    :ivar devices: how many were left out because they cannot
    :ivar unfinished: folders of the target that are to be finished
    """

    def __init__(
        self, options: RestoreOptions, result: RestoreResult, metadata: MetadataWriter
    ) -> None:
        self._options = options
        self._result = result
        self._metadata = metadata
        self._selection = Selection(options)
        self._needed = PathTable()  # entries that others link to and that may not be made
        self._kept_back = FirstNames()  # those of them that are not
        self._names: NamesThere | None = None
        self.devices = 0
        self.unfinished = UnfinishedFolders(None)

    @property
    def missing(self) -> list[bytes]:
        """Paths that were asked for and have not come."""
        return self._selection.missing

    def close(self) -> None:
        """Forget what is known."""
        self._needed.close()
        self._kept_back.close()
        self.unfinished.close()
        if self._names is not None:
            self._names.close()

    def look_ahead(
        self, entries: Callable[[], Iterable[Entry]], target: Target | None = None
    ) -> None:
        """Find out which entries are linked to by others that are wanted, where that matters, which
        of their names are there, and how much there is to do.

        :param target: where to look what is there already, or None where nothing can be
        :raises LocalError: there is no room for temporary files
        """
        if not self._selection.partial and self._options.overwrite is Overwrite.ALWAYS:
            return
        there = target if self._looks else None
        names = self._names = None if there is None else NamesThere(there, self._metadata)
        selection = Selection(self._options)
        parts_of = PathParts(self._options.strip_components).of
        count = size = 0
        for entry in entries():
            if not selection.selects(entry):
                continue
            count += 1
            if entry.link is not None:
                self._needed.put(entry.link, b"")
            else:
                size += entry.size
            if names is not None and _has_names(entry):
                with contextlib.suppress(UnsafePath):  # which the walk behind this one reports
                    if parts := parts_of(entry.path):
                        names.note(entry, parts)
        if self._selection.partial:
            self._result.totals = (count, size)

    @property
    def _looks(self) -> bool:
        """Whether it matters what is there already.

        What looks unchanged is not believed where it is to be verified.
        """
        overwrite = self._options.overwrite
        if overwrite is Overwrite.IF_CHANGED:
            return not self._options.verify
        return overwrite is not Overwrite.ALWAYS

    def steps(self, entries: Iterable[Entry], target: Target | None) -> Iterator[Step]:
        """What to make of ``entries``.

        :param target: where to look what is there already, or None where nothing can be
        """
        options, result = self._options, self._result
        there = target if self._looks else None
        parts_of = PathParts(options.strip_components).of
        partial, selects = self._selection.partial, self._selection.selects
        unfinished = self.unfinished = UnfinishedFolders(target)
        for entry in entries:
            selected = selects(entry) if partial or entry.flags else True
            try:
                parts = parts_of(entry.path)
            except UnsafePath as error:
                result.problems.add(entry.path, str(error))
                continue
            if entry.type is EntryType.DIRECTORY:
                if parts:
                    unfinished.enter(parts)
                    yield Step(entry, parts, selected)
                continue
            if unfinished and parts:
                unfinished.note(entry, parts)
            keeps = cut = False
            place = None
            if selected and parts and there is not None:
                status = there.status(parts)
                keeps = status is not None and not replaces(entry, status, options.overwrite)
                if _has_names(entry):
                    keeps, place = self._name(entry, status, keeps)
                elif keeps and status is not None and len(entry.runs) <= RUNS_STEP:
                    cut = unfinished.may_be_cut(entry, parts, status)
                    keeps = not cut
                result.kept += keeps
                result.bytes_kept += entry.size if keeps and entry.link is None else 0
            if not selected or not parts or keeps:
                if entry.flags & FLAG_LINKED and self._needed.get(entry.path) is not None:
                    self._kept_back.put(entry)
                continue
            if place is not None:
                first = entry if entry.link is None else self._kept_back.get(entry.link)
                if entry.link is None and self._needed.get(entry.path) is not None:
                    self._kept_back.put(entry)
                group = entry.link or entry.path
                yield Step(entry, parts, group=group, place=place, like=first)
                continue
            usual = entry.type is EntryType.FILE and not entry.flags and entry.link is None
            if usual and len(entry.runs) <= RUNS_STEP:
                yield Step(entry, parts, True, b"", entry.runs, cut=cut)
            else:
                yield from self._thing(entry, parts, cut)

    def _name(
        self, entry: Entry, status: os.stat_result | None, keeps: bool
    ) -> tuple[bool, Place | None]:
        """Whether one of several names is kept, and where what it is to be a link to is already.

        :param status: of what has the name now, or None
        :param keeps: whether that would be kept if it were the only name
        """
        if self._names is None:
            return keeps, None
        group = entry.link or entry.path
        # Of the names that are restored this is the first one where the content is known here.
        first = entry if entry.link is None else self._kept_back.get(entry.link)
        known = self._names.get(group) if first is None else self._names.judge(group, first)
        if known is None or known.standing is Standing.BROKEN:
            return keeps, None
        there = status is not None and is_at(status, known.place)
        replaced = self._options.overwrite is Overwrite.IF_CHANGED
        if known.standing is Standing.WHOLE:
            return True, None
        if known.standing is Standing.GOOD:
            apart = status is not None and replaced and not there and looks_right(entry, status)
            keeps = there or (keeps and not apart)
            return keeps, None if keeps else known.place
        return keeps and not replaced, None

    def _thing(self, entry: Entry, parts: Parts, cut: bool) -> Iterator[Step]:
        """Plan what is no folder.

        :param cut: see :attr:`Step.cut`
        """
        group = entry.path if entry.flags & FLAG_LINKED else b""
        if entry.link is not None:
            group = entry.link
            first = self._kept_back.get(entry.link)
            if first is None:
                yield Step(entry, parts, group=group)
                return
            self._kept_back.drop(entry.link)
            # The name that has the content is not restored: this one gets it in its place.
            entry = first._replace(path=entry.path)
        if entry.type in _DEVICES and not self._metadata.privileged:
            self.devices += 1
        elif entry.type is not EntryType.FILE or len(entry.runs) <= RUNS_STEP:
            yield Step(entry, parts, True, group, entry.runs, cut=cut)
        else:
            start = 0
            for at in range(0, len(entry.runs), RUNS_STEP):
                runs = entry.runs[at : at + RUNS_STEP]
                last = at + RUNS_STEP >= len(entry.runs)
                yield Step(entry, parts, True, group, runs, at == 0, last, start)
                start += sum(run.length for run in runs)


def _has_names(entry: Entry) -> bool:
    """Whether it is one of several names of a thing."""
    return entry.link is not None or bool(entry.flags & FLAG_LINKED)
