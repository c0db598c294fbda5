"""Tests of :mod:`cloudconnect.tenant.jobmanager`: against a real provider, in memory."""

from __future__ import annotations

from cloudconnect.errors import NotReachable
from cloudconnect.tenant.jobmanager import new_job_id
from tests.provider.stage import idle
from tests.tenant.managers import ManagerCase


class ManagerTests(ManagerCase):
    """A manager without a line, and at its end."""

    def test_not_logged_in(self) -> None:
        """Without a control channel nothing can be asked."""
        tenant = self.tenant()
        self.failure_of(tenant.manager.points(), NotReachable)
        self.failure_of(tenant.session(idle(tenant)), NotReachable)

    def test_close(self) -> None:
        """A manager that was closed has no connection left, and may be closed again."""
        tenant = self.connected()
        self.reactor.result_of(tenant.session(idle(tenant)))
        self.reactor.result_of(tenant.manager.close())
        self.reactor.settle()
        self.assertEqual([], self.pairs())
        tenant.manager = tenant.make_manager()

    def test_job_ids(self) -> None:
        """A job's id is 16 random bytes."""
        self.assertEqual((16, 2), (len(new_job_id()), len({new_job_id(), new_job_id()})))
