"""Layer 3: the commands of the control channel (``docs/protocol.rst``, section 2).

A tenant's job manager speaks them to the Cloud Connect service inside TLS 1.3. Every error class of
:mod:`cloudconnect.errors` may be answered, by its ``reason``.
"""

from __future__ import annotations

import enum
from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes, SecretArgument
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument
from cloudconnect.keys import KeyA, lp


class SessionKind(enum.Enum):
    """What a session is for; the target data mover holds it to that."""

    BACKUP = "backup"
    RESTORE = "restore"
    READ = "read"
    CHECK = "check"


class Role(enum.Enum):
    """The roles that a hop can begin or end at."""

    SOURCE_MOVER = "source-mover"
    TARGET_MOVER = "target-mover"
    SOURCE_WAN = "source-wan"
    TARGET_WAN = "target-wan"


#: The roles on the tenant's side, which a tenant may report warnings of.
TENANT_ROLES = frozenset({Role.SOURCE_MOVER.value, Role.SOURCE_WAN.value})
#: Channel binding of the log-in (RFC 9266): TLS exporter label, empty context.
BINDING_LABEL = b"EXPORTER-Channel-Binding"
#: What Key A's tunnels are bound to: TLS exporter label; :func:`key_a_context` is the context.
KEY_A_LABEL = b"EXPORTER-cloudconnect-key-a"
#: Size of both, in bytes.
BINDING_SIZE = 32

#: The one hop between the movers when there is no WAN acceleration.
DIRECT_HOP = f"{Role.SOURCE_MOVER.value}>{Role.TARGET_MOVER.value}"
#: The hops when there is: to the own accelerator, between the two, and from the far one.
TO_SOURCE_WAN = f"{Role.SOURCE_MOVER.value}>{Role.SOURCE_WAN.value}"
BETWEEN_WANS = f"{Role.SOURCE_WAN.value}>{Role.TARGET_WAN.value}"
FROM_TARGET_WAN = f"{Role.TARGET_WAN.value}>{Role.TARGET_MOVER.value}"
#: The hops that each target role is told of: the one that comes in, and the one that goes on.
TARGET_HOPS: dict[bool, dict[Role, tuple[str, ...]]] = {
    False: {Role.TARGET_MOVER: (DIRECT_HOP,)},
    True: {
        Role.TARGET_MOVER: (FROM_TARGET_WAN,),
        Role.TARGET_WAN: (BETWEEN_WANS, FROM_TARGET_WAN),
    },
}
#: Most connections between two accelerators.
STREAMS_MAX = 16


def key_a_context(session: bytes, role: str) -> bytes:
    """The exporter's context for the tunnel of one role: each has an exporter of its own, so that
    none could take part in another one's tunnel even if it knew that one's Key A."""
    return session + lp(role.encode())


class AuthenticateFirst(BoundedCommand):
    """Begin SCRAM-SHA-256-PLUS; the answer is the server-first message.

    ``versions``: every protocol version that the tenant speaks. ``start``: whether Start may be
    sent behind AuthenticateFinal, before that is answered. Older ones do not say, and cut the line.
    """

    commandName = b"AuthenticateFirst"
    arguments = [(b"message", amp.Unicode()), (b"versions", CBORArgument())]
    response = [(b"message", amp.Unicode()), (b"start", amp.Boolean(optional=True))]


class AuthenticateFinal(BoundedCommand):
    """Finish SCRAM; the answer proves the server and says what the tenant has here.

    ``version``: the highest common protocol version. ``provider``: the provider's id, which
    profiles, caches and heads hang on. ``repository``: the encoded repository description with its
    wrapped keys, or empty where ``connect`` has not made one yet. ``modes``: the at-rest modes that
    the provider allows this tenant. ``wan``: whether it offers WAN acceleration. ``gateways``:
    ``HOST:PORT`` of where the tenant may connect to, the one with the least load first. ``notice``:
    what will hold from some day on (:mod:`cloudconnect.commands.notice`). Older ones say none of
    the three.
    """

    commandName = b"AuthenticateFinal"
    arguments = [(b"message", amp.Unicode())]
    response = [
        (b"message", amp.Unicode()),
        (b"version", amp.Integer()),
        (b"provider", FixedBytes(16)),
        (b"repository", amp.String()),
        (b"modes", CBORArgument()),
        (b"wan", amp.Boolean(optional=True)),
        (b"gateways", CBORArgument(optional=True)),
        (b"notice", CBORArgument(optional=True)),
    ]


class AuthenticateCertificate(BoundedCommand):
    """Log in by the certificate that this side has shown in the TLS handshake, without SCRAM.

    ``login``: the log-in name. ``versions``: as in AuthenticateFirst. The answer is that of
    AuthenticateFinal, without ``message``.
    """

    commandName = b"AuthenticateCertificate"
    arguments = [(b"login", amp.Unicode()), (b"versions", CBORArgument())]
    response = AuthenticateFinal.response[1:]


class NoticeTaken(BoundedCommand):
    """A machine of the tenant has noted the pins of the provider's next keys.

    ``host``: its label. ``pins``: those that it knows now, as texts.
    """

    commandName = b"NoticeTaken"
    arguments = [(b"host", amp.Unicode()), (b"pins", CBORArgument())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ListHistory(BoundedCommand):
    """One page of what the provider has kept of the tenant's sessions, oldest first.

    ``what``: ``event`` (warnings among them) or ``session``. ``session``: only this one, as
    hexadecimal digits; empty: all. ``after``: the last row's ``cursor``, 0 at first. ``rows``:
    maps. ``more``: ask again.
    """

    commandName = b"ListHistory"
    arguments = [
        (b"what", amp.Unicode()),
        (b"session", amp.Unicode()),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"rows", rows_argument()), (b"more", amp.Boolean())]


class AcceptInvitation(BoundedCommand):
    """Spend the invitation that this connection logged in with: make the machine's own credential.

    The verifier of a login password that the tenant has just made (RFC 5802, section 3); the
    password itself never leaves it. Nothing else can be done on the connection before, and all that
    the credential allows after that. ``label``: what the credential is called.
    """

    commandName = b"AcceptInvitation"
    arguments = [
        (b"salt", FixedBytes(16)),
        (b"stored_key", FixedBytes(32)),
        (b"server_key", FixedBytes(32)),
        (b"iterations", amp.Integer()),
    ]
    response = [(b"label", amp.Unicode())]


class AcceptWithCertificate(BoundedCommand):
    """As AcceptInvitation, for a certificate in the place of a login password: the one that this
    side has shown in the TLS handshake, and so has the key of. ``label`` as there.
    """

    commandName = b"AcceptWithCertificate"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"label", amp.Unicode())]


class CreateRepository(BoundedCommand):
    """Make the tenant's repository as the encoded description says; once for each tenant."""

    commandName = b"CreateRepository"
    arguments = [(b"description", amp.String())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ReplaceDescription(BoundedCommand):
    """Take a new description of the tenant's repository: other key slots, or a new master key.

    ``head`` and ``head_signature``: its entry in the chain of heads, signed by the key before it;
    where another machine was faster the answer is ``head_moved``.
    """

    commandName = b"ReplaceDescription"
    arguments = [
        (b"description", amp.String()),
        (b"head", amp.String()),
        (b"head_signature", FixedBytes(64)),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class Start(BoundedCommand):
    """Ask for a session.

    ``kind``: a :class:`SessionKind`. ``job``: 16 bytes that stay the same over all the sessions of
    one job run. ``host`` and ``name``: the labels that points belong to. ``wan``: whether
    acceleration is wanted. ``streams``: how many parallel connections there are between the
    accelerators, 1 without them. ``session``: the new session's 16 bytes. ``plan``: for each target
    role a map with ``role``, ``route``, ``gateways``, ``versions`` and ``limits``; the keys travel
    beside it, in the same order, so that no printed plan can hold one. ``amend``: whether a Finish
    that said that all is well may be taken back by another one; older providers do not say.
    """

    commandName = b"Start"
    arguments = [
        (b"kind", amp.Unicode()),
        (b"job", FixedBytes(16)),
        (b"host", amp.Unicode()),
        (b"name", amp.Unicode()),
        (b"repository", FixedBytes(16)),
        (b"wan", amp.Boolean()),
        (b"streams", amp.Integer()),
    ]
    response = [
        (b"session", FixedBytes(16)),
        (b"plan", CBORArgument()),
        (b"keys_a", amp.ListOf(SecretArgument(KeyA))),
        (b"amend", amp.Boolean(optional=True)),
    ]


class Finish(BoundedCommand):
    """Report how a session ended, and hear what the provider's side saw of it.

    ``outcome``: ``done``, ``incomplete``, ``failed``, ``interrupted``, ``security_warning``.
    ``warnings``: the tenant's own warnings, as maps. The answer holds the provider's, and in
    ``notes`` what else it has to say, a list of texts: that the soft quota is passed. Older ones
    leave that out. Who has said that all is well may soon say once more that it is not.
    """

    commandName = b"Finish"
    arguments = [
        (b"session", FixedBytes(16)),
        (b"outcome", amp.Unicode()),
        (b"summary", CBORArgument()),
        (b"warnings", CBORArgument()),
    ]
    response = [(b"warnings", CBORArgument()), (b"notes", CBORArgument(optional=True))]


class MoveOn(BoundedCommand):
    """The provider asks to go on with a session's job in a new session.

    ``lost``: a role of the session is not there any more, and it cannot come to a good end.
    Otherwise a role is about to be stopped, and a job that cannot begin again goes on to its end.
    ``text``: why, for a person.
    """

    commandName = b"MoveOn"
    arguments = [
        (b"session", FixedBytes(16)),
        (b"lost", amp.Boolean()),
        (b"text", amp.Unicode()),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class Warn(BoundedCommand):
    """A security warning, either way, as a map of :class:`cloudconnect.events.SecurityWarning`."""

    commandName = b"SecurityWarning"
    arguments = [(b"warning", CBORArgument())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ListPoints(BoundedCommand):
    """One page of the tenant's restore points, oldest first.

    ``after``: the last arrival number already seen, 0 at first. ``more``: ask again from the last
    row's arrival number. An empty ``host``, ``job`` or ``tag`` does not filter. ``states``: a list
    of ``published``, ``deleted``, ``removed`` and ``withdrawn``; published ones where left out.
    """

    commandName = b"ListPoints"
    arguments = [
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"tag", amp.Unicode()),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
        (b"states", CBORArgument(optional=True)),
    ]
    response = [(b"points", rows_argument()), (b"more", amp.Boolean())]


class ShowAgreement(BoundedCommand):
    """What is agreed with the tenant, and how much of it is used.

    ``agreement``: a map of ``quota`` and ``soft_quota`` (bytes, or null: none), ``lease_end`` (a
    date, or null), ``max_tasks``, and of ``bytes_counted``, what counts against the quota (null
    where that cannot be told now). Older providers do not know the command.
    """

    commandName = b"ShowAgreement"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"agreement", CBORArgument())]


# --- how restore points are kept --------------------------------------------------------------

#: Most restore points that one act may name.
ACT_POINTS_MAX = 256


class DeletePoints(BoundedCommand):
    """Put restore points into the bin, all of them or none.

    ``points``: a list of at most 256 ids of 16 bytes, here and in the answers to the next two; one
    that is in the bin already stays there. ``points`` of the answer: for each a map of ``point``
    (hexadecimal digits), ``state``, ``bin_until`` and ``locked_until`` (seconds since 1970, or
    null), in the order asked. The provider refuses it for a locked point, while the tenant is
    frozen, and where the bin is full (``no_space``).
    """

    commandName = b"DeletePoints"
    arguments = [(b"points", CBORArgument())]
    response = [(b"points", rows_argument())]


class UndeletePoints(BoundedCommand):
    """Take restore points out of the bin again, all of them or none."""

    commandName = b"UndeletePoints"
    arguments = [(b"points", CBORArgument())]
    response = [(b"points", rows_argument())]


class LockPoints(BoundedCommand):
    """Nobody can delete these restore points until a moment, in whole seconds since 1970.

    A lock can be made longer, never shorter.
    """

    commandName = b"LockPoints"
    arguments = [(b"points", CBORArgument()), (b"until", amp.Integer())]
    response = [(b"points", rows_argument())]


class GetRetention(BoundedCommand):
    """One page of what is kept of which host and job.

    ``after``: number of rows already seen. ``policies``: maps of ``host`` and ``job`` (empty: of
    every one), ``policy`` (a map, or null: keep everything), ``set_time``, and where another one is
    to take its place ``has_pending``, ``pending`` and ``pending_time``. ``rules``: what the
    provider demands and allows.
    """

    commandName = b"GetRetention"
    arguments = [(b"after", amp.Integer()), (b"limit", amp.Integer())]
    response = [
        (b"policies", rows_argument()),
        (b"rules", CBORArgument()),
        (b"more", amp.Boolean()),
    ]


class SetRetention(BoundedCommand):
    """Set what is kept of a host and a job; empty: of every one.

    ``policy``: a map of ``keep_last``, ``keep_hourly``, ``keep_daily``, ``keep_weekly``,
    ``keep_monthly``, ``keep_yearly`` and ``keep_within`` (seconds); left out: keep everything. What
    keeps less than before takes force only after the days that the provider set. The answer is the
    row of GetRetention.
    """

    commandName = b"SetRetention"
    arguments = [
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"policy", CBORArgument(optional=True)),
    ]
    response = [(b"policy", CBORArgument())]


class PreviewRetention(BoundedCommand):
    """One page of what retention would keep and remove, and why, without doing it.

    ``proposed``: as if ``policy`` were set for ``host`` and ``job``, and in force; otherwise these
    three are not looked at. ``decisions``: maps of ``arrival``, ``point``, ``host``, ``job``,
    ``time``, ``keep`` and ``why`` (a list of texts). ``after``: the last arrival number already
    seen.
    """

    commandName = b"PreviewRetention"
    arguments = [
        (b"proposed", amp.Boolean()),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"policy", CBORArgument(optional=True)),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"decisions", rows_argument()), (b"more", amp.Boolean())]


class GatewaysChanged(BoundedCommand):
    """The provider tells a tenant where it may connect to from now on, as in AuthenticateFinal.

    ``leaving``: gateways that are to stop. What runs through one of them should go on, in a new
    session, through another.
    """

    commandName = b"GatewaysChanged"
    arguments = [(b"gateways", CBORArgument()), (b"leaving", CBORArgument())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class Ping(BoundedCommand):
    """Nothing but a sign of life, either way."""

    commandName = b"Ping"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []
