"""Layer 3: what changed between two restore points.

Both manifests are streamed side by side in walk order, so memory does not grow with them. Content
is compared by the names of its chunks; where a file of the same size is cut in another way (a small
file shares its chunk with its neighbours) the differing parts are fetched and compared.
"""

from __future__ import annotations

import enum
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from cloudconnect.backup.dialogue import Remembers
from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.backup.linked import LinkedEntries
from cloudconnect.backup.manifests import entries_of
from cloudconnect.backup.options import Reports
from cloudconnect.backup.same_content import same_content
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import NotFound, StoredDataDamaged
from cloudconnect.wire.channel import FrameChannel

#: Turns the order of bytes into the order of the walk: a folder's names come before "folder-x".
_WALK_ORDER: Final = bytes.maketrans(b"/", b"\0")


class ChangeKind(enum.Enum):
    """How something changed."""

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "content"
    METADATA = "metadata"
    TYPE = "type"


@attrs.frozen
class Change:
    """One difference.

    :ivar before: the entry in the first point, or None
    :ivar after: the entry in the second point, or None
    :ivar aspects: what about it differs: ``content``, ``size``, ``target``, ``device``, ``mode``,
        ``owner``, ``mtime``, ``attributes``, ``links``
    """

    kind: ChangeKind
    path: bytes
    before: Entry | None
    after: Entry | None
    aspects: tuple[str, ...] = ()


@attrs.define(kw_only=True)
class DiffResult:
    """What a comparison came to.

    :ivar counts: of each kind of change
    :ivar unchanged: entries that are the same in both points
    :ivar bytes_added: content of added files, and what changed ones grew by
    :ivar bytes_removed: likewise the other way round
    :ivar damaged: files of which it cannot be told, because stored data is damaged; they count as
        changed
    :ivar seconds: how long it took
    """

    counts: Counter[ChangeKind] = attrs.field(factory=Counter)
    unchanged: int = 0
    bytes_added: int = 0
    bytes_removed: int = 0
    damaged: Reports = attrs.field(factory=Reports)
    seconds: float = 0.0


class DiffRun:
    """One comparison over one dialogue.

    :param channel: to the repository
    :param keys: of the repository
    :param description: of the repository
    :param points: the two restore points, 16 bytes each
    :param changed: called with each difference, in walk order
    :param top: only this path and what is below it; None for all
    :param look: called often with the path that is being compared; may raise
    :param heads: what is known of the repository's past
    """

    def __init__(
        self,
        channel: FrameChannel,
        keys: RepositoryKeys,
        description: RepositoryDescription,
        points: tuple[bytes, bytes],
        changed: Callable[[Change], None],
        top: bytes | None = None,
        look: Callable[[bytes], None] = lambda path: None,
        heads: Remembers | None = None,
    ) -> None:
        self._fetcher = Fetcher(channel, keys, description, heads)
        self._points = points
        self._changed = changed
        self._top = None if top is None else top.rstrip(b"/")
        self._look = look
        self._linked = (LinkedEntries(), LinkedEntries())
        self._met = top is None
        self.result = DiffResult()

    def run(self) -> DiffResult:
        """Compare, and end the dialogue.

        :raises NotFound: a point, or ``top`` in both of them, is not there
        :raises StoredDataDamaged: a signature or a manifest does not hold
        :raises CloudConnectError: the repository refuses, or the line broke
        """
        started = time.monotonic()
        fetcher = self._fetcher
        try:
            fetcher.greet("read")
            records = [fetcher.record(point) for point in self._points]
            for before, after in self._pairs(*records):
                self._compare(before, after)
            fetcher.close()
        except BaseException as error:
            fetcher.abort(error)
            raise
        finally:
            for linked in self._linked:
                linked.close()
        if not self._met and self._top is not None:
            path = self._top.decode("utf-8", "backslashreplace")
            raise NotFound(f"{path} is in neither of these restore points")
        self.result.seconds = time.monotonic() - started
        return self.result

    def _pairs(
        self, before: PointRecord, after: PointRecord
    ) -> Iterator[tuple[Entry | None, Entry | None]]:
        """Entries of the same path side by side, in walk order."""
        sides = self._side(before), self._side(after)
        left, right = next(sides[0], None), next(sides[1], None)
        while left is not None or right is not None:
            one = None if left is None else _place(left)
            two = None if right is None else _place(right)
            if two is None or (one is not None and one < two):
                yield left, None
                left = next(sides[0], None)
            elif one is None or two < one:
                yield None, right
                right = next(sides[1], None)
            else:
                yield left, right
                left, right = next(sides[0], None), next(sides[1], None)

    def _side(self, record: PointRecord) -> Iterator[Entry]:
        last = b""
        for entry in entries_of(self._fetcher, record):
            place = _place(entry)
            if place <= last:
                raise StoredDataDamaged("a restore point's manifest is not in the order of a walk")
            last = place
            if not entry.flags & FLAG_ON_THE_WAY:
                yield entry

    def _compare(self, before: Entry | None, after: Entry | None) -> None:
        there = before or after
        assert there is not None
        self._look(there.path)
        # All of them, as what lies below the top may be a further name of what does not.
        content = [
            None if entry is None else linked.resolve(entry)
            for linked, entry in zip(self._linked, (before, after), strict=True)
        ]
        top = self._top
        if top is not None and not (there.path == top or there.path.startswith(top + b"/")):
            return
        self._met = True
        change = self._change(there.path, before, after, content)
        if change is None:
            self.result.unchanged += 1
            return
        self._count(change)
        self._changed(change)

    def _change(
        self,
        path: bytes,
        before: Entry | None,
        after: Entry | None,
        content: Sequence[Entry | None],
    ) -> Change | None:
        if before is None:
            return Change(ChangeKind.ADDED, path, before, after)
        if after is None:
            return Change(ChangeKind.REMOVED, path, before, after)
        if before.type is not after.type:
            return Change(ChangeKind.TYPE, path, before, after)
        one, two = content
        assert one is not None
        assert two is not None
        inside = tuple(self._inside(path, one, two))
        aspects = inside + tuple(_metadata(before, after))
        if not aspects:
            return None
        kind = ChangeKind.CONTENT if inside else ChangeKind.METADATA
        return Change(kind, path, before, after, aspects)

    def _inside(self, path: bytes, one: Entry, two: Entry) -> Iterator[str]:
        """What of the content of two things of one type differs."""
        if one.target != two.target:
            yield "target"
        if one.device != two.device:
            yield "device"
        if one.size != two.size:
            yield "content"
            yield "size"
        elif one.runs != two.runs:
            try:
                same = same_content(self._fetcher, one.runs, two.runs)
            except StoredDataDamaged as error:
                if self._fetcher.failure is not None:
                    raise
                self.result.damaged.add(path, str(error))
                same = False
            if not same:
                yield "content"

    def _count(self, change: Change) -> None:
        result = self.result
        result.counts[change.kind] += 1
        grown = _size(change.after) - _size(change.before)
        if grown > 0:
            result.bytes_added += grown
        else:
            result.bytes_removed -= grown


def _place(entry: Entry) -> bytes:
    return entry.path.translate(_WALK_ORDER)


def _size(entry: Entry | None) -> int:
    """What an entry adds to its point: further names add nothing."""
    return 0 if entry is None or entry.link is not None else entry.size


def _metadata(one: Entry, two: Entry) -> Iterator[str]:
    if one.mode != two.mode and one.type is not EntryType.SYMLINK:
        yield "mode"
    if (one.uid, one.gid, one.user, one.group) != (two.uid, two.gid, two.user, two.group):
        yield "owner"
    if one.mtime_ns != two.mtime_ns:
        yield "mtime"
    if one.xattrs != two.xattrs and one.link is None and two.link is None:
        yield "attributes"
    if one.link != two.link:
        yield "links"
