"""Layer 3: the LAN link's commands on repositories: what the service has a mover do with one.

How their restore points are kept is in :mod:`cloudconnect.commands.keeping`.
Source: ``docs/protocol.rst``, section 10.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument


class MakeRepository(BoundedCommand):
    """Make a repository as the encoded description says."""

    commandName = b"MakeRepository"
    arguments = [(b"description", amp.String())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class HasRepository(BoundedCommand):
    """Whether a mover has a repository: asked where movers have more than one storage."""

    commandName = b"HasRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response = [(b"there", amp.Boolean())]


class DescribeRepository(BoundedCommand):
    """The encoded description of a repository."""

    commandName = b"DescribeRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response = [(b"description", amp.String())]


class ReplaceRepositoryDescription(BoundedCommand):
    """Take a new description of a repository; as :class:`..control.ReplaceDescription`."""

    commandName = b"ReplaceRepositoryDescription"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"description", amp.String()),
        (b"head", amp.String()),
        (b"head_signature", FixedBytes(64)),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class RemoveRepository(BoundedCommand):
    """Delete a repository with all that is in it, for good; answered when done, also where it is
    gone already. Refused where it is frozen or a restore point is locked, ``busy`` where somebody
    uses it.
    """

    commandName = b"RemoveRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ListRepositoryPoints(BoundedCommand):
    """One page of a repository's restore points; as :class:`..control.ListPoints`."""

    commandName = b"ListRepositoryPoints"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"tag", amp.Unicode()),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
        (b"states", CBORArgument(optional=True)),
    ]
    response = [(b"points", rows_argument()), (b"more", amp.Boolean())]


class WithdrawSession(BoundedCommand):
    """Withdraw what a session has published, whose mover was lost before it could be told to.

    ``count``: how many restore points that were.
    """

    commandName = b"WithdrawSession"
    arguments = [(b"repository", FixedBytes(16)), (b"session", FixedBytes(16))]
    response = [(b"count", amp.Integer())]


class MeasureRepository(BoundedCommand):
    """What a repository holds: counts and bytes, as a map of numbers."""

    commandName = b"MeasureRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response = [(b"measured", CBORArgument())]


class SeedCache(BoundedCommand):
    """Put what a repository holds into the cache of the WAN accelerator in the mover's process.

    ``host``, ``job``: only these points, where not empty. ``limit``: bytes, 0 for what suits the
    cache. Answered when done; ``result``: counts by name.
    """

    commandName = b"SeedCache"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"tenant", amp.Unicode()),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"result", CBORArgument())]
