"""What an installation offers: the plugins, the command and the type marker."""

from __future__ import annotations

import configparser
import importlib
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

SERVICES = {
    "cloudconnect-provider",
    "cloudconnect-gateway",
    "cloudconnect-wan",
    "cloudconnect-agent",
    "cloudconnect-datamover",
}


class PluginTests(SynchronousTestCase):
    """Twisted finds our plugins; a broken one would only be logged and stay away."""

    def test_services(self) -> None:
        """``twist`` and ``twistd`` know our services, by name and with a description."""
        ours = {
            maker.tapname: maker
            for maker in getPlugins(IServiceMaker)
            if maker.tapname.startswith("cloudconnect-")
        }
        self.assertEqual(SERVICES, set(ours))
        for maker in ours.values():
            self.assertTrue(maker.description)
            self.assertIsInstance(maker.options(), usage.Options)

    def test_no_package(self) -> None:
        """The plugin folders are no packages: an ``__init__.py`` there would hide Twisted's own."""
        self.assertEqual([], list((ROOT / "twisted").rglob("__init__.py")))


class MetadataTests(SynchronousTestCase):
    """What ``setup.cfg`` promises is there."""

    def setUp(self) -> None:
        """Read it as setuptools does."""
        self.config = configparser.ConfigParser()
        self.config.read(ROOT / "setup.cfg", "utf-8")

    def test_command(self) -> None:
        """The console script's entry point can be imported and called."""
        scripts = self.config["options.entry_points"]["console_scripts"].split("\n")
        targets = [line.partition("=")[2].strip() for line in scripts if line]
        self.assertEqual(1, len(targets))
        module, _, name = targets[0].partition(":")
        self.assertTrue(callable(getattr(importlib.import_module(module), name)))

    def test_typed(self) -> None:
        """The package says that it carries types, and the marker is packed."""
        self.assertTrue((ROOT / "cloudconnect" / "py.typed").is_file())
        self.assertEqual("py.typed", self.config["options.package_data"]["cloudconnect"])

    def test_editable(self) -> None:
        """An editable installation shows the plugins too, which it does in this mode only."""
        self.assertEqual("compat", self.config["editable_wheel"]["mode"])
