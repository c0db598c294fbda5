"""What a backup leaves out."""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.backup.patterns import PathPatterns
from cloudconnect.backup.rules import CACHE_TAG, CACHE_TAG_SIGNATURE, ExcludeRules
from tests.backup.trees import write


class RulesTests(SynchronousTestCase):
    """The rules that need more than a pattern."""

    def setUp(self) -> None:
        self.top = os.path.abspath(self.mktemp()).encode()
        os.makedirs(self.top)
        self.folder = os.open(self.top, os.O_RDONLY)
        self.addCleanup(os.close, self.folder)

    def kept(self, rules: ExcludeRules) -> frozenset[bytes] | None:
        return rules.kept_names(self.folder, os.listdir(self.top))

    def test_defaults_exclude_nothing(self) -> None:
        """Without settings everything is kept."""
        rules = ExcludeRules()
        self.assertFalse(rules.excludes(b"/a", False))
        self.assertFalse(rules.too_large(1 << 60))
        write(self.top + b"/" + CACHE_TAG, CACHE_TAG_SIGNATURE)
        self.assertIsNone(self.kept(rules))

    def test_patterns(self) -> None:
        """A path that a pattern means is excluded."""
        rules = ExcludeRules(patterns=PathPatterns([b"*.tmp"]))
        self.assertTrue(rules.excludes(b"/x/a.tmp", False))
        self.assertFalse(rules.excludes(b"/x/a", False))

    def test_larger_than(self) -> None:
        """A file is too large above the limit, not at it."""
        rules = ExcludeRules(larger_than=1000)
        self.assertFalse(rules.too_large(1000))
        self.assertTrue(rules.too_large(1001))

    def test_cache_tag(self) -> None:
        """Of a folder with a valid cache tag only the tag is kept."""
        rules = ExcludeRules(caches=True)
        self.assertIsNone(self.kept(rules))
        write(self.top + b"/" + CACHE_TAG, CACHE_TAG_SIGNATURE + b"\n# by some program\n")
        self.assertEqual(self.kept(rules), {CACHE_TAG})

    def test_false_cache_tags(self) -> None:
        """A file of that name with other content, a link and a folder are no cache tags."""
        rules = ExcludeRules(caches=True)
        path = self.top + b"/" + CACHE_TAG
        write(path, CACHE_TAG_SIGNATURE[:-1])
        self.assertIsNone(self.kept(rules))
        os.unlink(path)
        write(self.top + b"/real", CACHE_TAG_SIGNATURE)
        os.symlink(b"real", path)
        self.assertIsNone(self.kept(rules))
        os.unlink(path)
        os.mkdir(path)
        self.assertIsNone(self.kept(rules))

    def test_if_present(self) -> None:
        """Of a folder with a marking file only that file is kept."""
        rules = ExcludeRules(if_present=frozenset((b".nobackup", b".skip")))
        write(self.top + b"/other", b"")
        self.assertIsNone(self.kept(rules))
        write(self.top + b"/.nobackup", b"")
        self.assertEqual(self.kept(rules), {b".nobackup"})
