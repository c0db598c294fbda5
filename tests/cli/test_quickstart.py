"""Tests of :mod:`cloudconnect.cli.quickstart`; the whole of it is what ``make quickstart`` does."""

from __future__ import annotations

from typing import Any

from cloudconnect.cli.quickstart import saved_text
from tests.cli.commands import CommandCase


def summary(**wan: Any) -> dict[str, Any]:
    """The summary of a backup."""
    return {
        "files": 5,
        "bytes_source": 10_000,
        "bytes_new": 9000,
        "bytes_stored": 9000,
        "bytes_sent": 1500,
        "wan": wan or None,
    }


class SavedTests(CommandCase):
    """What is said to have been saved."""

    def test_by_the_mover(self) -> None:
        """Without accelerators it is the mover's deduplication and compression."""
        text = saved_text({**summary(), "bytes_stored": 4000})
        self.assertEqual(
            "5 files, 10.0 kB in clear; 1.5 kB on the line; saved by dedup 1.0 kB, by compression "
            "5.0 kB",
            text,
        )

    def test_by_accelerators(self) -> None:
        """With them it is theirs; each way is named once, and only where it saved something."""
        saved = {"saved_by_compression": 6000, "saved_by_delta": 2000, "saved_by_reference": 0}
        text = saved_text(summary(used=True, **saved))
        self.assertTrue(text.endswith("by compression 6.0 kB, by WAN delta 2.0 kB"), text)

    def test_nothing(self) -> None:
        """What became larger on the way was not saved."""
        worse = {**summary(used=True, saved_by_compression=-40), "bytes_stored": 9040}
        self.assertIn("by compression 0 B", saved_text(worse))


class RefusalTests(CommandCase):
    """Where it does not begin."""

    def test_places(self) -> None:
        """The source is a folder, and what is made lies outside of it, in a new folder."""
        inside = self.home / "inside"
        full = self.home.parent / f"{self.home.name}-full"
        full.mkdir()
        (full / "file").touch()
        for words in (
            ("/not/there",),
            (str(self.home), "--directory", str(inside)),
            (str(inside), "--directory", str(full)),
        ):
            self.assertEqual(2, self.call("quickstart", *words).status)
        self.assertEqual(
            2, self.call("quickstart", str(self.home), "--directory", str(full)).status
        )
