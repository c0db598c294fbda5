"""Tests of :mod:`cloudconnect.provider.service.starting`: what a Start needs, and gives."""

from __future__ import annotations

import hashlib
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from cloudconnect.commands.control import (
    SessionKind,
)
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.tunnel import agreed_digest
from cloudconnect.errors import (
    Busy,
    LeaseEnded,
    NoAccelerator,
    NotFound,
    NotReachable,
    Refused,
)
from cloudconnect.provider.nodes.known import ANSWER_SECONDS
from cloudconnect.provider.nodes.movers import WAIT_SECONDS
from cloudconnect.provider.service.planning import HERE, GatewayPlace
from cloudconnect.settings import (
    KEY_A_SECONDS,
)
from tests.provider.service_parts import ServiceCase, ToldGateway, ToldMover
from tests.provider.stage import TENANT


class StartTests(ServiceCase):
    """What Start makes."""

    def test_package(self) -> None:
        """The mover is told exactly what the tenant is told and has asked, and Key A."""
        session, plan, keys = self.reactor.result_of(self.begin(job=b"j" * 16))
        ((told, key_a),) = self.mover.offers
        (entry,) = plan
        self.assertEqual([key_a], [key.reveal() for key in keys])
        self.assertEqual((session, TENANT, "target-mover"), (told.session, told.tenant, told.role))
        self.assertEqual((entry["route"], entry["role"]), (told.route, told.role))
        self.assertEqual(agreed_digest(plan, self.ask(job=b"j" * 16).as_map()), told.agreed)
        self.assertEqual(
            hashlib.sha256(b"exported for target-mover " + session).digest(), told.exporter
        )
        self.assertEqual(
            ("backup", b"j" * 16, "host", "job", self.repository),
            (told.kind, told.job, told.host, told.name, told.repository),
        )
        self.assertEqual((KEY_A_SECONDS * 1000, 1), (told.lifetime_ms, told.streams))

    def test_no_key_in_the_plan(self) -> None:
        """Key A is beside the plan, not in it."""
        _, plan, keys = self.reactor.result_of(self.begin())
        self.assertNotIn(repr(keys[0].reveal())[2:-1], repr(plan))

    def test_fresh(self) -> None:
        """Session, route and Key A are new each time."""
        made = [self.reactor.result_of(self.begin()) for _ in range(2)]
        self.assertEqual(2, len({session for session, _, _ in made}))
        self.assertEqual(2, len({plan[0]["route"] for _, plan, _ in made}))
        self.assertEqual(2, len({keys[0].reveal() for _, _, keys in made}))

    def test_capabilities(self) -> None:
        """Only a backup may write."""
        for kind in SessionKind:
            session = self.start(kind=kind)
            told = self.mover.offers[-1][0]
            self.assertEqual(kind is SessionKind.BACKUP, "write" in told.capabilities, kind)
            self.finish(session)

    def test_nothing_before_the_acknowledgements(self) -> None:
        """Start is answered only once the mover has Key A and the gateways have the route."""
        self.mover.wait = Deferred()
        starting = self.begin()
        self.reactor.settle()
        self.assertNoResult(starting)
        self.assertEqual(1, len(self.gateway.routes))
        self.mover.wait.callback(None)
        self.reactor.result_of(starting)

    def test_kept(self) -> None:
        """The session and the identifier of its Key A are kept; not the key."""
        session, _, keys = self.reactor.result_of(self.begin())
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual(
            (session.hex(), "backup", "host", "job", "192.0.2.1", keys[0].identifier),
            tuple(row[name] for name in ("session", "kind", "host", "job", "peer", "key_a")),
        )
        self.assertIn("key_a_made", self.provider.names(session=session.hex()))
        self.assert_unsaid(keys[0].reveal())


class RefusalTests(ServiceCase):
    """Who may start what."""

    def assert_nothing(self) -> None:
        self.assertEqual(([], []), (self.mover.offers, self.gateway.routes))
        self.assertEqual([], list(self.service.sessions))

    def test_foreign_repository(self) -> None:
        """A tenant works on its own repository and no other; that another exists is not told."""
        self.provider.add_tenant("other")
        self.provider.accounts.set_repository("other", b"o" * 16)
        texts = set()
        for foreign in (b"o" * 16, b"x" * 16):
            error = self.failure_of(self.begin(repository=foreign), NotFound)
            texts.add(str(error))
        self.assertEqual(1, len(texts))
        self.assert_nothing()

    def test_no_repository(self) -> None:
        """Who has not connected yet has nothing to work on."""
        self.provider.add_tenant("new")
        self.failure_of(self.begin("new"), NotFound)
        self.assert_nothing()

    def test_lease(self) -> None:
        """After the last day of the lease there are no backups, but restores."""
        self.today("2030-01-31")
        self.finish(self.start())
        self.today("2030-02-01")
        self.failure_of(self.begin(), LeaseEnded)
        self.finish(self.start(kind=SessionKind.RESTORE))

    def test_disabled(self) -> None:
        """A disabled tenant starts nothing at all."""
        record = self.provider.accounts.tenant(TENANT)
        self.provider.accounts.tenant = (  # type: ignore[method-assign]
            lambda name: attrs.evolve(record, disabled=True)
        )
        for kind in SessionKind:
            self.failure_of(self.begin(kind=kind), LeaseEnded)
        self.assert_nothing()

    def test_tasks(self) -> None:
        """A tenant runs as many sessions as was agreed; the next one fits when one has ended."""
        first = self.start()
        self.start()
        self.failure_of(self.begin(), Busy)
        self.finish(first)
        self.start()

    def test_tasks_of_others(self) -> None:
        """What one tenant runs does not count for another."""
        self.provider.add_tenant("other")
        self.provider.accounts.set_repository("other", b"o" * 16)
        self.start()
        self.start()
        self.reactor.result_of(self.begin("other", repository=b"o" * 16))

    def test_race(self) -> None:
        """Starts at the same time do not pass the limit together."""
        self.mover.wait = Deferred()
        starting = [self.begin() for _ in range(5)]
        self.reactor.settle()
        refused = [d for d in starting if d.called]
        for deferred in refused:
            self.failure_of(deferred, Busy)
        self.assertEqual(3, len(refused))
        self.mover.wait.callback(None)
        for deferred in set(starting) - set(refused):
            self.reactor.result_of(deferred)

    def test_mover_refuses(self) -> None:
        """What the mover refuses is refused, and leaves neither session nor route."""
        self.mover.refuse = NotFound("not here")
        self.failure_of(self.begin(), NotFound)
        self.assertEqual([], list(self.service.sessions))
        self.assertEqual([self.gateway.routes[0]["route"]], self.gateway.retired)
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual("failed", row["state"])

    def test_no_mover(self) -> None:
        """Without a data mover nothing starts, and that is said."""
        self.service.nodes.movers.lose(self.service.nodes.mover)
        begun = self.begin()
        self.reactor.pass_time(WAIT_SECONDS + 1)
        self.failure_of(begun, NotReachable)
        self.assertEqual([], list(self.service.sessions))


class GatewayTests(ServiceCase):
    """Routes and gateways."""

    def test_routes(self) -> None:
        """Each gateway gets the route with its own name of the back end, and retires it at the
        end; the group says nothing of the tenant."""
        other = ToldGateway()
        self.add_gateway(other, GatewayPlace("10.0.0.5:6182", "gw.example.com:6180"))
        session, plan, _ = self.reactor.result_of(self.begin())
        route = plan[0]["route"]
        self.assertEqual(["gw.example.com:6180"], plan[0]["gateways"])
        for gateway, backend in ((self.gateway, "here"), (other, "10.0.0.5:6182")):
            (published,) = gateway.routes
            self.assertEqual((route, backend), (published["route"], published["backend"]))
            self.assertEqual(self.provider.accounts.tenant(TENANT).group, published["group"])
        self.finish(session)
        self.reactor.settle()
        self.assertEqual(([route], [route]), (self.gateway.retired, other.retired))

    def test_advertised(self) -> None:
        """What the admin set comes first, each address once."""
        self.service.nodes._advertise = ["a.example.com:6180", "b.example.com:6180"]
        for name in ("b", "c"):
            self.add_gateway(ToldGateway(), GatewayPlace("x:1", f"{name}.example.com:6180"))
        _, plan, _ = self.reactor.result_of(self.begin())
        self.assertEqual([f"{name}.example.com:6180" for name in "abc"], plan[0]["gateways"])

    def test_silent(self) -> None:
        """A gateway that has vanished without a word delays one Start and fails none; it is not
        advertised, and is lost until it registers again."""
        silent = ToldGateway(Deferred)
        link = self.add_gateway(silent, GatewayPlace("x:1", "silent.example.com:6180"))
        starting = self.begin()
        self.reactor.pass_time(ANSWER_SECONDS)
        _, plan, _ = self.reactor.result_of(starting)
        self.assertEqual([], plan[0]["gateways"])
        self.assertIsNone(link.transport)
        self.start()
        self.assertEqual(1, len(silent.routes))

    def test_refusing(self) -> None:
        """A gateway whose table is full is not advertised for this session, and asked again for
        the next."""

        def refuse() -> None:
            raise Refused("full")

        full = ToldGateway(refuse)
        self.add_gateway(full, GatewayPlace("x:1", "full.example.com:6180"))
        for _ in range(2):
            _, plan, _ = self.reactor.result_of(self.begin())
            self.assertEqual([], plan[0]["gateways"])
        self.assertEqual(2, len(full.routes))

    def test_none(self) -> None:
        """Without any gateway that takes the route nothing starts, and no task stays taken."""
        self.service.nodes._gateways.clear()
        for _ in range(3):
            self.failure_of(self.begin(), Refused)
        self.assertEqual(([], []), (self.mover.offers, list(self.service.sessions)))


class AcceleratorTests(ServiceCase):
    """Sessions that go through a target WAN accelerator."""

    def add(self, backend: str) -> tuple[ToldMover, Any]:
        """An accelerator, and the service's end of its line."""
        told = ToldMover()
        link, _ = link_in_process(self.reactor, None, told)
        self.service.nodes.add_accelerator(link, backend)
        return told, link

    def test_two_parts(self) -> None:
        """Mover and accelerator each have a Key A and a route of their own, and the accelerator is
        told where the mover is; gateways are told where it is itself."""
        told, _ = self.add("10.0.0.6:6183")
        _, plan, keys = self.reactor.result_of(self.begin(wan=True, streams=3))
        self.assertEqual(["target-mover", "target-wan"], [entry["role"] for entry in plan])
        ((package, key_a),) = told.offers
        ((movers, other),) = self.mover.offers
        self.assertEqual([other, key_a], [key.reveal() for key in keys])
        self.assertNotEqual(other, key_a)
        self.assertEqual((package.next_route, package.streams), (movers.route, 3))
        backends = {values["route"]: values["backend"] for values in self.gateway.routes}
        self.assertEqual(backends, {movers.route: HERE, package.route: "10.0.0.6:6183"})

    def test_fewest(self) -> None:
        """The accelerator with the fewest sessions gets the next one."""
        first, second = self.add("10.0.0.6:6183")[0], self.add("10.0.0.7:6183")[0]
        for _ in range(2):
            self.start(wan=True)
        self.assertEqual((1, 1), (len(first.offers), len(second.offers)))

    def test_none(self) -> None:
        """Without one such a session is refused by a name of its own."""
        self.failure_of(self.begin(wan=True), NoAccelerator)
        self.assertEqual([], self.mover.offers)

    def test_silent(self) -> None:
        """One that does not answer is lost before the tenant gives up, and its line is cut, so that
        it registers again; the next session goes to another one."""
        silent, link = self.add("10.0.0.6:6183")
        silent.wait = Deferred()
        begun = self.begin(wan=True)
        self.reactor.pass_time(ANSWER_SECONDS + 1)
        self.failure_of(begun, NotReachable)
        self.reactor.settle()
        self.assertIsNone(link.transport)
        self.assertFalse(self.service.nodes.accelerates)
        other, _ = self.add("10.0.0.7:6183")
        self.start(wan=True)
        self.assertEqual(1, len(other.offers))

    def test_gone_before_the_end(self) -> None:
        """When one is gone at the end of its session, the session ends all the same."""
        _, link = self.add("10.0.0.6:6183")
        session = self.start(wan=True)
        link.transport.abortConnection()
        self.reactor.settle()
        self.finish(session)
        self.assertEqual("done", self.state(session))
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertFalse(self.service.nodes.accelerates)
