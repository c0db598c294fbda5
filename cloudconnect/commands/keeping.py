"""Layer 3: the LAN link's commands on what becomes of restore points.

The service has a mover do it, after it has told the mover what holds for their repository.
Source: ``docs/protocol.rst``, section 10.
"""

from __future__ import annotations

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument


class SetRules(BoundedCommand):
    """What the provider demands and allows of a repository, and whether it is frozen, from now on.

    ``rules``: a map (:class:`cloudconnect.repository.rules.Rules`). The service says it when a
    repository is made, when it changes, and before each act of a tenant. ``kept``: whether it is
    written down; if not, the disk cannot be written, and it holds for as long as the mover runs.
    """

    commandName = b"SetRules"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"rules", CBORArgument()),
        (b"frozen", amp.Boolean()),
    ]
    response = [(b"kept", amp.Boolean())]


class AskOwner(BoundedCommand):
    """A mover asks whose a repository is, and what holds for it; ``tenant`` is empty for nobody's.

    ``rules`` and ``frozen`` as in SetRules.
    """

    commandName = b"AskOwner"
    arguments = [(b"repository", FixedBytes(16))]
    response = [
        (b"tenant", amp.Unicode()),
        (b"rules", CBORArgument()),
        (b"frozen", amp.Boolean()),
    ]


class DeleteRepositoryPoints(BoundedCommand):
    """As :class:`..control.DeletePoints`; ``by``: ``tenant`` or ``provider``."""

    commandName = b"DeleteRepositoryPoints"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"points", CBORArgument()),
        (b"by", amp.Unicode()),
    ]
    response = [(b"points", rows_argument())]


class UndeleteRepositoryPoints(BoundedCommand):
    """As :class:`..control.UndeletePoints`."""

    commandName = b"UndeleteRepositoryPoints"
    arguments = [(b"repository", FixedBytes(16)), (b"points", CBORArgument())]
    response = [(b"points", rows_argument())]


class LockRepositoryPoints(BoundedCommand):
    """As :class:`..control.LockPoints`."""

    commandName = b"LockRepositoryPoints"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"points", CBORArgument()),
        (b"until", amp.Integer()),
    ]
    response = [(b"points", rows_argument())]


class GetRepositoryRetention(BoundedCommand):
    """As :class:`..control.GetRetention`."""

    commandName = b"GetRepositoryRetention"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
    ]
    response = [
        (b"policies", rows_argument()),
        (b"rules", CBORArgument()),
        (b"more", amp.Boolean()),
    ]


class SetRepositoryRetention(BoundedCommand):
    """As :class:`..control.SetRetention`."""

    commandName = b"SetRepositoryRetention"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"policy", CBORArgument(optional=True)),
    ]
    response = [(b"policy", CBORArgument())]


class PreviewRepositoryRetention(BoundedCommand):
    """As :class:`..control.PreviewRetention`."""

    commandName = b"PreviewRepositoryRetention"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"proposed", amp.Boolean()),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"policy", CBORArgument(optional=True)),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"decisions", rows_argument()), (b"more", amp.Boolean())]


class CollectGarbage(BoundedCommand):
    """Let expire what is due, and give back the room of what nobody needs; answered when done."""

    commandName = b"CollectGarbage"
    arguments = [(b"repository", FixedBytes(16)), (b"tenant", amp.Unicode())]
    response = [(b"result", CBORArgument())]


class ScrubRepository(BoundedCommand):
    """Compare stored bytes with their digests, those first that were not looked at for longest.

    ``limit``: bytes to read, 0 for all. Answered when done; what was found is kept as security
    warnings.
    """

    commandName = b"ScrubRepository"
    arguments = [
        (b"repository", FixedBytes(16)),
        (b"tenant", amp.Unicode()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"result", CBORArgument())]
