"""What processes that hold no data base import: each of them may be one of many on small hosts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent.parent
#: Some 24 MiB of memory.
HEAVY = (
    "alembic",
    "cloudconnect.provider.accounts",
    "cloudconnect.provider.data_mover",
    "cloudconnect.provider.service.service",
    "cloudconnect.repository",
    "sqlalchemy",
)


class LightTests(SynchronousTestCase):
    """Gateways and accelerators of a process of their own."""

    def test_no_data_base(self) -> None:
        """They are started without SQL, the service and what stores."""
        for module in ("cloudconnect.tap.gateway", "cloudconnect.tap.wan"):
            done = subprocess.run(
                [sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=120,
            )
            loaded = set(done.stdout.split())
            self.assertIn(module, loaded, done.stderr)
            heavy = [name for name in loaded if name.startswith(HEAVY)]
            self.assertEqual([], sorted(heavy), module)
