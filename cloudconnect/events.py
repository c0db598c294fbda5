"""Layer 0: what happens in a session, as frozen events, and who may listen.

The same events make the timeline of ``session show``, the provider's event list, the ``event``
lines of ``--json`` and the log. None of them can hold a key: keys appear by their identifier, a
hash commitment (:attr:`cloudconnect.keys.Secret.identifier`).
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from cloudconnect.errors import WarningKind
from cloudconnect.shown import Shown


@attrs.frozen(kw_only=True, repr=False)
class SessionEvent(Shown):
    """One step of a session.

    :ivar time: seconds since 1970 on the clock of the side that saw it
    :ivar name: stable word, such as ``key_a_made``
    :ivar session: the session's 16 bytes as hexadecimal digits, or "" before there is one
    :ivar text: one sentence for a person
    :ivar fields: further facts, JSON values only
    """

    time: float
    name: str
    session: str
    text: str
    fields: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, repr=False)
class SecurityWarning(Shown):
    """Something was changed, or somebody is not who they should be (``docs/protocol.rst``, 9).

    :ivar time: seconds since 1970 on the clock of the side that saw it
    :ivar kind: what happened
    :ivar session: the session as hexadecimal digits, or ""
    :ivar tenant: the tenant's name, or ""
    :ivar role: the role that saw it, such as ``target-mover``
    :ivar hop: such as ``source-mover>target-mover``, ``key-a-tunnel`` or ``control``
    :ivar connection: the connection's number on that hop
    :ivar record: the number of the record at which it was seen, or -1
    :ivar peer: the peer's address as text, or ""
    :ivar text: one sentence for a person
    """

    time: float
    kind: WarningKind
    session: str = ""
    tenant: str = ""
    role: str = ""
    hop: str = ""
    connection: int = 0
    record: int = -1
    peer: str = ""
    text: str = ""

    @property
    def subject(self) -> tuple[str, str, int, WarningKind]:
        """What makes two warnings the same one: session, hop, connection, kind."""
        return (self.session, self.hop, self.connection, self.kind)

    def add_to(self, known: list[SecurityWarning]) -> bool:
        """Add it to those that are known; False when the same one is among them already."""
        if any(other.subject == self.subject for other in known):
            return False
        known.append(self)
        return True

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        fields = attrs.asdict(self)
        fields["kind"] = self.kind.value
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> SecurityWarning:
        """The other way round.

        :raises ValueError: an unknown kind
        :raises KeyError, TypeError: fields missing, too many, or of another type
        """
        made = cls(**{**fields, "kind": WarningKind(fields["kind"])})
        texts = (made.session, made.tenant, made.role, made.hop, made.peer, made.text)
        numbers = (made.connection, made.record)
        if not all(type(text) is str for text in texts) or not (
            all(type(number) is int for number in numbers)
            and type(made.time) in (int, float)
            and math.isfinite(made.time)
        ):
            raise TypeError("a field of a security warning is of another type")
        return made
