"""The systemd units: what systemd itself says of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SkipTest, SynchronousTestCase

UNITS = Path(__file__).resolve().parent.parent / "packaging" / "systemd"
#: Least exposed is 0.0, most 10.0.
EXPOSURE_MAX = 2.0


class UnitTests(SynchronousTestCase):
    """Each of them."""

    def analyze(self, *words: str) -> str:
        """What systemd-analyze says."""
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd-analyze is not installed")
        done = subprocess.run(
            [program, *words], capture_output=True, text=True, timeout=120, env={"LC_ALL": "C"}
        )
        return done.stdout + done.stderr

    def test_exposure(self) -> None:
        """Each is hardened: at most 2.0 of 10."""
        self.assertEqual(5, len(list(UNITS.glob("*.service"))))
        for path in sorted(UNITS.glob("*.service")):
            said = self.analyze("security", "--offline=yes", "--no-pager", str(path))
            found = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
            assert found is not None, said
            self.assertLessEqual(float(found[1]), EXPOSURE_MAX, path.name)

    def test_services(self) -> None:
        """Each starts a service that there is, and each service has one."""
        makers = {maker.tapname for maker in getPlugins(IServiceMaker)}
        ours = {name for name in makers if name.startswith("cloudconnect-")}
        started = set()
        for path in UNITS.glob("*.service"):
            line = re.search(r"^ExecStart=.* (cloudconnect-\w+)", path.read_text(), re.MULTILINE)
            assert line is not None, path.name
            self.assertEqual(path.stem, line[1])
            started.add(line[1])
        self.assertEqual(ours, started)

    def test_callbacks(self) -> None:
        """None forbids memory that can be written and executed: OpenSSL could not call back."""
        for path in UNITS.glob("*.service"):
            self.assertIn("\nMemoryDenyWriteExecute=no\n", path.read_text(), path.name)
