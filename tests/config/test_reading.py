"""Tests of :mod:`cloudconnect.config.reading`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.reading import read_settings
from cloudconnect.errors import UsageError


@attrs.frozen
class Settings:
    """Some settings."""

    directory: Path
    word: str = ""
    count: int = 1
    words: tuple[str, ...] = ()


class ReadingTests(SynchronousTestCase):
    """A file of settings."""

    def read(self, text: str | bytes) -> dict[str, Any]:
        """The values in a file of this content."""
        self.path = Path(self.mktemp())
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_settings(self.path, Settings, "none", {"count": (1, 9)}, ("words",))

    def test_values(self) -> None:
        """Texts, numbers and lists of texts; what is not there is left out."""
        self.assertEqual({}, self.read(""))
        self.assertEqual(
            {"word": "a", "count": 9, "words": ("b", "c")},
            self.read('word = "a"\ncount = 9\nwords = ["b", "c"]'),
        )

    def test_missing(self) -> None:
        """Where there is no file, what was given is said."""
        error = self.assertRaises(
            UsageError, read_settings, Path(self.mktemp()), Settings, "make it"
        )
        self.assertEqual("make it", str(error))

    def test_wrong(self) -> None:
        """What cannot be used is named, and its file."""
        for text, word in (
            ("word = ", "cannot be used"),
            (b"\xff", "cannot be used"),
            ("other = 1", "unknown setting other"),
            ('directory = "/"', "unknown setting directory"),
            ("word = 1", "word is a text"),
            ("count = 0", "count is a number from 1 to 9"),
            ("count = 10", "count is a number from 1 to 9"),
            ("count = true", "count is a number from 1 to 9"),
            ('words = "a"', "words is a list of texts"),
            ("words = [1]", "words is a list of texts"),
        ):
            error = self.assertRaises(UsageError, self.read, text)
            self.assertIn(word, str(error))
            self.assertIn(str(self.path), str(error))
