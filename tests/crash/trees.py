"""Small trees that change from run to run, and the digest by which one is known again."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path
from typing import Final

#: Files of a tree when it is made.
_FILES: Final = 24
_FOLDERS: Final = ("", "one", "one/deeper", "two", "three")


def make_tree(top: Path, choose: random.Random) -> None:
    """A new tree: some folders, many small files, a few larger ones, links."""
    for folder in _FOLDERS:
        (top / folder).mkdir(parents=True, exist_ok=True)
    for number in range(_FILES):
        _write(top / choose.choice(_FOLDERS) / f"file-{number}", choose)
    os.symlink("one/deeper", top / "link")
    _write(top / "named-twice", choose)
    os.link(top / "named-twice", top / "one" / "second-name")


def change_tree(top: Path, choose: random.Random) -> None:
    """Some files get other content, some are new, some go."""
    files = sorted(path for path in top.rglob("file-*") if path.is_file())
    for path in choose.sample(files, min(len(files), choose.randint(1, 6))):
        path.unlink()
        if choose.random() < 0.7:
            _write(path, choose)
    for _ in range(choose.randint(0, 4)):
        _write(top / choose.choice(_FOLDERS) / f"file-{choose.getrandbits(40):x}", choose)


def tree_digest(top: Path) -> str:
    """A digest over names, kinds, modes, times, sizes, contents and targets of links.

    :return: hexadecimal
    """
    digest = hashlib.sha256()
    _digest(os.fsencode(top), b".", digest)
    return digest.hexdigest()


def _digest(path: bytes, name: bytes, digest: hashlib._Hash) -> None:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    said = [name, oct(status.st_mode), status.st_mtime_ns, status.st_uid]
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            said += [status.st_nlink, hashlib.file_digest(file, "sha256").hexdigest()]
    elif kind == stat.S_IFLNK:
        said.append(os.readlink(path))
    digest.update(repr(said).encode())
    if kind == stat.S_IFDIR:
        for below in sorted(os.listdir(path)):
            _digest(path + b"/" + below, below, digest)
        digest.update(b"end")


def _write(path: Path, choose: random.Random) -> None:
    size = choose.choice((0, 10, 3000, 20_000, 20_000, 150_000, 900_000))
    path.write_bytes(choose.randbytes(choose.randint(size // 2, size)))
    os.utime(path, ns=(10**18 + choose.getrandbits(50), 10**18 + choose.getrandbits(50)))
