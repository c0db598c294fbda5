"""Modules that are imported while a command waits."""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from cloudconnect.cli import beside
from cloudconnect.cli.beside import import_beside


class BesideTests(TestCase):
    """They are there when the waiting is over."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.patch(sys, "path", [str(self.folder), *sys.path])
        self.addCleanup(lambda: [sys.modules.pop(name) for name in self.names()])

    def names(self) -> list[str]:
        return [name for name in sys.modules if name.startswith("cloudconnect_beside_")]

    def made(self, name: str, text: str) -> str:
        (self.folder / f"cloudconnect_beside_{name}.py").write_text(text)
        importlib.invalidate_caches()
        return f"cloudconnect_beside_{name}"

    async def test_imported(self) -> None:
        """They are imported in another thread, in order."""
        text = "import threading; thread = threading.current_thread()"
        names = [self.made("one", text), self.made("two", text)]
        await import_beside(reactor, names)
        self.assertEqual(names, self.names())
        for name in names:
            self.assertIsNot(sys.modules[name].thread, threading.current_thread())

    def test_there(self) -> None:
        """Where all are there already, there is nothing to wait for."""
        done: Deferred[None] = import_beside(reactor, ["sys", "threading"])
        self.assertIsNone(self.successResultOf(done))

    async def test_fails(self) -> None:
        """What is wrong with a module whoever waits is told; those behind it are not imported."""
        names = [self.made("bad", "raise ValueError('bad')"), self.made("three", "")]
        with self.assertRaises(ValueError):
            await import_beside(reactor, names)
        self.assertEqual([], self.names())

    def test_named(self) -> None:
        """Every module that a command names is one."""
        named: Any = (beside.BACKUP, beside.CHECK, beside.READ, beside.RESTORE, beside.ACCELERATOR)
        for name in {name for names in named for name in names}:
            self.assertIsNotNone(importlib.util.find_spec(name), name)
