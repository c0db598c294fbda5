"""The order of the layers, as ``docs/architecture.rst`` states it, held against the imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

WORDS = {"errors", "interfaces", "keys", "settings", "events", "shown"}
BYTES = {"wire", "content", "dedup"}
STORAGE = {"repository", "backup", "cache"}
ROLES = {"provider", "tenant", "accelerator"}
SETTINGS = {"config", "metrics", "agent"}
FACES = {"cli", "tap", "plugins", "__main__"}

TO_TRANSPORTS = WORDS | BYTES | {"transports"}
TO_STORAGE = TO_TRANSPORTS | {"commands"} | STORAGE
TO_ROLES = TO_STORAGE | {"sessions"} | ROLES

#: What each room (a package or module directly below ``cloudconnect``) may import of the others.
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(WORDS, WORDS),
    "wire": WORDS,
    # What is stored has the canonical encoding and the blob form of what is sent.
    "content": WORDS | {"wire"},
    # The codec cuts by content as what is stored does, and knows the outline of frames.
    "dedup": WORDS | {"wire", "content"},
    "transports": WORDS | BYTES,
    "commands": TO_TRANSPORTS,
    **dict.fromkeys(STORAGE, WORDS | BYTES),
    # What is common to all target roles.
    "sessions": TO_TRANSPORTS | {"commands"},
    **dict.fromkeys(ROLES, TO_STORAGE | {"sessions"}),
    **dict.fromkeys(SETTINGS, TO_ROLES),
    # Its jobs lie beside the profiles that they use.
    "agent": TO_ROLES | {"config"},
    "testing": TO_ROLES,
    **dict.fromkeys(FACES, TO_ROLES | SETTINGS | FACES),
}

#: Rooms that know nothing of Twisted.
WITHOUT_TWISTED = WORDS | BYTES | STORAGE

#: What a pure room has no use for: sockets, files, processes and clocks.
IMPURE = {"asyncio", "datetime", "pathlib", "select", "socket", "subprocess", "tempfile", "time"}

#: Distributions that somebody who reuses one transport does not need, by the name to import.
NOT_FOR_TRANSPORTS = (
    "alembic",
    "backports.zstd",
    "blake3",
    "cbor2",
    "click",
    "compression.zstd",
    "pyfastcdc",
    "rich",
    "scramp",
    "sqlalchemy",
)

#: Imports all of a package where the modules named after it in argv cannot be imported.
IMPORT_PACKAGE = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if any(name == blocked or name.startswith(blocked + ".") for blocked in sys.argv[2:]):
            raise ImportError(f"{name} is not among the base packages")

sys.meta_path.insert(0, Blocked())
package = importlib.import_module(sys.argv[1])

for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    print(importlib.import_module(found.name).__name__)
"""


def imported_names(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Every dotted name that ``source`` imports, also inside functions and type-checking blocks.

    ``from a import b`` gives ``a.b``: whether ``b`` is a module makes no difference to the rules.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = [*base, *(node.module or "").split(".")] if node.module else base
            yield from (".".join([*prefix, alias.name]) for alias in node.names)


def room_of(name: str) -> str | None:
    """The room that a dotted name belongs to; None when it is not ours or the bare package."""
    parts = name.split(".")
    if parts[0] == "cloudconnect" and len(parts) > 1:
        return parts[1]
    if name.startswith("twisted.plugins.cloudconnect"):
        return "plugins"
    return None


def objections(source: str, module: str, is_package: bool = False) -> list[str]:
    """What in the imports of ``module`` is against the order of layers, one sentence each."""
    found = []
    room = room_of(module)
    if room is None:
        return [
            f"{module} imports {name}"
            for name in imported_names(source, module, is_package)
            if room_of(name) is not None
        ]
    if room not in MAY_IMPORT:
        return [f"{module} is in a room that the table of layers does not have"]
    for name in imported_names(source, module, is_package):
        other = room_of(name)
        if other is not None and other != room and other not in MAY_IMPORT[room]:
            found.append(f"{module} imports {name}")
        if name.split(".")[0] == "twisted" and room in WITHOUT_TWISTED:
            found.append(f"{module} is free of Twisted and imports {name}")
        if name.split(".")[0] in IMPURE and room in WORDS | BYTES:
            found.append(f"{module} is pure and imports {name}")
    return found


def our_modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours by its dotted name, the plugins included."""
    places = [*ROOT.glob("cloudconnect/**/*.py"), *ROOT.glob("twisted/plugins/*.py")]
    for path in sorted(places):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def reactor_imports(source: str) -> list[int]:
    """Lines outside functions that import the reactor, and thereby install one."""
    found = []
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            if "twisted.internet.reactor" in names:
                found.append(node.lineno)
        waiting.extend(ast.iter_child_nodes(node))
    return found


class LayerTests(SynchronousTestCase):
    """The package as it stands."""

    def test_order(self) -> None:
        """No module imports from a layer above its own, nor from a sibling it must not know."""
        found = [
            sentence
            for module, path in our_modules()
            for sentence in objections(path.read_text("utf-8"), module, path.stem == "__init__")
        ]
        self.assertEqual([], found)

    def test_reactor(self) -> None:
        """No module imports the reactor when it is itself imported."""
        found = [
            f"{module}, line {line}"
            for module, path in our_modules()
            for line in reactor_imports(path.read_text("utf-8"))
        ]
        self.assertEqual([], found)

    def test_alone(self) -> None:
        """Transports and testing can be imported where only the base packages are installed."""
        for package in ("cloudconnect.transports", "cloudconnect.testing"):
            done = subprocess.run(
                [sys.executable, "-c", IMPORT_PACKAGE, package, *NOT_FOR_TRANSPORTS],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
            )
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            there = {module for module, _ in our_modules() if module.startswith(f"{package}.")}
            self.assertEqual(there, set(done.stdout.split()))


class CheckerTests(SynchronousTestCase):
    """The checks above find what they are for."""

    def test_upwards(self) -> None:
        """An import from a layer above is found in every way to write it."""
        for line in (
            "import cloudconnect.transports.tls",
            "from cloudconnect.transports import tls",
            "from cloudconnect import transports",
            "from ..transports.tls import PinnedTLS",
            "def late():\n    from cloudconnect.transports import tls",
        ):
            self.assertEqual(1, len(objections(line, "cloudconnect.wire.records")), line)

    def test_siblings(self) -> None:
        """Siblings in storage and among the roles may not know each other, lower layers may."""
        line = "from cloudconnect.repository.store import Repository"
        self.assertEqual(1, len(objections(line, "cloudconnect.backup.upload")))
        self.assertEqual([], objections(line, "cloudconnect.provider.data_mover.mover"))
        line = "from cloudconnect.content.chunking import Chunker"
        self.assertEqual(1, len(objections(line, "cloudconnect.wire.frames")))
        line = "from cloudconnect.provider.service.service import Service"
        self.assertEqual(1, len(objections(line, "cloudconnect.tenant.jobs")))
        self.assertEqual([], objections(line, "cloudconnect.cli.main"))

    def test_unknown_room(self) -> None:
        """A new package needs a row in the table before it may be there."""
        self.assertEqual(1, len(objections("", "cloudconnect.utils.text")))

    def test_bare_package(self) -> None:
        """``import cloudconnect`` loads no other part of it."""
        self.assertEqual(1, len(objections("from .keys import KeyA", "cloudconnect", True)))

    def test_twisted(self) -> None:
        """Words, bytes and storage are free of Twisted; transports are not."""
        line = "from twisted.internet import defer"
        self.assertEqual(1, len(objections(line, "cloudconnect.repository.store")))
        self.assertEqual([], objections(line, "cloudconnect.transports.tls"))

    def test_impure(self) -> None:
        """A clock or a socket in a pure room is found."""
        for line in ("import time", "from socket import socket"):
            self.assertEqual(1, len(objections(line, "cloudconnect.wire.records")), line)
            self.assertEqual([], objections(line, "cloudconnect.backup.walk"))

    def test_reactor(self) -> None:
        """The reactor is found at module and class level, and allowed inside a function."""
        line = "from twisted.internet import reactor"
        self.assertEqual([1], reactor_imports(line))
        self.assertEqual([2], reactor_imports(f"class A:\n    {line}"))
        self.assertEqual([1], reactor_imports("import twisted.internet.reactor"))
        self.assertEqual([], reactor_imports(f"def late():\n    {line}"))
