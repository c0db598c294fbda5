"""Layer 3: what a repository is opened with: its description, and its catalogue.

Where there is none, or not the one of this repository, is said here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from cloudconnect.content.atrest import RepositoryDescription
from cloudconnect.errors import (
    NotFound,
    ProtocolViolation,
    Refused,
    StoredDataDamaged,
    UsageError,
)
from cloudconnect.repository.blobs import LocalBlobStore
from cloudconnect.repository.catalogue import Catalogue, open_catalogue
from cloudconnect.repository.database import sqlite_url
from cloudconnect.repository.descriptions import DESCRIPTION
from cloudconnect.repository.tables import repository_table

#: Version of the packs and of what lies beside them; the catalogue has its own revisions.
FORMAT_VERSION: Final = 1
#: The catalogue's file in the repository's directory.
CATALOGUE: Final = "catalogue.sqlite"


def open_store(directory: str | os.PathLike[str], read_only: bool) -> LocalBlobStore:
    """The blob store of a repository that is there.

    :raises NotFound: nothing is
    """
    path = Path(directory)
    try:
        if path.is_symlink():
            raise NotFound("a repository's directory is not a symbolic link")
        return LocalBlobStore(os.fspath(directory), create=path.is_dir() and not read_only)
    except FileNotFoundError:
        raise NotFound("there is no repository in this place") from None


def new_catalogue(
    directory: str | os.PathLike[str], description: RepositoryDescription, url: str | None
) -> Catalogue:
    """An empty catalogue for the repository of this description.

    :param url: of its data base; by default a SQLite file in ``directory``
    :raises Refused: there is a repository in it
    """
    catalogue = open_catalogue(url or sqlite_url(os.fspath(Path(directory) / CATALOGUE)))
    try:
        with catalogue.writing() as connection:
            if connection.execute(sa.select(repository_table.c.number)).first() is not None:
                raise Refused("there is a repository in this place already")
            connection.execute(
                sa.insert(repository_table),
                {
                    "number": 1,
                    "repository": description.repository,
                    "format_version": FORMAT_VERSION,
                    "description": description.encode(),
                    "description_revision": description.revision,
                    "removals": 0,
                },
            )
    except BaseException:
        catalogue.close()
        raise
    return catalogue


def find_catalogue(
    store: LocalBlobStore, directory: str | os.PathLike[str], url: str | None, read_only: bool
) -> Catalogue:
    """The catalogue of a repository that is there.

    :param url: of its data base; by default a SQLite file in ``directory``
    :raises NotFound: there never was one
    :raises StoredDataDamaged: it is missing
    """
    if url is None:
        path = Path(directory) / CATALOGUE
        if not path.exists():
            read_description(store)  # NotFound where there never was one
            raise StoredDataDamaged("the repository's catalogue is missing: recover it")
        url = sqlite_url(os.fspath(path), read_only)
    return open_catalogue(url, read_only)


def described(catalogue: Catalogue) -> RepositoryDescription:
    """Which repository a catalogue is of.

    :raises StoredDataDamaged: it does not say
    :raises UsageError: a newer release made it
    """
    with catalogue.reading() as connection:
        row = connection.execute(sa.select(repository_table)).one_or_none()
    if row is None:
        raise StoredDataDamaged("the repository's catalogue is empty: recover it")
    if row.format_version > FORMAT_VERSION:
        raise UsageError("a newer release of cloudconnect made this repository; install that one")
    try:
        return RepositoryDescription.decode(row.description)
    except (ProtocolViolation, TypeError) as error:
        raise StoredDataDamaged("the repository's catalogue is damaged: recover it") from error


def read_description(store: LocalBlobStore) -> bytes:
    """The first description of a repository, encoded.

    :raises NotFound: there is none
    """
    try:
        return store.read(DESCRIPTION, 0, store.size(DESCRIPTION))
    except NotFound:
        raise NotFound("there is no repository in this place") from None
