"""The table of attacks on the paths of a restore: what is attacked, and what is in the way.

A case has entries of a restore point, as somebody makes them who holds the keys or whose release
is malicious, and what a hostile local user has put into the target before the restore.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import cbor2

from cloudconnect.backup.options import Overwrite
from cloudconnect.backup.partial import partial_name
from cloudconnect.content.entries import Entry, EntryType
from cloudconnect.content.runs import Run
from tests.backup.cases import entry_of, file_of
from tests.backup.support import Place
from tests.backup.trees import OLD_NS, access_list, is_root, write

EVIL = b"evil content"
FILE, FOLDER, LINK = EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK


@attrs.define
class Scene:
    """Where a case takes place.

    :ivar outside: the sentinel tree
    :ivar target: the restore's target; it is there
    """

    place: Place
    outside: bytes
    target: bytes

    def evil(self, path: bytes, **fields: Any) -> Entry:
        """A file with content that must not get anywhere."""
        run = Run(self.place.keys.chunk_id(EVIL), 0, len(EVIL))
        return file_of(path, size=len(EVIL), runs=(run,), **fields)

    def link(self, path: bytes, target: bytes | None = None) -> Entry:
        """A symlink, out of the target if not said otherwise."""
        return entry_of(path, LINK, target=self.outside if target is None else target)

    def folder(self, path: bytes, **fields: Any) -> Entry:
        return entry_of(path, FOLDER, **fields)

    def put(self, name: bytes, content: bytes = b"", mode: int = 0o644) -> bytes:
        """A file in the target, from before; its path."""
        write(self.target + name, content, mode)
        return self.target + name


def raw(**fields: Any) -> bytes:
    """An encoded entry that no honest client makes."""
    given = {"g": 0, "m": 0o644, "n": 0, "p": b"/x", "t": "f", "u": 0, **fields}
    return cbor2.dumps(cbor2.dumps({name: v for name, v in sorted(given.items()) if v is not None}))


@attrs.frozen(kw_only=True)
class Case:
    """One attack.

    :ivar entries: what the point has in it
    :ivar prepare: what was done to the target
    :ivar refused: the whole point is to be refused as damaged
    :ivar problems: at least so many things must be reported as not restored
    :ivar there: names that must be in the target afterwards, so that the case is not vacuous
    :ivar absent: names that must not
    :ivar options: of the restore
    :ivar unprivileged: the restore is made by somebody who is not root
    :ivar linked: the attack itself makes further names of what is outside
    """

    name: str
    entries: Callable[[Scene], list[Entry | bytes]]
    prepare: Callable[[Scene], Any] = lambda scene: None
    refused: bool = False
    problems: int = 0
    there: tuple[bytes, ...] = ()
    absent: tuple[bytes, ...] = ()
    options: dict[str, Any] = attrs.field(factory=dict)
    unprivileged: bool = False
    linked: bool = False


def all_cases() -> Iterator[Case]:
    """Every case of the table."""
    yield from impossible_paths()
    yield from odd_names()
    yield from links_in_the_point()
    yield from hard_links()
    yield from special_things()
    yield from metadata()
    yield from names_of_unfinished_files()
    yield from hostile_targets()
    yield from stripped()


def impossible_paths() -> Iterator[Case]:
    """Paths that must never be taken for one below the target."""
    for name, path in {
        "dot-dot at the start": b"/../evil",
        "dot-dot inside": b"/a/../../evil",
        "dot-dot at the end": b"/a/..",
        "many dot-dots": b"/" + b"../" * 40 + b"tmp/evil",
        "relative": b"evil",
        "relative dot-dot": b"../evil",
        "empty": b"",
        "two slashes": b"//evil",
        "two slashes inside": b"/a//evil",
        "slash at the end": b"/evil/",
        "dot": b"/./evil",
        "dot at the end": b"/evil/.",
        "NUL inside": b"/a\0/../evil",
        "NUL at the end": b"/evil\0",
        "text in the place of bytes": "/evil",
        "number in the place of bytes": 7,
        "longer than any path": b"/" + b"a/" * 33_000 + b"evil",
    }.items():
        for kind in ("f", "d"):
            yield Case(
                name=f"{name} ({'file' if kind == 'f' else 'folder'})",
                entries=lambda scene, path=path, kind=kind: [raw(p=path, t=kind)],  # type: ignore[misc]
                refused=True,
            )
    yield Case(
        name="the root as a file",
        entries=lambda s: [s.evil(b"/"), file_of(b"/good")],
        there=(b"/good",),
    )
    yield Case(
        name="the root as a link",
        entries=lambda s: [s.link(b"/"), s.evil(b"/secret")],
        there=(b"/secret",),
    )
    yield Case(name="unknown type", entries=lambda s: [raw(t="z")], refused=True)
    yield Case(name="link without a target", entries=lambda s: [raw(t="l")], refused=True)
    yield Case(name="link with NUL", entries=lambda s: [raw(t="l", l=b"a\0b")], refused=True)
    yield Case(name="link to nothing", entries=lambda s: [raw(t="l", l=b"")], refused=True)
    yield Case(
        name="link of 70,000 bytes", entries=lambda s: [raw(t="l", l=b"a" * 70_000)], refused=True
    )
    yield Case(name="mode with a type", entries=lambda s: [raw(m=0o120777)], refused=True)


def odd_names() -> Iterator[Case]:
    """Names that look like something else to somebody."""
    for name, path in {
        "backslashes": b"/..\\..\\evil",
        "percent": b"/%2e%2e/evil",
        "overlong UTF-8 dots": b"/\xc0\xae\xc0\xae/evil",
        "overlong UTF-8 slash": b"/..\xc0\xafevil",
        "fullwidth dots": "/\uff0e\uff0e/evil".encode(),
        "two-dot leader": "/\u2025/evil".encode(),
        "fraction slash": "/..\u2044..\u2044evil".encode(),
        "three dots": b"/.../evil",
        "dots and a space": b"/.. /evil",
        "dots and a newline": b"/..\n/evil",
        "a tilde": b"/~/evil",
        "a variable": b"/$HOME/evil",
        "a drive": b"/C:/evil",
        "an option": b"/--target=x/-rf",
        "a terminal's escape": b"/\x1b[2J/evil",
        "right-to-left": "/\u202egpj.exe".encode(),
        "not UTF-8": b"/\xff\xfe/evil",
    }.items():
        yield Case(name=f"name of {name}", entries=lambda s, p=path: [s.evil(p)], there=(path,))  # type: ignore[misc]
    yield Case(
        name="name of 256 bytes",
        entries=lambda s: [s.evil(b"/" + b"n" * 256), file_of(b"/good")],
        problems=1,
        there=(b"/good",),
    )
    yield Case(
        name="folder of 256 bytes",
        entries=lambda s: [s.folder(b"/" + b"n" * 256), s.evil(b"/" + b"n" * 256 + b"/evil")],
        problems=2,
    )
    yield Case(
        name="link and folder that differ in case",
        entries=lambda s: [s.link(b"/WAY"), s.folder(b"/way"), s.evil(b"/way/secret")],
        there=(b"/way/secret",),
    )
    yield Case(
        name="link and folder that differ in normal form",
        entries=lambda s: [
            s.link("/caf\u00e9".encode()),
            s.folder("/cafe\u0301".encode()),
            s.evil("/cafe\u0301/secret".encode()),
        ],
        there=("/cafe\u0301/secret".encode(),),
    )


def links_in_the_point() -> Iterator[Case]:
    """Symlinks that the point makes itself, and what it then puts behind them."""
    for overwrite in Overwrite:
        yield Case(
            name=f"link, and a file behind it ({overwrite.value})",
            entries=lambda s: [s.link(b"/way"), s.evil(b"/way/secret")],
            problems=1,
            options={"overwrite": overwrite},
        )
    yield Case(
        name="link, and a folder behind it",
        entries=lambda s: [s.link(b"/way"), s.folder(b"/way/new"), s.evil(b"/way/new/x")],
        problems=1,
    )
    yield Case(
        name="link, and a link behind it",
        entries=lambda s: [s.link(b"/way"), s.link(b"/way/secret", b"x")],
        problems=1,
    )
    yield Case(
        name="link, and a FIFO behind it",
        entries=lambda s: [s.link(b"/way"), entry_of(b"/way/new", EntryType.FIFO)],
        problems=1,
    )
    yield Case(
        name="link, then a folder of its name with other metadata",
        entries=lambda s: [s.link(b"/way"), s.folder(b"/way", mode=0o777), s.evil(b"/way/secret")],
        there=(b"/way/secret",),
    )
    yield Case(
        name="folder, then a link of its name, then a file in it",
        entries=lambda s: [s.folder(b"/way"), s.link(b"/way"), s.evil(b"/way/secret")],
        problems=1,
    )
    yield Case(
        name="link to a file, then a file of its name",
        entries=lambda s: [s.link(b"/x", s.outside + b"/secret"), s.evil(b"/x")],
        there=(b"/x",),
    )
    yield Case(
        name="dangling link, then a file of its name",
        entries=lambda s: [s.link(b"/x", s.outside + b"/new"), s.evil(b"/x")],
        there=(b"/x",),
    )
    yield Case(
        name="chain of links",
        entries=lambda s: [
            s.link(b"/a", b"b"),
            s.link(b"/b", b"c"),
            s.link(b"/c"),
            s.evil(b"/a/secret"),
        ],
        problems=1,
    )
    yield Case(
        name="relative link upwards",
        entries=lambda s: [s.link(b"/up", b"../outside"), s.evil(b"/up/secret")],
        problems=1,
    )
    yield Case(
        name="link to the folder that it is in",
        entries=lambda s: [s.link(b"/here", b"."), s.evil(b"/here/here/x")],
        problems=1,
        absent=(b"/x",),
    )
    yield Case(
        name="link to the root",
        entries=lambda s: [s.link(b"/r", b"/"), s.evil(b"/r" + s.outside + b"/secret")],
        problems=1,
    )
    yield Case(
        name="link through /proc",
        entries=lambda s: [s.link(b"/r", b"/proc/self/cwd"), s.evil(b"/r/evil")],
        problems=1,
    )
    yield Case(
        name="file, and a file in it",
        entries=lambda s: [file_of(b"/x"), s.evil(b"/x/y")],
        problems=1,
        there=(b"/x",),
    )
    yield Case(
        name="link, and a chosen path behind it",
        entries=lambda s: [s.link(b"/way"), s.evil(b"/way/secret")],
        problems=1,
        options={"paths": (b"/way",)},
    )


def hard_links() -> Iterator[Case]:
    """Hard links whose first name lies elsewhere, or is something else."""
    yield Case(
        name="hard link to a file outside",
        entries=lambda s: [file_of(b"/x", link=s.outside + b"/secret")],
        problems=1,
        absent=(b"/x",),
    )
    yield Case(
        name="hard link to a file outside, chosen alone",
        entries=lambda s: [file_of(b"/x", link=s.outside + b"/secret")],
        problems=1,
        options={"paths": (b"/x",)},
    )
    for name, link in {
        "dot-dot": b"/../outside/secret",
        "a relative path": b"../outside/secret",
        "NUL": b"/a\0b",
        "nothing": b"",
        "text": "/x",
    }.items():
        yield Case(
            name=f"hard link to {name}",
            entries=lambda s, link=link: [raw(h=link)],  # type: ignore[misc]
            refused=True,
        )
    yield Case(
        name="hard link with content of its own",
        entries=lambda s: [raw(h=b"/y", s=3, r=[None, 0, 3])],
        refused=True,
    )
    yield Case(
        name="hard link to itself",
        entries=lambda s: [file_of(b"/x", link=b"/x"), file_of(b"/good")],
        problems=1,
        there=(b"/good",),
    )
    yield Case(
        name="hard links in a circle",
        entries=lambda s: [file_of(b"/x", link=b"/y"), file_of(b"/y", link=b"/x")],
        problems=2,
    )
    yield Case(
        name="hard link to a folder",
        entries=lambda s: [s.folder(b"/d"), file_of(b"/x", link=b"/d")],
        problems=1,
        absent=(b"/x",),
    )
    yield Case(
        name="folder that says it is a hard link",
        entries=lambda s: [s.folder(b"/d", link=s.outside), s.evil(b"/d/secret")],
        there=(b"/d/secret",),
    )
    yield Case(
        name="hard link to a link that leads out",
        entries=lambda s: [
            s.link(b"/a", s.outside + b"/secret")._replace(flags=2),
            s.link(b"/b", s.outside + b"/secret")._replace(link=b"/a"),
            s.evil(b"/b"),
        ],
        there=(b"/a", b"/b"),
    )
    yield Case(
        name="hard link behind a link",
        entries=lambda s: [
            s.evil(b"/a")._replace(flags=2),
            s.link(b"/way"),
            file_of(b"/way/x", link=b"/a"),
        ],
        problems=1,
        there=(b"/a",),
    )


def special_things() -> Iterator[Case]:
    """Things that do something when they are written to."""
    yield Case(
        name="FIFO, then a file of its name",
        entries=lambda s: [entry_of(b"/x", EntryType.FIFO), s.evil(b"/x")],
        there=(b"/x",),
    )
    yield Case(
        name="socket, then a file of its name",
        entries=lambda s: [entry_of(b"/x", EntryType.SOCKET), s.evil(b"/x")],
        there=(b"/x",),
    )
    yield Case(
        name="device, then a file of its name",
        entries=lambda s: [entry_of(b"/x", EntryType.CHARACTER, device=0x103), s.evil(b"/x")],
        there=(b"/x",),
    )
    yield Case(
        name="devices where nobody is root",
        entries=lambda s: [
            entry_of(b"/sda", EntryType.BLOCK, device=0x800, mode=0o666),
            entry_of(b"/mem", EntryType.CHARACTER, device=0x101, mode=0o666),
            file_of(b"/good"),
        ],
        unprivileged=True,
        there=(b"/good",),
        absent=(b"/sda", b"/mem"),
    )
    yield Case(
        name="device with an impossible number",
        entries=lambda s: [raw(t="b", d=1 << 64)],
        refused=True,
    )
    yield Case(
        name="device, and a file in it",
        entries=lambda s: [entry_of(b"/x", EntryType.CHARACTER, device=0x103), s.evil(b"/x/y")],
        problems=1,
    )


def metadata() -> Iterator[Case]:
    """Owners, modes and attributes that are meant for something else."""
    yield Case(
        name="set-id program of root's, restored by somebody else",
        entries=lambda s: [s.evil(b"/x", mode=0o6755, uid=os.geteuid() + 1, gid=os.getegid() + 1)],
        unprivileged=True,
        there=(b"/x",),
    )
    yield Case(
        name="owner that means no change",
        entries=lambda s: [s.evil(b"/x", mode=0o6755, uid=(1 << 32) - 1, gid=(1 << 32) - 1)],
        there=(b"/x",),
    )
    yield Case(
        name="privileged attributes, restored by somebody else",
        entries=lambda s: [
            s.evil(
                b"/x",
                xattrs=(
                    (b"security.capability", b"\x01\x00\x00\x02" + b"\xff" * 16),
                    (b"trusted.overlay.redirect", s.outside),
                ),
            )
        ],
        unprivileged=True,
        there=(b"/x",),
    )
    yield Case(
        name="attribute whose name is a path",
        entries=lambda s: [s.evil(b"/x", xattrs=((b"user.../../outside/secret", b"x"),))],
        there=(b"/x",),
    )
    yield Case(
        name="attribute of no namespace",
        entries=lambda s: [s.evil(b"/x", xattrs=((b"../secret", b"x"),))],
        problems=1,
        there=(b"/x",),
    )
    yield Case(
        name="access list that is none",
        entries=lambda s: [s.evil(b"/x", xattrs=((b"system.posix_acl_access", b"\xff" * 9),))],
        problems=1,
        there=(b"/x",),
    )
    yield Case(
        name="metadata for a link that leads out",
        entries=lambda s: [
            s.link(b"/x", s.outside + b"/secret")._replace(
                mode=0o6777,
                uid=12345 if is_root() else os.geteuid(),
                xattrs=((b"user.x", b"y"),),
            )
        ],
        there=(b"/x",),
    )
    yield Case(
        name="metadata for a folder that is a link in the target",
        entries=lambda s: [s.folder(b"/way", mode=0o777)],
        prepare=lambda s: os.symlink(s.outside, s.target + b"/way"),
        options={"overwrite": Overwrite.IF_NEWER},
        problems=1,
    )


def names_of_unfinished_files() -> Iterator[Case]:
    """Restore points that use the names under which files are written."""
    name = partial_name(b"/x")
    yield Case(
        name="file with the name of another one's unfinished file",
        entries=lambda s: [s.evil(b"/" + name, mode=0o600), s.evil(b"/x")],
        there=(b"/" + name, b"/x"),
    )
    yield Case(
        name="link with the name of another one's unfinished file",
        entries=lambda s: [s.link(b"/" + name, s.outside + b"/secret"), s.evil(b"/x")],
        there=(b"/" + name, b"/x"),
    )
    yield Case(
        name="folder with the name of another one's unfinished file",
        entries=lambda s: [s.folder(b"/" + name), s.evil(b"/" + name + b"/y"), s.evil(b"/x")],
        there=(b"/" + name + b"/y", b"/x"),
    )


def hostile_targets() -> Iterator[Case]:
    """What waits in the target."""
    chosen = [overwrite for overwrite in Overwrite if overwrite is not Overwrite.NEVER]
    for overwrite in chosen:
        yield Case(
            name=f"link where a file belongs ({overwrite.value})",
            entries=lambda s: [s.evil(b"/x", mtime_ns=1 << 62)],
            prepare=lambda s: os.symlink(s.outside + b"/secret", s.target + b"/x"),
            there=(b"/x",),
            options={"overwrite": overwrite},
        )
        yield Case(
            name=f"further name of a file outside ({overwrite.value})",
            entries=lambda s: [s.evil(b"/x", mtime_ns=1 << 62, mode=0o666)],
            prepare=lambda s: os.link(s.outside + b"/secret", s.target + b"/x"),
            there=(b"/x",),
            options={"overwrite": overwrite},
            linked=True,
        )
    for overwrite in Overwrite:
        yield Case(
            name=f"link where a folder belongs ({overwrite.value})",
            entries=lambda s: [s.folder(b"/way", mode=0o777), s.evil(b"/way/secret")],
            prepare=lambda s: os.symlink(s.outside, s.target + b"/way"),
            options={"overwrite": overwrite},
        )
        yield Case(
            name=f"link on the way to what was chosen ({overwrite.value})",
            entries=lambda s: [s.folder(b"/way", mode=0o777), s.evil(b"/way/secret")],
            prepare=lambda s: os.symlink(s.outside, s.target + b"/way"),
            options={"overwrite": overwrite, "paths": (b"/way/secret",)},
            problems=1,
        )
    yield Case(
        name="dangling link where a file belongs",
        entries=lambda s: [s.evil(b"/x")],
        prepare=lambda s: os.symlink(s.outside + b"/new", s.target + b"/x"),
        there=(b"/x",),
    )
    yield Case(
        name="further name of a file outside with the same content",
        entries=lambda s: [
            file_of(
                b"/x",
                size=6,
                mode=0o666,
                mtime_ns=OLD_NS,
                runs=(Run(s.place.keys.chunk_id(b"secret"), 0, 6),),
            )
        ],
        prepare=lambda s: os.link(s.outside + b"/secret", s.target + b"/x"),
        there=(b"/x",),
        linked=True,
    )
    yield Case(
        name="further name of a file outside that is all as it should be",
        entries=lambda s: [
            file_of(
                b"/x",
                size=5,
                mode=0o600,
                mtime_ns=OLD_NS,
                runs=(Run(s.place.keys.chunk_id(b"plain"), 0, 5),),
            )
        ],
        prepare=lambda s: os.link(s.outside + b"/plain", s.target + b"/x"),
        there=(b"/x",),
        linked=True,
    )
    yield Case(
        name="FIFO where a file belongs",
        entries=lambda s: [s.evil(b"/x")],
        prepare=lambda s: os.mkfifo(s.target + b"/x"),
        there=(b"/x",),
    )
    yield Case(
        name="link in the middle of a long way",
        entries=lambda s: [s.evil(b"/a/b/c/d/secret")],
        prepare=lambda s: (
            os.makedirs(s.target + b"/a/b"),
            os.symlink(s.outside, s.target + b"/a/b/c"),
        ),
        problems=1,
    )
    yield Case(
        name="link to another folder of the target",
        entries=lambda s: [s.evil(b"/a/x")],
        prepare=lambda s: (os.mkdir(s.target + b"/b"), os.symlink(b"b", s.target + b"/a")),
        problems=1,
        absent=(b"/b/x",),
    )
    for what, make in {
        "link": lambda s, path: os.symlink(s.outside + b"/secret", path),
        "further name of a file outside": lambda s, path: os.link(s.outside + b"/secret", path),
        "further name of a plain file outside": lambda s, path: os.link(
            s.outside + b"/plain", path
        ),
        "further name of a FIFO outside": lambda s, path: os.link(s.outside + b"/fifo", path),
        "folder": lambda s, path: os.mkdir(path),
        "FIFO": lambda s, path: os.mkfifo(path),
        "file that others may write to": lambda s, path: s.put(path[len(s.target) :], b"", 0o666),
    }.items():
        for size in (len(EVIL), 3 << 20):
            yield Case(
                name=f"{what} with an unfinished file's name ({size} bytes)",
                entries=lambda s, size=size: [  # type: ignore[misc]
                    s.evil(b"/x")
                    if size < 1 << 20
                    else file_of(b"/x", size=size, runs=(Run(None, 0, size),))
                ],
                prepare=lambda s, make=make: make(s, s.target + b"/" + partial_name(b"/x")),  # type: ignore[misc]
                there=(b"/x",),
                linked="further" in what,
            )
    yield Case(
        name="access list that a folder gives to new files",
        entries=lambda s: [s.evil(b"/d/x", mode=0o666)],
        prepare=lambda s: (
            os.mkdir(s.target + b"/d"),
            give_access(s.target + b"/d"),
        ),
        there=(b"/d/x",),
    )
    yield Case(
        name="folder that cannot be written to",
        entries=lambda s: [s.folder(b"/d"), s.evil(b"/d/x")],
        prepare=lambda s: os.mkdir(s.target + b"/d", 0o500),
        there=(b"/d/x",),
    )


def give_access(path: bytes) -> None:
    """Let another user into all that is made in a folder, where the file system can."""
    try:
        os.setxattr(path, b"system.posix_acl_default", access_list(12345))
    except OSError:
        Path(os.fsdecode(path)).chmod(0o755)


def stripped() -> Iterator[Case]:
    """Paths that only meet after names were taken off their front."""
    yield Case(
        name="two folders that become one, a link in the first",
        entries=lambda s: [
            s.link(b"/a/way"),
            s.folder(b"/b/way"),
            s.evil(b"/b/way/secret"),
        ],
        options={"strip_components": 1},
        there=(b"/way/secret",),
    )
    yield Case(
        name="a link that becomes the way",
        entries=lambda s: [s.link(b"/a/way"), s.evil(b"/b/way/secret")],
        options={"strip_components": 1},
        problems=1,
    )
    yield Case(
        name="a link to be the target itself",
        entries=lambda s: [s.link(b"/a"), s.evil(b"/a/secret")],
        options={"strip_components": 1},
        there=(b"/secret",),
    )
    yield Case(
        name="more names taken off than there are",
        entries=lambda s: [s.link(b"/a"), s.evil(b"/a/b")],
        options={"strip_components": 9},
        absent=(b"/a", b"/b"),
    )
