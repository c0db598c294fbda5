"""Layer 3: the commands of the provider's LAN link (``docs/protocol.rst``, section 10).

The Cloud Connect service speaks them with gateways, movers and target WAN accelerators: over mutual
TLS 1.3 between processes, over the in-memory transport inside one. Here is how roles register, take
part in a session and report; gateways' own commands are in :mod:`cloudconnect.commands.gateways`,
those on what is stored in :mod:`cloudconnect.commands.repositories`. Those of a tenant's LAN,
between a job manager and its own data mover and accelerator, stand at the end.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes, SecretArgument
from cloudconnect.commands.box import BoundedCommand
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


class PassedWAN(BoundedCommand):
    """On the tenant's LAN: answered once all of a session was passed on, both ways, and nothing but
    the ends of the connections to the target accelerator is due. EndWAN has to follow.

    ``counts``: as in EndWAN. Older accelerators do not know this.
    """

    commandName = b"PassedWAN"
    arguments = [(b"session", FixedBytes(16))]
    response = [(b"counts", CBORArgument())]


class EndWAN(BoundedCommand):
    """On the tenant's LAN: the session is over; answered once its last byte is out, or given up.

    ``aborted``: it has failed, and nothing is waited for. ``counts``: what was saved, as a map of
    numbers (:class:`cloudconnect.dedup.statistics.Statistics`, both ways), and more facts.
    """

    commandName = b"EndWAN"
    arguments = [(b"session", FixedBytes(16)), (b"aborted", amp.Boolean())]
    response = [(b"counts", CBORArgument())]
