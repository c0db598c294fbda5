"""Tests of :mod:`cloudconnect.provider.nodes.renewal` and :mod:`cloudconnect.commands.renewing`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import connectProtocol

from cloudconnect.commands.box import BoundedAMP
from cloudconnect.commands.renewing import RenewNode, renew_node, show_node
from cloudconnect.config.certificates import load_certificate
from cloudconnect.config.gateway import lan_tls
from cloudconnect.config.node_certificates import (
    issue_node_certificate,
    make_node_ca,
    make_node_request,
    sign_node_request,
)
from cloudconnect.config.node_renewal import NEXT, next_tls, renew
from cloudconnect.errors import Busy, CloudConnectError, ProtocolViolation, Refused
from cloudconnect.provider.alarms.expiry import Ending
from cloudconnect.provider.nodes.lan import NodeFactory
from cloudconnect.provider.nodes.renewal import RENEWAL_SECONDS, NodeCertificates, NodeRenewals
from cloudconnect.transports.endpoints import wrap_client_endpoint, wrap_server_endpoint
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.transports.nodes import GATEWAY, SERVICE
from cloudconnect.transports.tls import MutualTLS
from tests.provider.stage import StageCase

SPKI = "SPKI-SHA256:" + "0" * 64


class RenewalCase(StageCase):
    """A service with a LAN port, its authority, and a gateway that has a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.service, self.accounts = self.provider.service, self.provider.accounts
        self.authority, self.node = Path(self.mktemp()), Path(self.mktemp())
        own = Path(self.mktemp())
        for folder in (self.authority, self.node, own):
            folder.mkdir()
        make_node_ca(self.authority)
        issue_node_certificate(self.authority, "edge", GATEWAY, self.node)
        issue_node_certificate(self.authority, "service", SERVICE, own)
        self.lan = MemoryEndpoint(self.reactor, "LAN")
        self.renewals = renewals = NodeRenewals(
            self.reactor,
            self.accounts,
            maybeDeferred,
            lambda role, name, request: sign_node_request(self.authority, role, name, request),
            self.service.renewed,
        )
        factory = NodeFactory(self.service, "10.0.0.5:6182", renewals)
        tls = lan_tls(own, GATEWAY)
        self.successResultOf(wrap_server_endpoint(tls, self.lan, self.reactor).listen(factory))

    def over(self, tls: MutualTLS) -> Any:
        return wrap_client_endpoint(tls, self.lan, self.reactor)

    def renewing(self) -> Deferred[Any]:
        """The node renews its certificate, as its process does."""
        done = Deferred.fromCoroutine(
            renew(
                self.node,
                lambda request: renew_node(
                    self.reactor, self.over(lan_tls(self.node, SERVICE)), request
                ),
                lambda: show_node(self.reactor, self.over(next_tls(self.node, SERVICE))),
            )
        )
        self.reactor.settle()
        return done

    def shown(self, tls: MutualTLS) -> Deferred[None]:
        """Whether the service lets a node in."""
        done = Deferred.fromCoroutine(show_node(self.reactor, self.over(tls)))
        self.reactor.settle()
        return done

    def row(self) -> dict[str, Any]:
        (row,) = self.accounts.nodes()
        return row


class RenewTests(RenewalCase):
    """A node's next certificate over the LAN link."""

    def test_renewed(self) -> None:
        """It is for a new key, and from the first line on that shows it the old one is worth
        nothing; the service knows when it ends, and keeps an event."""
        old = Path(self.mktemp())
        old.mkdir()
        for path in self.node.iterdir():
            (old / path.name).write_bytes(path.read_bytes())
        self.successResultOf(self.shown(lan_tls(self.node, SERVICE)))
        before = self.row()
        made = self.successResultOf(self.renewing())
        after = self.row()
        self.assertNotEqual(before["spki"], after["spki"])
        self.assertEqual(made.not_valid_after_utc.timestamp(), after["ends"])
        self.successResultOf(self.shown(lan_tls(self.node, SERVICE)))
        self.failureResultOf(self.shown(lan_tls(old, SERVICE)), CloudConnectError)
        self.assertEqual(
            [Ending("the certificate of gateway edge", after["ends"])],
            list(self.service.node_certificates),
        )
        self.assertEqual(1, len(self.provider.events(name="node_renewed")))
        self.assertEqual([], sorted(p.name for p in self.node.glob(f"{NEXT}*")))

    def test_both(self) -> None:
        """Until the new one was shown the node is let in with the old one."""
        self.successResultOf(self.shown(lan_tls(self.node, SERVICE)))
        self.accounts.renew_node(GATEWAY, "edge", SPKI, self.row()["spki"])
        self.successResultOf(self.shown(lan_tls(self.node, SERVICE)))
        self.assertFalse(self.accounts.admit_node(GATEWAY, "edge", SPKI, 5.0).leaving)
        self.failureResultOf(self.shown(lan_tls(self.node, SERVICE)), CloudConnectError)
        self.assertEqual((SPKI, 5.0), (self.row()["spki"], self.row()["ends"]))

    def test_removed(self) -> None:
        """A node whose certificate was taken back gets no other, and is not warned of any more."""
        self.successResultOf(self.shown(lan_tls(self.node, SERVICE)))
        self.accounts.revoke_node(GATEWAY, "edge")
        self.service.expel(GATEWAY, "edge")
        self.failureResultOf(self.renewing(), CloudConnectError)
        spki = self.row()["spki"]
        self.assertRaises(Refused, self.accounts.renew_node, GATEWAY, "edge", SPKI, spki)
        self.assertEqual([], list(self.service.node_certificates))

    def test_old_line(self) -> None:
        """A line that shows a certificate which counts no more stays, but gets no other one:
        whoever has copied a key would have the node for ever. It does not hold the node up."""
        thief = BoundedAMP(self.reactor)
        dialled = connectProtocol(self.over(lan_tls(self.node, SERVICE)), thief)
        self.reactor.settle()
        self.successResultOf(dialled)
        self.addCleanup(self.hang_up, thief)
        request = make_node_request(self.node, GATEWAY, "edge", "stolen-")
        self.successResultOf(self.renewing())
        present = self.row()["spki"]
        self.reactor.pass_time(RENEWAL_SECONDS)
        asked = thief.call(RenewNode, request=request)
        self.reactor.settle()
        self.failureResultOf(asked, Refused)
        self.assertEqual(present, self.row()["spki"])
        self.successResultOf(self.renewing())
        self.assertNotEqual(present, self.row()["spki"])

    def hang_up(self, line: BoundedAMP) -> None:
        if line.transport is not None:
            line.transport.loseConnection()
        self.reactor.settle()

    def test_bounds(self) -> None:
        """One in a minute, of a request that is one and not too long."""
        ask = lambda request: Deferred.fromCoroutine(  # noqa: E731
            renew_node(self.reactor, self.over(lan_tls(self.node, SERVICE)), request)
        )
        request = make_node_request(self.node, GATEWAY, "edge", NEXT)
        for octets, error in (
            (b"x" * 5000, ProtocolViolation),
            (b"nonsense", Refused),
            (request, Busy),
        ):
            asked = ask(octets)
            self.reactor.settle()
            self.failureResultOf(asked, error)
        self.reactor.pass_time(RENEWAL_SECONDS)
        asked = ask(request)
        self.reactor.settle()
        certificate, _ = self.successResultOf(asked)
        (self.node / "made.pem").write_bytes(certificate)
        made = load_certificate(self.node / "made.pem")
        self.assertEqual("gateway/edge", made.subject.rfc4514_string().partition("=")[2])
        self.renewals._last |= {("gateway", "edge", str(n)): 0.0 for n in range(9)}
        self.reactor.pass_time(RENEWAL_SECONDS)
        ask(request)
        self.reactor.settle()
        self.assertEqual(1, len(self.renewals._last))  # of those before nothing is remembered


class EndingTests(RenewalCase):
    """When certificates of nodes end."""

    def test_known(self) -> None:
        """Those that the accounts have, without what was taken back or was never seen, in order."""
        row = {"role": "mover", "name": "a", "revoked": None, "ends": 5.0}
        rows = [
            row,
            {**row, "name": "b", "ends": 4.0},
            {**row, "name": "c", "revoked": 1.0},
            {**row, "name": "d", "ends": None},
        ]
        found = list(NodeCertificates(rows))
        self.assertEqual([4.0, 5.0], [ending.ends for ending in found])
        self.assertEqual("the certificate of mover b", found[0].name)
