"""Layer 3: a whole repository is removed, for good.

Only where nothing holds it: it is not frozen, no restore point is locked, nobody has it open. Its
folder gets another name first, so that whoever looks sees all of it or nothing; what a process that
was killed has left under that name is removed by the next one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from cloudconnect.errors import Busy, NotFound, Refused
from cloudconnect.repository.clock import observe
from cloudconnect.repository.leases import COLLECTING, PUBLISHING
from cloudconnect.repository.points import DELETED, PUBLISHED
from cloudconnect.repository.store import Repository
from cloudconnect.repository.tables import points_table

#: How the folder of a repository is called that is being removed, before its own name.
REMOVING: Final = ".removed-"


def remove_repository(folder: Path, now: float) -> None:
    """Remove the repository in this folder; nothing happens where there is none any more.

    :param now: seconds since 1970
    :raises Refused: it is frozen, or a restore point is locked
    :raises Busy: somebody has it open
    :raises StoredDataDamaged: it cannot be told whether anything is locked
    """
    going = folder.with_name(REMOVING + folder.name)
    if folder.exists():
        _check(folder, now)
        shutil.rmtree(going, ignore_errors=True)
        folder.rename(going)
        _sync(folder.parent)
    if going.exists():
        shutil.rmtree(going)
        _sync(folder.parent)


def _check(folder: Path, now: float) -> None:
    """That nothing holds the repository.

    :raises CloudConnectError: what does
    """
    try:
        opened = Repository.open(folder, lease=False)
    except NotFound:
        return  # one that was never finished
    with opened, opened.store.exclusive(COLLECTING), opened.store.exclusive(PUBLISHING):
        if opened.frozen:
            raise Refused("the repository is frozen: it is not removed")
        t = points_table.c
        with opened.catalogue.writing() as connection:
            moment = observe(connection, now)
            held = sa.and_(
                t.locked_until.is_not(None),
                sa.not_(moment.over(t.locked_until, t.locked_clock)),
                t.state.in_((PUBLISHED, DELETED)),
            )
            query = sa.select(sa.func.count(), sa.func.max(t.locked_until)).where(held)
            count, until = connection.execute(query).one()
        if count:
            raise Refused(f"{count} restore point(s) are locked, the last until {until:.0f}")
        if any(True for _ in opened.store.leases()):
            raise Busy("somebody has the repository open")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
