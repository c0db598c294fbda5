"""Tests of :mod:`cloudconnect.provider.service.planning`."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.control import (
    BETWEEN_WANS,
    DIRECT_HOP,
    FROM_TARGET_WAN,
    Role,
    SessionKind,
)
from cloudconnect.commands.tunnel import agreed_digest
from cloudconnect.provider.accounts import Tenant
from cloudconnect.provider.service.planning import (
    CAPABILITIES,
    HERE,
    Ask,
    GatewayPlace,
    Part,
    packages,
    plan_of,
    streams_of,
)
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.settings import KEY_A_SECONDS

SESSION, REPOSITORY = b"s" * 16, b"r" * 16
GATEWAYS = ["gateway.example:6180"]
MOVER_PLACE = "10.0.0.5:6182"


def ask(wan: bool = False, streams: int = 1, kind: SessionKind = SessionKind.BACKUP) -> Ask:
    """What a tenant asks."""
    return Ask(
        kind=kind,
        job=b"j" * 16,
        host="host",
        name="job",
        repository=REPOSITORY,
        wan=wan,
        streams=streams,
    )


def tenant(**changes: Any) -> Tenant:
    """A tenant's record."""
    made = Tenant(
        name="acme",
        quota=1000,
        lease_end=None,
        max_tasks=4,
        disabled=False,
        modes=("provider",),
        repository=REPOSITORY,
        mode="provider",
        group=b"g" * 16,
        rules={},
        frozen=False,
    )
    return attrs.evolve(made, **changes)


def exporter(session: bytes, role: str) -> bytes:
    """As that of a control channel: another one for each session and role."""
    return hashlib.sha256(session + role.encode()).digest()


class PlanCase(SynchronousTestCase):
    """A test with a session's parts."""

    def setUp(self) -> None:
        link: Any = object()
        self.mover = Part(Role.TARGET_MOVER, link, HERE)
        self.wan = Part(Role.TARGET_WAN, link, "10.0.0.7:6190")

    def told(self, asked: Ask, **changes: Any) -> dict[str, KeyAPackage]:
        """The packages of a session, by role."""
        parts = [self.mover, self.wan] if asked.wan else [self.mover]
        plan = plan_of(parts, asked, GATEWAYS)
        made = packages(parts, plan, asked, SESSION, tenant(**changes), exporter, MOVER_PLACE)
        self.assertEqual([part.role.value for part in parts], [one.role for one in made])
        return {one.role: one for one in made}


class PlanTests(PlanCase):
    """What a tenant is told."""

    def test_entries(self) -> None:
        """Each part has an entry, in order, with its route and how many connections come."""
        plan = plan_of([self.mover, self.wan], ask(True, 4), GATEWAYS)
        self.assertEqual(["target-mover", "target-wan"], [entry["role"] for entry in plan])
        self.assertEqual([self.mover.route, self.wan.route], [entry["route"] for entry in plan])
        self.assertEqual([1, 4], [entry["limits"]["streams"] for entry in plan])
        self.assertEqual([GATEWAYS] * 2, [entry["gateways"] for entry in plan])

    def test_no_secret(self) -> None:
        """No key is in a plan, nor where parts are printed; nor is where they stand."""
        plan = plan_of([self.mover, self.wan], ask(True, 4), GATEWAYS)
        for part in (self.mover, self.wan):
            octets = part.key_a.reveal()
            for shown in (repr(plan), repr(part)):
                self.assertNotIn(octets.hex(), shown)
                self.assertNotIn(repr(octets)[2:-1], shown)
        self.assertNotIn("10.0.0", repr(plan))

    def test_each_its_own(self) -> None:
        """Parts have routes and Keys A of their own."""
        self.assertNotEqual(self.mover.route, self.wan.route)
        self.assertNotEqual(self.mover.key_a.reveal(), self.wan.key_a.reveal())

    def test_streams(self) -> None:
        """Several connections come in between accelerators only."""
        for role in Role:
            self.assertEqual(1, streams_of(role, ask()))
            several = 4 if role is Role.TARGET_WAN else 1
            self.assertEqual(several, streams_of(role, ask(True, 4)))

    def test_backend(self) -> None:
        """What is in the service's process a gateway finds where the service's process is for it;
        what is not, where it is itself."""
        separate = GatewayPlace("10.0.0.5:6182", "gw:6180")
        self.assertEqual("10.0.0.5:6182", self.mover.backend_for(separate))
        self.assertEqual(HERE, self.mover.backend_for(GatewayPlace()))
        for place in (separate, GatewayPlace()):
            self.assertEqual("10.0.0.7:6190", self.wan.backend_for(place))


class PackageTests(PlanCase):
    """What the roles are told."""

    def test_direct(self) -> None:
        """Without acceleration the mover has the direct hop and goes on to nobody."""
        (package,) = self.told(ask()).values()
        self.assertEqual(((DIRECT_HOP,), 1, False), (package.hops, package.streams, package.wan))
        self.assertEqual(("", b""), (package.next_backend, package.next_route))

    def test_accelerated(self) -> None:
        """The accelerator is told both its hops, and where the mover is on which route; the mover
        the one hop that comes in."""
        told = self.told(ask(True, 4))
        mover, wan = told["target-mover"], told["target-wan"]
        self.assertEqual(((FROM_TARGET_WAN,), 1), (mover.hops, mover.streams))
        self.assertEqual(((BETWEEN_WANS, FROM_TARGET_WAN), 4), (wan.hops, wan.streams))
        self.assertEqual((MOVER_PLACE, self.mover.route), (wan.next_backend, wan.next_route))
        self.assertEqual(("", b""), (mover.next_backend, mover.next_route))
        self.assertTrue(mover.wan and wan.wan)

    def test_agreed(self) -> None:
        """All roles are bound to one and the same whole plan and question."""
        told = self.told(ask(True, 4))
        plan = plan_of([self.mover, self.wan], ask(True, 4), GATEWAYS)
        expected = agreed_digest(plan, ask(True, 4).as_map())
        self.assertEqual({expected}, {package.agreed for package in told.values()})
        self.assertNotEqual(expected, agreed_digest(plan[:1], ask(True, 4).as_map()))
        self.assertNotEqual(expected, agreed_digest(plan[::-1], ask(True, 4).as_map()))
        self.assertNotEqual(expected, agreed_digest(plan, ask(True, 3).as_map()))

    def test_exporters(self) -> None:
        """Each role is bound to an exporter of its own, of which it gets the digest."""
        told = self.told(ask(True, 4))
        for role, package in told.items():
            self.assertEqual(hashlib.sha256(exporter(SESSION, role)).digest(), package.exporter)
        self.assertEqual(2, len({package.exporter for package in told.values()}))

    def test_record(self) -> None:
        """What holds for the tenant, and what was asked, is in each package."""
        for kind in SessionKind:
            for package in self.told(ask(True, 2, kind), quota=None).values():
                self.assertEqual(
                    ("acme", "provider", None, REPOSITORY, kind.value, CAPABILITIES[kind]),
                    (
                        package.tenant,
                        package.mode,
                        package.quota,
                        package.repository,
                        package.kind,
                        package.capabilities,
                    ),
                )
                self.assertEqual(int(KEY_A_SECONDS * 1000), package.lifetime_ms)

    def test_only_backups_write(self) -> None:
        """No other kind of session may store."""
        writing = [kind for kind in SessionKind if "write" in CAPABILITIES[kind]]
        self.assertEqual([SessionKind.BACKUP], writing)
