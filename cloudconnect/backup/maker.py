"""Layer 3: the restore's side of the process that makes small files for it.

Files are gathered into batches, whose content lies in memory that is shared with the process
(:mod:`cloudconnect.backup.making`), and their outcome is taken when it comes. What must wait until
the files of a folder are there, such as the folder's own time, is done then.
"""

from __future__ import annotations

import contextlib
import marshal
import mmap
import os
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar

from cloudconnect.backup.making import ANSWER, BATCH, FAILED, FOLDERS_MAX
from cloudconnect.errors import LocalError

#: A batch is sent when it has so many files ...
BATCH_FILES: Final = 256
#: ... or no room for another one's content. Bytes; a larger file cannot be made here.
BATCH_BYTES: Final = 1 << 20
#: Batches there is memory for: one is filled while the others are made or wait.
BATCHES: Final = 4
#: How long it is waited for the process to start whenever that is asked: not at all, as the restore
#: can make files itself meanwhile.
READY_SECONDS: Final = 0.0
#: Of the environment the process gets only what it may need to be found and loaded.
_ENVIRONMENT: Final = ("PATH", "LD_LIBRARY_PATH")
_PROGRAM: Final = Path(__file__).with_name("making.py")

_T = TypeVar("_T")
_Then = Callable[[], None]


class _Batch(Generic[_T]):
    """Files that are made together.

    :param place: of their content in the shared memory
    :ivar size: bytes of their content
    :ivar folders: descriptors, this object's own until they are sent
    :ivar numbers: of the folders, by what their owner calls them
    :ivar behind: what is to be done when all of them were made
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.files: list[tuple[int, bytes, int, int, int]] = []
        self.whose: list[_T] = []
        self.size = 0
        self.folders: list[int] = []
        self.numbers: dict[int, int] = {}
        self.behind: list[_Then] = []


class FileMaker(Generic[_T]):
    """Has files made by another process; used by one thread.

    :param made: called with what :meth:`add` was given for each file, and 0 or the errno with which
        it could not be made; it may not call this object
    :ivar broken: the process has ended before its time: of what it was sent, anything may be there
    :raises OSError: the process cannot be started
    """

    def __init__(self, made: Callable[[_T, int], None]) -> None:
        self._made = made
        self._places = [BATCH_BYTES * number for number in range(BATCHES)]
        self._batch: _Batch[_T] = _Batch(self._places.pop())
        self._sent: deque[_Batch[_T]] = deque()
        size = BATCH_BYTES * BATCHES
        memory = os.memfd_create("cloudconnect-content")
        try:
            os.ftruncate(memory, size)
            self._memory = mmap.mmap(memory, size)
            self._socket, theirs = socket.socketpair()
            with theirs:
                passed = (theirs.fileno(), memory)
                try:
                    self._process = subprocess.Popen(  # noqa: S603 - this program's own file
                        [sys.executable, "-I", "-S", str(_PROGRAM), *map(str, passed)],
                        stdin=subprocess.DEVNULL,
                        pass_fds=passed,
                        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                    )
                except BaseException:
                    self._socket.close()
                    raise
        finally:
            os.close(memory)
        self._started = False
        self.broken = False

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
        pieces: Sequence[bytes | memoryview],
        whose: _T,
    ) -> None:
        """Have a file made.

        :param folder: what its folder is called here, a number that no other folder has meanwhile
        :param parent: the folder's descriptor, which may be closed afterwards
        :param pieces: its content, at most :data:`BATCH_BYTES`; it is copied
        :param whose: is told of it
        :raises ValueError: it is larger
        :raises LocalError: the process has ended
        """
        batch = self._batch
        size = len(pieces[0]) if len(pieces) == 1 else sum(map(len, pieces))
        if size > BATCH_BYTES:
            raise ValueError("a file does not fit into a batch")
        if batch.size + size > BATCH_BYTES:
            self._send()
            batch = self._batch
        number = batch.numbers.get(folder)
        if number is None:
            if len(batch.folders) >= FOLDERS_MAX:
                self._send()
                batch = self._batch
            number = batch.numbers[folder] = len(batch.folders)
            batch.folders.append(os.dup(parent))
        batch.files.append((number, name, mode, mtime_ns, size))
        batch.whose.append(whose)
        at = batch.place + batch.size
        for piece in pieces:
            self._memory[at : at + len(piece)] = piece
            at += len(piece)
        batch.size += size
        if len(batch.files) >= BATCH_FILES:
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
        self._batch = _Batch(self._batch.place)
        self._memory.close()

    def _send(self) -> None:
        batch = self._batch
        if not batch.files:
            if batch.behind and not self._sent:
                behind, batch.behind = batch.behind, []
                for then in behind:
                    then()
            elif batch.behind:
                self._sent[-1].behind += batch.behind
                batch.behind = []
            return
        listed = marshal.dumps(batch.files)
        part = BATCH.pack(len(listed), batch.place) + listed
        while not self._places or self._answered():
            self._take()
        self._batch = _Batch(self._places.pop())
        self._sent.append(batch)
        try:
            # The descriptors go with the first byte.
            first = socket.send_fds(self._socket, [part], batch.folders)
            if first < len(part):
                self._socket.sendall(memoryview(part)[first:])
        except OSError as error:
            raise self._ended(f": {error}") from error
        finally:
            for descriptor in batch.folders:
                os.close(descriptor)
            batch.folders = []

    def _answered(self) -> bool:
        """Whether there is an answer."""
        return bool(self._sent and select.select([self._socket], [], [], 0)[0])

    def _take(self) -> None:
        """Take the answer to the batch that was sent first."""
        (size,) = ANSWER.unpack(self._received(ANSWER.size))
        failed = dict(FAILED.iter_unpack(self._received(size)))
        batch = self._sent.popleft()
        self._places.append(batch.place)
        for number, whose in enumerate(batch.whose):
            self._made(whose, failed.get(number, 0))
        self._done(batch)

    def _received(self, size: int) -> bytes:
        octets = b""
        while len(octets) < size:
            try:
                more = self._socket.recv(size - len(octets))
            except OSError as error:
                raise self._ended(f": {error}") from error
            if not more:
                raise self._ended()
            octets += more
        return octets

    def _ended(self, why: str = "") -> LocalError:
        self.broken = True
        return LocalError(f"the process that makes files has ended{why}")

    @staticmethod
    def _done(batch: _Batch[_T]) -> None:
        for descriptor in batch.folders:
            os.close(descriptor)
        batch.folders = []
        for then in batch.behind:
            then()
