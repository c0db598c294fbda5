"""Layer 3: a restore: the source mover's side of the dialogue, and the writing of the tree.

Entries are planned in walk order, some way ahead of the writing, so that their chunks are asked for
before they are needed. A folder is made when it is first needed; its mode, times and the rest come
when the walk leaves it, after everything in it was written.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import attrs

from cloudconnect.backup.drafts import FLAG_LINKED
from cloudconnect.backup.fetching import Fetcher, Slot
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.options import Overwrite, Progress, RestoreOptions, RestoreResult
from cloudconnect.backup.placing import NewFile, Place, place_link, place_special, replaces
from cloudconnect.backup.reading import piece_of
from cloudconnect.backup.selection import Selection
from cloudconnect.backup.target import Parts, Target, parts_of
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.manifest import Entry, EntryType, Run
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import Cancelled, StoredDataDamaged, UnsafePath
from cloudconnect.wire.channel import FrameChannel

#: Chunks that are asked for and not used yet: some 8 MiB.
CHUNKS_AHEAD: Final = 128
#: Steps that are planned and not done.
STEPS_AHEAD: Final = 4096
#: Runs of a file that are one step.
RUNS_STEP: Final = 64
#: Seconds after which progress is reported again and a cancellation is noticed.
LOOK_SECONDS: Final = 0.2

_DEVICES: Final = (EntryType.CHARACTER, EntryType.BLOCK)


@attrs.define
class _Step:
    """Something to make; a file of many runs takes several steps, one behind the other.

    :ivar parts: where, below the target
    :ivar selected: False for a folder that is only made if something in it is
    :ivar group: what its further names call it, where it has any
    :ivar slots: where the runs' content comes, None for holes
    :ivar asked: chunks that were asked for only because of this step
    """

    entry: Entry
    parts: Parts
    selected: bool = True
    group: bytes = b""
    runs: tuple[Run, ...] = ()
    first: bool = True
    last: bool = True
    slots: list[Slot | None] = attrs.field(factory=list)
    asked: int = 0


class RestoreRun:
    """One restore over one dialogue.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param point: the restore point's 16 bytes
    :param options: what to restore, and where to
    :param progress: called in the thread of :meth:`run`, a few times a second
    :param cancelled: asked in the thread of :meth:`run`, a few times a second
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        point: bytes,
        options: RestoreOptions,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._channel = channel
        self._fetcher = Fetcher(channel, keys, description)
        self._point = point
        self._options = options
        self._progress = progress
        self._cancelled = cancelled
        self._looked = time.monotonic()

    def run(self) -> RestoreResult:
        """Restore, and end the dialogue.

        What cannot be restored is listed in the result, and the rest is restored. After an error
        the channel is aborted, and what was restored stays.

        :raises NotFound: there is no such restore point
        :raises StoredDataDamaged: the point's signature does not hold, or its manifest is damaged
        :raises Cancelled: ``cancelled`` said so
        :raises OSError: the target folder cannot be opened or made
        :raises CloudConnectError: the repository refuses, or the line broke
        """
        started = time.monotonic()
        try:
            record = self._fetcher.open(self._point, "restore")
            result = RestoreResult(record=record)
            writer = _Writer(self._options, result, self._fetcher, self._look)
            writer.run()
            self._fetcher.close()
        except BaseException as error:
            self._fetcher.abort(error)
            raise
        result.bytes_sent = self._channel.bytes_sent
        result.bytes_received = self._channel.bytes_received
        result.seconds = time.monotonic() - started
        return result

    def _look(self, result: RestoreResult, path: bytes) -> None:
        """Report progress and notice a cancellation, now and then."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the restore was interrupted")
        if self._progress is None:
            return
        counted, whole = result.record.statistics, not self._options.paths
        totals = [counted.get(name, 0) for name in ("files", "directories", "other")]
        self._progress(
            Progress(
                files=result.files + result.directories + result.other + result.kept,
                bytes_done=result.bytes_restored,
                bytes_sent=self._channel.bytes_sent,
                bytes_received=self._channel.bytes_received,
                path=path,
                files_total=sum(totals) if whole else None,
                bytes_total=counted.get("bytes_source") if whole else None,
            )
        )


class _Writer:
    """Plans and makes what is restored."""

    def __init__(
        self,
        options: RestoreOptions,
        result: RestoreResult,
        fetcher: Fetcher,
        look: Callable[[RestoreResult, bytes], None],
    ) -> None:
        self._options = options
        self._result = result
        self._fetcher = fetcher
        self._look = look
        self._selection = Selection(options)
        self._metadata = MetadataWriter(result.problems.add)
        self._folders: dict[int, tuple[Parts, Entry]] = {}  # by depth: those on the present way
        self._file: NewFile | None = None
        self._failed: Entry | None = None  # a file of which further steps come to nothing
        self._places: dict[bytes, Place] = {}  # by group
        self._needed: set[bytes] = set()  # entries that others link to and that may not be made
        self._kept_back: dict[bytes, Entry] = {}  # those of them that are not
        self._devices = 0
        self._made = False
        self._ahead = 0
        self._steps: deque[_Step] = deque()

    def run(self) -> None:
        record, options = self._result.record, self._options
        if self._selection.partial or options.overwrite is not Overwrite.ALWAYS:
            self._find_needed(record)
        target = self._open_target()
        try:
            plan = self._plan(self._fetcher.entries(record), target)
            if options.dry_run:
                for step in plan:
                    self._count(step)
                    self._look(self._result, step.entry.path)
            else:
                assert target is not None
                self._write(plan, target)
        finally:
            if target is not None:
                target.close()
        self._result.missing = self._selection.missing
        self._note()

    def _open_target(self) -> Target | None:
        try:
            return Target(self._options.target, create=not self._options.dry_run)
        except FileNotFoundError:
            if self._options.dry_run:
                return None
            raise

    def _find_needed(self, record: PointRecord) -> None:
        """Which entries are linked to by others that are wanted: one pass ahead of the plan."""
        selection = Selection(self._options)
        for entry in self._fetcher.entries(record):
            if selection.selects(entry) and entry.link is not None:
                self._needed.add(entry.link)

    # --- planning ---------------------------------------------------------------------------------

    def _plan(self, entries: Iterable[Entry], target: Target | None) -> Iterator[_Step]:
        options, result = self._options, self._result
        there = None
        if target is not None and options.overwrite is not Overwrite.ALWAYS:
            there = Target(options.target, create=False)
        try:
            for entry in entries:
                selected = self._selection.selects(entry)
                try:
                    parts = parts_of(entry.path)[options.strip_components :]
                except UnsafePath as error:
                    result.problems.add(entry.path, str(error))
                    continue
                if entry.type is EntryType.DIRECTORY:
                    if parts:
                        yield _Step(entry, parts, selected)
                    continue
                keeps = False
                if selected and parts and there is not None:
                    status = _status(there, parts)
                    keeps = status is not None and not replaces(entry, status, options.overwrite)
                    result.kept += keeps
                if not selected or not parts or keeps:
                    if entry.path in self._needed:
                        self._kept_back[entry.path] = entry
                    continue
                yield from self._thing(entry, parts)
        finally:
            if there is not None:
                there.close()

    def _thing(self, entry: Entry, parts: Parts) -> Iterator[_Step]:
        """Plan what is no folder."""
        group = entry.path if entry.flags & FLAG_LINKED else b""
        if entry.link is not None:
            group = entry.link
            first = self._kept_back.pop(entry.link, None)
            if first is None:
                yield _Step(entry, parts, group=group)
                return
            # The name that has the content is not restored: this one gets it in its place.
            entry = attrs.evolve(first, path=entry.path)
        if entry.type in _DEVICES and not self._metadata.privileged:
            self._devices += 1
        elif entry.type is not EntryType.FILE or len(entry.runs) <= RUNS_STEP:
            yield _Step(entry, parts, True, group, entry.runs)
        else:
            for at in range(0, len(entry.runs), RUNS_STEP):
                runs = entry.runs[at : at + RUNS_STEP]
                last = at + RUNS_STEP >= len(entry.runs)
                yield _Step(entry, parts, True, group, runs, at == 0, last)

    def _count(self, step: _Step) -> None:
        """What a step would do, in a dry run, or has done."""
        entry, result = step.entry, self._result
        if entry.type is EntryType.DIRECTORY:
            result.directories += step.selected
        elif entry.type is not EntryType.FILE:
            result.other += 1
        else:
            result.files += step.last
            if entry.link is None:
                result.bytes_restored += sum(run.length for run in step.runs)

    # --- writing ----------------------------------------------------------------------------------

    def _write(self, plan: Iterator[_Step], target: Target) -> None:
        try:
            while self._fill(plan):
                step = self._steps.popleft()
                self._ahead -= step.asked
                self._try(step, target)
                self._look(self._result, step.entry.path)
        finally:
            if self._file is not None:
                self._file.discard()

    def _fill(self, plan: Iterator[_Step]) -> bool:
        """Plan on when half of what was planned is done; False: everything is done."""
        steps, fetcher = self._steps, self._fetcher
        if self._ahead <= CHUNKS_AHEAD // 2 and len(steps) <= STEPS_AHEAD // 2:
            while self._ahead < CHUNKS_AHEAD and len(steps) < STEPS_AHEAD:
                step = next(plan, None)
                if step is None:
                    break
                before = fetcher.unasked
                for run in step.runs:
                    step.slots.append(None if run.id is None else fetcher.want(run.id))
                step.asked = fetcher.unasked - before
                self._ahead += step.asked
                steps.append(step)
            fetcher.ask()
        return bool(steps)

    def _try(self, step: _Step, target: Target) -> None:
        entry = step.entry
        if entry is self._failed:
            return
        try:
            if entry.type is EntryType.DIRECTORY:
                self._folder(step, target)
            elif entry.link is not None:
                self._link(step, target)
            elif entry.type is EntryType.FILE:
                self._content(step, target)
            else:
                self._special(step, target)
        except StoredDataDamaged as error:
            self._fail(entry)
            self._result.damaged.add(entry.path, str(error))
        except (OSError, UnsafePath) as error:
            self._fail(entry)
            reason = error.strerror if isinstance(error, OSError) else None
            self._result.problems.add(entry.path, reason or str(error))
        else:
            self._count(step)

    def _fail(self, entry: Entry) -> None:
        self._failed = entry
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _folder(self, step: _Step, target: Target) -> None:
        self._folders[len(step.parts)] = (step.parts, step.entry)
        if not step.selected:
            return
        overwrite, entry = self._options.overwrite, step.entry
        self._made = False
        replace = overwrite in (Overwrite.ALWAYS, Overwrite.IF_CHANGED)
        target.enter(step.parts, self._make, replace)
        if self._made or overwrite is not Overwrite.NEVER:
            target.make_writable()
            target.on_leave(self._applies(entry))

    def _make(self, parts: Parts) -> Callable[[int], None] | None:
        """A folder is about to be made: what is to be done when it is left."""
        self._made = True
        known = self._folders.get(len(parts))
        return self._applies(known[1]) if known is not None and known[0] == parts else None

    def _applies(self, entry: Entry) -> Callable[[int], None]:
        def apply(descriptor: int) -> None:
            if descriptor < 0:
                self._result.problems.add(entry.path, "it was moved while the restore ran")
            else:
                self._metadata.apply(entry, descriptor)

        return apply

    def _content(self, step: _Step, target: Target) -> None:
        entry = step.entry
        if step.first:
            parent = target.enter(step.parts[:-1], self._make)
            self._file = NewFile(parent, target.temporary_name(), self._options.verify)
        file = self._file
        assert file is not None
        for run, slot in zip(step.runs, step.slots, strict=True):
            if slot is None:
                file.hole(run.length)
            else:
                file.write(piece_of(self._fetcher.wait(slot), run))
        if step.last:
            self._file = None
            status = file.finish(entry, self._metadata, step.parts[-1])
            self._placed(step, status)

    def _special(self, step: _Step, target: Target) -> None:
        parent = target.enter(step.parts[:-1], self._make)
        temporary = target.temporary_name()
        status = place_special(step.entry, parent, temporary, step.parts[-1], self._metadata)
        self._placed(step, status)

    def _placed(self, step: _Step, status: os.stat_result | None) -> None:
        if step.group and status is not None:
            self._places[step.group] = (step.parts, status.st_dev, status.st_ino)

    def _link(self, step: _Step, target: Target) -> None:
        place = self._places.get(step.group)
        if place is None:
            raise OSError("the file that it is a link to was not restored")
        parent = target.enter(step.parts[:-1], self._make)
        place_link(target, place, parent, step.parts[-1])

    def _note(self) -> None:
        notes = self._result.notes
        if self._devices:
            notes.append(f"{self._devices} devices were left out: only root can make them")
        if self._metadata.skipped_privileged:
            notes.append(
                "owners, and attributes that only root can set, were left out: this is not root"
            )


def _status(there: Target, parts: Parts) -> os.stat_result | None:
    """What is in a place now, or None."""
    try:
        return os.lstat(parts[-1], dir_fd=there.enter(parts[:-1]))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return None
