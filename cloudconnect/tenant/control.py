"""Layer 4: a tenant's control channel: made through a gateway, checked, and logged in on.

One at a time. Who it is made for says what becomes of it (the hooks of :class:`ControlLine`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from OpenSSL.crypto import X509
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint

from cloudconnect.commands.control import (
    BINDING_LABEL,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    Ping,
)
from cloudconnect.commands.notice import Notice
from cloudconnect.errors import (
    Cancelled,
    ControlTampered,
    Downgrade,
    HandshakeTimeout,
    LoginRefused,
    NotReachable,
    ProtocolViolation,
    Truncated,
)
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.keys import Password
from cloudconnect.settings import (
    CONNECT_SECONDS,
    CONTROL_HANDSHAKE_SECONDS,
    HANG_SECONDS,
    PROTOCOL_VERSIONS,
    SILENCE_SECONDS,
)
from cloudconnect.shown import Shown
from cloudconnect.tenant.gateways import KnownGateways, Place, read_gateways
from cloudconnect.tenant.lines import ControlClient
from cloudconnect.transports.endpoints import connect_protocol, wrap_client_endpoint
from cloudconnect.transports.identity import ServerIdentity
from cloudconnect.transports.line import round_trip
from cloudconnect.transports.tls import PinnedTLS
from cloudconnect.transports.trust import TrustPolicy
from cloudconnect.wire.login import split_login
from cloudconnect.wire.scram_client import ScramClient

#: A control channel on which nothing comes back for so many seconds is not used any more.
PROBE_SECONDS = 5.0


@attrs.frozen(repr=False)
class Account(Shown):
    """What the provider says after the log-in.

    :ivar provider: the provider's 16 bytes, which caches hang on
    :ivar repository: the encoded repository description, or ``b""`` before ``connect``
    :ivar modes: at-rest modes that may be chosen
    :ivar wan: whether the provider offers WAN acceleration
    :ivar notice: what will hold from some day on
    """

    provider: bytes
    repository: bytes
    modes: tuple[str, ...]
    wan: bool = False
    notice: Notice = attrs.field(factory=Notice)


class ControlLine:
    """A tenant's line to its provider.

    :param reactor: clock, connections and threads
    :param host: the provider's host name or address
    :param port: its TCP port
    :param trust: how its certificate is judged
    :param gateways: ``HOST:PORT`` of gateways that the provider told of in an earlier command
    :param learned: takes them when it tells of others
    :param happened: takes each :class:`SessionEvent` of this side, for timeline and log
    :param dial: makes the endpoint of a host and port, for those who do not connect directly
    :param identity: the certificate to log in with in the place of a password, or None
    :ivar answered: the provider has once shown a certificate that holds
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int,
        trust: TrustPolicy,
        gateways: Sequence[str],
        learned: Callable[[list[str]], None],
        happened: Callable[[SessionEvent], None],
        dial: Callable[[str, int], IStreamClientEndpoint] | None,
        identity: ServerIdentity | None,
    ) -> None:
        self._reactor = reactor
        self._dial = dial
        self._host, self._port = host, port
        self._gateways = KnownGateways(reactor, (host, port), gateways, learned)
        self._place = (host, port)
        self._to_leave = False
        self._trust = trust
        self._identity = identity
        self._happened = happened
        self._tenant = ""
        self._connecting: Deferred[ControlClient] | None = None
        self._control: ControlClient | None = None
        self._dialled: ControlClient | None = None
        self._control_error: BaseException | None = None
        self.answered = False

    async def log_in(self, tenant: str, password: Password | None) -> Account:
        """Connect, check the provider, authenticate both ways.

        :param tenant: the log-in name: the tenant's, or ``TENANT/LABEL``
        :param password: None: this machine's certificate proves who it is

        May be called again, between two sessions: what is left of the control channel before is
        cut.

        :raises ProviderNotTrusted: no credential was sent
        :raises LoginRefused: by either side
        :raises NotReachable: within 15 s
        """
        self._tenant, _ = split_login(tenant)
        self._drop_control()
        self._control = control = await self._connect()
        try:
            return await self._authenticate(control, tenant, password)
        except Exception:
            self._drop_control()  # nobody is logged in on it, though it may stand
            raise

    async def _authenticate(
        self, control: ControlClient, tenant: str, password: Password | None
    ) -> Account:
        self.answered = True
        facts = control.transport.facts  # type: ignore[union-attr]
        self._step(
            "connected",
            f"TLS to {self._host}: {facts.version}, {facts.cipher}, key exchange {facts.group}",
            version=facts.version,
            cipher=facts.cipher,
            group=facts.group,
        )
        self._step(
            "certificate_checked",
            f"provider's certificate holds by {facts.checked_by}: {facts.peer_spki}",
            checked_by=facts.checked_by,
            spki=facts.peer_spki,
        )
        versions = list(PROTOCOL_VERSIONS)
        if password is None:
            try:
                final = await control.call(AuthenticateCertificate, login=tenant, versions=versions)
            except LoginRefused:  # it says the same whatever is wrong
                raise LoginRefused(
                    "the provider does not accept this machine's certificate for the log-in name "
                    f"{tenant}: it is not stored there, was revoked, or has expired"
                ) from None
            how = "with its certificate"
        else:
            scram = ScramClient(tenant, password, control.exporter(BINDING_LABEL, b""))
            first = await control.call(AuthenticateFirst, message=scram.first(), versions=versions)
            proving = control.call(AuthenticateFinal, message=scram.final(first["message"]))
            if first.get("start") and "pin" in facts.checked_by:
                # Who has that key is known; by an authority alone it may be a false provider.
                self.proof_sent(control)
            final = await proving
            scram.verify(final["message"])
            how = "and the provider proved itself"
        if final["version"] != PROTOCOL_VERSIONS[-1]:
            # With one version in the world there is nothing else to choose; see protocol.rst.
            raise Downgrade(f"the provider chose protocol version {final['version']}")
        self._step("logged_in", f"tenant {tenant} logged in, {how}")
        control.keep_alive()
        self._gateways.learn(final.get("gateways"))
        return Account(
            final["provider"],
            final["repository"],
            tuple(final["modes"]),
            bool(final.get("wan")),
            _notice(final.get("notice")),
        )

    async def _connect(self) -> ControlClient:
        """A new control channel, through the first gateway that leads to the provider.

        :raises NotReachable: none does; why the one that the tenant was told does not
        """
        places = self._gateways.for_control()
        errors: dict[Place, NotReachable] = {}
        for place in places:
            try:
                made = await self._connect_to(*place)
            except NotReachable as error:
                self._gateways.suspect(place)
                errors[place] = error
            else:
                self._place, self._to_leave = place, False
                return made
        raise errors.get((self._host, self._port), errors[places[0]])

    async def _connect_to(self, host: str, port: int) -> ControlClient:
        control = ControlClient(
            self._reactor,
            self.provider_warned,
            lambda error: self._control_lost(control, error),
            self.move_on,
            lambda gateways, leaving: self._gateways_changed(control, gateways, leaving),
            lambda: HANG_SECONDS if self._others() else SILENCE_SECONDS,
        )
        self._dialled, self._control_error = control, None
        endpoint = wrap_client_endpoint(
            PinnedTLS(
                trust=self._trust,
                identity=self._identity,
                handshake_seconds=CONTROL_HANDSHAKE_SECONDS,
            ),
            self._endpoint(host, port),
            self._reactor,
        )
        try:
            self._connecting = connect_protocol(endpoint, control)
            await self._connecting
        except CancelledError:
            raise Cancelled("interrupted while connecting") from None
        except (ConnectError, DNSLookupError) as error:
            why = str(error).rstrip(".")
            raise NotReachable(
                f"{host} port {port} is not reachable: {why}. Check the address, the "
                "network and whether the provider runs"
            ) from None
        except (Truncated, HandshakeTimeout) as error:
            raise NotReachable(
                f"{host} port {port} answered, but not as a provider does: {error}"
            ) from None
        return control

    def _drop_control(self) -> None:
        before, self._control = self._control, None
        self._dialled = self._control_error = None
        if before is not None and before.transport is not None:
            before.transport.abortConnection()  # type: ignore[attr-defined]

    async def answers(self) -> bool:
        """Whether there is a control channel, through a gateway that stays, and the provider still
        answers on it.

        :raises ControlTampered: it was changed
        """
        if isinstance(self._control_error, ControlTampered):
            raise self._control_error
        if self._to_leave:
            return False
        try:
            await self.control.call(Ping, timeout=PROBE_SECONDS)
        except NotReachable:
            return False
        return True

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        if self._dial is not None:
            return self._dial(host, port)
        from twisted.internet.endpoints import HostnameEndpoint  # with every kind that there is

        return HostnameEndpoint(self._reactor, host, port, timeout=CONNECT_SECONDS)

    @property
    def presented(self) -> str:
        """The ``SPKI-SHA256:`` fingerprint of the certificate that the provider has shown."""
        return str(self.control.transport.facts.peer_spki)  # type: ignore[union-attr]

    @property
    def certificate_ends(self) -> float:
        """When the certificate that the provider has shown ends, in seconds since 1970."""
        shown: X509 | None = self.control.transport.getPeerCertificate()  # type: ignore[union-attr]
        if shown is None:
            raise NotReachable("the control channel to the provider is lost")
        return shown.to_cryptography().not_valid_after_utc.timestamp()

    @property
    def round_trip(self) -> float | None:
        """Seconds of a way to the provider and back, where the system says."""
        return round_trip(self.control.transport)

    @property
    def control(self) -> ControlClient:
        """The control channel.

        :raises NotReachable: it is lost
        """
        if self._control is None or self._control_error is not None:
            raise NotReachable("the control channel to the provider is lost")
        return self._control

    # --- what is heard on it ---------------------------------------------------------------------

    def _control_lost(self, control: ControlClient, error: BaseException | None) -> None:
        if control is not self._dialled:
            return  # one that was cut for a new one
        self._control_error = error
        self.control_lost(error)
        if control.hung and self._others():
            # What else goes through that gateway hangs too, and would not notice for longer.
            self._gateways.suspect(self._place)
            self.leave([self._place])

    def _others(self) -> bool:
        """Whether there is another way to the provider than the one that is used."""
        return any(place != self._place for place in self._gateways.for_control())

    def _gateways_changed(self, control: ControlClient, gateways: Any, leaving: Any) -> None:
        """Some of the provider's gateways are to stop, or come back."""
        if control is not self._dialled:
            return
        left = read_gateways(leaving)
        self._gateways.learn(gateways)
        for place in left:
            self._gateways.suspect(place)
        self._to_leave = self._to_leave or self._place in left
        self.leave(left)

    def _step(self, name: str, text: str, **fields: Any) -> None:
        self._happened(
            SessionEvent(time=time.time(), name=name, session="", text=text, fields=fields)
        )

    # --- hooks -----------------------------------------------------------------------------------

    def proof_sent(self, control: ControlClient) -> None:
        """The log-in's proof is on its way: a Start may follow before it is answered.

        The provider's own proof was not seen yet: no answer counts before the log-in is over.

        :param control: the channel, which is not :attr:`control`'s for sessions yet
        """

    def control_lost(self, error: BaseException | None) -> None:
        """The channel has ended."""

    def leave(self, places: Sequence[Place]) -> None:
        """What goes through these gateways should do so no more."""

    def move_on(self, session: bytes, lost: bool, text: str) -> None:
        """The provider wants a session to be had again, because of a role of its own.

        :param lost: that role is lost
        :param text: why, as the provider says it
        """

    def provider_warned(self, warning: SecurityWarning) -> None:
        """The provider has seen an attack."""


def _notice(values: Any) -> Notice:
    """What the provider tells that will hold one day; one that cannot be read is none."""
    try:
        return Notice() if values is None else Notice.from_map(values)
    except ProtocolViolation:
        return Notice()
