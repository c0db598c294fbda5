"""Layer 3: writing a restored tree: the steps of a plan, done one behind the other.

Chunks are asked for some way ahead of the step that needs them. A folder is made when it is first
needed; its mode, times and the rest come when the walk leaves it, after everything in it was
written.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from itertools import repeat
from typing import Final

from cloudconnect.backup.at_once import AtOnce
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.backup.manifests import ManifestGap, entries_of
from cloudconnect.backup.matching import open_regular, read_at
from cloudconnect.backup.metadata import MetadataWriter
from cloudconnect.backup.names import Places, may_be_linked
from cloudconnect.backup.options import Overwrite, RestoreOptions, RestoreResult
from cloudconnect.backup.placing import NewFile, place_link, place_special
from cloudconnect.backup.planning import IN_PARTIAL, Plan, Step
from cloudconnect.backup.reading import piece_of
from cloudconnect.backup.resuming import Resumer
from cloudconnect.backup.target import Parts, Target
from cloudconnect.backup.unfinished import DOUBTFUL
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import StoredDataDamaged, UnsafePath

#: Bytes of chunks that are asked for and not used yet.
AHEAD_BYTES: Final = 24 << 20
#: So many bytes are asked for at a time: the repository always has the next question before it has
#: answered the one before.
ASK_BYTES: Final = 4 << 20
#: Steps that are planned and not done.
STEPS_AHEAD: Final = 4096


class TreeWriter:
    """Restores one tree.

    :param options: what is restored, and where to
    :param result: its record is of the restore point; the rest is filled in
    :param fetcher: gets content
    :param is_chunk: whether some bytes are the chunk of a name
    :param look: called often with the path that is being worked on; may raise
    :param listed: called with each entry that is restored, or in a dry run would be
    """

    def __init__(
        self,
        options: RestoreOptions,
        result: RestoreResult,
        fetcher: Fetcher,
        is_chunk: Callable[[bytes, bytes], bool],
        look: Callable[[bytes], None],
        listed: Callable[[Entry], None] = lambda entry: None,
    ) -> None:
        self._options = options
        self._result = result
        self._fetcher = fetcher
        self._is_chunk = is_chunk
        self._look = look
        self._listed = listed
        self._metadata = MetadataWriter(result.problems.add)
        self._plan = Plan(options, result, self._metadata)
        self._steps: deque[Step] = deque()
        self._ahead = 0  # bytes that these have asked for
        self._usual = fetcher.chunk_average
        self._folders: dict[int, tuple[Parts, Entry]] = {}  # by depth: those on the present way
        self._made = False  # a folder, since this was last set
        self._file: NewFile | None = None
        self._target: Target | None = None
        self._failed: Entry | None = None  # a file of which further steps come to nothing
        self._places = Places()
        self._at_once = AtOnce(options, result, self._metadata, self._made_it)

    def run(self) -> None:
        """Restore, or count only.

        :raises StoredDataDamaged: the manifest is not one
        :raises OSError: the target folder cannot be opened or made
        :raises CloudConnectError: the dialogue failed, or ``look`` raised
        """
        there = self._open_target(create=False)
        try:
            self._plan.look_ahead(lambda: self._entries(tell=False), there)
            target = None if self._options.dry_run else self._open_target(create=True)
            try:
                there = there or self._open_target(create=False)
                steps = self._plan.steps(self._entries(), there)
                if self._options.dry_run:
                    self._count_all(steps)
                else:
                    if target is None or there is None:
                        raise FileNotFoundError("the target folder went away")
                    resumer = Resumer(there, self._is_chunk, self._metadata, self._look)
                    self._write(resumer.steps(steps), target)
            finally:
                if target is not None:
                    target.close()
        finally:
            if there is not None:
                there.close()
            self._plan.close()
            self._places.close()
        self._result.missing = self._plan.missing
        self._note()

    def _entries(self, tell: bool = True) -> Iterator[Entry]:
        """The entries of the point, up to where they cannot be read any more.

        :param tell: that this is so
        """
        last = b"/"
        try:
            for entry in entries_of(self._fetcher, self._result.record):
                last = entry.path
                yield entry
        except ManifestGap as error:
            if tell:
                self._plan.unfinished.stop()
                self._result.damaged.add(
                    last, f"what comes behind it is lost, as the manifest is damaged: {error}"
                )

    def _open_target(self, create: bool) -> Target | None:
        try:
            return Target(self._options.target, create)
        except FileNotFoundError:
            if create:
                raise
            return None

    def _count(self, step: Step) -> None:
        """What a step would do, in a dry run, or has done."""
        entry, result = step.entry, self._result
        kind = entry.type
        if kind is EntryType.DIRECTORY:
            result.directories += step.selected
        elif kind is not EntryType.FILE:
            result.other += 1
        else:
            result.files += step.last
            whole = step.first and step.last
            size = entry.size if whole else sum(run.length for run in step.runs)
            if step.there:
                result.unchanged += 1
                result.bytes_there += entry.size
                size = entry.size
            if entry.link is None and step.place is None:
                result.bytes_restored += size
        if step.selected and step.last:
            self._listed(entry)

    def _count_all(self, steps: Iterator[Step]) -> None:
        for step in steps:
            self._count(step)
            self._look(step.entry.path)

    def _write(self, steps: Generator[Step], target: Target) -> None:
        self._target = target
        try:
            while self._fill(steps):
                step = self._steps.popleft()
                self._ahead -= step.asked
                self._try(step, target)
                self._look(step.entry.path)
                if self._at_once.again and self._file is None:
                    self._write_again(target)
            self._at_once.finish()
            self._write_again(target)
        except BaseException:
            self._plan.unfinished.stop()
            raise
        finally:
            if self._file is not None:
                self._file.leave()
            self._at_once.close()
            for step in self._steps:
                if step.partial is not None:
                    os.close(step.partial)
            steps.close()

    def _fill(self, planned: Iterator[Step]) -> bool:
        """Plan on when there is room for another question; False: everything is done."""
        steps, fetcher = self._steps, self._fetcher
        room = self._ahead <= AHEAD_BYTES - ASK_BYTES and len(steps) <= STEPS_AHEAD // 2
        if room or not steps:
            asked = self._ahead
            while (self._ahead < AHEAD_BYTES and len(steps) < STEPS_AHEAD) or not steps:
                step = next(planned, None)
                if step is None:
                    break
                if step.runs and not step.there:
                    self._want(step)
                    if self._ahead - asked >= ASK_BYTES:
                        fetcher.ask()
                        asked = self._ahead
                steps.append(step)
            fetcher.ask()
        return bool(steps)

    def _want(self, step: Step) -> None:
        """Want the chunks of a step."""
        fetcher, slots, runs = self._fetcher, step.slots, step.runs
        unasked, usual = fetcher.unasked, self._usual
        if len(runs) == 1 and not step.found and (name := runs[0].id) is not None:
            slots.append(fetcher.want(name))  # as for most files
            if fetcher.unasked != unasked:
                step.asked = max(usual, runs[0].length)
                self._ahead += step.asked
            return
        for run, here in zip(runs, step.found or repeat(None), strict=False):
            if here is not None:  # what is held in memory counts like what will be
                step.asked += len(here)
                slots.append(None)
            elif run.id is None:
                slots.append(None)
            else:
                slots.append(fetcher.want(run.id))
                if fetcher.unasked != unasked:
                    unasked += 1
                    step.asked += max(usual, run.length)
        self._ahead += step.asked

    def _try(self, step: Step, target: Target) -> None:
        entry = step.entry
        if entry is self._failed:
            return
        kind = entry.type
        try:
            if kind is EntryType.DIRECTORY:
                self._folder(step, target)
            elif entry.link is not None or step.place is not None:
                self._link(step, target)
            elif kind is EntryType.FILE:
                if not self._content(step, target):
                    return
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
            self._made_it(step)

    def _made_it(self, step: Step) -> None:
        """A step is done."""
        if step.last:
            self._plan.unfinished.made(step.parts)
        self._count(step)

    def _fail(self, entry: Entry) -> None:
        self._failed = entry
        if self._file is not None:
            self._file.discard()
            self._file = None

    def _folder(self, step: Step, target: Target) -> None:
        self._folders[len(step.parts)] = (step.parts, step.entry)
        if not step.selected:
            return
        overwrite, entry = self._options.overwrite, step.entry
        self._made = False
        replace = overwrite in (Overwrite.ALWAYS, Overwrite.IF_CHANGED)
        target.enter(step.parts, self._make, replace)
        if self._made or overwrite is not Overwrite.NEVER:
            target.make_writable()
            target.on_leave(self._applies(step.parts, entry))

    def _make(self, parts: Parts) -> Callable[[int], None]:
        """A folder is about to be made, or finished: what is to be done when it is left."""
        self._made = True
        known = self._folders.get(len(parts))
        entry = known[1] if known is not None and known[0] == parts else None
        return self._applies(parts, entry)

    def _applies(self, parts: Parts, entry: Entry | None) -> Callable[[int], None]:
        def apply(descriptor: int) -> None:
            problems, path = self._result.problems, entry.path if entry else b"/" + b"/".join(parts)
            stays = self._plan.unfinished.leave(
                parts, lambda name: problems.add(path + b"/" + name, DOUBTFUL)
            )
            if descriptor < 0:
                problems.add(path, "it was moved while the restore ran")
            elif not stays:
                assert self._target is not None
                self._at_once.leave(path, entry, descriptor, self._target)

        return apply

    def _content(self, step: Step, target: Target) -> bool:
        """Write a step's content; False: it is not there yet, or was kept, and is not counted."""
        entry = step.entry
        if step.there:
            return True
        if step.cut and not self._is_beginning(step, target):
            self._result.kept += 1
            self._result.bytes_kept += entry.size
            self._plan.unfinished.keep(step.parts)
            return False
        done = self._write_at_once(step, target)
        if done is not None:
            return done
        if step.first:
            self._begin(step, target)
        file = self._file
        assert file is not None
        found = step.found or repeat(None, len(step.runs))
        for run, slot, here in zip(step.runs, step.slots, found, strict=True):
            if slot is not None:
                file.add(piece_of(self._fetcher.wait(slot), run))
            elif run.id is None:
                file.hole(run.length)
            else:
                assert here is not None
                self._result.bytes_there += run.length
                if here == IN_PARTIAL:
                    file.keep(run.length)
                else:
                    file.add(here)
        if step.last:
            self._file = None
            status = file.finish(entry, self._metadata, step.parts[-1])
            self._placed(step, status)
        return True

    def _write_at_once(self, step: Step, target: Target) -> bool | None:
        """Write a small file under its own name; None: that may not be done with it.

        :return: whether it is there already
        """
        if not self._at_once.takes(step):
            return None
        parent = target.enter(step.parts[:-1], self._make)
        return self._at_once.write(step, target, parent, self._pieces)

    def _is_beginning(self, step: Step, target: Target) -> bool:
        """Whether what is in a file's place is how the file begins, and no more."""
        found = step.found or repeat(None, len(step.runs))
        pieces = [
            bytes(run.length) if slot is None else piece_of(self._fetcher.wait(slot), run)
            for run, slot in zip(step.runs, step.slots, strict=True)
        ]
        content = b"".join(
            piece if here is None else here for piece, here in zip(pieces, found, strict=True)
        )
        parent = target.enter(step.parts[:-1], self._make)
        descriptor = open_regular(parent, step.parts[-1], os.O_RDONLY)
        if descriptor is None:
            return False  # somebody has exchanged it
        try:
            return content.startswith(read_at(descriptor, 0, len(content) + 1))
        finally:
            os.close(descriptor)

    def _pieces(self, step: Step) -> list[bytes]:
        """The content of a step without holes."""
        wait, runs, slots = self._fetcher.wait, step.runs, step.slots
        if len(runs) == 1 and (slot := slots[0]) is not None:
            return [piece_of(slot.plain or wait(slot), runs[0])]
        return [
            piece_of(wait(slot), run)
            for run, slot in zip(runs, slots, strict=True)
            if slot is not None
        ]

    def _write_again(self, target: Target) -> None:
        self._at_once.write_again(lambda step: self._try(step, target))

    def _begin(self, step: Step, target: Target) -> None:
        """Begin to write a file, or go on with it."""
        partial, step.partial = step.partial, None
        try:
            parent = target.enter(step.parts[:-1], self._make)
        except BaseException:
            if partial is not None:
                os.close(partial)
            raise
        other = target.temporary_name()
        verify = self._options.verify
        name = step.temporary or other
        inherited = target.passes_on()
        self._file = NewFile(parent, name, verify, other, partial, inherited)

    def _special(self, step: Step, target: Target) -> None:
        parent = target.enter(step.parts[:-1], self._make)
        if step.entry.type is EntryType.SYMLINK and self._at_once.link(step, target, parent):
            return
        temporary = target.temporary_name()
        status = place_special(step.entry, parent, temporary, step.parts[-1], self._metadata)
        self._placed(step, status)

    def _placed(self, step: Step, status: os.stat_result | None) -> None:
        if step.group and status is not None:
            self._places.put(step.group, (step.parts, status.st_dev, status.st_ino))

    def _link(self, step: Step, target: Target) -> None:
        place = step.place or self._places.get(step.group)
        if place is None:
            raise OSError("the file that it is a link to was not restored")
        parent = target.enter(step.parts[:-1], self._make)
        if step.place is None:
            place_link(target, place, parent, step.parts[-1])
            return

        def right(status: os.stat_result) -> bool:
            return may_be_linked(step.like or step.entry, status, self._metadata)

        place_link(target, place, parent, step.parts[-1], right)

    def _note(self) -> None:
        notes = self._result.notes
        if self._plan.devices:
            notes.append(f"{self._plan.devices} devices were left out: only root can make them")
        if self._metadata.skipped_privileged:
            notes.append(
                "owners, and attributes that only root can set, were left out: this is not root"
            )
