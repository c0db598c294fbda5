"""Layer 3: the acts of a provider's admin, each declared once: its name, arguments and answer.

The command line calls them by these declarations, whether a provider runs, which answers on its
admin socket, or none does and they are done on the directory. The socket is a UNIX socket of mode
0600 in the provider's directory: whoever may read that directory may administrate.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes, SecretArgument
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument
from cloudconnect.keys import EnrollmentToken, Password


class LongCommand(BoundedCommand):
    """A command that is answered when it is done, however long that takes."""


class AddTenant(BoundedCommand):
    """Make a tenant. ``password``: the login password, or absent to have a token made.

    ``token``: the token that was made, where no password was given.
    """

    commandName = b"AddTenant"
    arguments = [
        (b"name", amp.Unicode()),
        (b"password", SecretArgument(Password, optional=True)),
        (b"settings", CBORArgument()),
    ]
    response = [(b"token", SecretArgument(Password, optional=True))]


class List(BoundedCommand):
    """One page of a listing: ``tenant``, ``credential``, ``point``, ``event``, ``session``,
    ``usage`` or ``follower``.

    ``filters``: a map of text to text. ``after``: the last row's ``cursor``, 0 at first.
    ``rows``: maps. ``more``: ask again.
    """

    commandName = b"List"
    arguments = [
        (b"what", amp.Unicode()),
        (b"filters", CBORArgument()),
        (b"after", amp.Integer()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"rows", rows_argument()), (b"more", amp.Boolean())]


# --- who logs in ---------------------------------------------------------------------------------


class Invite(BoundedCommand):
    """Invite a machine of a tenant; the tenant is made where there is none of this name.

    ``label``: of the credential that the machine will have, or empty: what is free.
    ``capabilities``: what it will be able to do, a list of words. ``seconds``: that the invitation
    is good for. ``settings``: of a new tenant, as in AddTenant; empty for one that is there.
    ``token``: good for one log-in. ``expires``: when it is over, in seconds since 1970. ``made``:
    whether the tenant is new.
    """

    commandName = b"Invite"
    arguments = [
        (b"name", amp.Unicode()),
        (b"label", amp.Unicode()),
        (b"capabilities", CBORArgument()),
        (b"seconds", amp.Integer()),
        (b"settings", CBORArgument()),
    ]
    response = [
        (b"token", SecretArgument(Password)),
        (b"label", amp.Unicode()),
        (b"expires", amp.Integer()),
        (b"made", amp.Boolean()),
    ]


class AddCredential(BoundedCommand):
    """Give a tenant another credential; ``label`` and ``capabilities`` as in Invite.

    ``certificate``: SHA-256 of the SubjectPublicKeyInfo of the certificate that it logs in with, in
    the place of a password. ``password``: its login password, or absent to have a token made, which
    is the answer.
    """

    commandName = b"AddCredential"
    arguments = [
        (b"name", amp.Unicode()),
        (b"label", amp.Unicode()),
        (b"password", SecretArgument(Password, optional=True)),
        (b"capabilities", CBORArgument()),
        (b"certificate", FixedBytes(32, optional=True)),
    ]
    response = [
        (b"label", amp.Unicode()),
        (b"token", SecretArgument(Password, optional=True)),
    ]


class RevokeCredential(BoundedCommand):
    """End a credential, or an invitation, at once, and cut what runs with it.

    ``certificate``: only the one with this certificate, as in AddCredential, of several that are
    called ``label``.
    """

    commandName = b"RevokeCredential"
    arguments = [
        (b"name", amp.Unicode()),
        (b"label", amp.Unicode()),
        (b"certificate", FixedBytes(32, optional=True)),
    ]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class SwitchTenant(BoundedCommand):
    """Let a tenant in (``enabled``), or let it do nothing (``disabled``), or put it into the bin
    too (``removed``). What it has running is cut. ``changed``: whether it was not so before.
    """

    commandName = b"SwitchTenant"
    arguments = [(b"name", amp.Unicode()), (b"state", amp.Unicode())]
    response = [(b"changed", amp.Boolean())]


# --- what is agreed with a tenant, and how points are kept ----------------------------------------


class SetTenant(BoundedCommand):
    """Change what is agreed with a tenant; what is not in ``settings`` stays.

    ``settings``: ``quota``, ``soft_quota``, ``lease_end``, ``max_tasks``, ``modes``, ``bandwidth``
    (bytes a second), ``expect_every`` (seconds), and ``rules``: a map of changed fields of
    :class:`cloudconnect.repository.rules.Rules`. ``password``: another login password;
    ``new_token``: a token in its place, which is the answer. Either way the old one ends.
    """

    commandName = b"SetTenant"
    arguments = [
        (b"name", amp.Unicode()),
        (b"password", SecretArgument(Password, optional=True)),
        (b"new_token", amp.Boolean()),
        (b"settings", CBORArgument()),
    ]
    response = [(b"token", SecretArgument(Password, optional=True))]


class ShowTenant(BoundedCommand):
    """What is agreed with a tenant, and what its repository holds, as a map."""

    commandName = b"ShowTenant"
    arguments = [(b"name", amp.Unicode())]
    response = [(b"tenant", CBORArgument())]


class Freeze(BoundedCommand):
    """Freeze a tenant (nothing is deleted, expires or is removed), or thaw it.

    ``kept``: whether that is written down; if not, the disk cannot be written, and it holds for as
    long as the provider runs.
    """

    commandName = b"Freeze"
    arguments = [(b"name", amp.Unicode()), (b"frozen", amp.Boolean())]
    response = [(b"kept", amp.Boolean())]


class ShowStatus(BoundedCommand):
    """How the provider is, as a map (:mod:`cloudconnect.provider.admin.health`).

    ``seconds``: warnings and trouble of so long.
    """

    commandName = b"ShowStatus"
    arguments = [(b"seconds", amp.Integer())]
    response = [(b"status", rows_argument())]


class Reload(BoundedCommand):
    """Read certificates and settings again; ``done``: whether this process can."""

    commandName = b"Reload"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"done", amp.Boolean())]


class Collect(LongCommand):
    """Collect the garbage of one tenant now; answered when done. ``result``: counts by name."""

    commandName = b"Collect"
    arguments = [(b"name", amp.Unicode())]
    response = [(b"result", CBORArgument())]


class Scrub(LongCommand):
    """Compare one tenant's stored bytes with their digests now; answered when done.

    ``limit``: bytes to read, 0 for all. ``result``: counts by name, and ``findings``: a list of
    texts, the first ones.
    """

    commandName = b"Scrub"
    arguments = [(b"name", amp.Unicode()), (b"limit", amp.Integer())]
    response = [(b"result", CBORArgument())]


class Seed(LongCommand):
    """Put what a tenant's repository holds into the provider's WAN cache; answered when done.

    As :class:`.lan.SeedCache`. ``result``: counts by name.
    """

    commandName = b"Seed"
    arguments = [
        (b"name", amp.Unicode()),
        (b"host", amp.Unicode()),
        (b"job", amp.Unicode()),
        (b"limit", amp.Integer()),
    ]
    response = [(b"result", CBORArgument())]


# --- the nodes of the provider's LAN --------------------------------------------------------------


class InviteNode(BoundedCommand):
    """Make a one-time token for a node.

    ``role``: ``gateway``, ``mover`` or ``accelerator``. ``seconds``: how long it may be used.
    ``identifier`` names it, ``secret`` proves it.
    """

    commandName = b"InviteNode"
    arguments = [(b"role", amp.Unicode()), (b"name", amp.Unicode()), (b"seconds", amp.Integer())]
    response = [
        (b"identifier", FixedBytes(16)),
        (b"secret", SecretArgument(EnrollmentToken)),
    ]


class NoteNode(BoundedCommand):
    """A node got a certificate by hand: ``spki`` is the fingerprint of its key."""

    commandName = b"NoteNode"
    arguments = [(b"role", amp.Unicode()), (b"name", amp.Unicode()), (b"spki", amp.Unicode())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []


class ListNodes(BoundedCommand):
    """Every node as a map, with ``connected`` and the number of its ``sessions``."""

    commandName = b"ListNodes"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"rows", rows_argument())]


class ChangeNode(BoundedCommand):
    """``act``: ``drain``, ``undrain`` or ``remove``. ``sessions``: how many it takes part in."""

    commandName = b"ChangeNode"
    arguments = [(b"role", amp.Unicode()), (b"name", amp.Unicode()), (b"act", amp.Unicode())]
    response = [(b"sessions", amp.Integer())]
