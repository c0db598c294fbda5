"""Layer 4: a tenant logs in on its control channel (``docs/protocol.rst``, section 2).

A name that does not exist is answered like one that does, and a log-in that has failed makes the
next one wait.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.control import (
    BINDING_LABEL,
    BINDING_SIZE,
    AcceptInvitation,
    AcceptWithCertificate,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    Warn,
)
from cloudconnect.errors import (
    CloudConnectError,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Refused,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.accounts.credentials import Credential
from cloudconnect.provider.control.channel import TenantChannel
from cloudconnect.provider.service.access import Act, Login
from cloudconnect.settings import (
    PASSWORD_ITERATIONS_MIN,
    PROTOCOL_VERSIONS,
    TOKEN_ITERATIONS_MIN,
)
from cloudconnect.wire.login import Verifier, is_login_name, split_login, wrong_credentials
from cloudconnect.wire.scram import ScramServer


class Authentication(CommandLocator):
    """Answers the commands of a log-in.

    :param channel: on which it is
    """

    log = Logger()

    def __init__(self, channel: TenantChannel) -> None:
        super().__init__()
        self._channel = channel
        self._service = channel.service
        self._credential: Credential | None = None
        self._scram: ScramServer | None = None
        self._version = PROTOCOL_VERSIONS[-1]

    @AuthenticateFirst.responder
    def authenticate_first(self, message: str, versions: Any) -> Deferred[dict[str, Any]]:
        """SCRAM's first exchange; an unknown name is answered like a known one."""
        return Deferred.fromCoroutine(self._first(message, versions))

    async def _first(self, message: str, versions: Any) -> dict[str, Any]:
        self._begin(versions)
        service = self._service
        binding = self._channel.exporter(BINDING_LABEL, b"", BINDING_SIZE)
        # A first pass only reads whose verifier is to be fetched from the data base.
        reading = ScramServer(lambda name: None, binding, service.logins.decoy_key)
        reading.first(message)
        name = reading.tenant
        await self._wait_for(name)
        found: Credential | None = await service.logins.credential(name)
        verifier = None if found is None else found.verifier
        self._credential = found
        self._scram = ScramServer(
            lambda name: verifier,
            binding,
            service.logins.decoy_key,
            service.logins.decoy_iterations(name),
        )
        return {"message": self._scram.first(message), "start": True}

    @AuthenticateFinal.responder
    def authenticate_final(self, message: str) -> Deferred[dict[str, Any]]:
        """SCRAM's second exchange."""
        return Deferred.fromCoroutine(self._final(message))

    async def _final(self, message: str) -> dict[str, Any]:
        scram, self._scram = self._scram, None
        if scram is None:
            raise ProtocolViolation("AuthenticateFinal came without AuthenticateFirst")
        self._channel.prove()
        try:
            return await self._judge(scram, message)
        finally:
            self._channel.judged()

    async def _judge(self, scram: ScramServer, message: str) -> dict[str, Any]:
        try:
            proof = scram.final(message)
        except LoginRefused as refused:
            await self._refused(scram.tenant, refused)
            raise
        credential, self._credential = self._credential, None
        assert credential is not None, "no proof fits a name without a credential"
        return {"message": proof, **await self._admitted(credential)}

    @AuthenticateCertificate.responder
    def authenticate_certificate(self, login: str, versions: Any) -> Deferred[dict[str, Any]]:
        """The certificate that was shown in the TLS handshake: its key was proved there."""
        return Deferred.fromCoroutine(self._certified(login, versions))

    async def _certified(self, login: str, versions: Any) -> dict[str, Any]:
        self._begin(versions)
        if not is_login_name(login):
            raise wrong_credentials()
        shown = self._channel.certificate()  # at once: the line may be gone behind the wait
        await self._wait_for(login)
        # Asked for also where nothing was shown: it takes the same time.
        credential = await self._service.logins.certified(login, shown or bytes(32))
        if credential is None or shown is None:
            refused = wrong_credentials()
            await self._refused(login, refused)
            raise refused
        return await self._admitted(credential)

    def _begin(self, versions: Any) -> None:
        """One log-in at a time, in a version that both sides speak.

        :raises ProtocolViolation: one was begun before, or that is no list of versions
        :raises Refused: no version in common
        """
        channel = self._channel
        if channel.login is not None or channel.proving or self._scram is not None:
            raise ProtocolViolation("authentication was begun before")
        if not isinstance(versions, list) or not all(isinstance(v, int) for v in versions):
            raise ProtocolViolation("versions is not a list of numbers")
        common = set(versions) & set(PROTOCOL_VERSIONS)
        if not common:
            raise Refused(
                f"the provider speaks protocol versions {list(PROTOCOL_VERSIONS)}, this tenant "
                f"{versions[:8]}: upgrade the older of the two"
            )
        self._version = max(common)

    async def _wait_for(self, login: str) -> None:
        """Wait as long as earlier failures cost: guesses at all machines of a tenant count
        together.

        :raises NotReachable: nobody is there any more, for whom anything would be looked up
        """
        service, (tenant, _) = self._service, split_login(login)
        delay = service.logins.attempts.delay(tenant, self._channel.address())
        await deferLater(service.reactor, delay)
        if not self._channel.is_up:
            raise NotReachable("the control channel is gone")

    async def _refused(self, login: str, refused: LoginRefused) -> None:
        """Count a failure, warn of it, and keep that unless there were many."""
        service, address = self._service, self._channel.address()
        tenant, label = split_login(login)
        failures = service.logins.attempts.failed(tenant, address, label)
        self.log.warn(
            "log-in refused for {tenant} from {peer}, failure {failures}",
            tenant=login,
            peer=address,
            failures=failures,
        )
        await service.reports.warned(
            SecurityWarning(
                time=time.time(),
                kind=refused.kind,
                tenant=tenant,
                role="service",
                hop="control",
                peer=address,
                text=f"log-in refused, failure {failures} of this tenant from this address",
            ),
            service.logins.attempts.keeps(failures),
        )

    async def _admitted(self, credential: Credential) -> dict[str, Any]:
        """A credential is proved: let its tenant in, and say what there is for it."""
        service, address, tenant = self._service, self._channel.address(), credential.tenant
        service.logins.attempts.succeeded(tenant, address, credential.label)
        record, description = await self._enter(Login.by(credential))
        self._channel.welcome()
        self.log.info(
            "tenant {tenant} logged in from {peer} as {credential}",
            tenant=tenant,
            peer=address,
            credential=credential.label,
        )
        service.watchers.tell(lambda watcher: watcher.logged_in(tenant, address))
        if not credential.invitation:
            self._channel.follow_gateways(record.pool)
        if "read" in credential.capabilities and not credential.invitation:
            # Behind the answer to the log-in, so that the command hears it in time.
            service.reactor.callLater(0, self._tell_found, tenant)
        notice = service.tenants.notice
        return {
            "version": self._version,
            "provider": service.provider,
            "repository": description,
            "modes": list(record.modes),
            "wan": service.nodes.accelerates,
            "gateways": service.nodes.addresses(service.nodes.places(record.pool)),
            "notice": notice.as_map() if notice else None,
        }

    async def _enter(self, login: Login) -> tuple[Tenant, bytes]:
        """The log-in is proved: whether it may come in, and what there is for it."""
        service = self._service
        # Known before it is looked at: who is cut meanwhile is not let in.
        self._channel.enter(login)
        try:
            record = await service.logins.admit(login, Act.LOG_IN)
            if login.invitation:
                return record, b""
            self._channel.judged()  # a Start that waits goes on beside what is read here
            await service.nodes.settled(True)  # what there is, is told once
            there = await service.repositories.account(login.tenant)
            if not self._channel.is_up:
                raise NotReachable("the control channel is gone")
            return there
        except BaseException:
            self._channel.leave()
            raise

    @AcceptWithCertificate.responder
    def accept_with_certificate(self) -> Deferred[dict[str, Any]]:
        """Make the machine's own credential, with the certificate that it has shown."""
        return Deferred.fromCoroutine(self._accept(self._channel.certificate()))

    @AcceptInvitation.responder
    def accept_invitation(self, **values: Any) -> Deferred[dict[str, Any]]:
        """Make the machine's own credential."""
        return Deferred.fromCoroutine(self._accept_invitation(Verifier(**values)))

    async def _accept_invitation(self, verifier: Verifier) -> dict[str, Any]:
        if verifier.iterations not in (TOKEN_ITERATIONS_MIN, PASSWORD_ITERATIONS_MIN):
            # Another number would tell that the name exists.
            raise ProtocolViolation("a verifier is not made with so many iterations")
        return await self._accept(verifier)

    async def _accept(self, proof: Verifier | bytes | None) -> dict[str, Any]:
        before = self._channel.logged_in()
        if proof is None:
            raise Refused("this connection has shown no certificate whose time is now")
        logins = self._service.logins
        made = await logins.accept_invitation(before, proof)
        self._channel.replace(made)
        try:
            # It may have been taken back before it could be found here, and cut.
            await logins.admit(made, Act.LOG_IN)
        except BaseException:
            self._channel.cut()
            raise
        return {"label": made.label}

    def _tell_found(self, tenant: str) -> None:
        """Tell a tenant that has just logged in what was found damaged since it was told last."""
        telling = Deferred.fromCoroutine(self._told_found(tenant))
        telling.addErrback(lambda f: self.log.failure("a tenant was not told of findings", f))

    async def _told_found(self, tenant: str) -> None:
        for number, warning in await self._service.tenants.untold(tenant):
            if not self._channel.is_up:
                return
            try:
                await self._channel.call(Warn, warning=warning.as_dict())
            except CloudConnectError:
                return  # it is told the next time
            await self._service.tenants.told(tenant, number)
