"""Program, commands and strings of ``docs/howto/endpoint-strings.rst`` do what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.transports.strings import (
    LayerParser,
    NoiseTunnelParser,
    PinnedTLSParser,
    RecordStreamParser,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "howto" / "endpoint-strings.rst"


def blocks(text: str, language: str) -> list[str]:
    """The code blocks of a page in one language; ``::`` for those behind two colons."""
    begin = r"::\n\n" if language == "::" else rf"\.\. code-block:: {language}\n\n"
    found = re.findall(rf"(?<!\w{{2}}){begin}((?:   .*\n|\n)+)", text)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


class PageTests(SynchronousTestCase):
    """The page against the code."""

    def setUp(self) -> None:
        self.text = PAGE.read_text("utf-8")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_program(self) -> None:
        """The program has at most 20 lines, knows nothing of us, and runs as it stands there."""
        program, commands = blocks(self.text, "python")[0], blocks(self.text, "shell")[0]
        self.assertLessEqual(len(program.splitlines()), 20)
        self.assertNotIn("cloudconnect", program)
        self.assertIn("recordstream:", commands)
        (self.folder / "hello.py").write_text(program)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", "-euc", commands],
            cwd=self.folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        printed = re.search(r"It prints::\n\n((?:   .*\n)+)", self.text)
        assert printed is not None
        self.assertEqual(textwrap.dedent(printed[1]), done.stdout)

    def test_strings(self) -> None:
        """Every whole string of the page can be parsed, on the side that it is for."""
        found = re.findall(r"^   ((?:recordstream|noisetunnel):\S+)$", self.text, re.MULTILINE)
        self.assertEqual(4, len(found))
        reactor: Any = MemoryReactorClock()
        server, *clients = found
        for string in found:
            for name in re.findall(r"keyFile=(\w+\.key)", string):
                descriptor = os.open(self.folder / name, os.O_CREAT | os.O_WRONLY, 0o600)
                os.write(descriptor, b"\xa5" * 32)
                os.close(descriptor)
        here = str(self.folder)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(here)
        serverFromString(reactor, server)
        for string in clients:
            clientFromString(reactor, string)

    def test_nesting(self) -> None:
        """The example of three strings is what quoting makes, one out of the other."""
        inner, middle, outer = blocks(self.text, "none")[0].splitlines()
        self.assertTrue(middle.endswith(f"endpoint={quoteStringArgument(inner)}"))
        self.assertTrue(outer.endswith(f"endpoint={quoteStringArgument(middle)}"))
        made: dict[str, Any] = {"path": "b.key", "other": "a.key"}
        exec(blocks(self.text, "python")[1], made)
        self.assertEqual((middle, outer), (made["inner"], made["whole"]))

    def test_parts(self) -> None:
        """The table has every layer and every part, and no other."""
        table = self.text.partition("     - Meaning\n")[2].partition("\nA part that")[0]
        rows = re.findall(r"   \* - (.*)\n     - (.*)\n", table.replace("   * -\n", "   * - \n"))
        found: dict[str, set[str]] = {}
        layer = ""
        for first, parts in rows:
            layer = first or layer
            found.setdefault(layer, set()).update(re.findall(r"``(\w+)``", parts))
        everywhere = found.pop("all")
        self.assertEqual({"endpoint"}, everywhere)
        both = found.pop("``pinnedtls``, both")
        expected: dict[str, tuple[type[LayerParser], set[str]]] = {
            "``recordstream``": (RecordStreamParser, set(RecordStreamParser.client)),
            "``noisetunnel``": (NoiseTunnelParser, set(NoiseTunnelParser.client)),
            "``pinnedtls``, client": (PinnedTLSParser, set(PinnedTLSParser.client) - both),
            "``pinnedtls``, server": (PinnedTLSParser, set(PinnedTLSParser.server) - both),
        }
        self.assertEqual({name: parts for name, (_, parts) in expected.items()}, found)
        self.assertEqual(set(PinnedTLSParser.client) & set(PinnedTLSParser.server), both)
        for name, (parser, _) in expected.items():
            self.assertIn(parser.prefix, name)
