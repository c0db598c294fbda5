"""False providers: the command ends with 21, and nobody has heard a credential."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from OpenSSL import crypto
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, TLSVersion

from tests.attacks.proxy import LOOPBACK, Proxy
from tests.certificates import EXPIRED, Authority, Issued, self_signed
from tests.story.processes import Process, StoryCase, in_front_of, reactor

HERE = ("localhost",)
TENANT = "the-tenant"
TOKEN = b"cct1-" + b"a2b3c4d5e6f7" * 4 + b"wxyz"


class FalseProvider:
    """Ends TLS, and records what comes inside.

    :param issued: its certificate
    :param options: of Twisted's ``CertificateOptions``
    :ivar heard: what it was told inside TLS
    :ivar spoken_to: fires at the first of it
    :ivar proxy: in front of it: what went over the wire
    """

    def __init__(self, case: StoryCase, issued: Issued, **options: Any) -> None:
        self.heard = bytearray()
        self.spoken_to: Deferred[None] = Deferred()
        context = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(issued.key),
            certificate=crypto.X509.from_cryptography(issued.certificate),
            acceptableProtocols=[b"cloudconnect/1"],
            **options,
        )

        class Listener(Protocol):
            def dataReceived(listener, data: bytes) -> None:
                first = not self.heard
                self.heard += data
                if first:
                    self.spoken_to.callback(None)

        factory = Factory.forProtocol(Listener)
        factory.noisy = False
        port = reactor.listenSSL(0, factory, context, interface=LOOPBACK)
        case.addCleanup(port.stopListening)
        self.proxy: Proxy = in_front_of(case, port.getHost().port)


@attrs.frozen
class Attempt:
    """A false provider, and how the tenant was told to judge it."""

    provider: FalseProvider
    reason: str
    fingerprint: str = ""
    authorities: str = ""
    shows: str = ""


class TrustTests(StoryCase):
    """A tenant's command meets a provider that cannot prove who it is."""

    def setUp(self) -> None:
        super().setUp()
        self.token = self.folder / "token"
        self.token.write_bytes(TOKEN + b"\n")
        self.authority = Authority()
        self.authorities = self.authority.write(Path(self.folder, "authorities.pem"))

    def attempt(self, attempt: Attempt) -> Process:
        return self.command(
            "points",
            "--json",
            CLOUDCONNECT_PROVIDER=f"localhost:{attempt.provider.proxy.port}",
            CLOUDCONNECT_TENANT=TENANT,
            CLOUDCONNECT_PASSWORD_FILE=str(self.token),
            CLOUDCONNECT_FINGERPRINT=attempt.fingerprint,
            CLOUDCONNECT_CA=attempt.authorities,
        )

    async def check(self, attempt: Attempt) -> None:
        done = await self.done(self.attempt(attempt))
        self.assertStatus(done, 21)
        self.assertEqual(done.error["reason"], attempt.reason, done.error)
        self.assertIn(attempt.shows, done.error["message"])
        self.assertEqual(attempt.provider.heard, b"", attempt)
        recorded = b"|".join(attempt.provider.proxy.recorded())
        self.assertGreater(len(recorded), 100)
        for word in (TENANT.encode(), TOKEN, TOKEN[5:], b"SCRAM", b"Authenticate"):
            self.assertNotIn(word, recorded)

    async def check_all(self, *attempts: Attempt) -> None:
        checks = [Deferred.fromCoroutine(self.check(attempt)) for attempt in attempts]
        await gatherResults(checks, consumeErrors=True)

    async def test_pins(self) -> None:
        """A wrong fingerprint; none at all for a certificate that nobody has signed."""
        ours, other = self_signed(HERE), self_signed(HERE)
        await self.check_all(
            Attempt(FalseProvider(self, ours), "fingerprint_mismatch", other.spki, shows=ours.spki),
            Attempt(FalseProvider(self, ours), "certificate_untrusted", shows=ours.spki),
        )

    async def test_certificates(self) -> None:
        """Wrong names, with authority and with pin; expired certificates."""
        authority = self.authority
        elsewhere = authority.issue(("elsewhere.example",))
        named = self_signed(("elsewhere.example",))
        expired = authority.issue(HERE, days=EXPIRED)
        await self.check_all(
            Attempt(
                FalseProvider(self, elsewhere), "hostname_mismatch", authorities=self.authorities
            ),
            Attempt(FalseProvider(self, named), "hostname_mismatch", named.spki),
            Attempt(
                FalseProvider(self, expired), "certificate_untrusted", authorities=self.authorities
            ),
        )

    async def test_old_tls(self) -> None:
        """A peer that speaks no TLS 1.3 is not trusted, whatever its certificate is."""
        issued = self_signed(HERE)
        old = {"lowerMaximumSecurityTo": TLSVersion.TLSv1_2}
        provider = FalseProvider(self, issued, insecurelyLowerMinimumTo=TLSVersion.TLSv1_2, **old)
        await self.check_all(Attempt(provider, "certificate_untrusted", issued.spki))

    async def test_recording_can_hear(self) -> None:
        """The same recording of a provider that is trusted does hear the tenant's name."""
        issued = self_signed(HERE)
        provider = FalseProvider(self, issued)
        self.attempt(Attempt(provider, "", issued.spki))
        await provider.spoken_to
        self.assertIn(b"n=" + TENANT.encode(), provider.heard)
        self.assertNotIn(TOKEN, provider.heard)
        recorded = b"|".join(provider.proxy.recorded())
        self.assertNotIn(TENANT.encode(), recorded)
