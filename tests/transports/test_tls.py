"""Tests of :mod:`cloudconnect.transports.tls`: what the recipes accept and refuse, end to end."""

from __future__ import annotations

import os
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL
from twisted.internet.protocol import Factory

from cloudconnect.errors import (
    Aborted,
    CertificateUntrusted,
    CloudConnectError,
    ControlTampered,
    ExitCode,
    FingerprintMismatch,
    HostnameMismatch,
    ProtocolViolation,
    ProviderNotTrusted,
    Refused,
    UsageError,
)
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.transports.nodes import NodeTrust
from cloudconnect.transports.tls import (
    CONTROL_ALPN,
    LAN_ALPN,
    MutualTLS,
    TLSServerFactory,
    client_context,
)
from cloudconnect.transports.tls_layer import TLSFacts, was_resumed
from cloudconnect.transports.verification import Verification
from tests.certificates import (
    CLIENT_USE,
    EXPIRED,
    HOST,
    NOT_YET_VALID,
    SERVER_USE,
    Authority,
    Issued,
    build,
    general_names,
    self_signed,
)
from tests.transports.tls_parts import (
    Application,
    Link,
    OldClient,
    OldServer,
    OpenSSLPeer,
    Speaker,
    TLSTestCase,
)


class AcceptTests(TLSTestCase):
    """Connections that work."""

    def test_facts(self) -> None:
        """TLS 1.3, AES-256, a hybrid key exchange and our protocol come out, on both sides."""
        link = Link(self.by_ca(), self.serving(self.good))
        facts = self.assert_works(link)
        expected = TLSFacts(
            version="TLSv1.3",
            cipher="TLS_AES_256_GCM_SHA384",
            group="X25519MLKEM768",
            alpn="cloudconnect/1",
            peer_spki=self.good.spki,
            checked_by="ca",
            peer_ends=self.good.certificate.not_valid_after_utc.timestamp(),
        )
        self.assertEqual(expected, facts)
        self.assertEqual(("", ""), (link.server.facts.peer_spki, link.server.facts.checked_by))
        self.assertEqual(facts.group, link.server.facts.group)
        self.assertEqual(b"cloudconnect/1", link.client.negotiatedProtocol)
        shown = link.client.getPeerCertificate().to_cryptography()
        self.assertEqual(self.good.certificate, shown)

    def test_asked(self) -> None:
        """A server that asks learns whose key a client has, whoever signed its certificate and
        whatever its time; a client that shows none is served too."""
        asking = attrs.evolve(self.serving(self.good), asking=True)
        trusting = self.by_ca()
        self.assertEqual("", self.asked_by(asking, trusting))
        for days in (EXPIRED, NOT_YET_VALID, (-1.0, 1.0)):
            for made in (
                build("laptop", None, uses=CLIENT_USE, days=days),
                Authority().issue(hosts=(), uses=CLIENT_USE, days=days),
            ):
                showing = attrs.evolve(trusting, identity=made.write(self.mktemp()))
                self.assertEqual(made.spki, self.asked_by(asking, showing))
                self.assertEqual("", self.asked_by(self.serving(self.good), showing))

    def asked_by(self, server: Any, client: Any) -> str:
        """The pin of the key that the server has seen."""
        link = Link(client, server)
        self.assert_works(link)
        return str(link.server.facts.peer_spki)

    def test_asked_in_vain(self) -> None:
        """A certificate of another's, and one that is not for clients, end the connection."""
        asking = attrs.evolve(self.serving(self.good), asking=True)
        mine = build("laptop", None, uses=CLIENT_USE)
        thief = Issued(mine.certificate, build("x", None).key)
        for made in (thief, build("laptop", None, uses=SERVER_USE)):
            identity = made.write(self.mktemp())
            context = client_context(CONTROL_ALPN)
            context.use_certificate_file(identity.certificate_path)
            if made is not thief:
                context.use_privatekey_file(identity.key_path)
                peer = OpenSSLPeer(context, True)
                link = Link(peer, asking).pump()
                self.assertIsInstance(link.server_app.reason, CertificateUntrusted)
            else:
                showing = attrs.evolve(self.by_ca(), identity=identity)
                self.assertRaises(UsageError, Link, showing, asking)

    def test_asked_of_a_long_chain(self) -> None:
        """A stranger's chain of authorities is not followed, though its certificate is taken: none
        of them counts, and each would cost a check of a signature."""
        authority = Authority()
        for number in range(20):
            authority = Authority(f"authority {number}", authority)
        made = authority.issue(hosts=(), uses=CLIENT_USE)
        context = client_context(CONTROL_ALPN)
        context.use_certificate(made.certificate)
        context.use_privatekey(made.key)
        for certificate in made.chain:
            context.add_extra_chain_cert(certificate)
        looked: list[int] = []
        step = Verification.step

        def counted(self: Verification, *asked: Any) -> bool:
            looked.append(asked[3])
            return step(self, *asked)

        self.patch(Verification, "step", counted)
        asking = attrs.evolve(self.serving(self.good), asking=True)
        link = Link(OpenSSLPeer(context, True), asking).pump()
        self.assertEqual(made.spki, link.server.facts.peer_spki)
        self.assertEqual(0, looked[-1])
        self.assertLessEqual(max(looked), 1)

    def test_asked_for_too_much(self) -> None:
        """A handshake that is longer than any with certificates has to be ends, at once or bit by
        bit, before OpenSSL has all of it."""
        made = build("laptop", None, uses=CLIENT_USE)
        names = [f"{number:060}.example" for number in range(300)]
        large = build("large", None, hosts=names).certificate
        asking = attrs.evolve(self.serving(self.good), asking=True)
        for chain, ends in (([large], False), ([large, large], True)):
            context = client_context(CONTROL_ALPN)
            context.use_certificate(made.certificate)
            context.use_privatekey(made.key)
            for certificate in chain:
                context.add_extra_chain_cert(certificate)
            link = Link(OpenSSLPeer(context, True), asking).pump()
            if ends:
                self.assertIsInstance(link.server_app.reason, ProtocolViolation)
            else:
                self.assertEqual(made.spki, link.server.facts.peer_spki)

    def test_policies(self) -> None:
        """Each policy accepts what it is for, and says what it was."""
        lone = self_signed()
        for issued, parts, checked_by in (
            (self.good, {"ca_file": self.ca_file}, "ca"),
            (self.good, {"fingerprints": [self.good.spki]}, "pin"),
            (self.good, {"fingerprints": [self.good.fingerprint]}, "pin"),
            (self.good, {"fingerprints": [lone.spki, self.good.spki]}, "pin"),
            (self.good, {"ca_file": self.ca_file, "fingerprints": [self.good.spki]}, "ca+pin"),
            (lone, {"fingerprints": [lone.spki]}, "pin"),
            (lone, {"fingerprints": [lone.fingerprint]}, "pin"),
        ):
            facts = self.assert_works(Link(self.trusting(**parts), self.serving(issued)))
            self.assertEqual((checked_by, issued.spki), (facts.checked_by, facts.peer_spki))

    def test_self_signed_as_authority(self) -> None:
        """A self-signed certificate may be named as the authority."""
        lone = self_signed()
        server = self.serving(lone)
        facts = self.assert_works(
            Link(self.trusting(ca_file=server.identity.certificate_path), server)
        )
        self.assertEqual("ca", facts.checked_by)

    def test_intermediate(self) -> None:
        """An intermediate authority comes with the certificate."""
        between = Authority("between", issuer=self.authority)
        self.assert_works(Link(self.by_ca(), self.serving(between.issue())))

    def test_addresses(self) -> None:
        """A provider may be known by an address."""
        issued = self.authority.issue(["127.0.0.1", "::1"])
        for host in ("127.0.0.1", "::1", "[::1]"):
            self.assert_works(Link(self.by_ca(host), self.serving(issued)))

    def test_wildcard(self) -> None:
        """One label may be a wildcard."""
        issued = self.authority.issue(["*.example.com"])
        self.assert_works(Link(self.by_ca(), self.serving(issued)))

    def test_keys(self) -> None:
        """The certificate's key may be of another kind than ours are."""
        for key in (rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()):
            self.assert_works(Link(self.by_ca(), self.serving(self.authority.issue(key=key))))

    def test_accept_expired(self) -> None:
        """An expired certificate with the right fingerprint will do for a restore."""
        for issued, parts in (
            (self_signed(days=EXPIRED), {}),
            (self.authority.issue(days=EXPIRED), {}),
            (self.authority.issue(days=EXPIRED), {"ca_file": self.ca_file}),
        ):
            client = self.trusting(fingerprints=[issued.spki], accept_expired=True, **parts)
            self.assert_works(Link(client, self.serving(issued)))

    def test_server_name(self) -> None:
        """The server hears the name that is asked for; never an address."""
        for host, name in ((HOST, HOST.encode()), ("127.0.0.1", None)):
            issued = self.authority.issue([host])
            link = Link(self.by_ca(host), self.serving(issued))
            self.assert_works(link)
            self.assertEqual(name, link.server._tls.get_servername())

    def test_exporter(self) -> None:
        """Both ends export the same bytes; label, context and connection make them differ."""
        labels = (b"EXPORTER-Channel-Binding", b"EXPORTER-cloudconnect-key-a")
        found = set()
        for _ in range(2):
            link = Link(self.by_ca(), self.serving(self.good)).pump()
            for label in labels:
                for context in (None, b"s" * 16, b"t" * 16):
                    exported = link.client.exporter(label, context, 32)
                    self.assertEqual(exported, link.server.exporter(label, context, 32))
                    self.assertEqual(32, len(exported))
                    found.add(exported)
        self.assertEqual(12, len(found))

    def test_reload(self) -> None:
        """A renewed certificate is shown to new connections; a broken file changes nothing."""
        server = self.serving(self.good)
        factory = server.server_factory(Factory.forProtocol(Application), MemoryPair().clock)
        self.assertIsInstance(factory, TLSServerFactory)

        def shown() -> str:
            pair = MemoryPair()
            client = self.by_ca().client_factory(Factory.forProtocol(Application), pair.clock)
            layer = client.buildProtocol(None)
            pair.connect(layer, factory.buildProtocol(None))
            pair.pump()
            return layer.facts.peer_spki

        renewed = self.authority.issue()
        renewed.write(os.path.dirname(server.identity.key_path))
        self.assertEqual(self.good.spki, shown())
        factory.reload()
        self.assertEqual(renewed.spki, shown())
        with open(server.identity.key_path, "w") as file:
            file.write("nothing")
        self.assertRaises(UsageError, factory.reload)
        self.assertEqual(renewed.spki, shown())


class RefuseTests(TLSTestCase):
    """False providers: no credential leaves before the certificate holds."""

    def test_certificates(self) -> None:
        """Each kind of bad certificate is refused, with the error that names it."""
        untrusted, wrong_host = CertificateUntrusted, HostnameMismatch
        issue = self.authority.issue
        stranger = Authority("Test root")  # by name it is ours
        no_ca = Authority("no authority", issuer=self.authority, is_ca=False)
        short = Authority("short", issuer=self.authority, path_length=0)
        long = Authority("long", issuer=short)
        late = Authority("late", issuer=self.authority, days=EXPIRED)
        only_other = x509.NameConstraints(general_names(["other.example"]), None)
        narrow = Authority("narrow", issuer=self.authority, extensions=[(only_other, True)])
        critical = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        weak = rsa.generate_private_key(65537, 1024)
        cases: list[tuple[str, Issued, type[CloudConnectError]]] = [
            ("self-signed", self_signed(), untrusted),
            (
                "self-signed, named as our authority is",
                build("Test root", None, hosts=[HOST]),
                untrusted,
            ),
            ("unknown authority", Authority("nobody knows us").issue(), untrusted),
            ("unknown authority, named as ours is", stranger.issue(), untrusted),
            ("signature of another authority", issue(signing_key=stranger.root.key), untrusted),
            ("expired", issue(days=EXPIRED), untrusted),
            ("not valid yet", issue(days=NOT_YET_VALID), untrusted),
            ("for clients only", issue(uses=CLIENT_USE), untrusted),
            ("for signing code", issue(uses=(ExtendedKeyUsageOID.CODE_SIGNING,)), untrusted),
            ("weak key", issue(key=weak), untrusted),
            ("issued by a server's certificate", no_ca.issue(), untrusted),
            ("chain longer than allowed", long.issue(), untrusted),
            ("authority expired", late.issue(), untrusted),
            ("authority for other names", narrow.issue(), untrusted),
            ("unknown critical extension", issue(extensions=[(critical, True)]), untrusted),
            (
                "intermediate left out",
                attrs.evolve(short.issue(), chain=()),
                untrusted,
            ),
            ("another host", issue(["other.example.com"]), wrong_host),
            ("a parent domain", issue(["example.com"]), wrong_host),
            ("a domain below", issue(["www.backup.example.com"]), wrong_host),
            ("a wildcard one level up", issue(["*.com"]), wrong_host),
            ("a wildcard for everything", issue(["*"]), wrong_host),
            ("a wildcard two levels deep", issue(["*.*.com"]), wrong_host),
            ("part of a label", issue(["b*.example.com"]), wrong_host),
            ("no subjectAltName", issue(()), wrong_host),
            (
                "name as common name only",
                build(HOST, self.authority.root, uses=SERVER_USE),
                wrong_host,
            ),
            ("name with a null byte", issue(["backup.example.com\0.evil.example"]), wrong_host),
            ("name as URI only", issue((), uris=[f"https://{HOST}"]), wrong_host),
            ("an address only", issue(["192.0.2.1"]), wrong_host),
        ]
        for what, issued, kind in cases:
            link = Link(self.by_ca(), OldServer(issued))
            try:
                error = self.assert_refuses(link, kind)
            except Exception as wrong:
                raise AssertionError(f"{what}: {wrong}") from wrong
            self.assertEqual(ExitCode.PROVIDER_NOT_TRUSTED, error.exit_code)
            self.assertEqual(issued.spki, error.presented, what)

    def test_fingerprints(self) -> None:
        """A wrong fingerprint refuses a good chain; a right one does not mend the rest."""
        other = self.authority.issue().spki
        expired = self.authority.issue(days=EXPIRED)
        for issued, parts, kind in (
            (self.good, {"fingerprints": [other]}, FingerprintMismatch),
            (self.good, {"fingerprints": [other], "ca_file": self.ca_file}, FingerprintMismatch),
            (self_signed(), {"fingerprints": [other]}, FingerprintMismatch),
            (expired, {"fingerprints": [expired.spki]}, CertificateUntrusted),
            (self.good, {"fingerprints": [self.good.spki], "host": "a.example"}, HostnameMismatch),
        ):
            error = self.assert_refuses(Link(self.trusting(**parts), self.serving(issued)), kind)
            self.assertEqual(issued.spki, error.presented)

    def test_chain_and_fingerprint(self) -> None:
        """Where both are asked for, a fingerprint alone is not enough."""
        lone = self_signed()
        client = self.by_ca(fingerprints=[lone.spki])
        self.assert_refuses(Link(client, self.serving(lone)), CertificateUntrusted)

    def test_system_authorities(self) -> None:
        """Without a file, the system's authorities are asked; ours is not among them."""
        self.assert_refuses(Link(self.trusting(), self.serving(self.good)), CertificateUntrusted)

    def test_old_versions(self) -> None:
        """A peer that speaks TLS 1.2 at most is refused, and the message says why."""
        for version in (SSL.TLS1_VERSION, SSL.TLS1_2_VERSION):
            error = self.assert_refuses(
                Link(self.by_ca(), OldServer(self.good, version)), CertificateUntrusted
            )
            self.assertIn("TLS 1.3", str(error))
            self.assertEqual(ExitCode.PROVIDER_NOT_TRUSTED, error.exit_code)

    def test_no_tls(self) -> None:
        """So is one that does not speak TLS at all."""
        for says in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n", bytes(64)):
            error = self.assert_refuses(Link(self.by_ca(), Speaker(says)), CertificateUntrusted)
            self.assertIn("TLS 1.3", str(error))

    def test_other_suite(self) -> None:
        """A server without our cipher suite is refused."""
        server = OldServer(self.good, suite=b"TLS_AES_128_GCM_SHA256")
        self.assert_refuses(Link(self.by_ca(), server), ProviderNotTrusted)

    def test_other_protocol(self) -> None:
        """A server that does not speak our application protocol, or does not say so, is refused."""
        for alpn, kind in ((None, ProtocolViolation), (b"h2", ControlTampered)):
            server = OldServer(self.good, alpn=alpn)
            self.assert_refuses(Link(self.by_ca(), server), kind)
            self.assertEqual(b"", server.read)

    def test_server_wants_the_protocol(self) -> None:
        """Our server refuses a client that offers another protocol, or none."""
        link = Link(attrs.evolve(self.by_ca(), alpn="h2"), self.serving(self.good)).pump()
        self.assertIsInstance(link.server_app.reason, ProtocolViolation)
        self.assertIsInstance(link.client_app.reason, ProtocolViolation)
        self.assertEqual((0, b""), (link.server_app.handshakes, link.server_app.data))
        silent = Link(OldClient(), self.serving(self.good)).pump()
        self.assertIsInstance(silent.server_app.reason, ProtocolViolation)
        self.assertEqual((0, b""), (silent.server_app.handshakes, silent.server_app.data))

    def test_old_client(self) -> None:
        """Our server refuses a client that speaks TLS 1.2 at most."""
        link = Link(OldClient(SSL.TLS1_2_VERSION), self.serving(self.good)).pump()
        self.assertIsInstance(link.server_app.reason, ProtocolViolation)
        self.assertEqual(0, link.server_app.handshakes)

    def test_strangers(self) -> None:
        """What is not TLS ends the connection to our server, and nothing else happens."""
        for says in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\xff\xff" + bytes(80),
            b"CCN1" + bytes(17),
        ):
            pair = MemoryPair()
            app, stranger = Application(), Application()
            stranger.first = says
            factory = self.serving(self.good).server_factory(
                Factory.forProtocol(lambda app=app: app), pair.clock
            )
            pair.connect(stranger, factory.buildProtocol(None))
            pair.pump()
            self.assertIsInstance(app.reason, ProtocolViolation)
            self.assertEqual((0, b""), (app.handshakes, app.data))

    def test_no_resumption(self) -> None:
        """A client that keeps a session cannot resume it: the server does a whole handshake."""
        server = self.serving(self.good)
        application, clock = Factory.forProtocol(Application), MemoryPair().clock
        servers = server.server_factory(application, clock)
        clients = self.by_ca().client_factory(application, clock)

        def connect(session: SSL.Session | None) -> tuple[SSL.Session | None, bool]:
            pair = MemoryPair()
            client = clients.buildProtocol(None)
            if session is not None:
                client._tls.set_session(session)
            pair.connect(client, servers.buildProtocol(None))
            pair.pump()
            self.assertEqual("ca", client.facts.checked_by)
            return client._tls.get_session(), was_resumed(client._tls)

        session, reused = connect(None)
        self.assertIsNotNone(session)
        self.assertFalse(reused)
        self.assertFalse(connect(session)[1])

    def test_left_out(self) -> None:
        """A side that the recipe says nothing of cannot be made."""
        clock = MemoryPair().clock
        factory = Factory.forProtocol(Application)
        self.assertRaises(UsageError, self.by_ca().server_factory, factory, clock)
        self.assertRaises(UsageError, self.serving(self.good).client_factory, factory, clock)

    def test_authorities_file(self) -> None:
        """A file of authorities that cannot be read is an error before anything is sent."""
        for content in (None, "nothing"):
            path = self.mktemp()
            if content:
                with open(path, "w") as file:
                    file.write(content)
            recipe = self.trusting(ca_file=path)
            error = self.assertRaises(
                UsageError, recipe.client_factory, Factory.forProtocol(Application), None
            )
            self.assertIn(path, str(error))


class MutualTests(TLSTestCase):
    """The LAN link: both sides are nodes."""

    def node(self, uri: str, *roles: str, name: str | None = None, **parts: Any) -> MutualTLS:
        """A node named ``uri`` that trusts these roles."""
        issued = parts.get("issued") or self.authority.issue_node(uri)
        trust = NodeTrust(parts.get("ca_file", self.ca_file), roles, name)
        return MutualTLS(trust, issued.write(f"{self.directory}/{issued.spki[12:28]}"))

    def test_works(self) -> None:
        """Each side learns which node the other is."""
        client = self.node("cloudconnect:service/main", "gateway", name="g1")
        server = self.node("cloudconnect:gateway/g1", "service", "target-mover")
        link = Link(client, server)
        facts = self.assert_works(link)
        self.assertEqual(("gateway", "g1"), (facts.peer_role, facts.peer_name))
        there = link.server.facts
        self.assertEqual(("service", "main"), (there.peer_role, there.peer_name))
        self.assertEqual(("ca", "ca"), (facts.checked_by, there.checked_by))
        self.assertEqual(LAN_ALPN, facts.alpn)
        self.assertEqual(facts.peer_spki, server.identity.fingerprints()[0])
        self.assertEqual(there.peer_spki, client.identity.fingerprints()[0])

    def test_long_chain(self) -> None:
        """Authorities between a node and the one that both trust may be some, but not many."""
        gateway = self.node("cloudconnect:gateway/g1", "service")
        authority = self.authority
        for number in range(8):
            authority = Authority(f"between {number}", authority)
            issued = authority.issue_node("cloudconnect:service/main")
            link = Link(self.node("", "gateway", issued=issued), gateway)
            if number < 4:
                self.assert_works(link)
            else:
                link.pump()
                self.assertIsInstance(link.server_app.reason, CertificateUntrusted)

    def test_client_refuses(self) -> None:
        """The client refuses another role, another name, another authority's node."""
        stranger = Authority("another")
        theirs = stranger.issue_node("cloudconnect:gateway/g1")
        ca_file = stranger.write(f"{self.directory}/theirs.pem")
        gateway = self.node("cloudconnect:gateway/g1", "service")
        for server, parts, kind in (
            (gateway, ("target-mover", None), HostnameMismatch),
            (gateway, ("gateway", "g2"), HostnameMismatch),
            (
                self.node("", "service", issued=theirs, ca_file=ca_file),
                ("gateway", None),
                CertificateUntrusted,
            ),
        ):
            client = self.node("cloudconnect:service/main", parts[0], name=parts[1])
            self.assert_refuses(Link(client, server), kind)

    def test_server_refuses(self) -> None:
        """The server refuses the same; the client's bytes never reach its application."""
        stranger = Authority("another")
        gateway = self.node("cloudconnect:gateway/g1", "service", name="main")
        issue = self.authority.issue_node
        for issued, kind in (
            (issue("cloudconnect:service/other"), HostnameMismatch),
            (issue("cloudconnect:gateway/main"), HostnameMismatch),
            (issue("cloudconnect:service/main", days=EXPIRED), CertificateUntrusted),
            (issue("cloudconnect:service/main", uses=SERVER_USE), CertificateUntrusted),
            (issue("https://service/main"), CertificateUntrusted),
            (stranger.issue_node("cloudconnect:service/main"), CertificateUntrusted),
            (self_signed((), uris=("cloudconnect:service/main",)), CertificateUntrusted),
        ):
            link = Link(self.node("", "gateway", issued=issued), gateway).pump()
            self.assertIs(kind, type(link.server_app.reason), link.server_app.reason)
            self.assertEqual((0, b""), (link.server_app.handshakes, link.server_app.data))
            self.assertIsInstance(link.client_app.reason, (Refused, Aborted))

    def test_no_certificate(self) -> None:
        """A client without a certificate is refused, however much it trusts the server."""
        issued = self.authority.issue_node("cloudconnect:gateway/g1", hosts=[HOST])
        server = self.node("", "service", issued=issued)
        link = Link(attrs.evolve(self.by_ca(), alpn=LAN_ALPN), server).pump()
        self.assertIsInstance(link.server_app.reason, CertificateUntrusted)
        self.assertEqual((0, b""), (link.server_app.handshakes, link.server_app.data))
        self.assertIsInstance(link.client_app.reason, Refused)

    def test_links_do_not_mix(self) -> None:
        """A LAN node and a control client have no protocol in common."""
        issued = self.authority.issue_node("cloudconnect:gateway/g1", hosts=[HOST])
        link = Link(self.by_ca(), self.node("", "service", issued=issued)).pump()
        self.assertIsInstance(link.client_app.reason, ProtocolViolation)
        self.assertIsInstance(link.server_app.reason, ProtocolViolation)
