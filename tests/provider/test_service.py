"""Tests of :mod:`cloudconnect.provider.service`: sessions, tenants and gateways."""

from __future__ import annotations

import datetime
import hashlib
import os
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.protocols.amp import CommandLocator

from cloudconnect.commands.control import (
    ReplaceDescription,
    SessionKind,
)
from cloudconnect.commands.lan import EndSession, OfferKeyA, PublishRoute, RetireRoute
from cloudconnect.commands.links import link_in_process
from cloudconnect.commands.tunnel import agreed_digest
from cloudconnect.content.atrest import EncryptionMode, RepositoryKeys, describe
from cloudconnect.content.heads import SignedHead, first_chain
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ContextMismatch,
    HeadMoved,
    LeaseEnded,
    NoAccelerator,
    NoSpace,
    NotFound,
    NotReachable,
    ProtocolViolation,
    Refused,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA, MasterKey, Password
from cloudconnect.provider.movers import WAIT_SECONDS
from cloudconnect.provider.nodes import ANSWER_SECONDS
from cloudconnect.provider.planning import HERE, Ask, GatewayPlace
from cloudconnect.provider.service import UNTOLD_MAX
from cloudconnect.sessions.package import KeyAPackage
from cloudconnect.settings import (
    KEY_A_SECONDS,
    ORPHAN_SECONDS,
    PASSWORD_ITERATIONS_MIN,
    TOKEN_ITERATIONS_MIN,
)
from tests.provider.stage import ENDED, TENANT, StageCase


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

    def today(self, date: str) -> None:
        self.service.today = lambda: datetime.date.fromisoformat(date)

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

    def begin(self, tenant: str = TENANT, **changes: Any) -> Deferred[Any]:
        """Start a session."""
        return Deferred.fromCoroutine(
            self.service.start(
                tenant,
                self.ask(**changes),
                lambda session, role: b"exported for " + role.encode() + b" " + session,
                "192.0.2.1",
                self.told.append,
            )
        )

    def start(self, **changes: Any) -> bytes:
        session: bytes = self.reactor.result_of(self.begin(**changes))[0]
        return session

    def finish(self, session: bytes, outcome: str = "done", **parts: Any) -> Any:
        live = self.service.live(TENANT, session)
        values = {"summary": {}, "warnings": [], **parts}
        return self.reactor.result_of(self.service.finish(live, outcome, **values))

    def state(self, session: bytes) -> str:
        """How the accounts say that it is."""
        rows = self.provider.accounts.sessions("", 0, 100)
        (state,) = [row["state"] for row in rows if row["session"] == session.hex()]
        return str(state)


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
        self.assertEqual({}, self.service._sessions)

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
        self.assertEqual({}, self.service._sessions)
        self.assertEqual([self.gateway.routes[0]["route"]], self.gateway.retired)
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        self.assertEqual("failed", row["state"])

    def test_no_mover(self) -> None:
        """Without a data mover nothing starts, and that is said."""
        self.service.nodes.movers.lose(self.service.nodes.mover)
        begun = self.begin()
        self.reactor.pass_time(WAIT_SECONDS + 1)
        self.failure_of(begun, NotReachable)
        self.assertEqual({}, self.service._sessions)


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
        self.assertEqual(([], {}), (self.mover.offers, self.service._sessions))


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


class FinishTests(ServiceCase):
    """How sessions end."""

    def test_done(self) -> None:
        """The outcome goes to the mover and into the accounts; the task is free."""
        session = self.start()
        self.assertEqual([], self.finish(session, summary={"files": 3}))
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))
        self.assertEqual({}, self.service._sessions)

    def test_security_warning(self) -> None:
        """So does the tenant's security warning, and what it saw is kept as the tenant's."""
        session = self.start()
        warning = SecurityWarning(time=1.0, kind=WarningKind.TAMPERED, text="flipped")
        self.finish(session, "security_warning", warnings=[warning])
        self.assertEqual([(session, "security_warning")], self.mover.ends)
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            (session.hex(), TENANT, "source-mover"),
            (row["session"], row["tenant"], row["reported_by"]),
        )

    def test_what_the_mover_saw(self) -> None:
        """The tenant hears what the provider's side saw: of its own session, whatever was said."""
        session = self.start()
        warning = SecurityWarning(time=1.0, kind=WarningKind.REPLAYED, hop="a-hop", text="again")
        self.mover.warnings = [attrs.evolve(warning, session="ab" * 16, tenant="b", role="c")]
        (told,) = self.finish(session)
        ours = {"session": session.hex(), "tenant": TENANT, "role": "target-mover"}
        self.assertEqual({**warning.as_dict(), **ours}, told.as_dict())

    def test_what_cannot_be_read(self) -> None:
        """A role whose warnings cannot be read does not keep the session from its end."""
        session = self.start()
        self.mover.warnings = [{"kind": "nonsense"}]
        self.assertEqual([], self.finish(session))
        self.assertEqual({}, self.provider.service._sessions)

    def test_no_outcome(self) -> None:
        """A word that is no outcome is refused, and the session goes on."""
        session = self.start()
        for word in ("", "fine", "unreported"):
            with self.assertRaises(Refused):
                self.finish(session, word)
        self.assertEqual([], self.mover.ends)
        self.finish(session)

    def test_not_theirs(self) -> None:
        """A tenant cannot name another's session, nor one that has ended or never was; the answer
        is the same."""
        session = self.start()
        ended = self.start()
        self.finish(ended)
        texts = set()
        for tenant, named in (("other", session), (TENANT, ended), (TENANT, os.urandom(16))):
            error = self.assertRaises(ContextMismatch, self.service.live, tenant, named)
            texts.add(str(error))
        self.assertEqual(1, len(texts))

    def test_twice(self) -> None:
        """A session ends once, also when its tenant says so twice at the same time."""
        session = self.start()
        live = self.service.live(TENANT, session)
        ends = [
            Deferred.fromCoroutine(self.service.finish(live, outcome, {}, []))
            for outcome in ("done", "failed")
        ]
        for end in ends:
            self.reactor.result_of(end)
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))

    def test_mover_gone(self) -> None:
        """A session whose mover is gone ends all the same."""
        session = self.start()
        self.service.nodes.movers.lose(self.service.nodes.mover)
        self.assertEqual([], self.finish(session))
        self.assertEqual("done", self.state(session))

    def test_accounts_fail(self) -> None:
        """Whatever fails at the end, the task is free again."""
        session = self.start()
        with self.assertRaises(TypeError):
            self.finish(session, summary={"files": object()})
        self.assertEqual({}, self.service._sessions)

    def test_warning_of_another(self) -> None:
        """A tenant's warning is of its own session and itself, whatever it wrote."""
        session = self.start()
        forged = SecurityWarning(
            time=1.0,
            kind=WarningKind.TAMPERED,
            session="ff" * 16,
            tenant="other",
            role="target-mover",
        )
        live = self.service.live(TENANT, session)
        self.reactor.result_of(self.service.warned_by_tenant(live, forged))
        (row,) = self.provider.events(type="warning")
        self.assertEqual(
            (session.hex(), TENANT, "source-mover"),
            (row["session"], row["tenant"], row["fields"]["role"]),
        )
        self.assertEqual([], self.told)

    def test_told(self) -> None:
        """The tenant of a session hears at once what the mover saw, and nobody else does."""
        session = self.start()
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, session=session.hex(), role="target-mover"
        )
        self.reactor.result_of(self.service.warned(warning))
        self.reactor.result_of(self.service.warned(attrs.evolve(warning, session="ff" * 16)))
        self.assertEqual([warning], self.told)


class OrphanTests(ServiceCase):
    """Sessions whose control channel is lost."""

    def test_goes_on(self) -> None:
        """It may finish for a while, and is then ended as interrupted."""
        session = self.start()
        self.service.orphan([session])
        self.reactor.pass_time(ORPHAN_SECONDS - 1)
        self.assertEqual([], self.mover.ends)
        self.reactor.pass_time(2)
        self.assertEqual([(session, "unreported")], self.mover.ends)
        self.assertEqual("interrupted", self.state(session))

    def test_finished_meanwhile(self) -> None:
        """One that was finished on another channel meanwhile stays as it was finished."""
        session = self.start()
        self.service.orphan([session])
        self.finish(session)
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.assertEqual([(session, "done")], self.mover.ends)
        self.assertEqual("done", self.state(session))

    def test_goes_on_in_another(self) -> None:
        """A Start of the same job ends it at once, and tells what was seen of it; one of another
        job leaves it alone."""
        session = self.start(job=b"1" * 16)
        self.service.orphan([session])
        self.start(job=b"2" * 16)
        self.assertEqual([], self.mover.ends)
        warning = SecurityWarning(
            time=1.0, kind=WarningKind.TAMPERED, role="target-mover", text="seen"
        )
        self.mover.warnings = [warning]
        self.told.clear()
        self.start(job=b"1" * 16)
        self.assertEqual([(session, "unreported")], self.mover.ends)
        self.assertEqual("interrupted", self.state(session))
        self.assertEqual(["seen"], [warning.text for warning in self.told])

    def test_twice(self) -> None:
        """Losing it again does not give it more time."""
        session = self.start()
        self.service.orphan([session, os.urandom(16)])
        self.reactor.pass_time(ORPHAN_SECONDS / 2)
        self.service.orphan([session])
        self.reactor.pass_time(ORPHAN_SECONDS / 2 + 1)
        self.assertEqual("interrupted", self.state(session))

    def test_spoiled(self) -> None:
        """One whose channel was changed ends at once, and leaves no point."""
        session = self.start()
        self.service.spoil([session, os.urandom(16)])
        self.reactor.settle()
        self.assertEqual([(session, "security_warning")], self.mover.ends)
        self.assertEqual("security_warning", self.state(session))

    def test_stop(self) -> None:
        """When the service stops every session is ended, and nothing of it is left waiting."""
        sessions = [self.start(), self.start()]
        self.service.orphan(sessions[:1])
        self.reactor.result_of(self.service.stopService())
        self.assertEqual(["interrupted"] * 2, [self.state(session) for session in sessions])
        self.reactor.result_of(self.provider.mover.maintenance.stopService())
        self.assertEqual([], self.reactor.getDelayedCalls())


class RepositoryTests(StageCase):
    """Making a tenant's repository, with the real mover."""

    def create(self, tenant: str, encoded: bytes) -> Any:
        return self.provider.service.create_repository(tenant, encoded)

    def described(self, mode: EncryptionMode = EncryptionMode.TENANT, **parts: Any) -> bytes:
        repository = parts.get("repository", os.urandom(16))
        return describe(MasterKey.generate(), repository, mode, ()).encode()

    def folders(self) -> int:
        return len(list(self.provider.repositories.iterdir()))

    def test_once(self) -> None:
        """A tenant makes one repository; what it stored is what it gets back."""
        self.provider.add_tenant()
        encoded = self.described()
        self.reactor.result_of(self.create(TENANT, encoded))
        self.failure_of(self.create(TENANT, self.described()), Refused)
        _, found = self.reactor.result_of(self.provider.service.account(TENANT))
        self.assertEqual((encoded, 1), (found, self.folders()))
        self.assertIn("repository_made", self.provider.names(tenant=TENANT))

    def test_at_the_same_time(self) -> None:
        """Nor does it make more by asking for many at once."""
        self.provider.add_tenant()
        asked = [Deferred.fromCoroutine(self.create(TENANT, self.described())) for _ in range(9)]
        for deferred in asked[1:]:
            self.failure_of(deferred, Busy, Refused)
        self.reactor.result_of(asked[0])
        self.assertEqual(1, self.folders())

    def test_of_another(self) -> None:
        """A description of another tenant's repository, even its very own, gives no access."""
        victim, thief = self.connected(), self.tenant("thief")
        for encoded in (
            victim.description.encode(),
            self.described(repository=victim.repository),
        ):
            self.failure_of(self.create("thief", encoded), Refused)
        record, found = self.reactor.result_of(self.provider.service.account("thief"))
        self.assertEqual((None, b""), (record.repository, found))
        self.assertEqual((thief.name, 1), ("thief", self.folders()))

    def test_mode(self) -> None:
        """A mode that the provider did not allow is refused; what was made is known ever after."""
        self.provider.add_tenant()
        self.provider.add_tenant("lax", modes=["tenant", "none"])
        self.failure_of(self.create(TENANT, self.described(EncryptionMode.NONE)), Refused)
        self.failure_of(self.create("lax", self.described(EncryptionMode.PROVIDER)), Refused)
        self.assertEqual(0, self.folders())
        self.reactor.result_of(self.create("lax", self.described(EncryptionMode.NONE)))
        self.assertEqual("none", self.provider.accounts.tenant("lax").mode)

    def test_lease(self) -> None:
        """After the end of the lease no repository is made."""
        self.provider.add_tenant(lease_end="2020-01-31")
        self.failure_of(self.create(TENANT, self.described()), LeaseEnded)

    def test_garbage(self) -> None:
        """What is no description is refused."""
        self.provider.add_tenant()
        self.failure_of(self.create(TENANT, b"garbage"), ProtocolViolation)

    def test_points_without(self) -> None:
        """Who has no repository has no points to list."""
        self.provider.add_tenant()
        query = {"host": "", "job": "", "tag": "", "after": 0, "limit": 10}
        self.failure_of(self.provider.service.points(TENANT, **query), NotFound)


class DescriptionTests(StageCase):
    """Another description of a repository, from the job manager to the mover."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.connected()

    def offer(self, tenant: Any, description: Any, head: SignedHead) -> Any:
        return tenant.manager.replace_description(description.encode(), head)

    def changed(self, tenant: Any) -> tuple[Any, SignedHead]:
        """A new description of a tenant's repository, and its head."""
        old = tenant.description
        description = attrs.evolve(old, revision=1).signed(tenant.keys)
        chain = first_chain(tenant.keys)
        encoded = description.encode()
        return description, chain.next_description(tenant.keys, encoded, old.public_key)

    def account(self) -> bytes:
        _, found = self.reactor.result_of(self.provider.service.account(TENANT))
        return bytes(found)

    def test_replaced(self) -> None:
        """What its key has signed takes the place of the old one, and is told to the admin; also
        after the lease, for who must lock somebody out."""
        self.provider.accounts.change_tenant(TENANT, {"lease_end": ENDED})
        description, head = self.changed(self.acme)
        for _ in range(2):  # the answer may be lost
            self.reactor.result_of(self.offer(self.acme, description, head))
        self.assertEqual(description.encode(), self.account())
        self.assertIn("description_replaced", self.provider.names(tenant=TENANT))

    def test_login_alone(self) -> None:
        """Who has only the login replaces nothing: not with own keys, not with a made-up head."""
        master = MasterKey.generate()
        own = describe(master, self.acme.repository, EncryptionMode.TENANT, ())
        thief = RepositoryKeys(master, self.acme.repository)
        forged = attrs.evolve(own, revision=1).signed(thief)
        chain = first_chain(thief)
        head = chain.next_description(thief, forged.encode(), forged.public_key)
        description, good = self.changed(self.acme)
        for offered, signed in (
            (forged, head),
            (description, SignedHead(good.encoded, bytes(64))),
            (description, head),
        ):
            self.failure_of(self.offer(self.acme, offered, signed), Refused)
        self.assertEqual(self.acme.description.encode(), self.account())

    def test_of_another(self) -> None:
        """A tenant's signed description does nothing to another's repository."""
        other = self.connected("other")
        description, head = self.changed(self.acme)
        self.failure_of(self.offer(other, description, head), Refused)
        self.assertEqual(self.acme.description.encode(), self.account())

    def test_moved(self) -> None:
        """A head that others have overtaken is told so by its word."""
        description, _ = self.changed(self.acme)
        chain = attrs.evolve(first_chain(self.acme.keys), number=7, value=bytes([1]) * 32)
        encoded = description.encode()
        head = chain.next_description(self.acme.keys, encoded, description.public_key)
        self.failure_of(self.offer(self.acme, description, head), HeadMoved)

    def test_none(self) -> None:
        """Who has no repository, or is disabled, replaces nothing; garbage neither."""
        description, head = self.changed(self.acme)
        nobody = self.tenant("nobody")
        nobody.log_in()
        self.failure_of(self.offer(nobody, description, head), NotFound)
        call = self.acme.manager.control.call
        values = {"head": head.encoded, "head_signature": head.signature}
        self.failure_of(call(ReplaceDescription, description=b"x", **values), ProtocolViolation)
        self.provider.accounts.change_tenant(TENANT, {"disabled": True})
        self.failure_of(self.offer(self.acme, description, head), LeaseEnded)


class TellingTests(StageCase):
    """What is written down of a tenant, and told to it."""

    def setUp(self) -> None:
        super().setUp()
        self.acme = self.connected()

    def damaged(self, text: str, tenant: str = TENANT, session: str = "") -> None:
        """Something was found in a tenant's repository."""
        warning = SecurityWarning(
            time=1.0,
            kind=WarningKind.STORED_DATA_DAMAGED,
            tenant=tenant,
            session=session,
            role="target-mover",
            text=text,
        )
        self.reactor.result_of(self.provider.service.warned(warning))

    def test_told_of_damage(self) -> None:
        """A tenant is told at its next log-in what was found in its repository, once."""
        self.damaged("pack 1 is damaged")
        self.damaged("of another", tenant="other")
        self.damaged("of a session", session="ab" * 16)
        for count in (1, 0):
            self.acme.warnings.clear()
            manager = self.acme.make_manager()
            self.reactor.result_of(manager.log_in(TENANT, Password(self.acme.token.reveal())))
            self.reactor.pass_time(1)
            self.assertEqual(
                ["pack 1 is damaged"] * count, [warning.text for warning in self.acme.warnings]
            )
            self.reactor.result_of(manager.close())

    def test_told_later(self) -> None:
        """Who has gone before it was told is told the next time; many are told bit by bit."""
        for number in range(UNTOLD_MAX + 2):
            self.damaged(f"pack {number} is damaged")
        heard: list[str] = []
        for _ in range(3):
            self.acme.warnings.clear()
            manager = self.acme.make_manager()
            self.reactor.result_of(manager.log_in(TENANT, Password(self.acme.token.reveal())))
            self.reactor.pass_time(1)
            heard += [warning.text for warning in self.acme.warnings]
            self.reactor.result_of(manager.close())
        wanted = [f"pack {number} is damaged" for number in range(UNTOLD_MAX + 2)]
        self.assertEqual(wanted, heard)

    def test_disk_full(self) -> None:
        """Where nothing can be written down a restore goes on."""

        def full(*_: Any, **__: Any) -> None:
            raise NoSpace("the disk is full")

        point = self.reactor.result_of(self.acme.back_up(self.source())).point
        for name in ("keep_event", "keep_warning", "session_started", "session_ended"):
            self.patch(self.provider.accounts, name, full)
        restored = self.reactor.result_of(self.acme.restore(point, self.mktemp()))
        self.assertEqual((1, 0), (restored.files, restored.damaged.count))

    def test_nobodys(self) -> None:
        """A repository of nobody has no owner."""
        answer = self.reactor.result_of(self.provider.service.owner(b"x" * 16))
        self.assertEqual("", answer["tenant"])


class DecoyTests(StageCase):
    """What tenants that do not exist are told."""

    def test_iterations(self) -> None:
        """Always the same for one name, and over many names as often the one as the other number
        that real tenants have."""
        service = self.provider.service
        names = [f"tenant-{number}" for number in range(200)]
        told = [service.decoy_iterations(name) for name in names]
        self.assertEqual(told, [service.decoy_iterations(name) for name in names])
        self.assertEqual({TOKEN_ITERATIONS_MIN, PASSWORD_ITERATIONS_MIN}, set(told))
        self.assertTrue(60 < told.count(TOKEN_ITERATIONS_MIN) < 140)
