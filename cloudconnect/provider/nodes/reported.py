"""Layer 4: what roles of other processes report, read: warnings, steps of sessions, load.

Pure, and bounded by the commands that carry it (``docs/protocol.rst``, section 10).
"""

from __future__ import annotations

from typing import Any

from cloudconnect.errors import ProtocolViolation
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.provider.gateway.load import Load


def read_warning(values: Any) -> SecurityWarning:
    """A warning as a role reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        return SecurityWarning.from_dict(values)
    except (ValueError, KeyError, TypeError):
        raise ProtocolViolation("a warning cannot be read") from None


def read_event(values: Any) -> SessionEvent:
    """One step of a session as a role reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        event = SessionEvent(**values)
        bytes.fromhex(event.session)
    except (TypeError, ValueError):
        raise ProtocolViolation("an event cannot be read") from None
    texts = (event.name, event.session, event.text)
    if not (all(type(text) is str for text in texts) and isinstance(event.fields, dict)):
        raise ProtocolViolation("an event cannot be read")
    return event


def read_load(connections: int, up: int, down: int, groups: Any) -> Load:
    """A gateway's load as it reports it.

    :raises ProtocolViolation: it cannot be read
    """
    try:
        counted = {bytes(group): int(relays) for group, relays in groups}
    except (TypeError, ValueError):
        raise ProtocolViolation("a load cannot be read") from None
    if min(connections, up, down, *counted.values()) < 0:
        raise ProtocolViolation("a load cannot be read")
    return Load(connections, up, down, counted)
