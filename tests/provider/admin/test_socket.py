"""Tests of :mod:`cloudconnect.provider.admin.socket`: the acts as commands."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
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
from cloudconnect.provider.admin.socket import AdminFactory
from cloudconnect.provider.service.access import Login
from cloudconnect.repository.store import Repository
from cloudconnect.transports.memory import MemoryPair
from cloudconnect.wire.login import is_token
from tests.provider.stage import TENANT, MemoryReactor, Provider, StageCase


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

    def test_revoke_two(self) -> None:
        """Both certificates of a label lose their lines at once, also where the end of a session
        takes its time."""
        self.connected()
        service, ended = self.provider.service, Deferred[None]()
        asked = {"name": TENANT, "label": "laptop", "password": None, "capabilities": ["read"]}
        cut: list[int] = []
        for pin in (b"1" * 32, b"2" * 32):
            self.ask(AddCredential, **asked, certificate=pin)
            credential = self.provider.accounts.certified(f"{TENANT}/laptop", pin)
            assert credential is not None
            login = Login.by(credential)
            service.connections.add(login, partial(cut.append, login.number))
        self.patch(service.endings, "interrupt", lambda *whose: ended)
        revoking = self.admin.call(RevokeCredential, name=TENANT, label="laptop")
        self.reactor.settle()
        self.assertEqual(2, len(cut))
        ended.callback(None)
        self.assertEqual({}, self.reactor.result_of(revoking))

    def test_certificate(self) -> None:
        """A credential with a certificate is made without a token; of two of one label each ends
        alone, and what that was is kept without any secret."""
        one, two = b"1" * 32, b"2" * 32
        self.provider.add_tenant()
        asked = {"name": TENANT, "label": "laptop", "password": None, "capabilities": ["read"]}
        for pin in (one, two):
            answer = self.ask(AddCredential, **asked, certificate=pin)
            self.assertEqual({"label": "laptop", "token": None}, answer)
        both = {**asked, "label": "other", "password": Password(b"a password"), "certificate": one}
        self.failure_of(self.admin.call(AddCredential, **both), UsageError)
        self.ask(RevokeCredential, name=TENANT, label="laptop", certificate=one)
        again = self.admin.call(RevokeCredential, name=TENANT, label="laptop", certificate=one)
        self.failure_of(again, NotFound)
        rows = self.provider.accounts.credentials(TENANT, 0, 9)
        self.assertEqual([False, True, False], [row["revoked"] is not None for row in rows])
        kinds = [row["fields"].get("kind") for row in self.provider.events(name="credential_added")]
        self.assertEqual(["certificate"] * 2, kinds)

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

        provider = Provider(MemoryReactor(), Path(self.mktemp()))
        self.addCleanup(provider.stop)
        provider.add_tenant()
        path = Path(self.mktemp())
        factory = AdminFactory(reactor, provider.administration, maybeDeferred, provider.service)
        port: Any = yield UNIXServerEndpoint(reactor, str(path), mode=0o600).listen(factory)
        self.assertEqual(0o600, stat.S_IMODE(path.stat().st_mode))
        admin: Any = yield connectProtocol(
            UNIXClientEndpoint(reactor, str(path)), BoundedAMP(reactor)
        )
        answer: Any = yield admin.call(List, what="tenant", filters={}, after=0, limit=1)
        self.assertEqual([TENANT], [row["name"] for row in answer["rows"]])
        admin.transport.loseConnection()
        yield port.stopListening()
