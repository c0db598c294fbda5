"""A test case with an accounts data base in a temporary directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.provider.accounts import Accounts
from cloudconnect.wire.login import Verifier

VERIFIER = Verifier(
    b"s" * 16, b"stored key of thirty-two bytes..", b"server key of thirty-two bytes..", 4096
)
SESSION = "ab" * 16


class AccountsCase(SynchronousTestCase):
    """A test with a data base."""

    def setUp(self) -> None:
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "accounts.sqlite"
        self.accounts = self.opened()

    def opened(self) -> Accounts:
        accounts = Accounts(f"sqlite:///{self.path}")
        self.addCleanup(accounts.close)
        return accounts

    def execute(self, statement: str) -> list[Any]:
        """Run SQL beside the accounts."""
        engine = sa.create_engine(f"sqlite:///{self.path}")
        try:
            with engine.begin() as connection:
                result = connection.execute(sa.text(statement))
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()

    def start(self, session: str = SESSION, tenant: str = "acme", **values: Any) -> None:
        fields = {
            "session": session,
            "tenant": tenant,
            "kind": "backup",
            "job_id": "cd" * 16,
            "host": "host",
            "job": "job",
            "peer": "192.0.2.1",
            "started": 1.0,
            "key_a": "0123456789abcdef",
            "key_b": "",
            "summary": "{}",
        }
        self.accounts.session_started(**{**fields, **values})
