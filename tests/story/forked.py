"""Processes that were forked off (:mod:`tests.story.forking`), as Twisted has processes."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.process import ProcessReader
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.story.forking import Forker

_ends: list[Ends] = []


class ForkedTransport:
    """What a process protocol has of a process that was forked off.

    :param protocol: of the process
    :param pid: its id
    :param streams: descriptors that its standard output and error are read from
    """

    def __init__(
        self, reactor: Any, protocol: ProcessProtocol, pid: int, streams: dict[int, int]
    ) -> None:
        self.pid = pid
        self._protocol = protocol
        self._status: int | None = None
        # Whoever forked it waits for it, so its id may be another one's before that is told here.
        self._handle = -1
        with contextlib.suppress(ProcessLookupError):
            self._handle = os.pidfd_open(pid)
        self._open = set(streams)
        for name, descriptor in streams.items():
            ProcessReader(reactor, self, name, descriptor)

    def closeStdin(self) -> None:
        """It has none."""

    def signalProcess(self, number: int) -> None:
        """Send it a signal."""
        if self._handle < 0:
            raise ProcessExitedAlready
        try:
            signal.pidfd_send_signal(self._handle, number)
        except ProcessLookupError:
            raise ProcessExitedAlready from None

    def childDataReceived(self, name: int, data: bytes) -> None:
        self._protocol.childDataReceived(name, data)

    def childConnectionLost(self, name: int, reason: Failure) -> None:
        self._open.discard(name)
        self._look()

    def has_ended(self, status: int) -> None:
        """It has, with this status, or minus the number of a signal."""
        self._status = status
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        self._look()

    def _look(self) -> None:
        status = self._status
        if status is not None and not self._open:
            self._open.add(-1)  # that was all
            number = -status if status < 0 else None
            error = ProcessTerminated(None if number else status, number) if status else None
            self._protocol.processEnded(Failure(error or ProcessDone(None)))


@implementer(IReadDescriptor)
class Ends:
    """Hears of the ends of processes, while there are some."""

    def __init__(self, root: Path) -> None:
        self.forker = Forker(root)
        self._running: dict[int, ForkedTransport] = {}
        atexit.register(self.forker.close)

    def fork(
        self,
        reactor: Any,
        protocol: ProcessProtocol,
        line: list[str],
        env: dict[str, str],
        cwd: str,
    ) -> None:
        """Start ``python LINE``."""
        streams, theirs = {}, [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)]
        for name in (1, 2):
            ours, other = os.pipe2(os.O_CLOEXEC)
            streams[name] = ours
            theirs.append(other)
        try:
            pid = self.forker.start(line, env, cwd, tuple(theirs))
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._reactor = reactor
        reactor.addReader(self)
        transport: Any = ForkedTransport(reactor, protocol, pid, streams)
        self._running[pid] = transport
        protocol.makeConnection(transport)
        self._tell()

    def doRead(self) -> None:
        _, number, status = self.forker.receive()
        self.forker.ended[number] = status
        self._tell()

    def _tell(self) -> None:
        for number in [number for number in self.forker.ended if number in self._running]:
            transport = self._running.pop(number)
            if not self._running:
                self._reactor.removeReader(self)
            transport.has_ended(self.forker.ended.pop(number))

    def fileno(self) -> int:
        return self.forker.socket.fileno()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor has stopped."""

    def logPrefix(self) -> str:
        return "forked"


def fork(
    reactor: Any,
    root: Path,
    protocol: ProcessProtocol,
    line: list[str],
    environment: dict[str, str],
    cwd: str,
) -> None:
    """Start ``python LINE``, of which the first is ``-m``, as ``spawnProcess`` does.

    :param root: folder of the modules that it runs
    """
    if not _ends:
        _ends.append(Ends(root))
    _ends[0].fork(reactor, protocol, line, environment, cwd)
