"""A provider and a tenant in memory, either of whose accelerators may lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.threads import deferToThreadPool

from cloudconnect.accelerator.source import SourceAccelerator
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.errors import ExitCode, SecurityError
from cloudconnect.repository.store import Repository
from cloudconnect.wire.frames import FrameKind
from tests.attacks.fields import Way
from tests.attacks.liars import Lie, lying
from tests.provider.stage import StageCase, Tenant

UP, DOWN = Way.UP, Way.DOWN
#: What is sent in a backup, and answered.
BACKUP = {
    UP: (FrameKind.HELLO, FrameKind.HAVE, FrameKind.CHUNK, FrameKind.POINT, FrameKind.TOTALS),
    DOWN: (
        FrameKind.WELCOME,
        FrameKind.WANT,
        FrameKind.STORED,
        FrameKind.POINTED,
        FrameKind.TOTALS,
    ),
}


class LiarCase(StageCase):
    """A tenant and a provider, either of whose accelerators may lie."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.accelerated(
            target=lying(TargetAccelerator), source=lying(SourceAccelerator)
        )

    def liars(self) -> tuple[Any, Any]:
        """The accelerators, the provider's first."""
        return self.provider.accelerator, self.acme.accelerator

    def stored(self) -> tuple[int, int]:
        """Restore points, and bytes in the repository."""
        folder = self.provider.repositories / self.acme.repository.hex()
        with Repository.open(folder) as repository:
            return len(self.provider.points()), repository.statistics()["bytes_stored"]

    def found(
        self,
        liar: Any,
        lie: Lie,
        work: Callable[[Tenant], Any],
        *kinds: type[BaseException],
    ) -> Any:
        """A session in which ``liar`` lies; it fails with one of these errors and leaves nothing.

        Returns the error.
        """
        tenant = self.acme
        tenant.events.clear()
        tenant.warnings.clear()
        liar.lie = lie
        try:
            error = self.failure_of(work(tenant), *kinds)
        finally:
            liar.lie = None
        self.assertTrue(lie.told, "nothing was changed")
        self.reactor.settle()
        session = next(event.session for event in tenant.events if event.session)
        rows = self.provider.events(type="warning", session=session)
        if isinstance(error, SecurityError):
            self.assertIs(ExitCode.SECURITY_WARNING, error.exit_code)
            for told in ([w.kind.value for w in tenant.warnings], [row["name"] for row in rows]):
                self.assertIn(error.kind.value, told)
        # One of each kind for each role, and hop, that could know.
        subjects = [warning.subject for warning in tenant.warnings]
        self.assertEqual(len(set(subjects)), len(subjects))
        self.assertEqual({}, self.provider.mover._by_session)
        self.assertEqual({}, self.provider.accelerator._by_session)  # type: ignore[union-attr]
        return error

    def back_up(self, tenant: Tenant) -> Any:
        """A backup of something new."""
        return tenant.back_up(self.source())

    def close_caches(self) -> None:
        """Wait until the block caches, which nobody has used for a while, are closed."""
        for accelerator in self.liars():
            while accelerator._caches.open:
                self.reactor.result_of(deferToThreadPool(self.reactor, accelerator._pool, int))
