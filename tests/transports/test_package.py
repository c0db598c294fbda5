"""Tests of the names that :mod:`cloudconnect.transports` offers."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect import transports


class PackageTests(SynchronousTestCase):
    """The public names."""

    def test_names(self) -> None:
        """Every public name is there, is what it says, and is loaded from its own module."""
        for name in transports.__all__:
            self.assertEqual(getattr(transports, name).__name__, name)
        self.assertEqual(sorted(transports.__all__), sorted(transports._HOMES))

    def test_no_such_name(self) -> None:
        """Another name is an AttributeError, as of any module."""
        self.assertFalse(hasattr(transports, "NoSuchTransport"))

    def test_loaded_when_used(self) -> None:
        """Taking one transport does not load the others, nor a reactor."""
        script = (
            "import sys; from cloudconnect.transports import NoiseTunnel;"
            "print([name for name in ('OpenSSL', 'cloudconnect.transports.stream',"
            " 'twisted.internet.reactor') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
        self.assertEqual(done.stdout, b"[]\n")
