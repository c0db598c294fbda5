"""Tests of :mod:`cloudconnect.provider.administration`: the acts, and the socket for them."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from cloudconnect.commands.admin import (
    AddCredential,
    AddTenant,
    Collect,
    Freeze,
    Invite,
    List,
    RevokeCredential,
    Scrub,
    SetTenant,
    ShowTenant,
    SwitchTenant,
)
from cloudconnect.commands.box import BoundedAMP
from cloudconnect.errors import NotFound, NotReachable, UsageError
from cloudconnect.keys import Password
from cloudconnect.provider.accounts import MAX_TASKS_DEFAULT
from cloudconnect.provider.administration import LISTINGS, AdminFactory
from cloudconnect.repository.rules import Rules
from cloudconnect.repository.store import Repository
from cloudconnect.settings import PAGE_ROWS_MAX, PASSWORD_ITERATIONS_MIN, TOKEN_ITERATIONS_MIN
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.wire.scram import ScramClient, ScramServer, is_token
from tests.provider.stage import TENANT, StageCase
from tests.repository.repositories import record


class ActTests(StageCase):
    """What an admin may do."""

    def setUp(self) -> None:
        super().setUp()
        self.acts = self.provider.administration

    def logs_in(self, name: str, password: Password) -> bool:
        """Whether this password is the tenant's."""
        client = ScramClient(name, password, bytes(32))
        server = ScramServer(self.provider.accounts.verifier, bytes(32), bytes(32))
        try:
            client.verify(server.final(client.final(server.first(client.first()))))
        except Exception:
            return False
        return True

    def test_token(self) -> None:
        """Without a password a token is made, which logs in; it is told once and not stored."""
        token = self.acts.add_tenant(TENANT, None, {})
        assert token is not None
        self.assertTrue(is_token(token))
        verifier = self.provider.accounts.verifier(TENANT)
        self.assertEqual(TOKEN_ITERATIONS_MIN, verifier and verifier.iterations)
        octets = token.reveal()
        self.assertTrue(self.logs_in(TENANT, token))
        for path in self.directory.iterdir():
            if path.is_file():
                self.assertNotIn(octets, path.read_bytes(), path)
        self.assert_unsaid(octets)

    def test_password(self) -> None:
        """A person's password costs as many iterations as clients ask for, and no token is made."""
        self.assertIsNone(self.acts.add_tenant(TENANT, Password(b"correct horse"), {}))
        verifier = self.provider.accounts.verifier(TENANT)
        self.assertEqual(PASSWORD_ITERATIONS_MIN, verifier and verifier.iterations)
        self.assertTrue(self.logs_in(TENANT, Password(b"correct horse")))

    def test_given_token(self) -> None:
        """A token that the admin brings is treated as one."""
        token = self.acts.add_tenant("first", None, {})
        assert token is not None
        self.assertIsNone(self.acts.add_tenant("second", token, {}))
        verifier = self.provider.accounts.verifier("second")
        self.assertEqual(TOKEN_ITERATIONS_MIN, verifier and verifier.iterations)

    def test_settings(self) -> None:
        """Settings are kept; what was left out, or is None, is as usual."""
        self.acts.add_tenant("a", None, {"quota": 5, "max_tasks": 2, "modes": ["tenant", "none"]})
        self.acts.add_tenant("b", None, {"quota": None, "max_tasks": None, "modes": None})
        a, b = (self.provider.accounts.tenant(name) for name in "ab")
        self.assertEqual((5, 2, ("tenant", "none")), (a.quota, a.max_tasks, a.modes))
        self.assertEqual((None, MAX_TASKS_DEFAULT, ("tenant",)), (b.quota, b.max_tasks, b.modes))

    def test_refused(self) -> None:
        """Unknown settings, modes and empty passwords are refused, and no tenant is made."""
        for settings in ({"quoat": 5}, {"modes": ["open"]}, {"modes": "tenant"}):
            self.assertRaises(UsageError, self.acts.add_tenant, TENANT, None, settings)
        self.assertRaises(UsageError, self.acts.add_tenant, TENANT, Password(b""), {})
        self.assertEqual([], self.provider.accounts.tenants())

    def test_set_tenant(self) -> None:
        """What is named changes, the rest stays; a limit can be taken away."""
        self.provider.add_tenant(quota=5, lease_end="2030-01-31", modes=["tenant", "none"])
        changes = {"quota": None, "max_tasks": 2, "rules": {"bin_days": 3}}
        self.assertIsNone(self.acts.set_tenant(TENANT, None, False, changes))
        self.acts.set_tenant(TENANT, None, False, {"rules": {"lock_days": 1}})
        tenant = self.provider.accounts.tenant(TENANT)
        self.assertEqual(
            (None, "2030-01-31", 2, ("tenant", "none")),
            (tenant.quota, tenant.lease_end, tenant.max_tasks, tenant.modes),
        )
        rules = Rules.from_map(tenant.rules)
        self.assertEqual((3, 1), (rules.bin_days, rules.lock_days))

    def test_set_password(self) -> None:
        """Another password or token logs in from then on, and the old one does not."""
        old = self.provider.add_tenant()
        token = self.acts.set_tenant(TENANT, None, True, {})
        assert token is not None
        self.assertTrue(self.logs_in(TENANT, token))
        self.assertFalse(self.logs_in(TENANT, old))
        self.assertIsNone(self.acts.set_tenant(TENANT, Password(b"a password"), False, {}))
        self.assertTrue(self.logs_in(TENANT, Password(b"a password")))
        self.assertFalse(self.logs_in(TENANT, token))
        self.assert_unsaid(token.reveal())

    def test_set_wrongly(self) -> None:
        """What cannot be changes nothing, neither the password."""
        old = self.provider.add_tenant()
        for settings in (
            {"quota": -1},
            {"lease_end": "soon"},
            {"max_tasks": 0},
            {"modes": []},
            {"modes": ["rot13"]},
            {"colour": 1},
            {"rules": {"bin_days": -1}},
            {"rules": {"colour": 1}},
            {"rules": {"floor": {"keep_last": 3}, "ceiling": {"keep_last": 2}}},
        ):
            self.assertRaises(UsageError, self.acts.set_tenant, TENANT, None, True, settings)
        self.assertRaises(NotFound, self.acts.set_tenant, "nobody", None, True, {})
        self.assertTrue(self.logs_in(TENANT, old))
        self.assertEqual({}, self.provider.accounts.tenant(TENANT).rules)

    def test_bin_as_large_as_the_quota(self) -> None:
        """Where no size of the bin is set, it holds as much as the quota, in the repository too."""
        tenant = self.connected()
        for changes, size in (
            ({"quota": 10**9}, 10**9),
            ({"rules": {"bin_bytes": 5}}, 5),
            ({"rules": {"bin_bytes": None}}, 10**9),
            ({"quota": None}, None),
        ):
            self.acts.set_tenant(TENANT, None, False, changes)
            self.acts.tell_rules(TENANT)
            self.assertEqual(self.acts.describe(TENANT)["rules"]["bin_bytes"], size)
            with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
                self.assertEqual(opened.rules.bin_bytes, size)

    def test_rules_reach_the_repository(self) -> None:
        """Where no provider runs, rules and freeze are put into the repository at once."""
        tenant = self.connected()
        self.acts.set_tenant(TENANT, None, False, {"rules": {"bin_days": 3}})
        self.assertTrue(self.acts.freeze(TENANT, True))
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
            self.assertEqual((3, True), (opened.rules.bin_days, opened.frozen))
        self.assertTrue(self.acts.describe(TENANT)["frozen"])
        self.provider.add_tenant("new")
        self.assertTrue(self.acts.freeze("new", True))

    def test_findings(self) -> None:
        """What a scrub found is kept among the warnings of the tenant."""
        self.provider.add_tenant()
        self.acts.keep_findings(TENANT, {"found": 1, "findings": ["pack 1 is damaged"]})
        (row,) = self.provider.events(type="warning", tenant=TENANT)
        self.assertEqual(("stored_data_damaged", "pack 1 is damaged"), (row["name"], row["text"]))


class PageTests(StageCase):
    """Listings."""

    def setUp(self) -> None:
        super().setUp()
        self.acts = self.provider.administration

    def all(self, what: str, limit: int, **filters: str) -> list[dict[str, Any]]:
        """All rows, page by page."""
        rows: list[dict[str, Any]] = []
        more = True
        while more:
            page, more = self.acts.page(what, filters, rows[-1]["cursor"] if rows else 0, limit)
            self.assertLessEqual(len(page), limit)
            rows += page
        return rows

    def test_tenants(self) -> None:
        """Every tenant once, by name, whatever the size of a page."""
        for name in "cabed":
            self.provider.add_tenant(name)
        for limit in (1, 2, 5, PAGE_ROWS_MAX):
            self.assertEqual(list("abcde"), [row["name"] for row in self.all("tenant", limit)])

    def test_points(self) -> None:
        """One tenant's points in pages; another's are not among them."""
        tenant = self.connected()
        self.connected("other")
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as repository:
            for number in range(5):
                made = record(
                    number.to_bytes(16, "big"),
                    repository=tenant.repository,
                    host="odd" if number % 2 else "even",
                )
                encoded = made.encode()
                repository.publish(made, encoded, tenant.keys.sign(encoded), [])
        rows = self.all("point", 2, tenant=TENANT)
        self.assertEqual([f"{number:032x}" for number in range(5)], [r["point"] for r in rows])
        self.assertEqual({TENANT}, {row["tenant"] for row in rows})
        self.assertEqual(2, len(self.all("point", 2, tenant=TENANT, host="odd")))
        self.assertEqual([], self.all("point", 2, tenant="other"))

    def test_points_of_nobody(self) -> None:
        """Points are of a tenant that there is, and that has a repository."""
        self.provider.add_tenant("new")
        self.assertRaises(UsageError, self.acts.page, "point", {}, 0, 10)
        for name in ("nobody", "new"):
            self.assertRaises(NotFound, self.acts.page, "point", {"tenant": name}, 0, 10)

    def test_events_and_sessions(self) -> None:
        """Sessions and events are listed a page at a time."""
        tenant = self.connected()
        for _ in range(2):
            self.reactor.result_of(tenant.back_up(self.source()))
        self.reactor.settle()
        sessions = self.all("session", 1)
        self.assertEqual(["done"] * 2, [row["state"] for row in sessions])
        events = self.all("event", 3, session=sessions[0]["session"])
        self.assertIn("key_a_made", [row["name"] for row in events])
        self.assertEqual({sessions[0]["session"]}, {row["session"] for row in events})

    def test_bounds(self) -> None:
        """No other listing, and no page without bounds."""
        for what, limit in (("password", 10), ("tenant", 0), ("tenant", PAGE_ROWS_MAX + 1)):
            self.assertRaises(UsageError, self.acts.page, what, {}, 0, limit)
        listings = {"tenant", "credential", "point", "event", "session", "usage", "follower"}
        self.assertEqual(listings, set(LISTINGS))


class SocketCase(StageCase):
    """A test with an admin socket."""

    def setUp(self) -> None:
        super().setUp()
        factory = AdminFactory(
            self.reactor, self.provider.administration, maybeDeferred, self.provider.service
        )
        self.admin = BoundedAMP(self.reactor)
        MemoryPair(self.reactor).connect(self.admin, factory.buildProtocol(None))

    def ask(self, command: Any, **values: Any) -> Any:
        return self.reactor.result_of(self.admin.call(command, **values))


class SocketTests(SocketCase):
    """The acts as commands."""

    def test_add_tenant(self) -> None:
        """A tenant is made, and its token comes back as a secret."""
        answer = self.ask(AddTenant, name=TENANT, password=None, settings={"quota": 5})
        self.assertTrue(is_token(answer["token"]))
        self.assertEqual(5, self.provider.accounts.tenant(TENANT).quota)
        self.assert_unsaid(answer["token"].reveal())
        answer = self.ask(AddTenant, name="b", password=Password(b"a password"), settings={})
        self.assertIsNone(answer["token"])

    def test_refused(self) -> None:
        """What cannot be done is said by name."""
        for values in (
            {"name": "Not A Name", "settings": {}},
            {"name": "a", "settings": []},
            {"name": "a", "settings": {"quota": -1}},
        ):
            asked = self.admin.call(AddTenant, password=None, **values)
            self.failure_of(asked, UsageError)
        asked = self.admin.call(List, what="tenant", filters=[], after=0, limit=10)
        self.failure_of(asked, UsageError)

    def test_set_and_show(self) -> None:
        """A change takes force in the repository at once, and is shown with what is stored."""
        tenant = self.connected()
        self.reactor.result_of(tenant.back_up(self.source()))
        answer = self.ask(
            SetTenant,
            name=TENANT,
            password=None,
            new_token=True,
            settings={"quota": 10**9, "rules": {"bin_days": 3}},
        )
        self.assertTrue(is_token(answer["token"]))
        self.assert_unsaid(answer["token"].reveal())
        with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
            self.assertEqual(3, opened.rules.bin_days)
        shown = self.ask(ShowTenant, name=TENANT)["tenant"]
        self.assertEqual(
            (10**9, 3, 1), (shown["quota"], shown["rules"]["bin_days"], shown["points"])
        )
        self.assertGreater(shown["bytes_stored"], 3000)
        wrong = self.admin.call(
            SetTenant, name=TENANT, password=None, new_token=False, settings={"rules": 1}
        )
        self.failure_of(wrong, UsageError)

    def test_freeze(self) -> None:
        """A freeze reaches the repository, and an end of it too."""
        tenant = self.connected()
        for frozen in (True, False):
            self.assertEqual({"kept": True}, self.ask(Freeze, name=TENANT, frozen=frozen))
            with Repository.open(self.provider.repositories / tenant.repository.hex()) as opened:
                self.assertEqual(frozen, opened.frozen)
        self.assertLess({"tenant_frozen", "tenant_thawed"}, set(self.provider.names()))

    def test_collect_and_scrub(self) -> None:
        """Garbage is collected, and stored bytes are compared, when an admin asks."""
        tenant = self.connected()
        self.reactor.result_of(tenant.back_up(self.source()))
        result = self.ask(Collect, name=TENANT)["result"]
        self.assertEqual((0, 1), (result["points_removed"], result["points"]))
        self.assertEqual(0, self.ask(Scrub, name=TENANT, limit=0)["result"]["found"])
        for command, values in ((Collect, {}), (Scrub, {"limit": 0})):
            self.failure_of(self.admin.call(command, name="nobody", **values), NotFound)

    def test_deleted_points(self) -> None:
        """What is in the bin is listed by its state."""
        tenant = self.connected()
        point = self.reactor.result_of(tenant.back_up(self.source())).point
        self.reactor.result_of(tenant.manager.delete_points([point]))
        counts = []
        for state in ("published", "deleted"):
            filters = {"tenant": TENANT, "state": state}
            answer = self.ask(List, what="point", filters=filters, after=0, limit=10)
            counts.append(len(answer["rows"]))
        self.assertEqual([0, 1], counts)

    def test_list(self) -> None:
        """Pages come as they are made."""
        for name in "abc":
            self.provider.add_tenant(name)
        first = self.ask(List, what="tenant", filters={}, after=0, limit=2)
        then = self.ask(List, what="tenant", filters={}, after=first["rows"][-1]["cursor"], limit=2)
        self.assertEqual((True, False), (first["more"], then["more"]))
        self.assertEqual(list("abc"), [row["name"] for row in first["rows"] + then["rows"]])


class AccessTests(SocketCase):
    """The acts on who logs in, as commands."""

    def test_invite(self) -> None:
        """An invitation's token comes back as a secret; that there is one is kept."""
        settings = {"quota": 5}
        asked = {"name": TENANT, "label": "", "capabilities": ["write"], "seconds": 60}
        answer = self.ask(Invite, **asked, settings=settings)
        self.assertTrue(is_token(answer["token"]))
        self.assertEqual(("default", True), (answer["label"], answer["made"]))
        self.assert_unsaid(answer["token"].reveal())
        self.assertIn("tenant_invited", self.provider.names(tenant=TENANT))
        for wrong in ({"capabilities": "write"}, {"capabilities": [5]}, {"seconds": 0}):
            asking = self.admin.call(Invite, **{**asked, **wrong}, settings={})
            self.failure_of(asking, UsageError)
        self.failure_of(self.admin.call(Invite, **asked, settings=[]), UsageError)

    def test_revoke(self) -> None:
        """A credential ends with what runs with it; those of other machines go on."""
        tenant = self.connected()
        answer = self.ask(
            AddCredential, name=TENANT, label="laptop", password=None, capabilities=["read"]
        )
        laptop = tenant.make_manager()
        self.addCleanup(lambda: self.reactor.result_of(laptop.close()))
        self.reactor.result_of(laptop.log_in(f"{TENANT}/laptop", answer["token"]))
        self.assertEqual(2, len(self.provider.service.connections))
        self.assertEqual({}, self.ask(RevokeCredential, name=TENANT, label="laptop"))
        self.reactor.settle()
        self.failure_of(laptop.points(), NotReachable)
        self.assertEqual([], self.reactor.result_of(tenant.manager.points()))
        asked = self.admin.call(RevokeCredential, name=TENANT, label="laptop")
        self.failure_of(asked, NotFound)
        rows = self.ask(List, what="credential", filters={"tenant": TENANT}, after=0, limit=9)
        self.assertEqual(["default", "laptop"], [row["label"] for row in rows["rows"]])

    def test_another_password(self) -> None:
        """With another password what runs with the old one is cut."""
        tenant = self.connected()
        self.ask(SetTenant, name=TENANT, password=None, new_token=True, settings={})
        self.reactor.settle()
        self.failure_of(tenant.manager.points(), NotReachable)

    def test_switch(self) -> None:
        """A tenant that is disabled or removed is cut, and each switch is kept once."""
        tenant = self.connected()
        for state, changed in (("disabled", True), ("disabled", False), ("removed", True)):
            answer = self.ask(SwitchTenant, name=TENANT, state=state)
            self.assertEqual({"changed": changed}, answer)
        self.reactor.settle()
        self.failure_of(tenant.manager.points(), NotReachable)
        self.assertTrue(self.ask(SwitchTenant, name=TENANT, state="enabled")["changed"])
        names = self.provider.names(tenant=TENANT)
        for state in ("disabled", "removed", "enabled"):
            self.assertEqual(1, names.count(f"tenant_{state}"))
        self.failure_of(self.admin.call(SwitchTenant, name=TENANT, state="gone"), UsageError)


class UNIXTests(TestCase):
    """The same over a real UNIX socket."""

    timeout = 60

    @inlineCallbacks
    def test_socket(self) -> Any:
        """Only its owner can connect to the socket, and it answers."""

        class Acts:
            def page(self, *arguments: Any) -> Any:
                return [{"cursor": 1}], False

        path = Path(self.mktemp())
        factory = AdminFactory(reactor, Acts(), maybeDeferred)  # type: ignore[arg-type]
        port: Any = yield UNIXServerEndpoint(reactor, str(path), mode=0o600).listen(factory)
        self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode))
        admin: Any = yield connectProtocol(
            UNIXClientEndpoint(reactor, str(path)), BoundedAMP(reactor)
        )
        answer: Any = yield admin.call(List, what="tenant", filters={}, after=0, limit=1)
        self.assertEqual({"rows": [{"cursor": 1}], "more": False}, answer)
        admin.transport.loseConnection()
        yield port.stopListening()
