"""Tests of :mod:`cloudconnect.config.mover`."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.config.mover import CONFIGURATION, MoverSettings, load
from cloudconnect.errors import UsageError


class MoverSettingsTests(SynchronousTestCase):
    """The settings of a mover."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        self.settings = MoverSettings(
            directory=self.directory, service="10.0.0.5:6181", backend="10.0.0.7:6184"
        )

    def write(self, text: str) -> None:
        (self.directory / CONFIGURATION).write_text(text)

    def test_written(self) -> None:
        """What is written is read again."""
        self.write(self.settings.to_toml())
        self.assertEqual(self.settings, load(self.directory))
        self.assertEqual(("10.0.0.5", 6181), load(self.directory).service_address)

    def test_refused(self) -> None:
        """What cannot be used is named: no file, an address that is none, one that is missing, an
        unknown setting, a number out of bounds."""
        self.assertIn("node join", str(self.assertRaises(UsageError, load, self.directory)))
        good = self.settings.to_toml()
        for text in (
            good.replace("10.0.0.7:6184", "nowhere"),
            good.replace("10.0.0.5:6181", ""),
            "\n".join(line for line in good.splitlines() if not line.startswith("backend")),
            good + "color = 'red'\n",
            good.replace("gc_hours = 24", "gc_hours = 0"),
        ):
            self.write(text)
            self.assertRaises(UsageError, load, self.directory)
