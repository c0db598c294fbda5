"""Layer 5: makes the catalogues of repositories again, from what lies in them.

Packs say what is in them, and each restore point lies beside its references. Only the retention
policies lie nowhere else: they are taken from a catalogue that is known, where it can be read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from cloudconnect.config.provider import ProviderSettings
from cloudconnect.errors import CloudConnectError
from cloudconnect.repository.database import sqlite_url
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.retention import RetentionRow
from cloudconnect.repository.store import Repository


@attrs.frozen
class Rebuilt:
    """A repository's catalogue that was made again.

    :ivar repository: its name, in hexadecimal
    :ivar points: restore points that it has
    :ivar policies: retention policies that were kept
    :ivar damaged: a sentence for everything that could not be used
    """

    repository: str
    points: int
    policies: int
    damaged: tuple[str, ...]


def rebuild_all(
    settings: ProviderSettings,
    wanted: Callable[[str], bool] = lambda name: True,
    read_data: bool = False,
) -> list[Rebuilt]:
    """Make catalogues again from what lies in the repositories, and from nothing else.

    Retention policies are taken from the catalogues that are there, where they can be read.

    :param wanted: which repositories, by their names in hexadecimal
    """
    return [
        rebuild(folder, folder / CATALOGUE, read_data)
        for folder in repositories_in(settings)
        if wanted(folder.name)
    ]


def rebuild(folder: Path, known: Path, read_data: bool = False) -> Rebuilt:
    """Make one repository's catalogue again.

    :param folder: the repository's
    :param known: a catalogue that has its retention policies; it need not be there
    """
    policies = _policies(folder, known)
    aside = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for suffix in ("", "-wal", "-shm"):
        put_aside(folder / f"{CATALOGUE}{suffix}", aside)
    with Repository.recover(folder) as repository:
        result = repository.rebuild_index(read_data)
        kept = 0
        for row in policies:
            with contextlib.suppress(CloudConnectError):  # outside of the rules by now
                repository.set_retention(row.host, row.job, row.policy)
                kept += 1
        points = len(repository.points())
    return Rebuilt(folder.name, points, kept, result.damaged)


def _policies(folder: Path, known: Path) -> list[RetentionRow]:
    """The policies in a catalogue; none where it is missing or damaged."""
    if not known.exists():
        return []
    try:
        with _copied(known) as copy:
            url = sqlite_url(os.fspath(copy))
            with Repository.open(folder, url, lease=False) as opened:
                return opened.retention()
    except (CloudConnectError, OSError, sqlite3.Error):
        return []


# --- files ---------------------------------------------------------------------------------------


def repositories_in(settings: ProviderSettings) -> list[Path]:
    """The folders of a provider's repositories, in order."""
    if not settings.repositories.is_dir():
        return []
    return [
        path
        for path in sorted(settings.repositories.iterdir())
        if path.is_dir() and len(path.name) == 32 and not set(path.name) - set("0123456789abcdef")
    ]


@contextlib.contextmanager
def _copied(known: Path) -> Iterator[Path]:
    """A copy of a data base that may be migrated, and is removed afterwards."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cloudconnect-") as folder:
        copy = Path(folder) / "copy.sqlite"
        copy_database(known, copy)
        yield copy


def copy_database(source: Path, target: Path) -> None:
    """Copy a SQLite data base as of one moment, also while others write to it.

    :raises FileNotFoundError: there is none
    """
    if not source.exists():
        raise FileNotFoundError(os.fspath(source))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
    with (
        contextlib.closing(sqlite3.connect(source, timeout=60)) as read,
        contextlib.closing(sqlite3.connect(target)) as written,
    ):
        read.execute("PRAGMA query_only=ON")
        read.backup(written)
        written.execute("PRAGMA journal_mode=DELETE")
        written.commit()
    _sync(target)


def put_aside(path: Path, suffix: str) -> None:
    """Give a file that is there another name, so that it is not lost."""
    if path.exists():
        shutil.move(path, path.with_name(f"{path.name}.{suffix}"))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
