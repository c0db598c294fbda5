"""Tests of :mod:`cloudconnect.provider.accounts.events`."""

from __future__ import annotations

from cloudconnect.errors import WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from tests.provider.accounts.case import SESSION, AccountsCase


class EventTests(AccountsCase):
    """What is kept of what happened."""

    def setUp(self) -> None:
        super().setUp()
        for number, tenant in enumerate(("acme", "other", "acme")):
            event = SessionEvent(
                time=float(number), name=f"step_{number}", session=SESSION, text="a step"
            )
            self.accounts.keep_event(event, tenant, "service")
        self.warning = SecurityWarning(
            time=9.0, kind=WarningKind.TAMPERED, session=SESSION, tenant="acme", text="changed"
        )
        self.accounts.keep_warning(self.warning, "target-mover")

    def names(self, **filters: str) -> list[str]:
        return [row["name"] for row in self.accounts.events(filters, 0, 100)]

    def test_order(self) -> None:
        """Events and warnings come in the order in which they were kept."""
        self.assertEqual(["step_0", "step_1", "step_2", "tampered"], self.names())

    def test_filters(self) -> None:
        """Each filter leaves only what is equal; an empty one leaves all."""
        self.assertEqual(["step_1"], self.names(tenant="other"))
        self.assertEqual(["tampered"], self.names(type="warning"))
        self.assertEqual(["step_2"], self.names(name="step_2", tenant="acme"))
        self.assertEqual([], self.names(session="ff" * 16))
        self.assertEqual(4, len(self.names(tenant="", session=SESSION)))

    def test_pages(self) -> None:
        """Pages go on behind the last row's cursor."""
        first = self.accounts.events({}, 0, 3)
        then = self.accounts.events({}, first[-1]["cursor"], 3)
        self.assertEqual((3, ["tampered"]), (len(first), [row["name"] for row in then]))

    def test_counts(self) -> None:
        """How often each of some came after a moment, the last of them, and of how many tenants."""
        self.accounts.keep_warning(self.warning, "service")
        found = self.accounts.count_events(("step_0", "step_1", "tampered"), 0.5)
        self.assertEqual(
            [("event", "step_1", 1, 1.0, 1), ("warning", "tampered", 2, 9.0, 1)],
            [tuple(row.values()) for row in found],
        )
        self.assertEqual([], self.accounts.count_events(("tampered",), 9.0))

    def test_warning_comes_back(self) -> None:
        """A warning is kept whole: its fields make the same warning again."""
        (row,) = self.accounts.events({"type": "warning"}, 0, 10)
        self.assertEqual(self.warning, SecurityWarning.from_dict(row["fields"]))
        self.assertEqual("target-mover", row["reported_by"])
