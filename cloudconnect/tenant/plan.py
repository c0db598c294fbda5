"""Layer 4: the plan that Start was answered with, checked."""

from __future__ import annotations

from typing import Any, Final

import attrs

from cloudconnect.commands.control import TARGET_HOPS, Role
from cloudconnect.errors import ProtocolViolation
from cloudconnect.keys import KeyA
from cloudconnect.shown import Shown
from cloudconnect.wire.preamble import ROUTE_SIZE

_FIELDS: Final = {"role": str, "route": bytes, "gateways": list, "versions": list, "limits": dict}
#: What people call a role.
_SPOKEN: Final = {
    Role.TARGET_MOVER: "target data mover",
    Role.TARGET_WAN: "target WAN accelerator",
}


@attrs.frozen(repr=False)
class Target(Shown):
    """A role at the provider that takes part in a session.

    :ivar role: which
    :ivar route: what its connections begin with
    :ivar gateways: ``HOST:PORT`` of where they go; empty: where the control channel went
    :ivar versions: the protocol versions that it speaks
    :ivar hops: the hops that it is told of
    :ivar key_a: its own Key A
    """

    role: Role
    route: bytes
    gateways: tuple[str, ...]
    versions: frozenset[int]
    hops: tuple[str, ...]
    key_a: KeyA = attrs.field(repr=False)

    @property
    def spoken(self) -> str:
        """What people call it."""
        return _SPOKEN[self.role]


def read_plan(plan: Any, keys: list[KeyA], wan: bool) -> dict[Role, Target]:
    """The targets of Start's plan.

    :param keys: the Key A that came with it, in the same order
    :param wan: whether acceleration was asked for: then there are two targets, else the mover alone
    :raises ProtocolViolation: it is not such a plan
    """
    hops = TARGET_HOPS[wan]
    if not (isinstance(plan, list) and len(plan) == len(keys) == len(hops)):
        raise ProtocolViolation(f"the plan does not name {len(hops)} targets")
    found: dict[Role, Target] = {}
    for entry, key_a in zip(plan, keys, strict=True):
        if not isinstance(entry, dict) or set(entry) != set(_FIELDS):
            raise ProtocolViolation("the plan cannot be read")
        if not all(isinstance(entry[name], kind) for name, kind in _FIELDS.items()):
            raise ProtocolViolation("the plan cannot be read")
        role = next((role for role in hops if role.value == entry["role"]), None)
        if role is None or role in found or len(entry["route"]) != ROUTE_SIZE:
            raise ProtocolViolation("the plan does not name the targets that were asked for")
        found[role] = Target(
            role,
            entry["route"],
            tuple(map(str, entry["gateways"])),
            frozenset(v for v in entry["versions"] if isinstance(v, int)),
            hops[role],
            key_a,
        )
    return found
