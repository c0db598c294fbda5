"""Layer 3: the restore's side of the process that makes small files for it.

Files are gathered into batches, sent to the process (:mod:`cloudconnect.backup.making`), and their
outcome is taken when it comes. What must wait until the files of a folder are there, such as the
folder's own time, is done then.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from cloudconnect.backup.making import ANSWER, BATCH, FAILED, FOLDERS_MAX
from cloudconnect.errors import LocalError

#: A batch is sent when it has so many files ...
BATCH_FILES: Final = 256
#: ... or so many bytes of content.
BATCH_BYTES: Final = 512 << 10
#: Batches that are sent and not answered; more wait.
BATCHES_MAX: Final = 4
#: How long it is waited for the process to start whenever that is asked: not at all, as the restore
#: can make files itself meanwhile.
READY_SECONDS: Final = 0.0
#: Pieces that the system takes in one call; it takes 1,024 at most.
_PIECES: Final = 512
#: Of the environment the process gets only what it may need to be found and loaded.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH")
_PROGRAM: Final = Path(__file__).with_name("making.py")

_T = TypeVar("_T")
_Then = Callable[[], None]


class _Batch(Generic[_T]):
    """Files that are made together.

    :ivar folders: descriptors, this object's own until they are sent
    :ivar numbers: of the folders, by what their owner calls them
    :ivar behind: what is to be done when all of them were made
    """

    def __init__(self) -> None:
        self.files: list[tuple[int, bytes, int, int, int]] = []
        self.whose: list[_T] = []
        self.pieces: list[bytes | memoryview] = []
        self.size = 0
        self.folders: list[int] = []
        self.numbers: dict[int, int] = {}
        self.behind: list[_Then] = []


class FileMaker(Generic[_T]):
    """Has files made by another process; used by one thread.

    :param made: called with what :meth:`add` was given for each file, and 0 or the errno with which
        it could not be made; it may not call this object
    :raises OSError: the process cannot be started
    """

    def __init__(self, made: Callable[[_T, int], None]) -> None:
        self._made = made
        self._batch: _Batch[_T] = _Batch()
        self._sent: deque[_Batch[_T]] = deque()
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            try:
                self._process = subprocess.Popen(  # noqa: S603 - this program's own file
                    [sys.executable, "-I", "-S", str(_PROGRAM), str(number)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(number,),
                    env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                )
            except BaseException:
                ours.close()
                raise
        self._socket = ours
        self._started = False

    @property
    def ready(self) -> bool:
        """Whether the process has started and files may be added.

        :raises LocalError: it has ended before it came to that
        """
        if not self._started and select.select([self._socket], [], [], READY_SECONDS)[0]:
            self._received(ANSWER.size)
            self._started = True
        return self._started

    def add(
        self,
        folder: int,
        parent: int,
        name: bytes,
        mode: int,
        mtime_ns: int,
        pieces: list[bytes],
        whose: _T,
    ) -> None:
        """Have a file made.

        :param folder: what its folder is called here, a number that no other folder has meanwhile
        :param parent: the folder's descriptor, which may be closed afterwards
        :param pieces: its content
        :param whose: is told of it
        :raises LocalError: the process has ended
        """
        batch = self._batch
        number = batch.numbers.get(folder)
        if number is None:
            if len(batch.folders) >= FOLDERS_MAX:
                self._send()
                batch = self._batch
            number = batch.numbers[folder] = len(batch.folders)
            batch.folders.append(os.dup(parent))
        size = sum(map(len, pieces))
        batch.files.append((number, name, mode, mtime_ns, size))
        batch.whose.append(whose)
        batch.pieces += pieces
        batch.size += size
        if len(batch.files) >= BATCH_FILES or batch.size >= BATCH_BYTES:
            self._send()

    def has(self, folder: int) -> bool:
        """Whether files of a folder are not known to be made yet."""
        return any(folder in batch.numbers for batch in (self._batch, *self._sent))

    def afterwards(self, then: Callable[[], None]) -> None:
        """Do something when everything that was added was made, in :meth:`add` or :meth:`finish`;
        it must not raise."""
        self._batch.behind.append(then)

    def finish(self) -> None:
        """Wait until everything was made.

        :raises LocalError: the process has ended
        """
        self._send()
        while self._sent:
            self._take()

    def close(self) -> None:
        """End the process, once it has made what was sent; what was not is dropped.

        What was to be done afterwards is done all the same.
        """
        with contextlib.suppress(LocalError):
            while self._sent:
                self._take()
        self._socket.close()
        self._process.wait()
        for batch in (*self._sent, self._batch):
            self._done(batch)
        self._sent.clear()
        self._batch = _Batch()

    def _send(self) -> None:
        batch = self._batch
        if not batch.files:
            if batch.behind and not self._sent:
                self._batch = _Batch()
                self._done(batch)
            elif batch.behind:
                self._sent[-1].behind += batch.behind
                batch.behind = []
            return
        while len(self._sent) >= BATCHES_MAX or self._answered():
            self._take()
        self._batch = _Batch()
        self._sent.append(batch)
        listed = marshal.dumps(batch.files)
        parts: list[bytes | memoryview] = [BATCH.pack(len(listed), batch.size) + listed]
        parts += [piece for piece in batch.pieces if len(piece)]
        batch.pieces = []
        try:
            # The descriptors go with the first byte.
            first = socket.send_fds(self._socket, parts[:1], batch.folders)
            parts[0] = memoryview(parts[0])[first:]
            for at in range(0, len(parts), _PIECES):
                self._send_all(parts[at : at + _PIECES])
        except OSError as error:
            raise LocalError(f"the process that makes files has ended: {error}") from error
        finally:
            for descriptor in batch.folders:
                os.close(descriptor)
            batch.folders = []

    def _send_all(self, parts: list[bytes | memoryview]) -> None:
        size = sum(map(len, parts))
        sent = self._socket.sendmsg(parts)
        if sent < size:
            self._socket.sendall(memoryview(b"".join(parts))[sent:])

    def _answered(self) -> bool:
        """Whether there is an answer."""
        return bool(self._sent and select.select([self._socket], [], [], 0)[0])

    def _take(self) -> None:
        """Take the answer to the batch that was sent first."""
        (size,) = ANSWER.unpack(self._received(ANSWER.size))
        failed = dict(FAILED.iter_unpack(self._received(size)))
        batch = self._sent.popleft()
        for number, whose in enumerate(batch.whose):
            self._made(whose, failed.get(number, 0))
        self._done(batch)

    def _received(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            try:
                more = self._socket.recv(size - len(octets))
            except OSError as error:
                raise LocalError(f"the process that makes files has ended: {error}") from error
            if not more:
                raise LocalError("the process that makes files has ended")
            octets += more
        return octets

    @staticmethod
    def _done(batch: _Batch[_T]) -> None:
        for descriptor in batch.folders:
            os.close(descriptor)
        batch.folders = []
        for then in batch.behind:
            then()
