"""Layer 3: what a check is asked for, and what it finds."""

from __future__ import annotations

import attrs

from cloudconnect.backup.options import LISTED_MAX
from cloudconnect.errors import UsageError
from cloudconnect.shown import Shown


@attrs.frozen(kw_only=True, repr=False)
class CheckOptions(Shown):
    """How thorough a check is.

    :ivar read_data: fetch, open and compare every chunk
    :ivar at_provider: instead, have the provider read them and compare their stored bytes with
        their digests: what it then says is its word, not a proof
    :ivar part: (n, t): only those chunks, about one in t, that fall into part n of t; the parts 1
        to t are all chunks, each in one of them
    """

    read_data: bool = False
    at_provider: bool = False
    part: tuple[int, int] = (1, 1)

    def __attrs_post_init__(self) -> None:
        number, total = self.part
        if not 1 <= number <= total:
            raise UsageError("a part is 1/2, 2/2, 1/3 and so on")

    def reads(self, name: bytes) -> bool:
        """Whether the chunk of this name is read."""
        number, total = self.part
        return int.from_bytes(name[:8], "big") % total == number - 1


@attrs.frozen(repr=False)
class Damage(Shown):
    """Something that cannot be restored as it was.

    :ivar point: the restore point's 16 bytes
    :ivar path: of the file; None where it is the point itself, or a part of its manifest
    :ivar reason: a few words for a person
    """

    point: bytes
    path: bytes | None
    reason: str


@attrs.define(kw_only=True, repr=False)
class CheckResult(Shown):
    """What a check found.

    :ivar points: restore points checked
    :ivar points_damaged: those of them whose signature or manifest does not hold
    :ivar gone: listed points that were not there any more, 16 bytes each
    :ivar entries: entries of all manifests
    :ivar chunks: distinct chunks that they need
    :ivar chunks_missing: of these, what the repository does not have, or knows to be damaged
    :ivar chunks_damaged: and what came, but not as it should be
    :ivar chunks_read: chunks that were fetched, opened and compared
    :ivar bytes_read: their plain bytes
    :ivar chunks_vouched: chunks of which the provider says that it has read them, and that their
        stored bytes have their digest
    :ivar bytes_vouched: their stored bytes
    :ivar files_damaged: files that need a missing or damaged chunk, counted in each point
    :ivar damage: the first LISTED_MAX of points and files damaged
    :ivar bytes_sent: bytes of the frames that this side sent
    :ivar bytes_received: bytes of the frames that it received
    :ivar seconds: how long it took
    """

    points: int = 0
    points_damaged: int = 0
    gone: list[bytes] = attrs.field(factory=list)
    entries: int = 0
    chunks: int = 0
    chunks_missing: int = 0
    chunks_damaged: int = 0
    chunks_read: int = 0
    bytes_read: int = 0
    chunks_vouched: int = 0
    bytes_vouched: int = 0
    files_damaged: int = 0
    damage: list[Damage] = attrs.field(factory=list)
    bytes_sent: int = 0
    bytes_received: int = 0
    seconds: float = 0.0

    @property
    def damaged(self) -> bool:
        """Whether anything is."""
        return bool(self.points_damaged or self.chunks_missing or self.chunks_damaged)

    def add(self, damage: Damage) -> None:
        """Count it, and list it if there is room."""
        if damage.path is None:
            self.points_damaged += 1
        else:
            self.files_damaged += 1
        if len(self.damage) < LISTED_MAX:
            self.damage.append(damage)
