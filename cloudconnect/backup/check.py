"""Layer 3: checking restore points with the tenant's keys, over one dialogue.

Every point's signature and manifest, and that the repository has every chunk that a file needs;
with ``read_data`` each chunk is also fetched once, opened and compared with its name; with
``at_provider`` the provider is asked to read it and compare its stored bytes with their digest,
which costs the line next to nothing and is the provider's word. What is damaged is named with the
points and files that it hits, and the check goes on. Chunks are kept in a temporary file
(:mod:`cloudconnect.backup.seen`), so memory does not grow with the repository.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cloudconnect.backup.dialogue import Remembers
from cloudconnect.backup.fetching import Fetcher, Reply, Slot
from cloudconnect.backup.findings import CheckOptions, CheckResult, Damage
from cloudconnect.backup.manifests import ManifestGap, ReadParts, damaged_chunks, entries_of
from cloudconnect.backup.options import Progress
from cloudconnect.backup.seen import SeenChunks
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.entries import Entry
from cloudconnect.errors import (
    Cancelled,
    ContextMismatch,
    NotFound,
    ProtocolViolation,
    Refused,
    StoredDataDamaged,
)
from cloudconnect.wire.channel import FrameChannel

#: Questions which chunks there are, that are asked ahead.
QUESTIONS_AHEAD: Final = 4
#: Chunks in one GET; twice as many are asked for ahead.
CHUNKS: Final = 64
#: Entries behind which the provider is asked to read what came with them.
READ_EVERY: Final = 2048
#: Entries, or chunks, between two looks at the clock.
LOOK_EVERY: Final = 256
#: Seconds after which progress is reported again and a cancellation is noticed.
LOOK_SECONDS: Final = 0.2
#: Bytes of an id that a message shows, enough to tell chunks apart.
_SHOWN_ID: Final = 8

#: What is wrong with one restore point, where the dialogue itself goes on.
_OF_A_POINT: Final = (StoredDataDamaged, ContextMismatch, ProtocolViolation)


class CheckRun:
    """One check over one dialogue.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param points: the restore points to check, 16 bytes each
    :param progress: called in the thread of :meth:`run`, a few times a second
    :param cancelled: asked in the thread of :meth:`run`, a few times a second
    :param heads: what is known of the repository's past
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        points: Sequence[bytes],
        options: CheckOptions | None = None,
        progress: Callable[[Progress], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        heads: Remembers | None = None,
    ) -> None:
        self._channel = channel
        self._fetcher = Fetcher(channel, keys, description, heads)
        self._points = points
        self._options = options or CheckOptions()
        self._progress = progress
        self._cancelled = cancelled
        self._looked = time.monotonic()
        self._steps = 0
        self._seen = SeenChunks()
        self._parts = ReadParts()
        self._asked: deque[tuple[Reply, list[bytes]]] = deque()  # what the provider is reading
        self._asked_to = 0  # number of the last chunk of these
        self._good: list[bytes] = []  # points with a record that can be used
        self.result = CheckResult()

    def run(self) -> CheckResult:
        """Check, and end the dialogue.

        :raises Cancelled: ``cancelled`` said so
        :raises LocalError: there is no room for temporary files
        :raises CloudConnectError: the repository refuses, or the line broke
        """
        started = time.monotonic()
        fetcher, result = self._fetcher, self.result
        try:
            fetcher.greet("check")
            if self._options.at_provider and not fetcher.verify_max:
                raise Refused(
                    "this provider's release cannot read and compare what it stores for a check: "
                    "check with --read-data alone, which fetches it"
                )
            for point in self._points:
                self._point(point)
            result.chunks = self._seen.count()
            if self._options.at_provider:
                self._have_read(True)
            if not self._options.at_provider or self._options.part != (1, 1):
                self._presence()
            result.chunks_missing = self._seen.damaged - result.chunks_damaged
            if self._options.read_data and not self._options.at_provider:
                self._read()
            if self._seen.damaged:
                self._name_files()
            fetcher.close()
        except BaseException as error:
            fetcher.abort(error)
            raise
        finally:
            self._seen.close()
        result.bytes_sent = self._channel.bytes_sent
        result.bytes_received = self._channel.bytes_received
        result.seconds = time.monotonic() - started
        return result

    def _point(self, point: bytes) -> None:
        """Check a point's signature and manifest, and note which chunks it needs."""
        result = self.result
        try:
            self._fetcher.record(point)
        except NotFound:
            # Taken out of the bin, or withdrawn, since it was listed.
            result.gone.append(point)
            return
        except _OF_A_POINT as error:
            self._of_a_point(error)
            result.points += 1
            result.add(Damage(point, None, str(error)))
            return
        result.points += 1
        at_provider, parts = self._options.at_provider, self._parts
        last = b""
        try:
            for number, entry in enumerate(self._entries(point, parts), 1):
                result.entries += 1
                self._seen.add(entry.runs)
                last = entry.path
                if at_provider and number % READ_EVERY == 0:
                    self._have_read(False)
                self._look(last)
        except _OF_A_POINT as error:
            self._of_a_point(error)
            where = f"behind {last.decode('utf-8', 'backslashreplace')}" if last else "at its start"
            reason = f"its manifest is damaged {where}: {error}"
            if isinstance(error, ManifestGap):
                reason += self._gaps(point)
            result.add(Damage(point, None, reason))
        finally:
            result.entries += parts.left_out
            parts.left_out = 0
        self._good.append(point)

    def _gaps(self, point: bytes) -> str:
        """How much of a manifest is damaged, for a person."""
        record = self._fetcher.record(point)
        count = damaged_chunks(self._fetcher, record)
        return f" ({count} of its {len(record.manifest)} chunks)"

    def _entries(self, point: bytes, parts: ReadParts | None = None) -> Iterator[Entry]:
        # The record is fetched anew each time: its list of manifest chunks may be long.
        return entries_of(self._fetcher, self._fetcher.record(point), parts)

    def _of_a_point(self, error: Exception) -> None:
        """Raise ``error`` if it is the end of the whole dialogue."""
        if self._fetcher.failure is not None:
            raise error

    def _presence(self) -> None:
        """Ask which chunks the repository has."""
        fetcher = self._fetcher
        asked: deque[tuple[Reply, list[bytes]]] = deque()

        def answered() -> None:
            for name in fetcher.missing(*asked.popleft()):
                self._seen.damage(name, "is missing at the provider")

        for batch in self._seen.batches(fetcher.ids_max):
            ids = [name for name, _ in batch]
            asked.append((fetcher.have(ids), ids))
            if len(asked) > QUESTIONS_AHEAD:
                answered()
            self._look(b"", True)
        while asked:
            answered()

    def _read(self) -> None:
        """Fetch, open and compare chunks."""
        fetcher = self._fetcher
        asked: deque[tuple[list[Slot], list[int]]] = deque()
        for batch in self._seen.batches(CHUNKS, intact=True):
            chosen = [(name, need) for name, need in batch if self._options.reads(name)]
            if chosen:
                slots = fetcher.get([name for name, _ in chosen])
                asked.append((slots, [need for _, need in chosen]))
            if len(asked) > 2:
                self._compare(*asked.popleft())
            self._look(b"")
        while asked:
            self._compare(*asked.popleft())

    def _have_read(self, all_of_them: bool) -> None:
        """Have the provider read chunks and compare their stored bytes, while manifests come.

        :param all_of_them: also the last few, and wait for every answer
        """
        fetcher, asked = self._fetcher, self._asked
        while True:
            number, ids = self._seen.behind(self._asked_to, fetcher.verify_max)
            if not ids or (len(ids) < fetcher.verify_max and not all_of_them):
                break
            self._asked_to = number
            chosen = [name for name in ids if self._options.reads(name)]
            if chosen:
                asked.append((fetcher.verify(chosen), chosen))
            if len(asked) > QUESTIONS_AHEAD:
                self._note_word()
        while asked and all_of_them:
            self._note_word()

    def _note_word(self) -> None:
        """Take the provider's word for the chunks that it was asked for first."""
        result = self.result
        reply, ids = self._asked.popleft()
        count, damaged = self._fetcher.verified(reply, ids)
        for name in damaged:
            self._seen.damage(name, "is damaged or missing at the provider, which has looked")
        result.chunks_damaged += len(damaged)
        result.chunks_vouched += len(ids) - len(damaged)
        result.bytes_vouched += count
        self._look(b"", True)

    def _compare(self, slots: list[Slot], needs: list[int]) -> None:
        result = self.result
        for slot, need in zip(slots, needs, strict=True):
            try:
                length = len(self._fetcher.wait(slot))
                if length < need:
                    raise StoredDataDamaged(f"has {length} bytes, and a file needs {need} of it")
            except StoredDataDamaged as error:
                self._of_a_point(error)
                self._seen.damage(slot.id, f"cannot be used: {error}")
                result.chunks_damaged += 1
            else:
                result.chunks_read += 1
                result.bytes_read += length
            slot.plain = None
            self._look(b"")

    def _name_files(self) -> None:
        """Look through the manifests again for who needs what is damaged."""
        for point in self._good:
            first_names: set[bytes] = set()  # damaged files that may have further names
            try:
                for entry in self._entries(point):
                    self._look(entry.path)
                    reason = self._hit(entry, first_names)
                    if reason is not None:
                        self.result.add(Damage(point, entry.path, reason))
            except _OF_A_POINT as error:
                self._of_a_point(error)  # else it was told already

    def _hit(self, entry: Entry, first_names: set[bytes]) -> str | None:
        """Why a file cannot be restored, or None."""
        if entry.link is not None:
            return "the file that it is a name of is damaged" if entry.link in first_names else None
        found, reason = 0, ""
        for run in entry.runs:
            why = None if run.id is None else self._seen.damage_of(run.id)
            if why is not None and run.id is not None:
                found += 1
                reason = reason or f"chunk {run.id[:_SHOWN_ID].hex()} {why}"
        if not found:
            return None
        if entry.flags:
            first_names.add(entry.path)
        return reason + (f", and {found - 1} more" if found > 1 else "")

    def _look(self, path: bytes, always: bool = False) -> None:
        """Report progress and notice a cancellation, now and then."""
        self._steps += 1
        if self._steps % LOOK_EVERY and not always:
            return
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if self._cancelled is not None and self._cancelled():
            raise Cancelled("the check was interrupted")
        if self._progress is not None:
            self._progress(
                Progress(
                    files=self.result.entries,
                    bytes_done=self.result.bytes_read + self.result.bytes_vouched,
                    bytes_sent=self._channel.bytes_sent,
                    bytes_received=self._channel.bytes_received,
                    path=path,
                )
            )
