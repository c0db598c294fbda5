"""Layer 3: the commands of the provider's LAN link (``docs/protocol.rst``, section 10).

The Cloud Connect service speaks them with gateways, movers and target WAN accelerators: over mutual
TLS 1.3 between processes, over the in-memory transport inside one. Those of a tenant's LAN, between
a job manager and its own data mover and accelerator, stand at the end.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes, SecretArgument
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument
from cloudconnect.keys import IntegrityKey, KeyA, KeyB


class OfferKeyA(BoundedCommand):
    """The Key A package for one target role, acknowledged before Start is answered.

    ``package``: a map with everything but the key (``docs/protocol.rst``, section 3). The role
    enforces it: what the tenant says differently is ``context_mismatch``.
    """

    commandName = b"OfferKeyA"
    arguments = [(b"package", CBORArgument()), (b"key_a", SecretArgument(KeyA))]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class EndSession(BoundedCommand):
    """The session is over: drop its keys and routes, and say what was seen of it.

    ``outcome``: as in Finish, or ``unreported`` where no Finish came. The points of a session that
    its tenant reports as ``failed``, ``interrupted`` or ``security_warning`` are withdrawn.
    ``warnings``: the warnings that the role raised. ``points``: ids of the points published.
    ``failed``: whether the role ended the session for a security error.
    """

    commandName = b"EndSession"
    arguments = [(b"session", FixedBytes(16)), (b"outcome", amp.Unicode())]
    response = [
        (b"warnings", CBORArgument()),
        (b"points", CBORArgument()),
        (b"failed", amp.Boolean()),
    ]


class MakeRepository(BoundedCommand):
    """Make a repository as the encoded description says."""

    commandName = b"MakeRepository"
    arguments = [(b"description", amp.String())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


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


# --- how restore points are kept --------------------------------------------------------------


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


class RemoveRepository(BoundedCommand):
    """Delete a repository with all that is in it, for good; answered when done, also where it is
    gone already. Refused where it is frozen or a restore point is locked, ``busy`` where somebody
    uses it.
    """

    commandName = b"RemoveRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


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


class MeasureRepository(BoundedCommand):
    """What a repository holds: counts and bytes, as a map of numbers."""

    commandName = b"MeasureRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response = [(b"measured", CBORArgument())]


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


class PublishRoute(BoundedCommand):
    """From now on, connections with this route id go to ``backend``.

    ``backend``: ``here`` for a role in the gateway's own process, or an address
    ``HOST:PORT`` on the provider's LAN. ``lifetime``: milliseconds until the route must have been
    used. ``group``: an opaque id that a gateway may share bandwidth by.
    """

    commandName = b"PublishRoute"
    arguments = [
        (b"route", FixedBytes(16)),
        (b"backend", amp.Unicode()),
        (b"group", FixedBytes(16)),
        (b"rate", amp.Integer()),
        (b"lifetime", amp.Integer()),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class RetireRoute(BoundedCommand):
    """No new connections with this route id."""

    commandName = b"RetireRoute"
    arguments = [(b"route", FixedBytes(16))]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class Register(BoundedCommand):
    """A gateway says that it is there, and learns where TLS connections go.

    ``advertise``: ``HOST:PORT`` that tenants can reach it at, or empty. ``pool``: the tenants of
    which pool it is for; older ones do not say. ``service``: the backend of TLS connections, as in
    PublishRoute.
    """

    commandName = b"Register"
    arguments = [(b"advertise", amp.Unicode()), (b"pool", amp.Unicode(optional=True))]
    response = [(b"service", amp.Unicode())]


class ReportLoad(BoundedCommand):
    """A gateway says what it has to do, every few seconds.

    ``connections``: that are open. ``up`` and ``down``: bytes in a second from tenants and to them.
    ``groups``: a list of pairs of a group and its relays. ``rates``: a list of pairs of a group and
    its cap at this gateway, in bytes a second.
    """

    commandName = b"ReportLoad"
    arguments = [
        (b"connections", amp.Integer()),
        (b"up", amp.Integer()),
        (b"down", amp.Integer()),
        (b"groups", CBORArgument()),
    ]
    response = [(b"rates", CBORArgument())]


class DrainGateway(BoundedCommand):
    """From now on the gateway accepts no connection and forgets its routes, or accepts them again.

    ``leaving``: which of both. What runs goes on.
    """

    commandName = b"DrainGateway"
    arguments = [(b"leaving", amp.Boolean())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class RegisterAccelerator(BoundedCommand):
    """A target WAN accelerator of its own process says that it is there.

    ``backend``: ``HOST:PORT`` on the provider's LAN that gateways relay its connections to.
    """

    commandName = b"RegisterAccelerator"
    arguments = [(b"backend", amp.Unicode())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class RegisterMover(BoundedCommand):
    """A target data mover of its own process says that it is there.

    ``backend``: ``HOST:PORT`` on the provider's LAN that gateways and accelerators reach it at.
    ``storage``: names the folder of its repositories, the same at each mover that shares it.
    ``host``: tells the host that it runs on from others.
    """

    commandName = b"RegisterMover"
    arguments = [
        (b"backend", amp.Unicode()),
        (b"storage", FixedBytes(16)),
        (b"host", amp.Unicode()),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class HasRepository(BoundedCommand):
    """Whether a mover has a repository: asked where movers have more than one storage."""

    commandName = b"HasRepository"
    arguments = [(b"repository", FixedBytes(16))]
    response = [(b"there", amp.Boolean())]


class WithdrawSession(BoundedCommand):
    """Withdraw what a session has published, whose mover was lost before it could be told to.

    ``count``: how many restore points that were.
    """

    commandName = b"WithdrawSession"
    arguments = [(b"repository", FixedBytes(16)), (b"session", FixedBytes(16))]
    response = [(b"count", amp.Integer())]


class ReportWarning(BoundedCommand):
    """A role saw something that the provider and the tenant must know."""

    commandName = b"ReportWarning"
    arguments = [(b"warning", CBORArgument())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ReportEvent(BoundedCommand):
    """One step of a session, as a role saw it."""

    commandName = b"ReportEvent"
    arguments = [(b"event", CBORArgument())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class HandKeyB(BoundedCommand):
    """On the tenant's LAN: the job manager hands a session's keys to its own data mover.

    ``route`` and ``hop`` say which stream the keys are for.
    """

    commandName = b"HandKeyB"
    arguments = [
        (b"session", FixedBytes(16)),
        (b"tenant", amp.Unicode()),
        (b"route", FixedBytes(16)),
        (b"hop", amp.Unicode()),
        (b"key_b", SecretArgument(KeyB)),
        (b"integrity_key", SecretArgument(IntegrityKey)),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class HandWAN(BoundedCommand):
    """On the tenant's LAN: the job manager hands a session to its own WAN accelerator.

    ``route``: what the mover's connection begins with. ``next_route``: what the connections to the
    target accelerator begin with, at the first of ``gateways`` (``HOST:PORT``) that takes them.
    ``hops``: the one that comes in and the one that goes on, over ``streams`` connections.
    ``cache``: names the tenant's cache: provider and repository.
    """

    commandName = b"HandWAN"
    arguments = [
        (b"session", FixedBytes(16)),
        (b"tenant", amp.Unicode()),
        (b"route", FixedBytes(16)),
        (b"next_route", FixedBytes(16)),
        (b"gateways", CBORArgument()),
        (b"hops", CBORArgument()),
        (b"streams", amp.Integer()),
        (b"cache", FixedBytes(32)),
        (b"key_b", SecretArgument(KeyB)),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class EndWAN(BoundedCommand):
    """On the tenant's LAN: the session is over; answered once its last byte is out, or given up.

    ``aborted``: it has failed, and nothing is waited for. ``counts``: what was saved, as a map of
    numbers (:class:`cloudconnect.dedup.statistics.Statistics`, both ways), and more facts.
    """

    commandName = b"EndWAN"
    arguments = [(b"session", FixedBytes(16)), (b"aborted", amp.Boolean())]
    response = [(b"counts", CBORArgument())]
