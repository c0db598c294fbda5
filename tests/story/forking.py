"""Processes that are forked off one which has imported everything, in place of new interpreters.

A command takes some 0.4 s of a processor before it does anything, all of it imports; the tests
start hundreds. What is forked here is a process like others, with an id, arguments, an environment,
a folder and standard streams of its own, and ends as others do. The one that it was forked off has
one thread and no reactor, and runs nothing but :func:`_serve`.

This module is the program of that process too. What is asked for comes over a UNIX socket, with the
descriptors of the streams; what is answered is the process's id, and later how it has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from cloudconnect.content.slots import Argon2Costs
from tests.crash.forks import import_everything

#: Bytes of a message at most.
MESSAGE_MAX: Final = 1 << 20


class Forker:
    """The process that others are forked off, as seen from here.

    :param root: folder of the modules that it runs
    """

    def __init__(self, root: Path) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.story.forking", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=root,
                pass_fds=(theirs.fileno(),),
                env={**os.environ, "PYTHONPATH": str(root)},
            )
        self.ended: dict[int, int] = {}

    def start(
        self, arguments: list[str], environment: dict[str, str], cwd: str, streams: tuple[int, ...]
    ) -> int:
        """Start ``python ARGUMENTS``, of which the first is ``-m``; returns its id.

        :param streams: descriptors of its standard input, output and error
        """
        asked = json.dumps([arguments, environment, cwd]).encode()
        socket.send_fds(self.socket, [asked], list(streams))
        while True:
            kind, number, status = self.receive()
            if kind == "started":
                return number
            self.ended[number] = status

    def receive(self) -> tuple[str, int, int]:
        """What it says next: ``started`` or ``ended``, whose id, and with what status."""
        message = self.socket.recv(MESSAGE_MAX)
        if not message:
            said, _ = self._process.communicate()
            raise AssertionError(f"nothing can be forked any more: {said.decode()}")
        kind, number, status = json.loads(message)
        return kind, number, status

    def close(self) -> None:
        """End it, and wait for that; what it has forked is for others to end."""
        self.socket.close()
        self._process.communicate()


def _make_slots_cheap() -> None:
    """Key slots that are made in what is forked cost next to nothing, to make and to open.

    What they cost stands in them. Each command opens one, for a quarter of a second.
    """
    make: Any = Argon2Costs.__init__
    make.__defaults__ = (1, 1, 8)
    assert Argon2Costs() == Argon2Costs(iterations=1, lanes=1, memory_kib=8)


def _serve(line: socket.socket) -> tuple[list[str], dict[str, str], str, list[int]] | None:
    """Fork what is asked for, until nobody can ask any more: then None.

    In a process that was forked, what it is to be.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not line:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    _, status = os.waitpid(key.data, 0)
                    line.send(_told("ended", key.data, os.waitstatus_to_exitcode(status)))
                    continue
                message, streams, _, _ = socket.recv_fds(line, MESSAGE_MAX, 3)
                if not message:
                    return None
                child = os.fork()
                if not child:
                    for other in list(selector.get_map().values()):
                        os.close(other.fd)
                    return *json.loads(message), streams
                for stream in streams:
                    os.close(stream)
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, child)
                line.send(_told("started", child, 0))


def _told(kind: str, child: int, status: int) -> bytes:
    return json.dumps([kind, child, status]).encode()


def _become(
    arguments: list[str], environment: dict[str, str], cwd: str, streams: list[int]
) -> None:
    """Be the process that was asked for, up to its last line."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, errors="backslashreplace", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.chdir(cwd)
    sys.argv[:] = arguments[1:]  # some hold on to the list
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)


def _main(descriptor: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.ExitStack() as held:
        line = held.enter_context(socket.socket(fileno=descriptor))
        import_everything()
        _make_slots_cheap()
        asked: Any = _serve(line)
        line.detach() if asked is not None else None
    if asked is not None:
        _become(*asked)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
