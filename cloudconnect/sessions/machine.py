"""Below the roles: one session as a target role sees it, as a state machine.

A session is *offered* with a Key A, *proved* when the first tunnel message shows that the job
manager holds it, *keyed* when Key B has come through the tunnel, *streaming* while a stream is
up, and *ended*. Keys exist only in the states that need them: what the machine leaves, it
forgets (``docs/protocol.rst``, sections 3 to 5).
"""

from __future__ import annotations

import enum
from typing import Protocol

import attrs
from automat import TypeMachineBuilder

from cloudconnect.errors import Replayed, SecurityError
from cloudconnect.events import SecurityWarning
from cloudconnect.keys import IntegrityKey, KeyA, KeyB
from cloudconnect.sessions.package import KeyAPackage


class SessionState(enum.Enum):
    """Where a session is; for listings and logs."""

    OFFERED = "offered"
    PROVED = "proved"
    KEYED = "keyed"
    STREAMING = "streaming"
    ENDED = "ended"


class SessionInputs(Protocol):
    """What can happen to a session."""

    def key_a_proved(self) -> None:
        """The first tunnel message verified under Key A: Key A is gone before it is answered."""

    def key_b_delivered(self, key_b: KeyB, integrity_key: IntegrityKey | None) -> None:
        """Key B has come through the tunnel, and to a mover the integrity key."""

    def stream_up(self) -> None:
        """A stream has proved Key B."""

    def key_b_expired(self) -> None:
        """No more connections are awaited: Key B is dropped."""

    def end(self) -> None:
        """The session is over, however it went."""


@attrs.define(eq=False)
class SessionCore:
    """The data of a session; the machine is the only one that changes the keys."""

    package: KeyAPackage
    key_a: KeyA | None = attrs.field(repr=False)
    key_b: KeyB | None = attrs.field(default=None, repr=False)
    integrity_key: IntegrityKey | None = attrs.field(default=None, repr=False)
    key_b_identifier: str = ""
    state: SessionState = SessionState.OFFERED
    connections: set[int] = attrs.field(factory=set)
    warnings: list[SecurityWarning] = attrs.field(factory=list)
    points: list[bytes] = attrs.field(factory=list)
    error: SecurityError | None = None

    @property
    def identifier(self) -> str:
        """The session as hexadecimal digits."""
        return self.package.session.hex()

    def take_connection(self, connection: int) -> None:
        """Note that a connection number has been used.

        :raises Replayed: it was used before
        """
        if connection in self.connections:
            raise Replayed(f"connection {connection} of this session was opened before")
        self.connections.add(connection)

    def warn(self, warning: SecurityWarning) -> bool:
        """Keep a warning; False when the same one is known already."""
        return warning.add_to(self.warnings)


_builder = TypeMachineBuilder(SessionInputs, SessionCore)
_offered = _builder.state("offered")
_proved = _builder.state("proved")
_keyed = _builder.state("keyed")
_streaming = _builder.state("streaming")
_sealed = _builder.state("sealed")
_ended = _builder.state("ended")


@_offered.upon(SessionInputs.key_a_proved).to(_proved)
def _forget_key_a(inputs: SessionInputs, core: SessionCore) -> None:
    _drop_key_a(core)
    core.state = SessionState.PROVED


@_proved.upon(SessionInputs.key_b_delivered).to(_keyed)
def _keep_key_b(
    inputs: SessionInputs, core: SessionCore, key_b: KeyB, integrity_key: IntegrityKey | None
) -> None:
    core.key_b, core.integrity_key = key_b, integrity_key
    core.key_b_identifier = key_b.identifier
    core.state = SessionState.KEYED


@_keyed.upon(SessionInputs.stream_up).to(_streaming)
def _first_stream(inputs: SessionInputs, core: SessionCore) -> None:
    core.state = SessionState.STREAMING


@_streaming.upon(SessionInputs.stream_up).loop()
def _further_stream(inputs: SessionInputs, core: SessionCore) -> None:
    """One more of the session's streams."""


@_streaming.upon(SessionInputs.key_b_expired).to(_sealed)
def _seal(inputs: SessionInputs, core: SessionCore) -> None:
    _drop_key_b(core)


@_keyed.upon(SessionInputs.key_b_expired).to(_ended)
def _never_used(inputs: SessionInputs, core: SessionCore) -> None:
    _drop_all(core)


def _drop_key_a(core: SessionCore) -> None:
    if core.key_a is not None:
        core.key_a.forget()
        core.key_a = None


def _drop_key_b(core: SessionCore) -> None:
    if core.key_b is not None:
        core.key_b.forget()
        core.key_b = None


def _drop_all(core: SessionCore) -> None:
    _drop_key_a(core)
    _drop_key_b(core)
    if core.integrity_key is not None:
        core.integrity_key.forget()
        core.integrity_key = None
    core.state = SessionState.ENDED


def _finish(inputs: SessionInputs, core: SessionCore) -> None:
    _drop_all(core)


for _state in (_offered, _proved, _keyed, _streaming, _sealed, _ended):
    _state.upon(SessionInputs.end).to(_ended)(_finish)

#: Builds a session's inputs from its core.
session_machine = _builder.build()
