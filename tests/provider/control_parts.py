"""A tenant's control channel over real TLS in memory, with the test as the tenant."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.python.failure import Failure

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.control import (
    AuthenticateFinal,
    AuthenticateFirst,
)
from cloudconnect.errors import (
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import Password
from cloudconnect.transports.endpoints import wrap_client_endpoint
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.scram_client import ScramClient
from tests.certificates import Issued
from tests.provider.stage import HOST, PORT, TENANT, StageCase, Tenant

START: dict[str, Any] = {
    "kind": "backup",
    "job": b"j" * 16,
    "host": "host",
    "name": "job",
    "repository": b"r" * 16,
    "wan": False,
    "streams": 1,
}
LIST: dict[str, Any] = {"host": "", "job": "", "tag": "", "after": 0, "limit": 100}
WARNING = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, session="ab" * 16)


class Client(BoundedAMP):
    """A tenant's end that does what the test says.

    :ivar reason: how the channel ended, or None before
    """

    reason: BaseException | None = None

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        super().connectionLost(reason)
        self.reason = reason.value

    def scram(self, tenant: str, password: Password) -> ScramClient:
        binding = self.transport.exporter(b"EXPORTER-Channel-Binding", b"", 32)  # type: ignore
        return ScramClient(tenant, password, binding)


class ControlCase(StageCase):
    """A test with clients of the control channel."""

    def client(self, shown: Issued | None = None) -> Client:
        """A client whose TLS is up.

        :param shown: the certificate that it shows, or None
        """
        identity = None if shown is None else shown.write(self.mktemp())
        trust = TrustPolicy(HOST, fingerprints=(self.provider.issued.spki,))
        endpoint = wrap_client_endpoint(
            PinnedTLS(trust=trust, identity=identity),
            HostnameEndpoint(self.reactor, HOST, PORT),
            self.reactor,
        )
        made: Client = self.reactor.result_of(connectProtocol(endpoint, Client(self.reactor)))
        self.addCleanup(self.close, made)
        return made

    def close(self, client: Client) -> None:
        if client.transport is not None:
            client.transport.loseConnection()
        self.reactor.settle()

    def first(self, client: Client, scram: ScramClient, versions: Any = (1,)) -> Deferred[Any]:
        return client.call(AuthenticateFirst, message=scram.first(), versions=list(versions))

    def log_in(self, client: Client, tenant: str, password: Password) -> Any:
        """Authenticate; the provider's last answer."""
        scram = client.scram(tenant, Password(password.reveal()))
        answer = self.reactor.result_of(self.first(client, scram))
        message = scram.final(answer["message"])
        final = self.reactor.result_of(client.call(AuthenticateFinal, message=message))
        scram.verify(final["message"])
        return final

    def logged_in(self, tenant: str = TENANT, **settings: Any) -> Client:
        """A client of a new tenant, logged in."""
        token = self.provider.add_tenant(tenant, **settings)
        client = self.client()
        self.log_in(client, tenant, token)
        return client


def start_of(tenant: Tenant, **changes: Any) -> dict[str, Any]:
    """What a tenant's Start asks."""
    return {**START, "repository": tenant.repository, **changes}
