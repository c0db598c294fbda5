"""Layer 2, transports: taking over the socket of a reactor's TCP or UNIX transport.

This is the only code that does. Twisted's transports copy what they send and allocate what they
receive; who needs neither reads and writes the socket in a way of its own. :func:`take_over`
replaces two methods of one transport *object*, ``doRead`` and ``doWrite``, which every reactor
that watches descriptors looks up at each call. All else stays Twisted's: the descriptor's
registration, errors and ends of the connection, ``connectionLost`` of whatever protocol the
transport has, the peer's address, socket options, closing.

**The change of hands.** What the transport still queues must leave first. A pull producer tells:
Twisted asks it for the first bytes when it is registered, and a second time once all is sent. From
then on nothing may be written to the transport itself; what is, stays in its queue for ever.

Source: Twisted's ``twisted.internet.abstract.FileDescriptor`` and the reactors that watch it.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

#: Send and receive buffer asked for on a UNIX socket, in bytes; a TCP socket's grow by themselves.
UNIX_BUFFER: Final = 1 << 20

#: The methods that are replaced must be the ones that this code knows.
_READS: Final = (tcp.Connection.doRead, unix.Server.doRead)
_WRITES: Final = (tcp.Connection.doWrite,)
_KINDS: Final = (tcp.Client, tcp.Server, unix.Client, unix.Server)

#: As a reactor calls it: None, or why the connection is over.
Work = Callable[[], Exception | None]


def can_own(transport: object) -> bool:
    """Whether ``transport`` is a reactor's own TCP or UNIX transport, and nothing but that."""
    if not isinstance(transport, _KINDS):
        return False
    cls = type(transport)
    known = cls.doRead in _READS and cls.doWrite in _WRITES
    return known and not vars(transport).keys() & {"doRead", "doWrite"} and not transport.TLS


@implementer(IPullProducer)
class _Drained:
    """Calls ``drained`` when it is asked for bytes a second time."""

    def __init__(self, drained: Callable[[], None]) -> None:
        self._drained = drained
        self._asked = False

    def resumeProducing(self) -> None:
        if self._asked:
            self._drained()
        self._asked = True

    def stopProducing(self) -> None:
        """The connection is lost; its protocol hears of it."""


def take_over(transport: Any, read: Work, write: Work, done: Callable[[], None]) -> None:
    """Read nothing more, send what ``transport`` queues, then hand its socket over.

    :param transport: for which :func:`can_own` holds, without a producer registered on it
    :param read: called in the place of ``doRead``; returns what that does
    :param write: called in the place of ``doWrite``
    :param done: called, in a later turn, when they are in place; never if the connection ends
        before. Reading begins with the transport's ``resumeProducing``.
    :raises RuntimeError: there is a producer
    """

    def drained() -> None:
        transport.unregisterProducer()
        transport.stopWriting()
        transport.doRead, transport.doWrite = read, write
        with contextlib.suppress(OSError):
            _tune(transport)
        done()

    transport.registerProducer(_Drained(drained), False)
    transport.pauseProducing()
    transport.startWriting()


def let_go(transport: Any) -> None:
    """Take our methods off a transport whose connection is lost, so that it can be freed.

    :param transport: one that :func:`take_over` was called with
    """
    vars(transport).pop("doRead", None)
    vars(transport).pop("doWrite", None)


def hear_loss(transport: Any, lost: Callable[[], None]) -> bool:
    """Call ``lost`` once when a connection is gone, whatever its protocol is then.

    :param transport: a reactor's, or one in memory
    :param lost: called before the protocol hears of it
    :return: whether it will be called; of layers over other transports it cannot be said
    """
    if not hasattr(transport, "connectionLost") or hasattr(transport, "wrappedProtocol"):
        return False
    original = transport.connectionLost

    def connection_lost(reason: Any) -> None:
        vars(transport).pop("connectionLost", None)
        lost()
        original(reason)

    transport.connectionLost = connection_lost
    return True


def _tune(transport: Any) -> None:
    """Set what bulk needs; the connection works without it."""
    taken: socket.socket = transport.getHandle()
    if taken.family == socket.AF_UNIX:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            taken.setsockopt(socket.SOL_SOCKET, option, UNIX_BUFFER)
        return
    # Who owns a socket gathers small writes itself; to hold them back costs up to 40 ms each.
    taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    same_machine = transport.getHost().host == transport.getPeer().host
    if same_machine and hasattr(socket, "TCP_CONGESTION"):
        # There is no line to probe, and BBR's pacing timers cost a fifth of a stream's CPU.
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
