"""Layer 6: notices that a process's files were changed: by SIGHUP, or from the system (inotify).

Nothing is polled. Where the system cannot tell, SIGHUP and ``provider reload`` still do.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.filepath import FilePath

#: Files are often changed one after the other: it is looked at them when nothing has changed for so
#: many seconds.
SETTLE_SECONDS: Final = 1.0


class ChangeWatch(Service):
    """Calls ``changed`` after SIGHUP, and when one of some files was written, moved or removed.

    :param reactor: clock, descriptors and threads
    :param paths: the files; their folders are watched, also those that links lead to
    :param changed: what to do
    """

    _log = Logger()

    def __init__(self, reactor: Any, paths: Iterable[Path], changed: Callable[[], None]) -> None:
        self._reactor = reactor
        self._paths = tuple(paths)
        self._changed = changed
        self._notifier: Any = None
        self._before: Any = None
        self._due: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to watch."""
        super().startService()  # type: ignore[no-untyped-call]
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(
                signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._soon, 0.0)
            )
        try:
            from twisted.internet.inotify import INotify

            notifier: Any = INotify(self._reactor)
            notifier.startReading()
        except Exception as error:  # not on this system, or too many watches
            self._log.info("changed files are not noticed ({why}), SIGHUP is", why=str(error))
            return
        self._notifier = notifier
        for folder in self._folders():
            try:
                notifier.watch(FilePath(str(folder)), mask=_mask(), callbacks=[self._seen])
            except OSError as error:
                self._log.info("{where} is not watched: {why}", where=folder, why=str(error))

    def stopService(self) -> None:
        """Watch no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._notifier is not None:
            self._notifier.stopReading()
            self._notifier.loseConnection()
            self._notifier = None
        if self._due is not None and self._due.active():
            self._due.cancel()
        if self._before is not None:
            signal.signal(signal.SIGHUP, self._before)
            self._before = None

    def _folders(self) -> list[Path]:
        found = [folder for path in self._paths for folder in (path.parent, path.resolve().parent)]
        return [folder for folder in dict.fromkeys(found) if folder.is_dir()]

    def _seen(self, _: Any, path: FilePath[bytes], mask: int) -> None:
        names = {name for path in self._paths for name in (path.name, path.resolve().name)}
        if path.basename().decode("utf-8", "replace") in names:
            self._soon(SETTLE_SECONDS)

    def _soon(self, seconds: float) -> None:
        if self._due is not None and self._due.active():
            self._due.reset(seconds)
        elif self.running:
            self._due = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        try:
            self._changed()
        except Exception:
            self._log.failure("what was changed cannot be used")


def _mask() -> int:
    from twisted.internet import inotify

    return inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_TO | inotify.IN_CREATE | inotify.IN_DELETE
