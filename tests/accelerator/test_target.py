"""Tests of :mod:`cloudconnect.accelerator.target`: sessions through both, in memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import connectProtocol

from cloudconnect.accelerator import passage, source
from cloudconnect.accelerator.target import TargetAccelerator
from cloudconnect.commands.control import BETWEEN_WANS, FROM_TARGET_WAN, Role, SessionKind
from cloudconnect.commands.tunnel import DeliverKeyB
from cloudconnect.content.atrest import EncryptionMode
from cloudconnect.errors import (
    Aborted,
    CloudConnectError,
    ContextMismatch,
    KeyARejected,
    NoAccelerator,
    NotReachable,
    ProtocolViolation,
    Refused,
    Replayed,
    SecurityError,
    Tampered,
    Truncated,
)
from cloudconnect.keys import Secret
from cloudconnect.settings import CLOSE_SECONDS, KEY_A_SECONDS, KEY_B_SECONDS
from cloudconnect.tenant import run
from cloudconnect.testing import Recorder
from cloudconnect.transports.memory import MemoryEndpoint
from cloudconnect.wire.preamble import ConnectionKind, Preamble
from tests.dedup.pairs import text
from tests.provider.stage import STREAMS, Tenant, idle
from tests.tenant.managers import ManagerCase


class AcceleratedCase(ManagerCase):
    """A test with accelerators at both sides."""

    def target(self) -> TargetAccelerator:
        """The provider's accelerator."""
        assert self.provider.accelerator is not None
        return self.provider.accelerator

    def assert_over(self, tenant: Tenant) -> None:
        """Nothing of any session is left at any role."""
        self.reactor.settle()
        for role in (self.provider.mover, self.target()):
            self.assertEqual(({}, {}), (role._by_session, role._by_route))
        self.assertEqual({}, self.target()._passages)
        assert tenant.accelerator is not None
        self.assertEqual({}, tenant.accelerator._by_route)

    def refused(self, tenant: Tenant, *kinds: type[BaseException]) -> Any:
        """A backup fails with just this error and leaves no point and no session."""
        error = self.failure_of(tenant.back_up(self.source()), *kinds)
        self.assertEqual([], self.provider.points())
        self.reactor.pass_time(2 * CLOSE_SECONDS)
        self.assert_over(tenant)
        return error


class StoryTests(AcceleratedCase):
    """Sessions in which nothing goes wrong."""

    def test_backup_and_restore(self) -> None:
        """What was backed up through accelerators is restored through them, byte for byte, in
        every mode; what the far end has seen does not cross the line again."""
        for number, mode in enumerate(EncryptionMode):
            tenant = self.accelerated(f"tenant{number}", mode)
            folder = self.source()
            content = text(300_000, number)
            Path(folder, "text").write_bytes(content)
            result = self.reactor.result_of(tenant.back_up(folder))
            first = tenant.manager.saved["bytes_after"]
            target = self.mktemp()
            os.mkdir(target)
            self.reactor.result_of(tenant.restore(result.point, target))
            restored = Path(target, os.path.abspath(folder)[1:], "text")
            self.assertEqual(content, restored.read_bytes())
            both = tenant.manager.saved
            self.assertGreater(first, 60_000)
            self.assertLess(both["bytes_after"] - first, 0.1 * first)
            self.assertGreater(both["saved_by_reference"], 100_000)
            self.assertEqual([], tenant.warnings)
            self.assert_over(tenant)

    def test_steps(self) -> None:
        """Every role has a Key A and a tunnel of its own, and all have the one Key B; each step is
        told at its side."""
        tenant = self.accelerated()
        self.reactor.result_of(tenant.session(idle(tenant)))
        made = [event for event in tenant.events if event.name == "key_a_received"]
        self.assertEqual({"target-mover", "target-wan"}, {e.fields["role"] for e in made})
        self.assertEqual(2, len({event.fields["key"] for event in made}))
        confirmed = [event.fields for event in tenant.events if event.name == "key_b_confirmed"]
        self.assertEqual({"target-mover", "target-wan"}, {f["role"] for f in confirmed})
        self.assertEqual(1, len({fields["key"] for fields in confirmed}))
        self.assertEqual(2, tenant.names().count("key_b_delivered"))
        rows = self.provider.events(session=tenant.events[-1].session)
        up = [row for row in rows if row["name"] == "stream_up"]
        reported = sorted(row["reported_by"] for row in up)
        self.assertEqual(["target-mover"] + ["target-wan"] * STREAMS, reported)
        self.assertIn("wan_done", [row["name"] for row in rows])
        self.assertEqual((["done"], []), (self.states(), tenant.warnings))

    def test_keys_are_dropped(self) -> None:
        """Once every connection is up, nobody has a Key A or Key B any more; and the accelerators
        never have the integrity key, which the movers have."""
        tenant = self.accelerated()
        keys: list[tuple[str, Secret]] = []
        real = Secret.__init__

        def init(secret: Any, octets: Any) -> None:
            real(secret, octets)
            keys.append((type(secret).__name__, secret))

        self.patch(Secret, "__init__", init)
        seen: list[Any] = []

        def look() -> None:
            (at_mover,) = self.provider.mover._by_session.values()
            (at_target,) = self.target()._by_session.values()
            seen.append([key.forgotten for name, key in keys if name in ("KeyA", "KeyB")])
            seen.append((at_mover.core.key_a, at_mover.core.key_b))
            seen.append((at_target.core.key_a, at_target.core.key_b))
            seen.append((at_mover.core.integrity_key is None, at_target.core.integrity_key))

        def around(run_it: Callable[[], Any]) -> Any:
            result = run_it()
            self.reactor.callFromThread(look)
            return result

        self.reactor.result_of(tenant.back_up(self.source(), around))
        forgotten, *held = seen
        self.assertGreaterEqual(len(forgotten), 4 + 4)
        self.assertEqual([True], sorted(set(forgotten)))
        self.assertEqual([(None, None), (None, None), (False, None)], held)
        self.assert_over(tenant)
        left = [name for name, key in keys if not key.forgotten and name != "Password"]
        self.assertEqual([], [name for name in left if name in ("KeyA", "KeyB", "IntegrityKey")])

    def test_several_at_once(self) -> None:
        """One accelerator serves several tenants at the same time, each with a cache of its own."""
        tenants = [self.accelerated(f"tenant{number}") for number in range(3)]
        running = [tenant.back_up(self.source()) for tenant in tenants]
        for one in running:
            self.reactor.result_of(one)
        self.assertEqual(3, len(list(self.provider.caches.iterdir())))

    def test_no_accelerator(self) -> None:
        """Where the provider has none, a session with acceleration is refused before any key."""
        tenant = self.connected()
        tenant.accelerate(self.directory / "caches")
        self.failure_of(tenant.session(idle(tenant)), NoAccelerator)
        self.assertNotIn("key_a_received", tenant.names())
        self.reactor.result_of(tenant.session(idle(tenant), wan=False))

    def test_stop(self) -> None:
        """A provider's accelerator that stops ends its sessions, and the tenant hears of it."""
        tenant = self.accelerated()

        def dialogue(channel: Any, session: bytes) -> None:
            self.reactor.callFromThread(self.target().stopService)
            channel.receive()

        error = self.failure_of(tenant.session(dialogue), Aborted, Truncated)
        self.assertNotIsInstance(error, SecurityError)
        self.reactor.pass_time(CLOSE_SECONDS + KEY_B_SECONDS + 1)
        self.assertEqual({}, self.target()._by_session)


class PlanTests(AcceleratedCase):
    """A provider whose plan is not the one that it keeps."""

    def test_wrong_entries(self) -> None:
        """An entry that is missing, added, of another role or there twice ends the session before
        anything is connected."""
        tenant = self.accelerated(max_tasks=20)
        for change in (
            lambda s, plan, keys: (s, plan[:1], keys[:1]),
            lambda s, plan, keys: (s, plan[1:], keys[1:]),
            lambda s, plan, keys: (s, plan, keys[:1]),
            lambda s, plan, keys: (s, [*plan, plan[1]], [*keys, keys[1]]),
            lambda s, plan, keys: (s, [plan[0], plan[0]], keys),
            lambda s, plan, keys: (s, [plan[0], {**plan[1], "role": "source-wan"}], keys),
            lambda s, plan, keys: (s, [], []),
        ):
            real = self.provider.service.starts.start
            self.lying_start(change)
            before = tenant.names().count("tunnel_up")
            self.failure_of(tenant.back_up(self.source()), ProtocolViolation)
            self.assertEqual(before, tenant.names().count("tunnel_up"))
            self.provider.service.starts.start = real  # type: ignore[method-assign]
        self.reactor.pass_time(KEY_A_SECONDS)
        self.assert_over(tenant)

    def test_too_many_entries(self) -> None:
        """Who asked for no acceleration gets no second target."""
        tenant = self.accelerated()
        self.lying_start(lambda s, plan, keys: (s, plan * 2, keys * 2))
        self.failure_of(tenant.session(idle(tenant), wan=False), ProtocolViolation)

    def test_exchanged(self) -> None:
        """Keys, or routes, of the two targets the other way round open no tunnel: each Key A and
        each exporter belongs to one role."""
        tenant = self.accelerated()

        def routes(session: Any, plan: Any, keys: Any) -> Any:
            mover, wan = plan
            exchanged = [{**mover, "route": wan["route"]}, {**wan, "route": mover["route"]}]
            return session, exchanged, keys

        real = self.provider.service.starts.start
        for change in (lambda s, plan, keys: (s, plan, keys[::-1]), routes):
            self.lying_start(change)
            self.refused(tenant, KeyARejected)
            self.provider.service.starts.start = real  # type: ignore[method-assign]
        self.assertIn("key_a_rejected", self.provider.names(type="warning"))

    def test_other_agreement(self) -> None:
        """What the tenant is told of the plan must be what the roles were told: the digest of the
        whole plan is in both tunnels."""
        tenant = self.accelerated()

        def change(session: Any, plan: Any, keys: Any) -> Any:
            return session, [plan[0], {**plan[1], "limits": {"streams": 1}}], keys

        self.lying_start(change)
        self.refused(tenant, KeyARejected)


class DeliveryTests(AcceleratedCase):
    """What comes through the tunnels."""

    def delivering(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Have the job manager deliver something else."""
        real = run.TunnelClient.call_with_digest

        def call(tunnel: Any, command: Any, **values: Any) -> Any:
            assert command is DeliverKeyB
            change(values)
            return real(tunnel, command, **values)

        self.patch(run.TunnelClient, "call_with_digest", call)

    def test_integrity_key(self) -> None:
        """An accelerator that is sent the integrity key refuses the session; so does a mover that
        is not sent it."""
        tenant = self.accelerated()
        made: list[Any] = []

        def to_all(values: dict[str, Any]) -> None:
            made.append(values["integrity_key"])
            values["integrity_key"] = next((key for key in made if key is not None), None)

        def to_nobody(values: dict[str, Any]) -> None:
            values["integrity_key"] = None

        for change in (to_all, to_nobody):
            made.clear()
            self.delivering(change)
            self.refused(tenant, ContextMismatch)
            self.assertIn("context_mismatch", self.provider.names(type="warning"))

    def test_hops(self) -> None:
        """Hops that are not those of the session are refused."""
        tenant = self.accelerated()
        for hops in ([], [FROM_TARGET_WAN, BETWEEN_WANS], [BETWEEN_WANS], [BETWEEN_WANS] * 3):

            def change(values: dict[str, Any], hops: list[str] = hops) -> None:
                if len(values["hops"]) == 2:
                    values["hops"] = hops

            self.delivering(change)
            self.refused(tenant, ContextMismatch)


class ConnectionTests(AcceleratedCase):
    """The connections between the accelerators, and from the target one to the mover."""

    def opening(self, module: Any, change: Callable[[dict[str, Any]], object]) -> None:
        """Have one accelerator open its connections in another way."""
        real = passage.hop_endpoint

        def endpoint(*parts: Any, **values: Any) -> Any:
            change(values)
            return real(*parts, **values)

        self.patch(module, "hop_endpoint", endpoint)

    def test_other_hop(self) -> None:
        """A connection under the key of another hop, session, tenant or route proves nothing."""
        tenant = self.accelerated()
        for change in (
            {"hop": FROM_TARGET_WAN},
            {"session": bytes(16)},
            {"tenant": "somebody else"},
            {"route": bytes(16)},
        ):
            self.opening(source, lambda values, change=change: values.update(change))
            self.refused(tenant, Truncated, Tampered, NotReachable, Aborted)
        self.assertIn("tampered", self.provider.names(type="warning"))

    def test_numbers(self) -> None:
        """A connection number is used once and lies below what was agreed."""
        tenant = self.accelerated()
        for number in (0, STREAMS, 0xFFFF):

            def change(values: dict[str, Any], number: int = number) -> None:
                values["connection"] = number

            self.opening(source, change)
            self.refused(tenant, Replayed)

    def stranger(self, route: bytes, data: bytes, kind: Any = ConnectionKind.KEY_B_STREAM) -> Any:
        """Somebody connects to the gateway with a route that he has seen."""
        client = Recorder()
        client.greeting = Preamble(kind, route).encode() + data
        public = MemoryEndpoint(self.reactor, "public")
        public.listen(self.provider.gateway.factory)
        connectProtocol(public, client)
        return client

    def test_strangers(self) -> None:
        """Junk on every route of a session, by who has seen them, disturbs nothing."""
        tenant = self.accelerated()
        strangers: list[Any] = []

        def send() -> None:
            roles = (self.provider.mover, self.target())
            routes = [route for role in roles for route in role._by_route]
            self.assertEqual(2, len(routes))
            for route in routes:
                for kind in ConnectionKind:
                    for data in (b"", bytes(200), b"\xff" * 200):
                        strangers.append(self.stranger(route, data, kind))
            assert tenant.accelerator is not None

        def around(run_it: Callable[[], Any]) -> Any:
            self.reactor.callFromThread(send)
            return run_it()

        self.reactor.result_of(tenant.back_up(self.source(), around))
        self.reactor.pass_time(CLOSE_SECONDS + 1)
        self.assertEqual(12, len(strangers))
        self.assertTrue(all(not one.data for one in strangers))
        self.assertEqual((["done"], 1), (self.states(), len(self.provider.points())))

    def test_before_the_confirmation(self) -> None:
        """A connection that comes before Key B was confirmed is closed, and nothing breaks."""
        tenant = self.accelerated()
        real = TargetAccelerator.prepare

        async def prepare(accelerator: Any, session: Any) -> None:
            stream = Recorder()
            stream.transport = type("Gone", (), {"abortConnection": lambda _: None})()
            session.inputs.stream_up()
            accelerator.stream_up(session, stream.transport)
            await real(accelerator, session)

        self.patch(TargetAccelerator, "prepare", prepare)
        self.reactor.result_of(tenant.session(idle(tenant)))

    def test_no_way_to_the_mover(self) -> None:
        """Where the mover cannot be reached the session ends, and its keys are gone at once."""
        tenant = self.accelerated()
        self.opening(
            __import__("cloudconnect.accelerator.target", fromlist=["target"]),
            lambda values: values.update(route=bytes(16)),
        )
        self.refused(tenant, Truncated, NotReachable, Aborted)

    def test_accelerator_lost(self) -> None:
        """An accelerator that is lost between Start and its tunnel: the session is not."""
        tenant = self.accelerated()
        real = self.provider.service.starts.start

        async def start(*arguments: Any) -> Any:
            answer = await real(*arguments)
            self.target().end_all(Aborted("killed"))
            self.target()._by_session.clear()
            return answer

        self.provider.service.starts.start = start  # type: ignore[method-assign]
        error = self.refused(tenant, Truncated, NotReachable, KeyARejected)
        self.assertIsInstance(error, CloudConnectError)


class EndTests(AcceleratedCase):
    """How the end of the two target roles comes together."""

    def test_failed_at_the_end(self) -> None:
        """Where the accelerator alone saw that something was changed, the mover's points are
        withdrawn, and the tenant is told: it does not believe that it has a restore point."""
        tenant = self.accelerated()
        real = self.target()._ended
        self.target()._ended = lambda session, passage, outcome: real(  # type: ignore[method-assign]
            session, passage, (Tampered("junk"), "far")
        )
        self.failure_of(tenant.back_up(self.source()), Tampered)
        self.assertEqual(([], ["security_warning"]), (self.provider.points(), self.states()))
        self.assertIn("points_withdrawn", self.provider.names())
        self.assertEqual(["tampered"], self.warning_kinds(tenant))

    def test_failed_before(self) -> None:
        """The same while the tenant still waits for the accelerators."""
        tenant = self.accelerated()

        def around(run_it: Callable[[], Any]) -> Any:
            result = run_it()
            (session,) = self.target()._by_session.values()
            self.reactor.callFromThread(
                self.target().failed, session, Tampered("junk"), BETWEEN_WANS, 0
            )
            return result

        self.failure_of(tenant.back_up(self.source(), around), Tampered)
        self.assertEqual([], self.provider.points())

    def test_interrupted(self) -> None:
        """A dialogue that fails ends the accelerators' part too, and that is no warning."""
        tenant = self.accelerated()

        def dialogue(channel: Any, session: bytes) -> None:
            raise Refused("not today")

        self.failure_of(tenant.session(dialogue, SessionKind.BACKUP), Refused)
        self.assertEqual((["failed"], []), (self.states(), tenant.warnings))
        self.assert_over(tenant)

    def test_role(self) -> None:
        """It is offered sessions of its own role only."""
        self.assertEqual(Role.TARGET_WAN.value, TargetAccelerator.role)
        self.assertIs(False, TargetAccelerator.holds_integrity_key)
