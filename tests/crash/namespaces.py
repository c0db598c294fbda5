"""Network namespaces: a host of its own for each process, on one bridge.

They are made with ``ip``, which wants root; each has the address that its number gives.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from typing import Final

_CLONE_NEWNET: Final = 0x40000000


def missing() -> str:
    """Why there can be none, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces want root"
    if shutil.which("ip") is None:
        return "network namespaces want ip (iproute2)"
    try:
        with Namespaces("cct") as tried:
            tried.add("try")
    except subprocess.CalledProcessError as error:
        return f"network namespaces cannot be made: {error.stderr.decode(errors='replace').strip()}"
    return ""


class Namespaces:
    """Some namespaces, and the bridge between them, which has a namespace of its own.

    :param prefix: what their names begin with: at most 3 characters
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = f"{prefix}{os.getpid():x}"
        self._bridge = f"{self._prefix}-br"
        self._made: list[str] = []
        self._numbers: dict[str, int] = {}

    def __enter__(self) -> Namespaces:
        self._make(self._bridge)
        self._inside(self._bridge, "link", "add", "br0", "type", "bridge")
        self._inside(self._bridge, "link", "set", "br0", "up")
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(self._made):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        self._made.clear()

    def add(self, name: str) -> str:
        """A namespace of this name; its address."""
        number = self._numbers[name] = len(self._numbers) + 1
        space, near, far = f"{self._prefix}-{name}", f"v{number}", f"b{number}"
        self._make(space)
        self._inside(space, "link", "add", near, "type", "veth", "peer", "name", far)
        self._inside(space, "link", "set", far, "netns", self._bridge)
        self._inside(self._bridge, "link", "set", far, "master", "br0", "up")
        self._inside(space, "addr", "add", f"{self.address(name)}/24", "dev", near)
        self._inside(space, "link", "set", near, "up")
        return self.address(name)

    def address(self, name: str) -> str:
        """Where it is."""
        return f"10.77.0.{self._numbers[name]}"

    def enter(self, name: str) -> None:
        """Be in there from now on: for a process that was just forked."""
        space = os.open(f"/run/netns/{self._prefix}-{name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(space, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(space)

    def _make(self, space: str) -> None:
        _ip("netns", "add", space)
        self._made.append(space)
        self._inside(space, "link", "set", "lo", "up")

    @staticmethod
    def _inside(space: str, *words: str) -> None:
        _ip("-n", space, *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
