"""Tests of log-ins by certificate, over real TLS in memory."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudconnect.commands.control import (
    AcceptInvitation,
    AcceptWithCertificate,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    ListPoints,
    Start,
)
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    LeaseEnded,
    LoginRefused,
    NotAllowed,
    ProtocolViolation,
    Refused,
)
from cloudconnect.wire.login import make_token, split_login
from tests.certificates import (
    CLIENT_USE,
    EXPIRED,
    NOT_YET_VALID,
    SERVER_USE,
    Authority,
    Issued,
    build,
)
from tests.provider.control_parts import LIST, START, Client, ControlCase
from tests.provider.stage import ENDED, TENANT, idle

LOGIN = f"{TENANT}/laptop"


def issued(**wrong: Any) -> Issued:
    """A machine's certificate that nobody has signed."""
    return build("laptop", None, **{"uses": CLIENT_USE, **wrong})


def of_year_0() -> Issued:
    """A machine's certificate that is valid since a year which Python does not have."""
    made = build("laptop", Authority().root, uses=CLIENT_USE, days=(11_000, 12_000))
    octets = made.certificate.public_bytes(Encoding.DER)
    begins = made.certificate.not_valid_before_utc.strftime("%Y%m%d%H%M%SZ").encode()
    assert begins in octets
    changed = octets.replace(begins, b"00000101000000Z")
    return Issued(x509.load_der_x509_certificate(changed), made.key)


def pin(of: Issued) -> bytes:
    """What the provider keeps of a certificate."""
    key = of.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()


class CertificateCase(ControlCase):
    """A tenant with a machine that logs in with a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.provider.add_tenant(TENANT)
        self.laptop = issued()
        self.add(self.laptop)

    def add(
        self, certificate: Issued, label: str = "laptop", tenant: str = TENANT, can: Any = None
    ) -> None:
        """Let a machine log in with a certificate."""
        given = {} if can is None else {"capabilities": can}
        self.provider.administration.tenants.add_credential(
            tenant, label, None, certificate=pin(certificate), **given
        )

    def certified(self, client: Client, login: str = LOGIN, versions: Any = (1,)) -> Any:
        """Log in with what was shown; the provider's answer."""
        asked = client.call(AuthenticateCertificate, login=login, versions=list(versions))
        self.reactor.pass_time(11)
        return self.reactor.result_of(asked)

    def entered(self, certificate: Issued | None = None, login: str = LOGIN) -> Client:
        """A client that is in."""
        client = self.client(certificate or self.laptop)
        self.certified(client, login)
        return client


class LoginTests(CertificateCase):
    """Who comes in."""

    def test_answer(self) -> None:
        """Whoever has the key is told what a log-in with a password tells, and may do as much."""
        final = self.certified(self.client(self.laptop))
        self.assertEqual(
            (1, b"p" * 16, b"", ["tenant"]),
            tuple(final[name] for name in ("version", "provider", "repository", "modes")),
        )
        self.assertNotIn("message", final)

    def test_renewed(self) -> None:
        """Another certificate of the same key will do: it is known by the key."""
        self.entered(issued(key=self.laptop.key))

    def test_issued_by_an_authority(self) -> None:
        """One that an authority has issued, which the provider does not know, will do too."""
        made = Authority().issue(hosts=(), uses=CLIENT_USE)
        self.add(made, "server")
        self.entered(made, f"{TENANT}/server")

    def test_capabilities(self) -> None:
        """A certificate's credential can what it was given, and nothing else."""
        writer = issued()
        self.add(writer, "writer", can=["write"])
        client = self.entered(writer, f"{TENANT}/writer")
        self.failure_of(client.call(ListPoints, **LIST), NotAllowed)
        self.failure_of(client.call(CreateRepository, description=b"x"), NotAllowed)

    def test_lease_and_disabled(self) -> None:
        """A lease that has ended and a disabled tenant are as with a password."""
        client = self.entered()
        self.provider.accounts.change_tenant(TENANT, {"lease_end": ENDED})
        start = {**START, "repository": b"r" * 16}
        self.failure_of(client.call(Start, **start), LeaseEnded)
        self.provider.accounts.disable(TENANT)
        with self.assertRaises(LeaseEnded):
            self.certified(self.client(self.laptop))

    def test_password_goes_on(self) -> None:
        """Whoever shows a certificate may log in with a password as well."""
        _, token = self.provider.administration.tenants.add_credential(TENANT, "other", None)
        assert token is not None
        self.log_in(self.client(self.laptop), f"{TENANT}/other", token)

    def test_a_whole_session(self) -> None:
        """A job manager with a certificate makes a repository, and runs sessions."""
        tenant = self.connected("bob")
        self.add(self.laptop, "laptop", "bob")
        identity = self.laptop.write(self.mktemp())
        tenant.manager._identity = identity
        self.reactor.result_of(tenant.manager.log_in("bob/laptop", None))
        self.reactor.result_of(tenant.session(idle(tenant)))
        row = self.provider.accounts.sessions("bob", 0, 10)[-1]
        self.assertEqual("done", row["state"])
        self.assertIn("with its certificate", tenant.events[-1].text + repr(tenant.events))


class RefusalTests(CertificateCase):
    """Who does not come in: all are told the same."""

    def seen(self, client: Client, login: str = LOGIN) -> Any:
        """What a refused log-in looks like from outside, and what is kept of it."""
        calls = len(self.reactor.getDelayedCalls())
        asked = client.call(AuthenticateCertificate, login=login, versions=[1])
        error = self.failure_of(asked, LoginRefused)
        tenant, label = split_login(login)
        row = self.provider.events(type="warning", tenant=tenant)[-1]
        attempts = self.provider.service.logins.attempts
        delay = attempts.delay(tenant, "192.0.2.7")
        attempts.succeeded(tenant, "192.0.2.7", label)
        self.failure_of(client.call(ListPoints, **LIST), LoginRefused)
        return str(error), row["name"], len(self.reactor.getDelayedCalls()) - calls, delay

    def wrong_password(self) -> Any:
        """What a wrong password looks like."""
        client = self.client()
        calls = len(self.reactor.getDelayedCalls())
        with self.assertRaises(LoginRefused) as caught:
            self.log_in(client, TENANT, make_token())
        row = self.provider.events(type="warning", tenant=TENANT)[-1]
        attempts = self.provider.service.logins.attempts
        delay = attempts.delay(TENANT, "192.0.2.7")
        attempts.succeeded(TENANT, "192.0.2.7")
        return (
            str(caught.exception),
            row["name"],
            len(self.reactor.getDelayedCalls()) - calls,
            delay,
        )

    def test_all_alike(self) -> None:
        """None, an unknown one, one that is over, not yet valid or revoked, another tenant's,
        another label's, an invitation's, one for a label with a password, and names that do not
        exist: the same as a wrong password."""
        known, tenants = self.wrong_password(), self.provider.administration.tenants
        self.provider.add_tenant("other")
        others, revoked = issued(), issued()
        self.add(others, "laptop", "other")
        self.add(revoked, "old")
        tenants.revoke_credential(TENANT, "old")
        tenants.invite(TENANT, "invited")
        expired, early = issued(days=EXPIRED), issued(days=NOT_YET_VALID)
        strange = of_year_0()
        self.add(strange, "strange")
        self.add(expired, "expired")
        self.add(early, "early")
        for name, shown, login in (
            ("none", None, LOGIN),
            ("unknown", issued(), LOGIN),
            ("expired", expired, f"{TENANT}/expired"),
            ("early", early, f"{TENANT}/early"),
            ("a year that is none", strange, f"{TENANT}/strange"),
            ("revoked", revoked, f"{TENANT}/old"),
            ("another tenant's", others, LOGIN),
            ("ours at another tenant", self.laptop, "other/laptop"),
            ("another label", self.laptop, f"{TENANT}/expired"),
            ("an invitation", self.laptop, f"{TENANT}/invited"),
            ("a password", self.laptop, TENANT),
            ("no such label", self.laptop, f"{TENANT}/nothing"),
            ("no such tenant", self.laptop, "nobody/laptop"),
        ):
            self.assertEqual(known, self.seen(self.client(shown), login), name)

    def test_many(self) -> None:
        """Who goes on and on does not fill the accounts."""
        for number in range(1, 11):
            client = self.client()
            with self.assertRaises(LoginRefused):
                self.certified(client, f"{TENANT}/machine-{number}")
            self.close(client)
        rows = self.provider.events(type="warning", tenant=TENANT)
        self.assertEqual(
            ["failure 1 ", "failure 2 ", "failure 4 ", "failure 8 "],
            [row["text"].removeprefix("log-in refused, ")[:10] for row in rows],
        )

    def test_delays(self) -> None:
        """Failures cost the same delays, together with those of passwords."""
        attempts = self.provider.service.logins.attempts
        for _ in range(3):
            attempts.failed(TENANT, "192.0.2.7", "laptop")
        client = self.client(self.laptop)
        asked = client.call(AuthenticateCertificate, login=LOGIN, versions=[1])
        self.reactor.pass_time(1.9, 0.1)
        self.assertNoResult(asked)
        self.reactor.pass_time(0.2, 0.1)
        self.successResultOf(asked)
        self.assertEqual(0.0, attempts.delay(TENANT, "192.0.2.7"))

    def test_no_password_fits(self) -> None:
        """A name with a certificate is answered to a password as one that does not exist."""
        asked = [self.salt(LOGIN) for _ in range(2)]
        self.assertEqual(1, len(set(asked)))
        with self.assertRaises(LoginRefused):
            self.log_in(self.client(), LOGIN, make_token())
        self.assertIsNone(self.provider.accounts.credential(LOGIN))

    def salt(self, login: str) -> str:
        client = self.client()
        answer = self.reactor.result_of(self.first(client, client.scram(login, make_token())))
        return str(answer["message"]).split(",")[1]

    def test_revoked_meanwhile(self) -> None:
        """One that is revoked while its log-in is under way does not come in."""
        real = self.provider.service.logins.certified

        def certified(login: str, certificate: bytes) -> Any:
            found = real(login, certificate)
            self.provider.administration.tenants.revoke_credential(TENANT, "laptop")
            return found

        self.patch(self.provider.service.logins, "certified", certified)
        with self.assertRaises(LoginRefused):
            self.certified(self.client(self.laptop))

    def test_names(self) -> None:
        """What can be no log-in name, and versions that nobody speaks."""
        for login in ("", "A", "acme/", "acme/a/b", "x" * 200):
            asked = self.client(self.laptop).call(
                AuthenticateCertificate, login=login, versions=[1]
            )
            self.failure_of(asked, LoginRefused)
        for versions, error in (([2], Refused), (["1"], ProtocolViolation)):
            client = self.client(self.laptop)
            asked = client.call(AuthenticateCertificate, login=LOGIN, versions=versions)
            self.failure_of(asked, error)

    def test_order(self) -> None:
        """Who is logged in, or has begun with a password, cannot begin with a certificate."""
        client = self.entered()
        again = client.call(AuthenticateCertificate, login=LOGIN, versions=[1])
        self.failure_of(again, ProtocolViolation)
        begun = self.client(self.laptop)
        self.reactor.result_of(self.first(begun, begun.scram(TENANT, make_token())))
        asked = begun.call(AuthenticateCertificate, login=LOGIN, versions=[1])
        self.failure_of(asked, ProtocolViolation)
        first = client.call(AuthenticateFirst, message="n,,n=acme,r=x", versions=[1])
        self.failure_of(first, ProtocolViolation)
        self.failure_of(client.call(AuthenticateFinal, message="x"), ProtocolViolation)

    def test_wrong_key(self) -> None:
        """Whoever shows somebody's certificate without its key does not get through TLS."""
        thief = issued()
        shown = Issued(self.laptop.certificate, thief.key)
        with self.assertRaises(CloudConnectError):
            self.certified(self.client(shown))
        self.assertEqual([], list(self.provider.service.connections._up))

    def test_gone_meanwhile(self) -> None:
        """For a stranger that hangs up while it has to wait nothing is looked up, and nothing is
        logged as a bug."""
        self.patch(self.provider.service.logins, "certified", self.fail)
        self.provider.service.logins.attempts.failed(TENANT, "192.0.2.7")
        client = self.client(self.laptop)
        asked = client.call(AuthenticateCertificate, login=LOGIN, versions=[1])
        asked.addErrback(lambda _: None)
        self.reactor.pass_time(0.1, 0.1)
        self.close(client)
        self.reactor.pass_time(1.0, 0.1)
        self.assertEqual([], self.flushLoggedErrors())
        self.assertEqual(0, len(self.provider.service.connections))

    def test_gone_while_looked_up(self) -> None:
        """A line that is cut while its log-in is looked up counts no more: whoever can cut lines
        would lock the tenant out."""
        real = self.provider.service.logins.certified

        def certified(login: str, certificate: bytes) -> Any:
            self.close(client)
            return real(login, certificate)

        self.patch(self.provider.service.logins, "certified", certified)
        client = self.client(self.laptop)
        asked = client.call(AuthenticateCertificate, login=LOGIN, versions=[1])
        asked.addErrback(lambda _: None)
        self.reactor.pass_time(1.0)
        self.assertIsNotNone(client.reason)
        self.assertEqual(0, len(self.provider.service.connections))
        self.assertEqual([], self.flushLoggedErrors())

    def test_for_servers(self) -> None:
        """A certificate that is not for clients ends the handshake, whoever shows it."""
        client = self.client(issued(uses=SERVER_USE))
        error = self.failure_of(
            client.call(AuthenticateCertificate, login=LOGIN, versions=[1]), Refused, Aborted
        )
        self.assertIn("peer", str(error))
        self.assertIsNotNone(client.reason)


class EndTests(CertificateCase):
    """Credentials that end, and the next ones."""

    def test_revoked(self) -> None:
        """A certificate that is revoked loses its connections at once."""
        client = self.entered()
        numbers = self.provider.administration.tenants.revoke_credential(TENANT, "laptop")
        for number in numbers:
            self.reactor.result_of(self.provider.service.cut(TENANT, "laptop", number))
        self.reactor.settle()
        self.assertIsNotNone(client.reason)

    def test_rotation(self) -> None:
        """The next certificate is added, then the first is revoked: the next one's goes on."""
        following = issued()
        self.add(following)
        old, new = self.entered(), self.entered(following)
        (number,) = self.provider.administration.tenants.revoke_credential(
            TENANT, "laptop", pin(self.laptop)
        )
        self.reactor.result_of(self.provider.service.cut(TENANT, "laptop", number))
        self.reactor.settle()
        self.assertIsNotNone(old.reason)
        self.assertIsNone(new.reason)
        with self.assertRaises(LoginRefused):
            self.certified(self.client(self.laptop))


class InvitationTests(CertificateCase):
    """Invitations that are spent for a certificate."""

    def test_spent(self) -> None:
        """The machine that shows a certificate has it stored, and may from then on."""
        made = issued()
        invited = self.provider.administration.tenants.invite(TENANT, "new", ["read"])
        client = self.client(made)
        self.log_in(client, f"{TENANT}/new", invited.token)
        answer = self.reactor.result_of(client.call(AcceptWithCertificate))
        self.assertEqual("new", answer["label"])
        self.failure_of(client.call(AcceptWithCertificate), NotAllowed)
        self.entered(made, f"{TENANT}/new")
        with self.assertRaises(LoginRefused):
            self.log_in(self.client(made), f"{TENANT}/new", invited.token)

    def test_nothing_shown(self) -> None:
        """Without a certificate whose time is now the invitation is not spent."""
        invited = self.provider.administration.tenants.invite(TENANT, "new", ["read"])
        for shown in (None, issued(days=EXPIRED)):
            client = self.client(shown)
            self.log_in(client, f"{TENANT}/new", invited.token)
            self.failure_of(client.call(AcceptWithCertificate), Refused)
        made = self.client(issued())
        self.log_in(made, f"{TENANT}/new", invited.token)
        self.reactor.result_of(made.call(AcceptWithCertificate))

    def test_revoked_meanwhile(self) -> None:
        """A credential that is revoked before its machine was told that it has it, ends there."""
        acts = self.provider.administration.tenants
        invited = acts.invite(TENANT, "new", ["read", "admin"])
        client = self.client(issued())
        self.log_in(client, f"{TENANT}/new", invited.token)
        reports = self.provider.service.reports
        real = reports.note

        def note(event: str, *said: Any, **fields: Any) -> Any:
            if event == "invitation_accepted":
                for number in acts.revoke_credential(TENANT, "new"):
                    self.reactor.result_of(self.provider.service.cut(TENANT, "new", number))
            return real(event, *said, **fields)

        self.patch(reports, "note", note)
        asked = client.call(AcceptWithCertificate)
        self.reactor.settle()
        self.failureResultOf(asked)
        self.assertIsNotNone(client.reason)
        self.assertEqual(0, len(self.provider.service.connections))

    def test_nobody(self) -> None:
        """Who has not logged in stores nothing."""
        client = self.client(issued())
        self.failure_of(client.call(AcceptWithCertificate), LoginRefused)
        self.failure_of(self.entered().call(AcceptWithCertificate), NotAllowed)
        verifier = {"salt": bytes(16), "stored_key": bytes(32), "server_key": bytes(32)}
        asked = self.entered().call(AcceptInvitation, **verifier, iterations=4096)
        self.failure_of(asked, NotAllowed)
