"""Layer 4: one session as the tenant's job manager sees it, as a state machine.

The steps of ``docs/architecture.rst`` in their only order: *started* with a plan and a Key A
for each of its targets, *tunnelled* once each has proved that it holds its own, *confirmed* once
each has proved that it received Key B, *streaming*, *done*. Key B exists from the tunnels on and
nothing of ours is given it before every target has confirmed; every other order is a bug that the
machine refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import attrs
from automat import TypeMachineBuilder

from cloudconnect.errors import KeyBUnconfirmed
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from cloudconnect.shown import Shown

#: Security warnings of one kind that are kept of one session.
OF_KIND_MAX: Final = 64


@attrs.define(eq=False, repr=False)
class TenantSession(Shown):
    """The data of a session; only the machine changes its keys.

    :ivar identifier: the session's 16 bytes
    :ivar tell: takes the name, text and fields of each step, for the timeline
    :ivar warnings: what this side and the provider's saw
    """

    identifier: bytes
    keys_a: list[KeyA] = attrs.field(repr=False)
    tell: Callable[..., None] = attrs.field(repr=False)
    key_b: KeyB | None = attrs.field(default=None, repr=False)
    integrity_key: IntegrityKey | None = attrs.field(default=None, repr=False)
    warnings: list[SecurityWarning] = attrs.field(factory=list)

    def warn(self, warning: SecurityWarning) -> bool:
        """Keep a warning; False when the same one is known already, or enough of its kind are: a
        provider could go on for ever."""
        if sum(known.kind is warning.kind for known in self.warnings) >= OF_KIND_MAX:
            return False
        return warning.add_to(self.warnings)


class SessionSteps(Protocol):
    """What can happen to a session."""

    def tunnel_up(self) -> None:
        """Each target answered its Key A tunnel's handshake: it holds its Key A. Key B is made."""

    def confirmed(self) -> None:
        """Each target has proved that it received Key B: Key A is forgotten."""

    def stream_up(self) -> None:
        """The movers' stream is up: the job manager's own Key B goes."""

    def end(self) -> None:
        """The session is over, however it went."""


_builder = TypeMachineBuilder(SessionSteps, TenantSession)
_started = _builder.state("started")
_tunnelled = _builder.state("tunnelled")
_confirmed = _builder.state("confirmed")
_streaming = _builder.state("streaming")
_ended = _builder.state("ended")


@_started.upon(SessionSteps.tunnel_up).to(_tunnelled)
def _make_key_b(steps: SessionSteps, session: TenantSession) -> None:
    session.key_b, session.integrity_key = KeyB.generate(), IntegrityKey.generate()
    session.tell(
        "key_b_made",
        f"Key B {session.key_b.identifier} made here for this session",
        key=session.key_b.identifier,
    )


@_tunnelled.upon(SessionSteps.confirmed).to(_confirmed)
def _forget_key_a(steps: SessionSteps, session: TenantSession) -> None:
    _drop_key_a(session)


@_confirmed.upon(SessionSteps.stream_up).to(_streaming)
def _forget_key_b(steps: SessionSteps, session: TenantSession) -> None:
    _drop_key_b(session)


def _drop_key_a(session: TenantSession) -> None:
    for key_a in session.keys_a:
        session.tell("key_a_forgotten", f"Key A {key_a.identifier} forgotten", side="tenant")
        key_a.forget()
    session.keys_a = []


def _drop_key_b(session: TenantSession) -> None:
    for key in (session.key_b, session.integrity_key):
        if key is not None:
            key.forget()
    if session.key_b is not None:
        session.tell(
            "key_b_forgotten", f"Key B {session.key_b.identifier} forgotten", side="tenant"
        )
    session.key_b = session.integrity_key = None


def _finish(steps: SessionSteps, session: TenantSession) -> None:
    _drop_key_a(session)
    _drop_key_b(session)


for _state in (_started, _tunnelled, _confirmed, _streaming, _ended):
    _state.upon(SessionSteps.end).to(_ended)(_finish)

#: Builds a session's steps from its data.
session_machine = _builder.build()


def require_keys(session: TenantSession) -> tuple[KeyB, IntegrityKey]:
    """Key B and the integrity key, while the session has them.

    :raises KeyBUnconfirmed: it has none (any more)
    """
    if session.key_b is None or session.integrity_key is None:
        raise KeyBUnconfirmed("the session has no Key B to hand over")
    return session.key_b, session.integrity_key
