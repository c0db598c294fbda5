"""Tests of :mod:`cloudconnect.tenant.run`: sessions against a real provider, in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.protocols.amp import CommandLocator

from cloudconnect import keys as all_keys
from cloudconnect.backup.dialogue import greet
from cloudconnect.commands.control import Role, SessionKind
from cloudconnect.commands.lan import HandWAN
from cloudconnect.commands.links import link_in_process
from cloudconnect.errors import (
    Busy,
    Cancelled,
    CloudConnectError,
    ContextMismatch,
    ControlTampered,
    Downgrade,
    KeyARejected,
    KeyBUnconfirmed,
    NoAccelerator,
    NotFound,
    NotReachable,
    ProtocolViolation,
    Refused,
    SecurityError,
    Tampered,
    Truncated,
    WarningKind,
)
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import KeyA
from cloudconnect.provider.service import planning
from cloudconnect.sessions import acceptance
from cloudconnect.settings import ORPHAN_SECONDS
from cloudconnect.tenant import plan, run
from cloudconnect.tenant.accelerated import OwnAccelerator
from cloudconnect.tenant.lines import TunnelClient
from tests.provider.stage import HOST, LABELS, PORT, TENANT, Tenant, idle
from tests.tenant.managers import STORY, ManagerCase


class Refusing(CommandLocator):
    """An own accelerator that takes no session from this line.

    :param error: what it says
    """

    def __init__(self, error: CloudConnectError) -> None:
        super().__init__()
        self._error = error

    @HandWAN.responder
    def hand(self, **values: Any) -> dict[str, Any]:
        raise self._error


class AnotherLineTests(ManagerCase):
    """An own accelerator that refuses a session on the line that was opened for it."""

    def refused(self, error: CloudConnectError, again: bool = True) -> tuple[Tenant, list[int]]:
        """A tenant with such a line, and how often another one was asked for."""
        asked: list[int] = []
        tenant = self.accelerated()
        near, far = link_in_process(self.reactor, None, Refusing(error))
        self.addCleanup(lambda: far.transport and far.transport.loseConnection())

        async def another() -> OwnAccelerator:
            asked.append(1)
            return tenant.own

        own = attrs.evolve(tenant.own, link=near, again=another if again else None)
        tenant.manager.use_accelerator(own)
        return tenant, asked

    def test_another_line(self) -> None:
        """Where another command has renewed the machine's certificate since, the session goes over
        another line, to its end."""
        tenant, asked = self.refused(Refused("has another certificate by now"))
        self.reactor.result_of(tenant.session(idle(tenant)))
        self.assertEqual(([1], ["done"]), (asked, self.states()))
        self.assertIn("bytes_before", tenant.manager.saved)

    def test_only_line(self) -> None:
        """Where there is only that line, that is all."""
        tenant, asked = self.refused(Refused("no"), again=False)
        self.failure_of(tenant.session(idle(tenant)), Refused)
        self.assertEqual([], asked)

    def test_stopping(self) -> None:
        """Where the accelerator is stopping no other line is asked for."""
        tenant, asked = self.refused(NoAccelerator("stopping"))
        self.failure_of(tenant.session(idle(tenant)), NoAccelerator)
        self.assertEqual([], asked)


class StoryTests(ManagerCase):
    """Sessions from Start to Finish."""

    def test_steps(self) -> None:
        """A session's steps come in the one order, and all bear its name."""
        tenant = self.connected()
        session = self.reactor.result_of(tenant.session(idle(tenant)))
        self.assertEqual(STORY, tenant.names())
        self.assertEqual({"", session.hex()}, {event.session for event in tenant.events})
        self.assertEqual((["done"], []), (self.states(), tenant.warnings))

    def test_backup(self) -> None:
        """A backup is published under its labels."""
        tenant = self.connected()
        result = self.reactor.result_of(tenant.back_up(self.source()))
        (row,) = self.provider.points()
        self.assertEqual((result.point.hex(), *LABELS), (row["point"], row["host"], row["job"]))

    def test_one_after_the_other(self) -> None:
        """Each session on one channel has new keys."""
        tenant = self.connected()
        for _ in range(3):
            self.reactor.result_of(tenant.session(idle(tenant)))
        made = [event.fields["key"] for event in tenant.events if event.name == "key_b_made"]
        received = [e.fields["key"] for e in tenant.events if e.name == "key_a_received"]
        self.assertEqual((3, 3), (len(set(made)), len(set(received))))

    def test_both_sides_agree(self) -> None:
        """The provider knows the same keys by the same names."""
        tenant = self.connected()
        self.reactor.result_of(tenant.session(idle(tenant)))
        (row,) = self.provider.accounts.sessions(TENANT, 0, 10)
        fields = {event.name: event.fields for event in tenant.events}
        self.assertEqual(
            (fields["key_a_received"]["key"], fields["key_b_made"]["key"]),
            (row["key_a"], row["key_b"]),
        )

    def test_secrets(self) -> None:
        """No key of the session, nor the token, is in any event, log line, repr or row, of either
        side; and nothing holds one afterwards."""
        made: list[bytes] = []
        real = all_keys.Secret.__init__

        def init(secret: Any, octets: Any) -> None:
            real(secret, octets)
            if not isinstance(secret, all_keys.MasterKey):
                made.append(bytes(octets))

        self.patch(all_keys.Secret, "__init__", init)
        tenant = self.connected()
        self.reactor.result_of(tenant.back_up(self.source()))
        self.reactor.settle()
        self.assertGreater(len(made), 5)
        self.assert_unsaid(*made)
        said = repr((tenant.events, tenant.warnings, vars(tenant.manager), vars(self.provider)))
        said += repr(self.provider.accounts.sessions("", 0, 100))
        for octets in made:
            self.assertNotIn(octets.hex(), said)
            self.assertNotIn(repr(octets)[2:-1], said)

    def test_dialogue_fails(self) -> None:
        """What the dialogue raises comes out; the session is failed at both sides."""
        tenant = self.connected()

        def dialogue(channel: Any, session: bytes) -> None:
            raise NotFound("no such point")

        self.failure_of(tenant.session(dialogue), NotFound)
        self.assertEqual(["failed"], self.states())
        self.assertEqual({}, self.provider.mover._by_session)
        self.reactor.result_of(tenant.session(idle(tenant)))

    def test_busy(self) -> None:
        """More sessions than were agreed are refused, and the first one goes on."""
        tenant = self.connected(max_tasks=1)
        second: list[Any] = []

        def dialogue(channel: Any, session: bytes) -> bytes:
            self.reactor.callFromThread(lambda: tenant.session(idle(tenant)).addBoth(second.append))
            return idle(tenant)(channel, session)

        self.reactor.result_of(tenant.session(dialogue))
        self.reactor.settle()
        self.assertIsInstance(second[0].value, Busy)

    def test_cancel(self) -> None:
        """A cancelled session is interrupted, at both sides, and that is no warning."""
        tenant = self.connected()

        def dialogue(channel: Any, session: bytes) -> None:
            self.reactor.callFromThread(tenant.manager.cancel)
            channel.receive()

        self.failure_of(tenant.session(dialogue), Cancelled)
        self.assertEqual((["interrupted"], []), (self.states(), tenant.warnings))

    def test_incomplete(self) -> None:
        """A backup that could not read everything is incomplete."""
        tenant = self.connected()
        session = tenant.session(idle(tenant), summarize=lambda _: {"unreadable": 2})
        self.reactor.result_of(session)
        self.assertEqual(["incomplete"], self.states())


class LyingProviderTests(ManagerCase):
    """What a provider, or somebody in its place, cannot do."""

    def refused(self, tenant: Tenant, *kinds: type[CloudConnectError]) -> Any:
        """The session fails like this, and our own mover was never given a key."""
        handed = self.handed(tenant)
        error = self.failure_of(tenant.session(idle(tenant)), *kinds)
        self.assertEqual([], handed)
        self.assertNotIn("key_b_delivered", tenant.names())
        return error

    def test_odd_plans(self) -> None:
        """A plan that cannot be read, or names another role, is not followed."""
        tenant = self.connected(max_tasks=100)
        changes: list[dict[str, Any]] = [
            {"role": "target-wan"},
            {"role": 1},
            {"route": b"short"},
            {"route": "text"},
            {"gateways": "host:1"},
            {"versions": 1},
            {"more": 1},
        ]
        change: dict[str, Any] = {}
        self.lying_start(lambda s, plan, keys: (s, [{**plan[0], **change}], keys))
        for each in changes:
            change.clear()
            change.update(each)
            self.refused(tenant, ProtocolViolation)

    def test_other_plan(self) -> None:
        """What the mover was told otherwise does not come to a tunnel."""
        tenant = self.connected(max_tasks=100)
        self.lying_start(lambda s, plan, keys: (s, [{**plan[0], "versions": [1, 0]}], keys))
        self.refused(tenant, KeyARejected, Truncated, NotReachable)
        self.assertNotIn("key_b_made", tenant.names())

    def test_other_key_a(self) -> None:
        """Nor does another Key A."""
        tenant = self.connected()
        self.lying_start(lambda s, plan, keys: (s, plan, [KeyA.generate()]))
        self.refused(tenant, KeyARejected, Truncated, NotReachable)

    def test_number_of_targets(self) -> None:
        """More keys than targets, or none, is no plan."""
        tenant = self.connected(max_tasks=100)
        self.lying_start(lambda s, plan, keys: (s, plan * 2, keys))
        self.refused(tenant, ProtocolViolation)

    def test_odd_gateway(self) -> None:
        """A gateway that is no address is not connected to."""
        tenant = self.connected(max_tasks=100)
        gateways: list[Any] = []
        self.lying_start(lambda s, plan, keys: (s, [{**plan[0], "gateways": gateways}], keys))
        for odd in ("host", ":6180", "host:0", "host:70000", "host:x", 5, ""):
            gateways[:] = [odd]
            before = len(self.reactor.dialled)
            self.refused(tenant, ProtocolViolation)
            ahead = [d for d in self.reactor.dialled[before:] if d != (HOST, PORT)]
            self.assertEqual([], ahead)

    def test_gateway(self) -> None:
        """Data connections go to the first gateway that is advertised."""
        self.provider.service.nodes._advertise = ["gw.example.com:7000", "other.example.com:1"]
        self.reactor.network[7000] = self.provider.gateway.factory
        tenant = self.connected()
        before = len(self.reactor.dialled)
        self.reactor.result_of(tenant.session(idle(tenant)))
        dialled = self.reactor.dialled[before:]
        self.assertEqual([("gw.example.com", 7000)] * 2, [d for d in dialled if d[0] != HOST])

    def test_no_common_version(self) -> None:
        """A target that speaks no version of ours gets no Key B."""
        tenant = self.connected()
        self.patch(planning, "PROTOCOL_VERSIONS", (7, 1))
        self.patch(run, "PROTOCOL_VERSIONS", (2,))
        self.refused(tenant, Downgrade)
        self.assertNotIn("key_b_confirmed", tenant.names())

    def test_unconfirmed(self) -> None:
        """A target that cannot confirm Key B does not get a stream, and our mover no key."""
        tenant = self.connected()
        self.patch(acceptance, "key_b_confirmation", lambda *parts: bytes(32))
        self.refused(tenant, KeyBUnconfirmed)
        self.assertEqual(
            (["security_warning"], ["key_b_unconfirmed"]),
            (self.states(), self.warning_kinds(tenant)),
        )
        self.assertIn("key_b_unconfirmed", self.provider.names(type="warning"))

    def test_key_b_not_before_the_confirmation(self) -> None:
        """While the target has not confirmed, our mover has no key and nothing is streamed."""
        tenant = self.connected()
        handed = self.handed(tenant)
        held: Deferred[None] = Deferred()
        real = acceptance.TunnelResponder.deliver

        def deliver(responder: Any, **values: Any) -> Any:
            answer = real(responder, **values)
            return held.addCallback(lambda _: answer)

        self.patch(
            acceptance.TunnelResponder,
            "_commandDispatch",
            {
                name: (command, deliver)
                for name, (command, _) in acceptance.TunnelResponder._commandDispatch.items()
            },
        )
        running = tenant.session(idle(tenant))
        self.reactor.settle()
        self.assertNoResult(running)
        self.assertEqual(([], "key_b_made"), (handed, tenant.names()[-1]))
        held.callback(None)
        self.reactor.result_of(running)
        self.assertEqual(1, len(handed))

    def test_mismatch_at_the_target(self) -> None:
        """What the target refuses as a mismatch is a security warning of both sides."""
        tenant = self.connected()
        self.patch(plan, "TARGET_HOPS", {False: {Role.TARGET_MOVER: ("a>b",)}})
        self.refused(tenant, ContextMismatch)
        self.assertEqual(["security_warning"], self.states())
        self.assertIn("context_mismatch", self.provider.names(type="warning"))


class LossTests(ManagerCase):
    """Lines that break."""

    def during(self, tenant: Tenant, what: Callable[[], object]) -> Any:
        """A session in whose dialogue something happens."""

        def dialogue(channel: Any, session: bytes) -> bytes:
            self.reactor.callFromThread(what)
            channel.receive()
            return session

        return tenant.session(dialogue)

    def test_tunnel_cut(self) -> None:
        """A tunnel that is cut ends the session; nothing was changed, so it may be tried again."""
        tenant = self.connected()
        running = self.during(tenant, lambda: self.pairs()[1].right.abortConnection())
        error = self.failure_of(running, Truncated)
        self.assertNotIsInstance(error, SecurityError)
        self.assertEqual(["interrupted"], self.states())

    def test_tunnel_changed(self) -> None:
        """A changed byte on the tunnel is tampering, and the session a security warning."""
        tenant = self.connected()
        running = self.during(tenant, lambda: self.pairs()[1].right.write(b"\x00\x20" + bytes(32)))
        self.failure_of(running, Tampered)
        self.assertEqual(["security_warning"], self.states())
        self.assertIn("tampered", self.warning_kinds(tenant))

    def test_stream_cut(self) -> None:
        """A stream that is cut is a broken line."""
        tenant = self.connected()
        running = self.during(tenant, lambda: self.pairs()[2].right.abortConnection())
        self.failure_of(running, Truncated)
        self.assertEqual(["interrupted"], self.states())

    def changed_at_the_end(self, connection: int) -> None:
        """A backup whose point is published, and then that connection is changed."""
        tenant = self.connected()

        def around(run: Callable[[], Any]) -> Any:
            channel = run.__self__._channel  # type: ignore[attr-defined]
            end = channel.end

            def change_and_end() -> None:
                self.assertEqual(1, len(self.provider.points()))
                line = self.pairs()[connection].left
                self.reactor.callFromThread(line.write, b"\x00\x20" + bytes(32))
                end()

            self.patch(channel, "end", change_and_end)
            return run()

        self.failure_of(tenant.back_up(self.source(), around), Tampered, Truncated, NotReachable)
        self.reactor.pass_time(1)
        self.assertEqual([], self.provider.points())
        self.assertIn("tampered", self.provider.names(type="warning"))

    def test_tunnel_changed_at_the_end(self) -> None:
        """A message that nobody has sealed is tampering, also when the restore point is there; both
        sides know of it, and nothing that the session has published stays."""
        self.changed_at_the_end(1)

    def test_stream_changed_at_the_end(self) -> None:
        """So is a record."""
        self.changed_at_the_end(2)

    def test_ends_at_once(self) -> None:
        """The tunnel ends beside the stream: it does not wait for the stream's other end."""
        tenant = self.connected()
        ending, ended = threading.Event(), []
        end = TunnelClient.end

        async def noted(tunnel: TunnelClient) -> None:
            ending.set()
            await end(tunnel)

        self.patch(TunnelClient, "end", noted)

        def dialogue(channel: Any, session: bytes) -> None:
            greet(channel, tenant.keys, tenant.description, "read")
            channel.finish(last=True)
            ended.append(ending.wait(60))
            channel.expect_end()

        self.reactor.result_of(tenant.session(dialogue, SessionKind.READ))
        self.assertEqual(([True], ["done"], []), (ended, self.states(), tenant.warnings))

    def test_control_lost(self) -> None:
        """A session survives the loss of its control channel; no other can be started."""
        tenant = self.connected()
        lost: list[Any] = []

        def dialogue(channel: Any, session: bytes) -> bytes:
            self.reactor.callFromThread(lambda: lost.append(self.pairs()[0].left.abortConnection()))
            return idle(tenant)(channel, session)

        self.reactor.result_of(tenant.session(dialogue))
        self.reactor.settle()
        self.assertEqual(1, len(lost))
        self.failure_of(tenant.session(idle(tenant)), NotReachable)
        (live,) = self.provider.service.sessions
        self.reactor.pass_time(ORPHAN_SECONDS + 1)
        self.reactor.result_of(live.ended)  # once the mover's thread is through
        self.assertEqual(["interrupted"], self.states())

    def test_control_changed(self) -> None:
        """A changed byte on the control channel ends the session as tampered."""
        tenant = self.connected()
        running = self.during(
            tenant,
            lambda: self.pairs()[0].right.write(b"\x17\x03\x03\x00\x20" + bytes(32)),
        )
        self.failure_of(running, ControlTampered)
        self.assertIn("control_tampered", self.warning_kinds(tenant))

    def test_once(self) -> None:
        """What comes live and again with the end is told once."""
        tenant = self.connected()
        told: list[SecurityWarning] = []

        def dialogue(channel: Any, session: bytes) -> bytes:
            warning = SecurityWarning(
                time=1.0,
                kind=WarningKind.KEY_A_REJECTED,
                session=session.hex(),
                role="target-mover",
            )
            told.append(warning)
            live = self.provider.mover._by_session[session]
            live.core.warn(warning)
            self.reactor.callFromThread(self.provider.service.reports.warned, warning)
            return idle(tenant)(channel, session)

        self.reactor.result_of(tenant.session(dialogue))
        self.assertEqual(told, tenant.warnings)
