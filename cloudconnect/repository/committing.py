"""Layer 3: packs that are full, on their way to the disk while the next ones are filled.

To wait for a pack to be durable takes as long as to fill the next one, where a line is fast. What
comes behind the wait stays where it was, with the thread that asked for it: a pack is in the index
only once it is complete and durable under its name, and acknowledged after that.
"""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Final

import attrs

from cloudconnect.repository.packs import PackBuilder

#: Packs that may be on their way at a time: at the end of a backup one of chunks and one of its
#: manifest's.
COMMITS_MAX: Final = 2


@attrs.frozen
class Committed:
    """A pack that is durable and not in the index yet.

    :ivar builder: what made it, which knows what is in it
    :ivar name: of the pack in the store
    :ivar size: its bytes
    """

    builder: PackBuilder
    name: str
    size: int


class PackCommits:
    """Makes packs durable, in the order in which they came; used by one thread at a time.

    :ivar beside: whether that happens in threads of its own, or before :meth:`begin` returns
    """

    def __init__(self) -> None:
        self.beside = False
        self._threads: ThreadPoolExecutor | None = None
        self._under_way: deque[tuple[PackBuilder, Future[tuple[str, int]]]] = deque()

    def __len__(self) -> int:
        """How many were begun and not returned by :meth:`take`."""
        return len(self._under_way)

    def begin(self, builder: PackBuilder) -> None:
        """Make ``builder``'s pack durable; nobody else uses ``builder`` from now on.

        What goes wrong is raised by :meth:`take`.
        """
        if self.beside:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(COMMITS_MAX, "cloudconnect-commit")
            self._under_way.append((builder, self._threads.submit(builder.commit)))
            return
        done: Future[tuple[str, int]] = Future()
        try:
            done.set_result(builder.commit())
        except Exception as error:
            done.set_exception(error)
        self._under_way.append((builder, done))

    def take(self, leave: int) -> list[Committed]:
        """The packs that are durable now, once no more than ``leave`` are on their way.

        :raises NoSpace: the disk is full
        :raises OSError: anything else that the system reports
        """
        taken: list[Committed] = []
        while self._under_way:
            builder, done = self._under_way[0]
            if len(self._under_way) <= leave and not done.done():
                break
            name, size = done.result()
            self._under_way.popleft()
            taken.append(Committed(builder, name, size))
        return taken

    def drop(self) -> list[str]:
        """Forget all that was begun; the names of those that became durable all the same."""
        durable: list[str] = []
        for builder, done in self._under_way:
            done.cancel()
            with contextlib.suppress(Exception, CancelledError):
                durable.append(done.result()[0])
            builder.discard()
        self._under_way.clear()
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        return durable
