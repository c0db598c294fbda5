"""Layer 3: searching many restore points for names, over one dialogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from cloudconnect.backup.dialogue import Remembers
from cloudconnect.backup.fetching import Fetcher
from cloudconnect.backup.manifests import entries_of
from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.errors import ContextMismatch, NotFound, ProtocolViolation, StoredDataDamaged
from cloudconnect.wire.channel import FrameChannel


@attrs.define(kw_only=True)
class SearchResult:
    """What a search came to.

    :ivar points: restore points that were looked through
    :ivar entries: entries in them
    :ivar found: those that match
    :ivar damaged: points that could not be looked through, or not to their end, and why
    """

    points: int = 0
    entries: int = 0
    found: int = 0
    damaged: list[tuple[bytes, str]] = attrs.field(factory=list)


def search(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    points: Sequence[bytes],
    patterns: PathPatterns,
    found: Callable[[bytes, Entry], None],
    look: Callable[[bytes], None] = lambda path: None,
    heads: Remembers | None = None,
) -> SearchResult:
    """Look for what ``patterns`` mean in each of ``points``; one whole dialogue.

    :param found: called with the point and the entry
    :param look: called often with the path that is being looked at; may raise
    :param heads: what is known of the repository's past
    :raises CloudConnectError: the dialogue failed
    """
    fetcher, result = Fetcher(channel, keys, description, heads), SearchResult()
    try:
        fetcher.greet("read")
        for point in points:
            try:
                for entry in entries_of(fetcher, fetcher.record(point)):
                    result.entries += 1
                    look(entry.path)
                    if patterns.means(entry.path, entry.type is EntryType.DIRECTORY):
                        result.found += 1
                        found(point, entry)
            except (StoredDataDamaged, ContextMismatch, ProtocolViolation, NotFound) as error:
                if fetcher.failure is not None:
                    raise
                if isinstance(error, NotFound):
                    continue  # removed since it was listed
                result.damaged.append((point, str(error)))
            result.points += 1
        fetcher.close()
    except BaseException as error:
        fetcher.abort(error)
        raise
    return result
