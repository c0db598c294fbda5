"""The service with a mover and gateways that the test plays."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.control import (
    SessionKind,
)
from cloudconnect.commands.gateways import PublishRoute, RetireRoute
from cloudconnect.commands.lan import EndSession, OfferKeyA
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import (
    CloudConnectError,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.provider.service.access import Login
from cloudconnect.provider.service.planning import Ask, GatewayPlace
from cloudconnect.sessions.package import KeyAPackage
from tests.provider.stage import TENANT, StageCase


class ToldMover(CommandLocator):
    """A mover that keeps what it is told.

    :ivar offers: packages and keys, as they came
    :ivar ends: sessions and outcomes
    :ivar refuse: raised in the place of taking an offer
    :ivar wait: holds the answer to an offer back
    """

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[tuple[KeyAPackage, bytes]] = []
        self.ends: list[tuple[bytes, str]] = []
        self.warnings: list[Any] = []
        self.refuse: CloudConnectError | None = None
        self.wait: Deferred[None] | None = None

    @OfferKeyA.responder
    async def offer(self, package: Any, key_a: KeyA) -> dict[str, Any]:
        if self.refuse is not None:
            raise self.refuse
        self.offers.append((KeyAPackage.from_map(package), key_a.reveal()))
        if self.wait is not None:
            await self.wait
        return {}

    @EndSession.responder
    def end(self, session: bytes, outcome: str) -> dict[str, Any]:
        self.ends.append((session, outcome))
        told = [w.as_dict() if isinstance(w, SecurityWarning) else w for w in self.warnings]
        return {"warnings": told, "points": [], "failed": False}


class ToldGateway(CommandLocator):
    """A gateway that keeps what it is told."""

    def __init__(self, answer: Callable[[], Any] = dict) -> None:
        super().__init__()
        self.answer = answer
        self.routes: list[dict[str, Any]] = []
        self.retired: list[bytes] = []

    @PublishRoute.responder
    def publish(self, **values: Any) -> Any:
        self.routes.append(values)
        return self.answer()

    @RetireRoute.responder
    def retire(self, route: bytes) -> dict[str, Any]:
        self.retired.append(route)
        return {}


class ServiceCase(StageCase):
    """A test with a tenant that has a repository, and a mover and a gateway that only listen."""

    hears = True

    def setUp(self) -> None:
        super().setUp()
        self.service = self.provider.service
        self.repository = b"r" * 16
        self.provider.add_tenant(TENANT, max_tasks=2, lease_end="2030-01-31")
        self.provider.accounts.set_repository(TENANT, self.repository)
        self.mover, self.gateway = ToldMover(), ToldGateway()
        link, _ = link_in_process(self.reactor, None, self.mover)
        self.service.nodes.set_mover(link)
        self.service.nodes.lose_gateway(self.provider.gateway_link)
        self.add_gateway(self.gateway)
        self.told: list[SecurityWarning] = []
        self.today("2030-01-01")

    def add_gateway(self, gateway: ToldGateway, place: GatewayPlace | None = None) -> Any:
        link, _ = link_in_process(self.reactor, None, gateway)
        self.service.nodes.add_gateway(link, place or GatewayPlace())
        return link

    def tell(self, warning: SecurityWarning) -> Deferred[bool]:
        """The tenant hears a warning, and says whether it has it."""
        self.told.append(warning)
        return succeed(self.hears)

    def today(self, date: str) -> None:
        self.service.tenants.today = lambda: datetime.date.fromisoformat(date)

    def ask(self, **changes: Any) -> Ask:
        fields: dict[str, Any] = {
            "kind": SessionKind.BACKUP,
            "job": os.urandom(16),
            "host": "host",
            "name": "job",
            "repository": self.repository,
            "wan": False,
            "streams": 1,
        }
        return Ask(**{**fields, **changes})

    def begin(
        self, tenant: str = TENANT, login: Login | None = None, **changes: Any
    ) -> Deferred[Any]:
        """Start a session."""
        return Deferred.fromCoroutine(
            self.service.starts.start(
                tenant,
                self.ask(**changes),
                lambda session, role: b"exported for " + role.encode() + b" " + session,
                "192.0.2.1",
                self.tell,
                login=login,
            )
        )

    def start(self, **changes: Any) -> bytes:
        session: bytes = self.reactor.result_of(self.begin(**changes))[0]
        return session

    def finish(self, session: bytes, outcome: str = "done", **parts: Any) -> Any:
        live = self.service.sessions.of(TENANT, session)
        values = {"summary": {}, "warnings": [], **parts}
        return self.reactor.result_of(self.service.endings.finish(live, outcome, **values))

    def state(self, session: bytes) -> str:
        """How the accounts say that it is."""
        rows = self.provider.accounts.sessions("", 0, 100)
        (state,) = [row["state"] for row in rows if row["session"] == session.hex()]
        return str(state)
