"""Layer 5: what a provider knows, backed up while it runs, and brought back.

The packs and restore points of tenants are not in it: they are what this finds again. In it are
the accounts data base, the catalogue of each repository, ``provider.toml``, certificates and keys,
and the audit log: a folder of some megabytes that whoever has it can be the provider with.

A repository's catalogue is never put back as it was: points may have come and gone since, and an
old catalogue would name what is no more. It is made again from what lies in the repository, and
only the retention policies, which lie nowhere else, are taken from the backup.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from cloudconnect.config.profile import write_private
from cloudconnect.config.provider import CONFIGURATION, ProviderSettings, load
from cloudconnect.errors import CloudConnectError, NotFound, StoredDataDamaged, UsageError
from cloudconnect.provider.audit import segments
from cloudconnect.repository.database import sqlite_url
from cloudconnect.repository.opening import CATALOGUE
from cloudconnect.repository.retention import RetentionRow
from cloudconnect.repository.store import Repository

#: The list of what a backup holds, written last: without it, it is none.
MANIFEST: Final = "manifest.json"
#: Files and folders of a provider's directory that are taken as they are.
_PLAIN: Final = (CONFIGURATION, "tls", "lan", "keys", "audit", "wan.key")
_ACCOUNTS: Final = "accounts.sqlite"


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


def back_up(settings: ProviderSettings, target: Path) -> dict[str, Any]:
    """Write a backup into a new folder; the provider may run.

    Each data base is copied as of one moment, the accounts first: whatever repository they name is
    in the backup too.

    :return: what the manifest says
    :raises UsageError: there is something in ``target`` already
    """
    target = target.absolute()
    if target.exists() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty: choose a new folder for the backup")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.chmod(0o700)
    _copy_database(settings.directory / _ACCOUNTS, target / _ACCOUNTS)
    repositories = []
    for folder in _repositories(settings):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            _copy_database(folder / CATALOGUE, target / "catalogues" / f"{folder.name}.sqlite")
            repositories.append(folder.name)
    for name in _PLAIN:
        _copy_plain(settings.directory / name, target / name)
    manifest = {
        "version": 1,
        "time": time.time(),
        "repositories": repositories,
        "files": {name: _digest(target / name) for name in _names(target)},
    }
    write_private(target / MANIFEST, json.dumps(manifest, indent=1).encode())
    _sync_folder(target)
    return manifest


def check(source: Path) -> dict[str, Any]:
    """Whether a backup is whole; what its manifest says.

    :raises NotFound: there is none
    :raises StoredDataDamaged: a file is missing, or was changed
    """
    try:
        manifest: dict[str, Any] = json.loads((source / MANIFEST).read_bytes())
        files = dict(manifest["files"])
    except FileNotFoundError:
        raise NotFound(f"there is no whole backup in {source}") from None
    except (ValueError, KeyError, TypeError):
        raise StoredDataDamaged(f"{source / MANIFEST} is damaged") from None
    for name, digest in files.items():
        if name.startswith("/") or ".." in Path(name).parts:
            raise StoredDataDamaged(f"{source / MANIFEST} names what is not in the backup")
        try:
            found = _digest(source / name)
        except OSError:
            raise StoredDataDamaged(f"{name} is missing in {source}") from None
        if found != digest:
            raise StoredDataDamaged(f"{name} in {source} was changed after the backup")
    return manifest


def restore(source: Path, directory: Path, read_data: bool = False) -> list[Rebuilt]:
    """Bring a provider back: into a new directory, or over one that has lost what it knew.

    ``DIRECTORY/repositories`` is left as it is, or is put there before. What is replaced stays
    beside it. No provider may run there.

    :param read_data: compare all that is stored with its digests
    :raises NotFound, StoredDataDamaged: the backup is not whole; nothing was changed
    """
    manifest = check(source)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    # An audit log that is there has more than the backup's, and the same beginning.
    left = ("catalogues/", "audit/") if segments(directory / "audit") else ("catalogues/",)
    for name in sorted(manifest["files"]):
        if name.startswith(left):
            continue
        for suffix in ("", "-wal", "-shm") if name == _ACCOUNTS else ("",):
            _put_aside(directory / f"{name}{suffix}", aside)
        write_private(directory / name, (source / name).read_bytes())
    for made in ("repositories", "keys"):
        (directory / made).mkdir(mode=0o700, exist_ok=True)
    lock = directory / "lock"
    lock.touch(mode=0o600)
    settings = load(directory)
    return [
        rebuild(folder, source / "catalogues" / f"{folder.name}.sqlite", read_data)
        for folder in _repositories(settings)
    ]


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
        for folder in _repositories(settings)
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
        _put_aside(folder / f"{CATALOGUE}{suffix}", aside)
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


def _repositories(settings: ProviderSettings) -> list[Path]:
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
        _copy_database(known, copy)
        yield copy


def _copy_database(source: Path, target: Path) -> None:
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


def _copy_plain(source: Path, target: Path) -> None:
    """Copy a file or a folder of files, for the owner's eyes only."""
    if source.is_symlink() or not source.exists():
        return
    if source.is_dir():
        for path in sorted(source.iterdir()):
            _copy_plain(path, target / path.name)
    elif source.is_file() and source.name != "lock":
        with contextlib.suppress(FileNotFoundError):
            write_private(target, source.read_bytes())


def _names(folder: Path) -> list[str]:
    return sorted(
        os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _put_aside(path: Path, suffix: str) -> None:
    if path.exists():
        shutil.move(path, path.with_name(f"{path.name}.{suffix}"))


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
