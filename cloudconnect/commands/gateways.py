"""Layer 3: the LAN link's commands between the service and a gateway.

Source: ``docs/protocol.rst``, section 10.
"""

from __future__ import annotations

from typing import ClassVar

from twisted.protocols import amp

from cloudconnect.commands.arguments import CBORArgument, FixedBytes
from cloudconnect.commands.box import BoundedCommand


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


class DrainGateway(BoundedCommand):
    """From now on the gateway accepts no connection and forgets its routes, or accepts them again.

    ``leaving``: which of both. What runs goes on.
    """

    commandName = b"DrainGateway"
    arguments = [(b"leaving", amp.Boolean())]
    response: ClassVar[list[tuple[bytes, amp.Argument]]] = []
