"""What the tests of the command line share: calling a command in this process."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.main import main


@attrs.frozen
class Done:
    """What a command came to.

    :ivar status: its exit status
    """

    status: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class _Stream(io.TextIOWrapper):
    """Standard output or error, of a terminal or not."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(), "utf-8", "surrogateescape", write_through=True)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def text(self) -> str:
        octets: bytes = self.buffer.getvalue()  # type: ignore[attr-defined]
        return octets.decode("utf-8", "surrogateescape")


class CommandCase(SynchronousTestCase):
    """A test with a home, an environment of its own and no terminal.

    :ivar environment: what commands find in the environment
    """

    terminal = False

    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.environment = {"HOME": str(self.home), "PATH": os.environ["PATH"]}
        self.patch(os, "environ", self.environment)
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        self.fresh_output()

    def fresh_output(self) -> None:
        """Standard output and error that are kept."""
        self.out, self.err = _Stream(), _Stream(self.terminal)
        self.patch(sys, "stdout", self.out)
        self.patch(sys, "stderr", self.err)

    def call(self, *words: str) -> Done:
        """Run a command line."""
        self.fresh_output()
        try:
            main(list(words))
        except SystemExit as end:
            return Done(int(end.code or 0), self.out.text(), self.err.text())

    def file(self, content: bytes, name: str = "file") -> str:
        """A file with this content."""
        path = self.home / name
        path.write_bytes(content)
        return str(path)
