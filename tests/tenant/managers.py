"""What the tests of the job manager share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.provider.stage import StageCase, Tenant

STORY = [
    "connected",
    "certificate_checked",
    "logged_in",
    "started",
    "key_a_received",
    "tunnel_up",
    "key_b_made",
    "key_b_confirmed",
    "key_a_forgotten",
    "key_b_delivered",
    "key_b_forgotten",
    "stream_up",
]


class ManagerCase(StageCase):
    """A test with a tenant and a provider that can be made to lie."""

    def lying_start(self, change: Callable[[Any, list[Any], list[Any]], Any]) -> None:
        """Have the service answer Start with what ``change`` makes of it."""
        real = self.provider.service.start

        async def start(*arguments: Any) -> Any:
            return change(*await real(*arguments))

        self.provider.service.start = start  # type: ignore[method-assign]

    def handed(self, tenant: Tenant) -> list[bytes]:
        """The sessions whose keys our own mover was ever handed."""
        sessions: list[bytes] = []
        mover = tenant.manager._mover
        real = mover._handed

        class Told(dict):  # type: ignore[type-arg]
            def __setitem__(self, session: bytes, value: Any) -> None:
                sessions.append(session)
                super().__setitem__(session, value)

        mover._handed = Told(real)
        return sessions

    def states(self) -> list[str]:
        """How the provider says that sessions ended."""
        return [row["state"] for row in self.provider.accounts.sessions("", 0, 100)]

    def warning_kinds(self, tenant: Tenant) -> list[str]:
        return [warning.kind.value for warning in tenant.warnings]

    def pairs(self) -> list[Any]:
        """The open connections: control, tunnel, stream."""
        return [pair for pair in self.reactor.pairs if not pair.left.disconnected]
