"""Layer 6: notices that a process's files were changed: by SIGHUP, or from the system (inotify).

Nothing is polled. Where the system cannot tell, SIGHUP and ``provider reload`` still do. What was
changed in a file of settings and can be used while the process runs is used, and the log says what
waits for the next start.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, Final

import attrs
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from cloudconnect.errors import UsageError

#: Files are often changed one after the other: it is looked at them when nothing has changed for so
#: many seconds.
SETTLE_SECONDS: Final = 1.0


def changed_settings(before: Any, after: Any) -> list[str]:
    """The names of the settings in which two attrs objects of one class differ."""
    names = [field.name for field in attrs.fields(type(before))]
    return sorted(name for name in names if getattr(before, name) != getattr(after, name))


def tell_late(log: Logger, changed: Iterable[str], used: Collection[str]) -> None:
    """Say which of the settings that were changed need a new start.

    :param used: those that do not
    """
    late = [name for name in changed if name not in used]
    if late:
        log.warn("{names}: used from the next start on", names=", ".join(late))


class SettingsFile:
    """The settings of a process that runs.

    :param settings: those that hold: an attrs object
    :param load: reads them again; raises :class:`UsageError` where they cannot be used
    :param used: the names of those that are used without a new start
    :param use: takes the settings as they are now
    """

    _log = Logger()

    def __init__(
        self,
        settings: Any,
        load: Callable[[], Any],
        used: Collection[str],
        use: Callable[[Any], None],
    ) -> None:
        self._settings = settings
        self._load = load
        self._used = used
        self._use = use

    def read_again(self) -> None:
        """Use what was changed and can be used; what cannot changes nothing, and is logged."""
        try:
            settings = self._load()
            changed = changed_settings(self._settings, settings)
            now = [name for name in changed if name in self._used]
            if now:
                self._use(settings)
        except UsageError as error:
            self._log.error("not read again: {why}", why=str(error))
            return
        self._settings = settings
        if now:
            self._log.info("{names}: used from now on", names=", ".join(now))
        tell_late(self._log, changed, self._used)


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
