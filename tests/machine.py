"""A machine of one's own for a test: systemd as the first process in namespaces, on these files.

It has its own processes, host name, network (loopback), ``/run``, ``/var/lib``, users and cgroups,
and sees no other units than those that the test gives it. Everything in it ends with it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.story.processes import ROOT

SYSTEMD: Final = Path("/lib/systemd/systemd")
#: Units that others want, and of which nothing is needed here.
_TARGETS: Final = ("sysinit", "basic", "shutdown", "network-online", "sockets", "multi-user")
_FIRST_USER: Final = 7001
_BEGIN: Final = """
set -e
ip link set lo up
mount -t tmpfs -o mode=755 machine /run
mount -t tmpfs -o mode=755 machine /var/lib
mount -t cgroup2 machine /sys/fs/cgroup
{hidden}
mount --bind {folder}/passwd /etc/passwd
mount --bind {folder}/group /etc/group
cp -a {folder}/lib/. /var/lib/
for name in $(ls /var/lib); do chown -R $name:$name /var/lib/$name; done
cp -a {folder}/units /run/units
export container=test SYSTEMD_UNIT_PATH=/run/units
exec {systemd} --system --unit=multi-user.target --log-target=null --show-status=false
"""


def _readable() -> list[str]:
    """Where code and interpreter of this test lie."""
    return sorted({str(ROOT), str(Path(sys.prefix).resolve()), sys.base_prefix, sys.prefix})


def _hidden() -> str:
    """Commands that let other users read those of them that are in somebody's home, alone there."""
    lines = []
    for top in ("/root", "/home"):
        found = [path for path in _readable() if path.startswith(f"{top}/")]
        for number, path in enumerate(found):
            kept = f"/run/kept{top}/{number}"
            lines.append(f"mkdir -p {kept}; mount --rbind {shlex.quote(path)} {kept}")
        if found:
            lines.append(f"mount -t tmpfs -o mode=755 machine {top}")
        for number, path in enumerate(found):
            named = shlex.quote(path)
            lines.append(f"mkdir -p {named}; mount --rbind /run/kept{top}/{number} {named}")
    return "\n".join(lines)


def _cgroups() -> Path | None:
    """Where this system has its cgroups of version 2."""
    for path in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (path / "cgroup.controllers").exists():
            return path
    return None


def why_not() -> str:
    """Why this system cannot have such a machine, or ""."""
    if os.geteuid() != 0:
        return "a machine of one's own wants root"
    if not SYSTEMD.exists() or not all(map(shutil.which, ("unshare", "ip", "runuser"))):
        return "systemd, unshare, ip or runuser is not installed"
    cgroups = _cgroups()
    if cgroups is None or not os.access(cgroups, os.W_OK):
        return "there are no cgroups of version 2 to use"
    for path in map(Path, _readable()):
        hidden = [p for p in path.parents if not p.stat().st_mode & 0o001]
        if any(p not in (Path("/root"), Path("/home")) for p in hidden):
            return f"other users cannot read {path}"
    tried = subprocess.run(["unshare", "-mpfuinC", "true"], capture_output=True)
    return "" if tried.returncode == 0 else "namespaces cannot be made here"


class Machine:
    """One machine.

    :param folder: is made; whatever is to be seen afterwards is written there
    :ivar lib: what is below ``/var/lib``: a folder for each user, who owns it
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lib, self._units = folder / "lib", folder / "units"
        self.lib.mkdir(parents=True)
        self._units.mkdir()
        for name in _TARGETS:
            (self._units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        for kind in ("passwd", "group"):
            shutil.copy(f"/etc/{kind}", folder / kind)

    def add_user(self, name: str) -> None:
        """A user with a group of the same name, and a folder below ``/var/lib``."""
        number = _FIRST_USER + len(list(self.lib.iterdir()))
        with (self.folder / "passwd").open("a") as users, (self.folder / "group").open("a") as all_:
            users.write(f"{name}:x:{number}:{number}::/var/lib/{name}:/bin/sh\n")
            all_.write(f"{name}:x:{number}:\n")
        (self.lib / name).mkdir(mode=0o700)

    def add_unit(self, path: Path) -> None:
        """A unit as it is, but that the code and the interpreter of this test are found, wherever
        they lie, and that its log is ``NAME.log`` in the folder."""
        shutil.copy(path, self._units)
        if path.suffix != ".service":
            return
        beside = self._units / f"{path.name}.d"
        beside.mkdir()
        (beside / "test.conf").write_text(
            "[Service]\n"
            f"Environment=PATH={Path(sys.executable).parent}:/usr/bin:/bin PYTHONPATH={ROOT}\n"
            "ProtectHome=tmpfs\n"
            f"BindReadOnlyPaths={' '.join(_readable())}\n"
            f"StandardOutput=append:{self.folder / path.stem}.log\n"
            "StandardError=inherit\n"
        )

    def run(self, *words: str, seconds: float = 300.0) -> int:
        """Start it, run one command in it as root, and end it; the command's exit status.

        Standard output and error of the command are ``story.log`` in the folder.
        """
        line = " ".join(map(shlex.quote, words))
        (self._units / "multi-user.target").write_text(
            "[Unit]\nDefaultDependencies=no\nWants=story.service\n"
        )
        (self._units / "story.service").write_text(
            "[Unit]\nDefaultDependencies=no\nSuccessAction=exit-force\nFailureAction=exit-force\n"
            "[Service]\nType=oneshot\n"
            f"WorkingDirectory={ROOT}\nEnvironment=PATH={os.environ['PATH']}\n"
            f"ExecStart={line}\n"
            f"StandardOutput=append:{self.folder}/story.log\nStandardError=inherit\n"
        )
        begin = _BEGIN.format(
            folder=shlex.quote(str(self.folder)), systemd=SYSTEMD, hidden=_hidden()
        )
        cgroups = _cgroups()
        assert cgroups is not None
        own = cgroups / f"machine-{os.getpid()}"
        own.mkdir()
        enter = (
            f"echo $$ > {own}/cgroup.procs; exec unshare -mpfuinC --kill-child --mount-proc sh -c "
        )
        try:
            return subprocess.run(
                ["sh", "-c", enter + shlex.quote(begin)], timeout=seconds, capture_output=True
            ).returncode
        finally:
            for path, _, _ in os.walk(own, topdown=False):
                os.rmdir(path)
