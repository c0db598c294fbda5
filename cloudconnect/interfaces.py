"""Layer 0: the interfaces at which cloudconnect's rooms meet.

Twisted's own interfaces (``ITransport``, ``IProtocol``, ``IStreamClientEndpoint`` ...) are used as
they are; here stand only those that Twisted does not have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager

from zope.interface import Attribute, Interface


class IBytePipe(Interface):
    """A blocking, ordered, flow-controlled byte pipe, for code that runs in a worker thread.

    ``cloudconnect.transports.blocking`` makes one of any transport.
    """

    def write(*parts: bytes | bytearray | memoryview) -> bool:
        """Hand over ``parts`` in order; block while too many bytes wait to be sent.

        The parts are not changed by the caller afterwards.

        :return: whether it had to wait: the line takes less than it is given
        :raises CloudConnectError: the pipe has ended (the reason of the layer below)
        """

    def read() -> bytes:
        """The next bytes, at least one; ``b""`` at the peer's authenticated end.

        :raises CloudConnectError: the pipe ended in another way
        """

    def finish() -> None:
        """End this direction properly, once everything written has been sent."""

    def abort(reason: Exception) -> None:
        """End both directions at once; ``reason`` is what later calls raise."""


class IBufferReceiver(Interface):
    """A protocol that takes received bytes without a copy.

    A layer that finds its protocol to provide this calls :meth:`bufferReceived` in the place of
    ``dataReceived``.
    """

    def bufferReceived(buffer: memoryview) -> None:
        """Take ``buffer``, which is only valid until this call returns."""


class IEndsListener(Interface):
    """A protocol that wants to know when there is nothing left but to close what is below.

    Closing takes a way there and back on a long line, and says nothing more of the connection. A
    layer that finds its protocol to provide this calls :meth:`endsMet` once; ``connectionLost``
    follows as ever.
    """

    def endsMet() -> None:
        """Both sides' authenticated ends were sent and received, and what stood before them."""


class IBlobWriter(Interface):
    """Something that is being stored (:meth:`IBlobStore.begin`); nobody sees it before its commit.

    After an error it can only be discarded: what fsync reported once is not asked for again.
    """

    size = Attribute("Bytes written so far.")

    def write(*parts: bytes | bytearray | memoryview) -> None:
        """Append ``parts`` in order; they may change afterwards.

        :raises NoSpace: the disk or the quota of the store is full
        :raises OSError: anything else that the system reports
        """

    def read(offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset`` of what was written, fewer only at the end."""

    def commit(name: str) -> int:
        """Make it durable and complete under ``name``, and return its size in bytes.

        :raises FileExistsError: there is one of this name already; it may be tried with another
        :raises NoSpace: the disk or the quota of the store is full
        :raises OSError: anything else that the system reports, fsync's EIO included
        """

    def discard() -> None:
        """Forget it; nothing happens after a commit."""


class ILease(Interface):
    """A sign that somebody uses a store (:meth:`IBlobStore.lease`)."""

    number = Attribute("What it was made with: a number, at least 0.")
    name = Attribute("Its name among all leases; None where there was no room to make one.")

    def release() -> None:
        """Take it away; nothing happens the second time."""


class IBlobStore(Interface):
    """Where packs lie: a local directory now, object storage later.

    Names are ASCII, 1 to 200 characters of ``[a-z0-9/_-]``. What :meth:`put` returned from is
    durable and complete; a reader never sees half of it.
    """

    def begin() -> IBlobWriter:
        """Begin something that is stored while it is made, and gets its name last.

        :raises NoSpace: the disk or the quota of the store is full
        """

    def put(name: str, parts: Iterable[bytes | memoryview]) -> int:
        """Store ``parts`` under ``name`` durably and return the size in bytes.

        :raises FileExistsError: there is one of this name already
        :raises NoSpace: the disk or the quota of the store is full
        :raises OSError: anything else that the system reports, fsync's EIO included
        """

    def read(name: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``.

        :raises NotFound: no such name
        :raises StoredDataDamaged: it is shorter than that
        """

    def size(name: str) -> int:
        """Size in bytes.

        :raises NotFound: no such name
        """

    def settle(name: str) -> None:
        """See to it that a name which is there is durable.

        Who gave it may have died before that.

        :raises NotFound: no such name
        :raises OSError: the system cannot
        """

    def names(prefix: str = "") -> Iterator[str]:
        """All names that begin with ``prefix``, in order."""

    def remove(name: str) -> None:
        """Remove it; nothing happens where there is none."""

    def lease(number: int) -> ILease:
        """Let everybody see that the store is being used, until it is released or we die.

        Where there is no room to say the number, it says 0.

        :param number: 0 to 2**63 - 1
        """

    def leases() -> Iterator[int]:
        """The numbers of all leases that are held now, in any process, ours included."""

    def lease_held(name: str) -> bool:
        """Whether the lease of this name is held now, in any process."""

    def exclusive(name: str, wait: bool = False) -> AbstractContextManager[None]:
        """A lock that one holder has at a time, in all processes; it ends with its process.

        :param name: of the lock: ``[a-z0-9_-]``
        :param wait: until it is free
        :raises Busy: somebody has it, and ``wait`` was not asked for
        """


class IRelayTarget(Interface):
    """Where a gateway takes a connection: in this process, or at an address."""

    description = Attribute("What the log calls it.")

    def connect(transport: object, data: bytes) -> None:
        """Take over the accepted ``transport``, whose first bytes ``data`` were already read."""
