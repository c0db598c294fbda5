"""Layer 1: what a codec counts."""

from __future__ import annotations

import attrs


@attrs.define
class Statistics:
    """Counts of one direction of one connection, or sums of several; all in bytes but the last two.

    On the side that encodes, ``plain`` is what came in and ``coded`` what went out; on the side
    that decodes ``plain`` is what went out and ``coded`` the answers.

    :ivar plain: of the stream itself
    :ivar coded: of messages about it
    :ivar by_reference: of blocks that were named and not sent
    :ivar by_delta: what compression against similar blocks saved
    :ivar by_compression: what compression without such blocks saved
    :ivar resent: of blocks that had been named and had to be sent after all
    :ivar misses: blocks that the far end did not have
    :ivar damaged: blocks of the own cache that turned out to be damaged, and were dropped
    """

    plain: int = 0
    coded: int = 0
    by_reference: int = 0
    by_delta: int = 0
    by_compression: int = 0
    resent: int = 0
    misses: int = 0
    damaged: int = 0

    def add(self, other: Statistics) -> None:
        """Add the counts of ``other`` to these."""
        for name in attrs.fields_dict(Statistics):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_map(self) -> dict[str, int]:
        """The counts by their names."""
        return attrs.asdict(self)
