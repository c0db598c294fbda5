"""Tests of :mod:`cloudconnect.cli.importing`."""

from __future__ import annotations

import gc
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli import importing
from cloudconnect.cli.importing import (
    THRESHOLDS,
    LazyGroup,
    _LatePattern,
    spare,
    uncollected,
)
from cloudconnect.cli.main import _COMMANDS, cloudconnect
from cloudconnect.cli.provider import provider
from cloudconnect.cli.provider_wan import wan
from cloudconnect.cli.sections import SHORT_HELP_MAX

ROOT = Path(__file__).resolve().parent.parent.parent


class ImportingTests(SynchronousTestCase):
    """Without the collector."""

    def test_uncollected(self) -> None:
        """The collector rests inside, also where that fails, and works again behind it."""
        with self.assertRaises(ValueError), uncollected():
            self.assertFalse(gc.isenabled())
            raise ValueError
        self.assertTrue(gc.isenabled())

    def test_stays_off(self) -> None:
        """A collector that somebody has switched off stays off."""
        self.addCleanup(gc.enable)
        gc.disable()
        with uncollected():
            pass
        self.assertFalse(gc.isenabled())

    def test_for_good(self) -> None:
        """What is there at the end is never looked at again, unless it failed."""
        self.addCleanup(gc.unfreeze)
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        with self.assertRaises(ValueError), uncollected(for_good=True):
            raise ValueError
        self.assertEqual(gc.get_freeze_count(), 0)
        with uncollected(for_good=True):
            pass
        self.assertGreater(gc.get_freeze_count(), 0)
        self.assertEqual(gc.get_threshold(), THRESHOLDS)


class StartTests(SynchronousTestCase):
    """What a command does not import."""

    def test_light(self) -> None:
        """A tenant's command starts without the provider's modules and their SQL."""
        commands = ("backup", "check", "diff", "find", "points", "restore")
        names = sorted({_COMMANDS[command].module for command in commands})
        program = f"import sys, {', '.join(names)}; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        loaded = set(done.stdout.split())
        self.assertIn("cloudconnect.cli.backup", loaded, done.stderr)
        heavy = ("sqlalchemy", "alembic", "cloudconnect.provider", "cloudconnect.repository")
        self.assertEqual([name for name in sorted(loaded) if name.startswith(heavy)], [])


class ListTests(SynchronousTestCase):
    """Commands that are only listed."""

    def test_summaries(self) -> None:
        """What a list says of a command is the first sentence of its own help."""
        groups = [group for group in (cloudconnect, provider, wan) if isinstance(group, LazyGroup)]
        self.assertEqual(len(groups), 3)
        for group in groups:
            context = click.Context(group)
            for name, place in group._places.items():
                command = group.get_command(context, name)
                assert command is not None
                self.assertEqual(place.summary, command.get_short_help_str(SHORT_HELP_MAX), name)
                self.assertFalse(command.hidden, name)

    def listed(self, program: str) -> tuple[str, set[str]]:
        """What a program prints, and what it has imported."""
        done = subprocess.run(
            [sys.executable, "-c", f"{program}; print(*sys.modules, file=sys.stderr)"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout, set(done.stderr.split())

    def test_help(self) -> None:
        """A help text shows all commands in whole sentences, and imports none of them."""
        program = (
            "import sys, contextlib; from cloudconnect.cli.main import cloudconnect as run\n"
            "with contextlib.suppress(SystemExit): run(['--help'])\n0"
        )
        shown, modules = self.listed(program)
        for name, place in _COMMANDS.items():
            self.assertIn(f"  {name} ", shown)
            self.assertIn("".join(place.summary.split()), "".join(shown.split()))
            self.assertNotIn(place.module, modules)
        self.assertNotIn("twisted", modules)

    def test_completion(self) -> None:
        """So it is where a shell completes a word."""
        program = (
            "import sys, click; from cloudconnect.cli.main import cloudconnect as run\n"
            "for one in run.shell_complete(click.Context(run), 're'): print(one.value, one.help)\n0"
        )
        shown, modules = self.listed(program)
        names = ("restore", "retention")
        self.assertEqual(shown.splitlines(), [f"{n} {_COMMANDS[n].summary}" for n in names])
        self.assertNotIn("twisted", modules)


#: Prints what is imported, and what comes of its use.
RUN = """
import json, re, sys
from cloudconnect.cli.importing import spare
compile_now = re.compile
spare()
spare()
from twisted.python import compat
from cryptography import x509
kept = re.compile is compile_now
early = [name for name in ("http.client", "email.parser", "urllib.request") if name in sys.modules]
made = compat.cookielib.CookieJar()
from twisted.web.client import CookieAgent
name = x509.Name.from_rfc4514_string("CN=one.example,O=One\\\\, Two")
print(json.dumps([kept, early, len(made), "http.client" in sys.modules, name.rfc4514_string()]))
"""


class SparingTests(SynchronousTestCase):
    """In a process of its own, as a command is."""

    def test_there_when_wanted(self) -> None:
        """Cookies and names of certificates are not made by an import, but by their first use."""
        done = subprocess.run(
            [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        expected = [True, [], 0, True, "CN=one.example,O=One\\, Two"]
        self.assertEqual(json.loads(done.stdout), expected)

    def test_used_meanwhile(self) -> None:
        """A pattern that is used while others are still made late is the right one, however it was
        asked for."""
        self.patch(re, "compile", _LatePattern)
        late = re.compile("a(b)", flags=re.IGNORECASE)
        self.assertIsInstance(late, _LatePattern)
        self.assertTrue(late.match("AB"))

    def test_other_threads(self) -> None:
        """Another thread gets its patterns at once; the one that spares is the only one that has
        them late."""
        made: list[object] = []

        def import_module(name: str) -> None:
            thread = threading.Thread(target=lambda: made.append(re.compile("a")))
            thread.start()
            thread.join()
            made.append(re.compile("a"))

        self.patch(importing.importlib, "import_module", import_module)
        self.patch(importing, "_late_cookies", lambda: None)
        spare()
        self.assertEqual([re.Pattern, _LatePattern], [type(one) for one in made])
        self.assertIsInstance(re.compile("a"), re.Pattern)
