"""Tests of :mod:`cloudconnect.cli.completion`: what a shell is told."""

from __future__ import annotations

import shutil
import subprocess

from click.shell_completion import ShellComplete

from cloudconnect.cli.completion import SHELLS
from cloudconnect.cli.main import cloudconnect
from tests.cli.commands import CommandCase


class CompletionTests(CommandCase):
    """What stands behind the words that were typed."""

    def completed(self, *words: str) -> list[tuple[str, str]]:
        """The completions of the last word: what kind each is, and the text."""
        shell = ShellComplete(cloudconnect, {}, "cloudconnect", "_CLOUDCONNECT_COMPLETE")
        *before, last = words
        return [(item.type, item.value) for item in shell.get_completions(before, last)]

    def test_commands(self) -> None:
        """Commands, commands of groups, and options."""
        self.assertEqual([("plain", "undelete")], self.completed("unde"))
        self.assertEqual([("plain", "tenant")], self.completed("provider", "ten"))
        self.assertEqual([("plain", "--strip-components")], self.completed("restore", "--strip"))

    def test_places(self) -> None:
        """Where a path is wanted the shell looks for one."""
        for words in (
            ("backup", "Doc"),
            ("backup", "--password-file", "Doc"),
            ("job", "add", "nightly", "Doc"),
            ("connect", "--invite", "Doc"),
            ("backup", "--exclude-file", "Doc"),
        ):
            self.assertEqual([("file", "Doc")], self.completed(*words), words)
        self.assertEqual([("dir", "Doc")], self.completed("restore", "latest", "--target", "Doc"))

    def test_scripts(self) -> None:
        """There is a script for each shell, which that shell takes where it is installed."""
        for shell in SHELLS:
            done = self.call("completion", shell)
            self.assertEqual((0, ""), (done.status, done.err))
            self.assertIn("_CLOUDCONNECT_COMPLETE", done.out)
            path = shutil.which(shell)
            if path is not None:
                subprocess.run([path, "-n"], input=done.out.encode(), check=True)
        self.assertEqual(2, self.call("completion", "tcsh").status)
