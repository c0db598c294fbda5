"""Layer 3: which entries of a restore point are meant."""

from __future__ import annotations

from cloudconnect.backup.drafts import FLAG_ON_THE_WAY
from cloudconnect.backup.options import RestoreOptions
from cloudconnect.content.entries import Entry, EntryType


class Selection:
    """Asked once for each entry, in walk order.

    :param options: paths, include and exclude of a restore
    """

    def __init__(self, options: RestoreOptions) -> None:
        self._paths = {path.rstrip(b"/") for path in options.paths}
        self._unseen = set(self._paths)
        self._include = options.include
        self._exclude = options.exclude
        self._included = b""  # the folder, with a slash, that we are below and that is included
        self._excluded = b""

    @property
    def partial(self) -> bool:
        """Whether not simply everything is meant."""
        return bool(self._paths or self._include or self._exclude)

    @property
    def missing(self) -> list[bytes]:
        """The paths that were asked for and have not come."""
        return sorted(path or b"/" for path in self._unseen)

    def selects(self, entry: Entry) -> bool:
        """Whether ``entry`` is meant itself, and not only as a folder on the way."""
        path, folder = entry.path, entry.type is EntryType.DIRECTORY
        if self._paths and not self._is_below_paths(path):
            return False
        if entry.flags & FLAG_ON_THE_WAY:
            return False
        return self._patterns_select(path, folder) if self._include or self._exclude else True

    def _is_below_paths(self, path: bytes) -> bool:
        whole = path if path != b"/" else b""
        found = False
        while True:
            if whole in self._paths:
                found = True
                self._unseen.discard(whole)
            if not whole:
                return found
            whole = whole[: whole.rindex(b"/")]

    def _patterns_select(self, path: bytes, folder: bool) -> bool:
        if self._excluded and path.startswith(self._excluded):
            return False
        if self._exclude.means(path, folder):
            self._excluded = path + b"/"
            return False
        if not self._include or (self._included and path.startswith(self._included)):
            return True
        if self._include.means(path, folder):
            self._included = path + b"/"
            return True
        return False
