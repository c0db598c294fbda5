"""Tests of :mod:`cloudconnect.provider.accounts.sessions`."""

from __future__ import annotations

from typing import Any

from cloudconnect.events import SessionEvent
from tests.provider.accounts.case import SESSION, AccountsCase


class SessionTests(AccountsCase):
    """What is kept of sessions."""

    def rows(self, tenant: str = "", after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        return self.accounts.sessions(tenant, after, limit)

    def test_life(self) -> None:
        """A session is started, and ends as it was said; its summary comes back as it was."""
        self.start()
        (row,) = self.rows()
        self.assertEqual(("started", None, {}), (row["state"], row["ended"], row["summary"]))
        self.accounts.session_ended(SESSION, "done", {"files": 3})
        (row,) = self.rows()
        self.assertEqual(("done", {"files": 3}), (row["state"], row["summary"]))
        self.assertIsInstance(row["ended"], float)

    def test_first_word_stands(self) -> None:
        """How a session ended is said once."""
        self.start()
        self.accounts.session_ended(SESSION, "security_warning", {})
        self.accounts.session_ended(SESSION, "done", {"files": 3})
        (row,) = self.rows()
        self.assertEqual(("security_warning", {}), (row["state"], row["summary"]))

    def test_restart(self) -> None:
        """After a restart what ran is interrupted, and what had ended stays as it was."""
        self.start()
        self.start("ef" * 16)
        self.accounts.session_ended(SESSION, "done", {})
        self.accounts.abandon_sessions()
        self.assertEqual(["done", "interrupted"], [row["state"] for row in self.rows()])

    def test_pages(self) -> None:
        """Sessions come in order, a page at a time, of one tenant or of all."""
        for number in range(5):
            self.start(f"{number:032x}", "acme" if number % 2 else "other")
        first = self.rows(limit=3)
        then = self.rows(after=first[-1]["cursor"], limit=3)
        self.assertEqual(
            [f"{number:032x}" for number in range(5)], [row["session"] for row in first + then]
        )
        self.assertEqual(["acme"] * 2, [row["tenant"] for row in self.rows("acme")])

    def test_key_b_identifier(self) -> None:
        """The identifier of Key B is kept with its session, once the mover has told it."""
        self.start()
        self.start("ef" * 16)
        event = SessionEvent(
            time=1.0,
            name="key_b_received",
            session=SESSION,
            text="Key B received",
            fields={"key": "fedcba9876543210 and more"},
        )
        self.accounts.keep_event(event, "acme", "target-mover")
        self.assertEqual(["fedcba9876543210", ""], [row["key_b"] for row in self.rows()])
