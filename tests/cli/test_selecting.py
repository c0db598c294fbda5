"""Tests of :mod:`cloudconnect.cli.selecting`."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

import click

from cloudconnect.backup.rules import ExcludeRules
from cloudconnect.cli.selecting import rules_of, selecting_options, sources_of
from cloudconnect.errors import UsageError
from tests.cli.commands import CommandCase


def chosen(*words: str) -> dict[str, Any]:
    """The values of the options of a command."""

    @click.command()
    @selecting_options
    def command(**values: Any) -> dict[str, Any]:
        return values

    found: dict[str, Any] = command.main(list(words), standalone_mode=False)
    return found


class RuleTests(CommandCase):
    """What is left out."""

    def test_nothing(self) -> None:
        """Without options nothing is."""
        rules, nothing = rules_of(chosen()), ExcludeRules()
        self.assertEqual(
            (nothing.caches, nothing.if_present, nothing.larger_than),
            (rules.caches, rules.if_present, rules.larger_than),
        )
        self.assertFalse(rules.patterns.means(b"/a/b.log", False))

    def test_everything(self) -> None:
        """Every option has its effect; patterns come from the line and from files."""
        words = ("--exclude", "*.log", "--exclude-file", self.file(b"# why\n\n/tmp/x \n"))
        words += ("--exclude-caches", "--exclude-if-present", ".no", "--exclude-larger-than", "2kB")
        rules = rules_of(chosen(*words))
        self.assertEqual(
            (True, frozenset({b".no"}), 2000),
            (rules.caches, rules.if_present, rules.larger_than),
        )
        for path, out in ((b"/a/b.log", True), (b"/tmp/x", True), (b"/tmp/y", False)):
            self.assertEqual(out, rules.patterns.means(path, False), path)

    def test_lines_are_as_in_gitignore(self) -> None:
        """As git has it: spaces in front belong to a pattern, those behind only where escaped."""
        rules = rules_of(chosen("--exclude-file", self.file(b"# why\n\n  lead\n*.o  \nkept\\ \n")))
        for path, out in ((b"/a/  lead", True), (b"/a/lead", False), (b"/a/b.o", True)):
            self.assertEqual(out, rules.patterns.means(path, False), path)
        self.assertTrue(rules.patterns.means(b"/a/kept ", False))
        self.assertFalse(rules.patterns.means(b"/a/kept", False))

    def test_no_file(self) -> None:
        """A file of patterns that is not there is named."""
        error = self.assertRaises(UsageError, rules_of, chosen("--exclude-file", "/not/there"))
        self.assertIn("/not/there", str(error))
        self.assertRaises(UsageError, rules_of, chosen("--exclude-larger-than", "much"))


class SourceTests(CommandCase):
    """What is meant."""

    def test_sources(self) -> None:
        """Arguments and lists, all absolute; a list may come on standard input."""
        listed = self.file(b"/from/a/list\n")
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"/from/standard/input\n")))
        here = os.fsencode(os.path.abspath("here"))
        self.assertEqual(
            (here, b"/from/a/list", b"/from/standard/input"),
            sources_of(("here",), (listed, "-")),
        )

    def test_none(self) -> None:
        """Nothing named is nothing; a list that is not there is named."""
        self.assertEqual((), sources_of((), ()))
        error = self.assertRaises(UsageError, sources_of, (), ("/not/there",))
        self.assertIn("/not/there", str(error))
