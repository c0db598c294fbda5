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
import time
from pathlib import Path
from typing import Any, Final

from cloudconnect.config.profile import write_private
from cloudconnect.config.provider import CONFIGURATION, ProviderSettings, load
from cloudconnect.config.rebuilding import (
    Rebuilt,
    copy_database,
    put_aside,
    rebuild,
    repositories_in,
)
from cloudconnect.errors import NotFound, StoredDataDamaged, UsageError
from cloudconnect.provider.audit.chain import segments
from cloudconnect.repository.opening import CATALOGUE

#: The list of what a backup holds, written last: without it, it is none.
MANIFEST: Final = "manifest.json"
#: Files and folders of a provider's directory that are taken as they are.
_PLAIN: Final = (CONFIGURATION, "tls", "lan", "keys", "audit", "wan.key")
#: Settings that name further files; those that do not lie in the directory are not ours.
_NAMING: Final = (
    "certificate",
    "key",
    "alarm_webhook_ca",
    "alarm_webhook_key",
    "alarm_mail_password",
    "alarm_mail_ca",
)
_ACCOUNTS: Final = "accounts.sqlite"


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
    copy_database(settings.directory / _ACCOUNTS, target / _ACCOUNTS)
    repositories = []
    for folder in repositories_in(settings):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            copy_database(folder / CATALOGUE, target / "catalogues" / f"{folder.name}.sqlite")
            repositories.append(folder.name)
    for name in (*_PLAIN, *_named_files(settings)):
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
            put_aside(directory / f"{name}{suffix}", aside)
        write_private(directory / name, (source / name).read_bytes())
    for made in ("repositories", "keys"):
        (directory / made).mkdir(mode=0o700, exist_ok=True)
    lock = directory / "lock"
    lock.touch(mode=0o600)
    settings = load(directory)
    return [
        rebuild(folder, source / "catalogues" / f"{folder.name}.sqlite", read_data)
        for folder in repositories_in(settings)
    ]


# --- files ---------------------------------------------------------------------------------------


def _named_files(settings: ProviderSettings) -> list[str]:
    """The files in the directory that settings name, beside those that are taken anyhow."""
    found = []
    for setting in _NAMING:
        path = Path(getattr(settings, setting) or "/")
        if not path.is_absolute() and ".." not in path.parts and path.parts[0] not in _PLAIN:
            found.append(os.fspath(path))
    return found


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
