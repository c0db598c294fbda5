"""Layer 3: the commands of the provider's admin socket.

One command for all acts: the words are those of the command line, the answer is what it prints.
The socket is a UNIX socket of mode 0600 in the provider's directory: whoever may read that
directory may administrate.
"""

from __future__ import annotations

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
    """One page of a listing: ``tenant``, ``point``, ``event`` or ``session``.

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
