"""Layer 3: the commands of the provider's admin socket.

One command for all acts: the words are those of the command line, the answer is what it prints.
The socket is a UNIX socket of mode 0600 in the provider's directory: whoever may read that
directory may administrate.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, SecretArgument
from cloudconnect.commands.box import BoundedCommand
from cloudconnect.commands.paging import rows_argument
from cloudconnect.keys import Password


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
    """One page of a listing: ``tenant``, ``point``, ``event``, ``session``, ``usage`` or
    ``follower``.

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


class Reload(BoundedCommand):
    """Read certificates and settings again; ``done``: whether this process can."""

    commandName = b"Reload"
    arguments: ClassVar[list[tuple[bytes, amp.Argument]]] = []
    response = [(b"done", amp.Boolean())]


class Collect(BoundedCommand):
    """Collect the garbage of one tenant now; answered when done. ``result``: counts by name."""

    commandName = b"Collect"
    arguments = [(b"name", amp.Unicode())]
    response = [(b"result", CBORArgument())]


class Scrub(BoundedCommand):
    """Compare one tenant's stored bytes with their digests now; answered when done.

    ``limit``: bytes to read, 0 for all. ``result``: counts by name, and ``findings``: a list of
    texts, the first ones.
    """

    commandName = b"Scrub"
    arguments = [(b"name", amp.Unicode()), (b"limit", amp.Integer())]
    response = [(b"result", CBORArgument())]


class Seed(BoundedCommand):
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
