"""Layer 3: how a dialogue between the movers begins (``docs/protocol.rst``, section 7)."""

from __future__ import annotations

from typing import Any, Final, Protocol

import attrs

from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.errors import ContextMismatch, Downgrade, ProtocolViolation
from cloudconnect.settings import (
    CHUNK_MAX,
    FRAME_BODY_MAX,
    IDS_MAX,
    PROTOCOL_VERSIONS,
    VERIFY_IDS_MAX,
)
from cloudconnect.shown import Shown
from cloudconnect.wire.channel import FrameChannel, raise_failure
from cloudconnect.wire.frames import Coding, Frame, FrameKind, decode_body, encode_body


@attrs.frozen(repr=False)
class Limits(Shown):
    """What the repository takes.

    :ivar ids: most ids in one HAVE or GET
    :ivar chunk: largest chunk in bytes
    :ivar body: largest body of a frame in bytes
    :ivar verify: most ids in one VERIFY; 0: it is of an older release, and does not know that
    """

    ids: int = IDS_MAX
    chunk: int = CHUNK_MAX
    body: int = FRAME_BODY_MAX
    verify: int = 0


#: The codings of stored bytes that this release makes and reads.
CODINGS: Final = tuple(int(coding) for coding in Coding)


class Remembers(Protocol):
    """What this machine knows of the repository's past (:mod:`cloudconnect.backup.heads`)."""

    def ask(self, channel: FrameChannel) -> None:
        """Send the first question of :meth:`check`, while the greeting is under way."""
        ...

    def check(self, channel: FrameChannel) -> None:
        """Compare it with what the repository shows.

        :raises CloudConnectError: they do not agree, or the dialogue failed
        """
        ...

    def vouches(self, point: bytes, record: bytes) -> bool | None:
        """Whether the repository's chain has an entry of this point with this encoded record.

        :return: None: it has no entry of the point
        """
        ...


def greet(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    purpose: str,
    heads: Remembers | None = None,
) -> Limits:
    """Send HELLO and check WELCOME, then the repository's past.

    :param purpose: ``backup``, ``restore``, ``read`` or ``check``
    :param heads: what is known of the repository's past; None: nothing is compared
    :raises StoredDataDamaged: the repository was rolled back
    :raises Downgrade: the repository chose a version that is not the highest common one
    :raises ContextMismatch: it is another repository
    :raises ProtocolViolation: its answer cannot be used
    :raises CloudConnectError: it refuses
    """
    hello = encode_body(
        versions=list(PROTOCOL_VERSIONS),
        id_check=keys.id_check,
        codings=list(CODINGS),
        chunking=description.chunking.as_map(),
        purpose=purpose,
    )
    channel.send(FrameKind.HELLO, 0, hello)
    if heads is not None:
        heads.ask(channel)
    body = decode_body(expect(channel.receive(), FrameKind.WELCOME))
    if body.get("version") != PROTOCOL_VERSIONS[-1]:
        raise Downgrade(f"the repository chose version {body.get('version')!r} of the dialogue")
    if body.get("repository") != description.repository:
        raise ContextMismatch("the mover answers for another repository than was asked for")
    limits = body.get("limits")
    if not isinstance(limits, dict):
        raise ProtocolViolation("a WELCOME has no limits")
    taken = Limits(
        ids=_limit(limits, "ids", 1, IDS_MAX),
        chunk=_limit(limits, "chunk", description.chunking.maximum, CHUNK_MAX),
        body=_limit(limits, "body", 1 << 16, FRAME_BODY_MAX),
        verify=_limit(limits, "verify", 1, VERIFY_IDS_MAX) if "verify" in limits else 0,
    )
    if heads is not None:
        heads.check(channel)
    return taken


def _limit(limits: dict[str, Any], name: str, low: int, high: int) -> int:
    value = limits.get(name)
    if type(value) is not int or value < low:
        raise ProtocolViolation(f"a WELCOME has the impossible limit {name} {value!r}")
    return min(value, high)


def expect(frame: Frame, kind: FrameKind) -> Frame:
    """``frame`` if it is of ``kind``.

    :raises CloudConnectError: it is a FAIL: the error that it stands for
    :raises ProtocolViolation: it is of another kind
    """
    if frame.kind is FrameKind.FAIL:
        raise_failure(frame)
    if frame.kind is not kind:
        raise ProtocolViolation(f"a {frame.kind.name} came where a {kind.name} was due")
    return frame
