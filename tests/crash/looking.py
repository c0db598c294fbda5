"""Every restore point of a repository restored without a provider, and known by its digest."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cloudconnect.backup.options import RestoreOptions
from cloudconnect.backup.restore import RestoreRun
from cloudconnect.content.atrest import EncryptionMode, unlock
from cloudconnect.content.generations import keys_of
from cloudconnect.keys import IntegrityKey, Password, frame_key
from cloudconnect.repository.points import PointRow
from cloudconnect.repository.serve import serve_session
from cloudconnect.repository.store import Repository
from cloudconnect.testing import PipePair
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import FrameReader, FrameWriter
from tests.crash.trees import tree_digest

_SESSION = b"session-of-looks"


def look(repository: Path, passphrase: Path, target: Path, sources: list[Path]) -> None:
    """Print a JSON line for each restore point: what it is, and what it restores to.

    :param repository: directory of the repository
    :param passphrase: file that holds it
    :param target: where to restore to, one after the other
    :param sources: the trees that were backed up, each by itself
    """
    secret = Password(passphrase.read_bytes().rstrip(b"\n"))
    with Repository.open(repository) as opened:
        description = opened.description
        master = unlock(description, EncryptionMode.TENANT, secret)
        keys = keys_of(description, master)
        for row in _points(opened):
            options = RestoreOptions(target=bytes(target))
            found: dict[str, Any] = {"digest": "", "error": ""}
            try:
                result = _dialogue(
                    opened,
                    lambda channel, row=row, options=options: RestoreRun(  # type: ignore[misc]
                        channel, keys, description, row.point, options
                    ).run(),
                )
                if result.damaged or result.problems:
                    found["error"] = repr((result.damaged.listed, result.problems.listed))
                else:
                    made = [target / source.relative_to("/") for source in sources]
                    found["digest"] = " ".join(tree_digest(path) for path in made if path.exists())
            except Exception as error:
                found["error"] = repr(error)
            shutil.rmtree(target, ignore_errors=True)
            shown = {"point": row.point.hex(), "state": row.state, "tags": list(row.tags)}
            print(json.dumps({**shown, **found}), flush=True)


def _points(repository: Repository) -> list[PointRow]:
    rows: list[PointRow] = []
    states = ("published", "deleted")  # what is in the bin restores too
    while page := repository.points(after=rows[-1].arrival if rows else 0, states=states):
        rows += page
    return rows


def _dialogue(repository: Repository, work: Callable[[FrameChannel], Any]) -> Any:
    """What ``work`` returns, over a dialogue that this process serves in another thread."""
    pair, key = PipePair(timeout=60.0), IntegrityKey.generate()
    forth, back = frame_key(key, _SESSION, 0, 0), frame_key(key, _SESSION, 0, 1)
    left = FrameChannel(pair.left, FrameWriter(forth, 0), FrameReader(back, 0))
    right = FrameChannel(pair.right, FrameWriter(back, 0), FrameReader(forth, 0))

    def serve() -> None:
        try:
            serve_session(right, repository, "restore", ("read",), _SESSION, lambda record: None)
        except Exception as error:
            right.abort(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        return work(left)
    finally:
        thread.join(60)
