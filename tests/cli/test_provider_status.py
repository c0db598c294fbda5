"""Tests of :mod:`cloudconnect.cli.provider_status`, while no provider runs; else in the stories."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.cli.provider_status import status_lines
from tests.cli.test_provider import DirectoryCase
from tests.provider.admin.test_needs import NODE, WELL


class StatusTests(DirectoryCase):
    """``provider status``."""

    def test_resting(self) -> None:
        """Where none runs it says so, with what the directory knows, and ends with 1."""
        done = self.call("provider", "status", "--json", *self.where)
        self.assertEqual(1, done.status)
        (row,) = done.lines()
        self.assertEqual(("provider_status", False), (row["message_type"], row["ok"]))
        self.assertEqual(["no provider runs on this directory"], row["needs"])
        self.assertIn("the provider's certificate", [r["name"] for r in row["certificates"]])
        text = self.call("provider", "status", *self.where)
        self.assertIn("ATTENTION  no provider runs", text.out)

    def test_since(self) -> None:
        """A time that is none is refused."""
        done = self.call("provider", "status", "--since", "soon", *self.where)
        self.assertEqual(2, done.status)


class TextTests(SynchronousTestCase):
    """A status for a person."""

    def test_lines(self) -> None:
        """Each part has its line."""
        now = time.time()
        status: dict[str, Any] = {
            **WELL,
            "roles": ["service", "gateway"],
            "listening": [{"name": "gateway", "where": "[::]:6180"}],
            "sessions": {"backup": 2},
            "connections": 3,
            "tenants": {"all": 4, "disabled": 1, "frozen": 0, "removed": 0, "repositories": 3},
            "nodes": [{**NODE, "revoked": None, "sessions": 2}],
            "node_count": 1,
            "tended": {"garbage_collected": now},
            "storage": {
                "disk_bytes": 10**12,
                "free_bytes": 10**11,
                "bytes_stored": 5 * 10**9,
                "measured": 3,
                "measured_at": now - 7200,
                "read_since": now - 86400,
            },
        }
        text = "\n".join(status_lines(status, now))
        for words in (
            "service, gateway",
            "gateway on [::]:6180",
            "2 backup; 3 tenants' machines",
            "tenants: 4 (1 disabled)",
            "repositories: 3, 5.0 GB stored (measured 2 h ago)",
            "100.0 GB of 1.0 TB free",
            "mover store1: connected, 2 sessions",
            "garbage collected last",
            "was read and compared since",
            "the provider's certificate: until",
        ):
            self.assertIn(words, text)
