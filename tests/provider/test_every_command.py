"""Every command of the control channel, from tenants that may not: nothing is read or done."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from cloudconnect.commands.control import (
    AcceptInvitation,
    AcceptWithCertificate,
    AuthenticateCertificate,
    AuthenticateFinal,
    AuthenticateFirst,
    CreateRepository,
    DeletePoints,
    Finish,
    GetRetention,
    ListHistory,
    ListPoints,
    LockPoints,
    NoticeTaken,
    Ping,
    PreviewRetention,
    ReplaceDescription,
    SessionKind,
    SetRetention,
    ShowAgreement,
    Start,
    UndeletePoints,
    Warn,
)
from cloudconnect.errors import (
    Busy,
    CloudConnectError,
    ContextMismatch,
    LeaseEnded,
    LoginRefused,
    NotAllowed,
    NotFound,
)
from cloudconnect.keys import Password
from cloudconnect.provider.accounts.credentials import CAPABILITIES
from cloudconnect.provider.control.control import ControlProtocol
from cloudconnect.provider.service.access import NEEDS, NEEDS_LEASE, Act
from tests.provider.control_parts import START, WARNING, Client, ControlCase
from tests.provider.stage import ENDED, TENANT, Tenant

LABELS_AND_PAGE: dict[str, Any] = {"host": "", "job": "", "after": 0, "limit": 10}
#: Commands for which it is enough to have logged in: about the own connection, or own sessions.
FREE = {
    AuthenticateFirst,
    AuthenticateFinal,
    AuthenticateCertificate,
    AcceptInvitation,
    AcceptWithCertificate,
    Ping,
    Finish,
    Warn,
}
FINISH: dict[str, Any] = {"outcome": "done", "summary": {}, "warnings": []}


def commands(points: list[bytes], repository: bytes) -> dict[str, tuple[Act, Any, dict[str, Any]]]:
    """Every command that does something to a tenant's things: the act that it is, its values."""
    start = {**START, "repository": repository}
    found: dict[str, tuple[Act, Any, dict[str, Any]]] = {
        "create": (Act.CREATE, CreateRepository, {"description": b"x"}),
        "replace": (
            Act.CHANGE_KEYS,
            ReplaceDescription,
            {"description": b"x", "head": b"x", "head_signature": bytes(64)},
        ),
        "list": (Act.LIST, ListPoints, {**LABELS_AND_PAGE, "tag": ""}),
        "history": (
            Act.LIST,
            ListHistory,
            {"what": "event", "session": "", "after": 0, "limit": 10},
        ),
        "agreement": (Act.READ, ShowAgreement, {}),
        "notice": (Act.READ, NoticeTaken, {"host": "host", "pins": ["SPKI-SHA256:" + "0" * 64]}),
        "delete": (Act.DELETE, DeletePoints, {"points": points}),
        "undelete": (Act.UNDELETE, UndeletePoints, {"points": points}),
        "lock": (Act.LOCK, LockPoints, {"points": points, "until": 4_000_000_000}),
        "retention": (Act.SHOW_RETENTION, GetRetention, {"after": 0, "limit": 10}),
        "set": (Act.SET_RETENTION, SetRetention, {"host": "", "job": "", "policy": None}),
        "preview": (
            Act.SHOW_RETENTION,
            PreviewRetention,
            {**LABELS_AND_PAGE, "proposed": False, "policy": None},
        ),
    }
    kinds = {
        SessionKind.BACKUP: Act.BACKUP,
        SessionKind.RESTORE: Act.RESTORE,
        SessionKind.READ: Act.READ,
        SessionKind.CHECK: Act.CHECK,
    }
    for kind, act in kinds.items():
        found[f"start {kind.value}"] = (act, Start, {**start, "kind": kind.value})
    return found


class EveryCommandCase(ControlCase):
    """Two tenants, each with a restore point; and what the mover was asked is written down."""

    def setUp(self) -> None:
        super().setUp()
        self.acme, self.other = self.connected(), self.connected("other")
        self.points = {
            tenant.name: self.reactor.result_of(tenant.back_up(self.source())).point
            for tenant in (self.acme, self.other)
        }
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        mover: Any = self.provider.service.nodes.mover
        real: Callable[..., Any] = mover.call

        def call(command: Any, *arguments: Any, **values: Any) -> Any:
            self.asked.append((command.__name__, tuple(sorted(values))))
            return real(command, *arguments, **values)

        self.patch(mover, "call", call)
        self.client_of_acme = self.client()
        self.log_in(self.client_of_acme, TENANT, self.acme.token)
        self.asked.clear()

    def own(self) -> dict[str, tuple[Act, Any, dict[str, Any]]]:
        return commands([self.points[TENANT]], self.acme.repository)

    def outcome(self, client: Client, command: Any, values: dict[str, Any]) -> Any:
        """The error that a command is answered with, or None."""
        try:
            answer = self.reactor.result_of(client.call(command, **values))
        except CloudConnectError as error:
            return error
        if command is Start:
            self.reactor.result_of(
                client.call(Finish, **{**FINISH, "session": answer["session"], "outcome": "failed"})
            )
        return None

    def refused_alike(self, client: Client, kind: type[CloudConnectError]) -> None:
        """Every command is answered so, and the mover is asked nothing for it."""
        self.asked.clear()
        for name, (_, command, values) in self.own().items():
            self.assertIs(kind, type(self.outcome(client, command, values)), name)
        self.assertEqual([], self.asked)


class RefusalTests(EveryCommandCase):
    """Tenants that may not."""

    def test_all(self) -> None:
        """No command of the control channel is left out here."""
        channel = ControlProtocol(self.provider.service)
        found = (locator._commandDispatch for locator in (channel, *channel._more))
        answered = {command for commands in found for command, _ in commands.values()}
        self.assertEqual(answered, {entry[1] for entry in self.own().values()} | FREE)

    def test_not_logged_in(self) -> None:
        """Nobody: every command wants a log-in, also those about sessions."""
        stranger = self.client()
        self.refused_alike(stranger, LoginRefused)
        for command, values in (
            (Finish, {**FINISH, "session": bytes(16)}),
            (Warn, {"warning": WARNING.as_dict()}),
            (AcceptInvitation, VERIFIER),
            (AcceptWithCertificate, {}),
        ):
            self.assertIs(LoginRefused, type(self.outcome(stranger, command, values)))

    def test_disabled(self) -> None:
        """A disabled tenant: nothing, and no log-in, which only who knows the password is told."""
        self.provider.accounts.disable(TENANT)
        self.refused_alike(self.client_of_acme, LeaseEnded)
        self.assertRaises(LeaseEnded, self.log_in, self.client(), TENANT, self.acme.token)
        self.assertRaises(LoginRefused, self.log_in, self.client(), TENANT, Password(b"guess"))

    def test_grace_over(self) -> None:
        """A tenant whose lease and time of grace are over: nothing."""
        self.provider.accounts.change_tenant(TENANT, {"lease_end": "2020-01-31"})
        self.refused_alike(self.client_of_acme, LeaseEnded)
        self.assertRaises(LeaseEnded, self.log_in, self.client(), TENANT, self.acme.token)

    def test_lease_ended(self) -> None:
        """In the time of grace: what gives back what is stored, and no more."""
        self.provider.accounts.change_tenant(TENANT, {"lease_end": ENDED})
        self.log_in(self.client(), TENANT, self.acme.token)
        for name, (act, command, values) in self.own().items():
            self.asked.clear()
            error = self.outcome(self.client_of_acme, command, values)
            if act in NEEDS_LEASE:
                self.assertIs(LeaseEnded, type(error), name)
                self.assertEqual([], self.asked, name)
            else:
                self.assertFalse(isinstance(error, (LeaseEnded, NotAllowed)), name)

    def test_capabilities(self) -> None:
        """A credential that can one thing: only the acts that need that one."""
        for capability in CAPABILITIES:
            _, token = self.provider.administration.tenants.add_credential(
                TENANT, capability, None, [capability]
            )
            assert token is not None
            client = self.client()
            self.log_in(client, f"{TENANT}/{capability}", token)
            for name, (act, command, values) in self.own().items():
                self.asked.clear()
                error = self.outcome(client, command, values)
                if capability in NEEDS[act]:
                    self.assertFalse(isinstance(error, NotAllowed), (capability, name))
                else:
                    self.assertIs(NotAllowed, type(error), (capability, name))
                    self.assertEqual([], self.asked, (capability, name))

    def test_writer_reads_nothing(self) -> None:
        """Whoever may only write is given a session that can only write: the mover holds it."""
        _, token = self.provider.administration.tenants.add_credential(
            TENANT, "writer", None, ["write"]
        )
        assert token is not None
        client = self.client()
        self.log_in(client, f"{TENANT}/writer", token)
        for kind, expected in (("backup", ("write",)), ("read", ())):
            start = {**START, "repository": self.acme.repository, "kind": kind}
            session = self.reactor.result_of(client.call(Start, **start))["session"]
            package = self.provider.mover._by_session[session].package
            self.assertEqual(expected, tuple(package.capabilities))

    def test_invitation(self) -> None:
        """An invited machine: nothing before it has made its own credential, then what it may."""
        invited = self.provider.administration.tenants.invite(TENANT, "new", ["read"])
        client = self.client()
        final = self.log_in(client, f"{TENANT}/new", invited.token)
        self.assertEqual(b"", final["repository"])
        self.refused_alike(client, NotAllowed)
        answer = self.reactor.result_of(client.call(AcceptInvitation, **VERIFIER))
        self.assertEqual("new", answer["label"])
        self.assertIsNone(self.outcome(client, ListPoints, {**LABELS_AND_PAGE, "tag": ""}))
        self.assertIs(NotAllowed, type(self.outcome(client, AcceptInvitation, VERIFIER)))
        self.assertRaises(LoginRefused, self.log_in, self.client(), "acme/new", invited.token)
        self.assert_unsaid(invited.token.reveal())

    def test_iterations(self) -> None:
        """A verifier with another number of iterations, which would tell that the name exists."""
        invited = self.provider.administration.tenants.invite(TENANT, "new")
        client = self.client()
        self.log_in(client, f"{TENANT}/new", invited.token)
        odd = {**VERIFIER, "iterations": 5000}
        self.assertIsInstance(self.outcome(client, AcceptInvitation, odd), CloudConnectError)
        self.reactor.result_of(client.call(AcceptInvitation, **VERIFIER))

    def test_tasks(self) -> None:
        """At the task limit every kind of session is refused as busy, and listing goes on."""
        self.provider.accounts.change_tenant(TENANT, {"max_tasks": 1})
        start = {**START, "repository": self.acme.repository}
        self.reactor.result_of(self.client_of_acme.call(Start, **start))
        for kind in SessionKind:
            another = {**start, "kind": kind.value, "job": b"k" * 16}
            self.assertEqual(Busy, type(self.outcome(self.client_of_acme, Start, another)))
        listed = {**LABELS_AND_PAGE, "tag": ""}
        self.assertIsNone(self.outcome(self.client_of_acme, ListPoints, listed))


VERIFIER: dict[str, Any] = {
    "salt": b"s" * 16,
    "stored_key": b"k" * 32,
    "server_key": b"v" * 32,
    "iterations": 4096,
}


class ForeignTests(EveryCommandCase):
    """The ids of another tenant's things are answered like ids that do not exist."""

    def both(self, of: Callable[[bool], tuple[Any, dict[str, Any]]]) -> list[tuple[Any, ...]]:
        """What a foreign id and one that does not exist lead to: error, text without ids, work."""
        seen = []
        for foreign in (True, False):
            self.asked.clear()
            command, values = of(foreign)
            error = self.outcome(self.client_of_acme, command, values)
            text = str(error)
            for octets in (self.points["other"], NOBODYS):
                text = text.replace(octets.hex(), "ID")
            seen.append((type(error), text, list(self.asked)))
        return seen

    def test_points(self) -> None:
        """Restore points: the same error, in the same words, after the same work."""
        for act in ("delete", "undelete", "lock"):

            def of(foreign: bool, act: str = act) -> tuple[Any, dict[str, Any]]:
                points = [self.points["other"] if foreign else NOBODYS]
                _, command, values = commands(points, self.acme.repository)[act]
                return command, values

            foreign, missing = self.both(of)
            self.assertEqual(foreign, missing)
            self.assertIs(NotFound, foreign[0])
        (row,) = self.provider.points("other")
        self.assertEqual(("published", None), (row["state"], row["locked_until"]))

    def test_repository(self) -> None:
        """A repository: no session of any kind begins, and no mover is asked."""
        for kind in SessionKind:

            def of(foreign: bool, kind: SessionKind = kind) -> tuple[Any, dict[str, Any]]:
                repository = self.other.repository if foreign else NOBODYS
                return Start, {**START, "repository": repository, "kind": kind.value}

            foreign, missing = self.both(of)
            self.assertEqual(foreign, missing)
            self.assertEqual((NotFound, []), (foreign[0], foreign[2]))

    def test_sessions(self) -> None:
        """A running session: it is neither ended nor warned of."""
        start = {**START, "repository": self.other.repository}
        running = self.reactor.result_of(self.other.manager.control.call(Start, **start))["session"]

        def finish(foreign: bool) -> tuple[Any, dict[str, Any]]:
            return Finish, {**FINISH, "session": running if foreign else NOBODYS}

        def warn(foreign: bool) -> tuple[Any, dict[str, Any]]:
            session = running if foreign else NOBODYS
            return Warn, {"warning": {**WARNING.as_dict(), "session": session.hex()}}

        for of in (finish, warn):
            foreign, missing = self.both(of)
            self.assertEqual(foreign, missing)
            self.assertEqual((ContextMismatch, []), (foreign[0], foreign[2]))
        self.assertIn(running, self.provider.service.sessions)
        self.assertEqual([], self.provider.events(tenant="other", type="warning"))

    def test_history(self) -> None:
        """What happened in another tenant's session is not told."""
        start = {**START, "repository": self.other.repository}
        running = self.reactor.result_of(self.other.manager.control.call(Start, **start))["session"]
        for what in ("event", "session"):
            for session in (running, NOBODYS):
                asked = {"what": what, "session": session.hex(), "after": 0, "limit": 10}
                answer = self.reactor.result_of(self.client_of_acme.call(ListHistory, **asked))
                for row in answer["rows"]:
                    self.assertEqual(TENANT, row["tenant"])
                    self.assertNotEqual(running.hex(), row["session"])

    def test_listing(self) -> None:
        """A listing shows one's own, whatever is asked."""
        asked = self.client_of_acme.call(ListPoints, **LABELS_AND_PAGE, tag="")
        rows = self.reactor.result_of(asked)["points"]
        self.assertEqual([self.points[TENANT].hex()], [row["point"] for row in rows])


#: An id that nothing has.
NOBODYS = bytes(range(16))


class CutTests(EveryCommandCase):
    """What runs is cut when its right to run ends."""

    def running(self, tenant: Tenant, **changes: Any) -> bytes:
        start = {**START, "repository": tenant.repository, **changes}
        session: bytes = self.reactor.result_of(tenant.manager.control.call(Start, **start))[
            "session"
        ]
        return session

    def cut(self, *whose: str) -> None:
        self.reactor.result_of(self.provider.service.cut(*whose))
        self.reactor.settle()

    def test_tenant(self) -> None:
        """A tenant's connections and sessions end at once, and nobody else's."""
        mine, others = self.running(self.acme), self.running(self.other)
        self.cut(TENANT)
        self.assertEqual({others}, {live.session for live in self.provider.service.sessions})
        self.assertNotIn(mine, self.provider.mover._by_session)
        self.assertIsNotNone(self.client_of_acme.reason)
        self.assertIsNotNone(self.other.manager.control.transport)
        states = {row["state"] for row in self.provider.accounts.sessions(TENANT, 1, 10)}
        self.assertEqual({"interrupted"}, states - {"done"})

    def test_credential(self) -> None:
        """Of one credential: those of the tenant's other machines go on."""
        self.provider.administration.tenants.add_credential(
            TENANT, "laptop", Password(b"a password of a laptop")
        )
        client = self.client()
        self.log_in(client, f"{TENANT}/laptop", Password(b"a password of a laptop"))
        start = {**START, "repository": self.acme.repository}
        laptops = self.reactor.result_of(client.call(Start, **start))["session"]
        mine = self.running(self.acme)
        self.cut(TENANT, "laptop")
        self.assertEqual({mine}, {live.session for live in self.provider.service.sessions})
        self.assertNotIn(laptops, self.provider.mover._by_session)
        self.assertIsNotNone(client.reason)
        self.assertIsNone(self.client_of_acme.reason)

    def test_between_proof_and_entry(self) -> None:
        """A credential that is revoked in the middle of its log-in does not come in."""
        token = self.provider.add_tenant("third")
        client = self.client()
        scram = client.scram("third", token)
        answer = self.reactor.result_of(self.first(client, scram))
        self.provider.accounts.revoke_credential("third", "default")
        final = client.call(AuthenticateFinal, message=scram.final(answer["message"]))
        self.failure_of(final, LoginRefused)
        self.failure_of(client.call(ListPoints, **LABELS_AND_PAGE, tag=""), LoginRefused)

    def test_while_it_starts(self) -> None:
        """A session that begins while its tenant is cut is over before anybody is handed a key."""
        held: Any = []
        offer = self.provider.service.starts._offer

        async def slow(*arguments: Any) -> None:
            await offer(*arguments)
            self.provider.service.connections.cut(TENANT)

        self.patch(self.provider.service.starts, "_offer", slow)
        start = {**START, "repository": self.acme.repository}
        self.client_of_acme.call(Start, **start).addBoth(held.append)
        self.reactor.settle()
        self.assertEqual([], list(self.provider.service.sessions))
        self.assertEqual({}, self.provider.mover._by_session)
        self.assertNotIsInstance(held[0], dict)

    def test_backup(self) -> None:
        """A backup that streams is cut; what was acknowledged before it stays restorable."""

        cutting: list[Deferred[None]] = []

        def around(run: Callable[[], Any]) -> Any:
            self.reactor.callFromThread(
                lambda: cutting.append(Deferred.fromCoroutine(self.provider.service.cut(TENANT)))
            )
            return run()

        source = self.source()
        with open(os.path.join(source, "large"), "wb") as file:
            file.write(os.urandom(3 << 20))
        with self.assertRaises(CloudConnectError):
            self.reactor.result_of(self.acme.back_up(source, around))
        self.reactor.result_of(cutting[0])
        self.assertEqual([], list(self.provider.service.sessions))
        (row,) = self.provider.points()
        self.assertEqual(self.points[TENANT].hex(), row["point"])
