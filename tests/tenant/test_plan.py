"""Tests of :mod:`cloudconnect.tenant.plan`: what a tenant believes of the answer to Start."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from cloudconnect.commands.control import BETWEEN_WANS, DIRECT_HOP, FROM_TARGET_WAN, Role
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import KeyA
from cloudconnect.tenant.plan import read_plan


def entry(role: str = "target-mover", **changes: Any) -> dict[str, Any]:
    """An entry of a plan."""
    return {
        "role": role,
        "route": role.encode()[-1:] * 16,
        "gateways": [],
        "versions": [1],
        "limits": {},
        **changes,
    }


class PlanTests(SynchronousTestCase):
    """A plan is taken whole or not at all."""

    def read(self, plan: Any, keys: int = 1, wan: bool = False) -> Any:
        self.keys = [KeyA(bytes([number]) * 32) for number in range(keys)]
        return read_plan(plan, self.keys, wan)

    def refused(self, plan: Any, keys: int = 1, wan: bool = False) -> None:
        self.assertRaises(ProtocolViolation, self.read, plan, keys, wan)

    def test_direct(self) -> None:
        """Without acceleration the mover is the one target, with the one hop."""
        plan = [entry(gateways=["a:1", "b:2"], versions=[1, 2, "x"])]
        (target,) = self.read(plan).values()
        self.assertIs(Role.TARGET_MOVER, target.role)
        self.assertEqual(
            (b"r" * 16, ("a:1", "b:2"), frozenset({1, 2}), (DIRECT_HOP,)),
            (target.route, target.gateways, target.versions, target.hops),
        )
        self.assertIs(self.keys[0], target.key_a)
        self.assertEqual("target data mover", target.spoken)

    def test_accelerated(self) -> None:
        """With it there are two, in any order, each with its own hops and the Key A that came at
        its own place."""
        for roles in (("target-mover", "target-wan"), ("target-wan", "target-mover")):
            found = self.read([entry(role) for role in roles], 2, True)
            self.assertEqual((FROM_TARGET_WAN,), found[Role.TARGET_MOVER].hops)
            self.assertEqual((BETWEEN_WANS, FROM_TARGET_WAN), found[Role.TARGET_WAN].hops)
            for role, target in found.items():
                self.assertIs(self.keys[roles.index(role.value)], target.key_a)
                self.assertIs(role, target.role)

    def test_other_roles(self) -> None:
        """Roles that were not asked for are refused: too many, too few, twice, or others."""
        mover, wan = entry(), entry("target-wan")
        self.refused([], 0)
        self.refused([wan])
        self.refused([mover, wan], 2)
        self.refused([mover], 1, True)
        self.refused([wan], 1, True)
        self.refused([mover, mover], 2, True)
        self.refused([wan, wan], 2, True)
        self.refused([mover, entry("source-wan")], 2, True)
        self.refused([mover, wan, wan], 3, True)

    def test_keys(self) -> None:
        """Each entry has its Key A: one too few or too many is refused."""
        self.refused([entry()], 0)
        self.refused([entry()], 2)
        self.refused([entry(), entry("target-wan")], 1, True)

    def test_unreadable(self) -> None:
        """What is no such entry is refused."""
        whole = entry()
        for wrong in (None, {}, "plan", [None], ["target-mover"], [{**whole, "more": 1}]):
            self.refused(wrong)
        for name in whole:
            self.refused([{key: value for key, value in whole.items() if key != name}])
            self.refused([{**whole, name: None}])
        for route in (b"", b"r" * 15, b"r" * 17):
            self.refused([entry(route=route)])

    def test_secret(self) -> None:
        """No Key A shows when a target is printed."""
        (target,) = self.read([entry()]).values()
        self.assertNotIn("key_a", repr(target))
