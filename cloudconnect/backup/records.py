"""Layer 3: restore points' records: fetched, and believed only under the tenant's signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudconnect.backup.dialogue import Remembers, expect, greet
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import CloudConnectError, ContextMismatch, ProtocolViolation
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import Frame, FrameKind, decode_body, encode_body


def fetch_record(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    point: bytes,
    request: int,
) -> PointRecord:
    """Ask for the record of one restore point, after the greeting.

    :param point: its 16 bytes
    :param request: number of the request
    :raises NotFound: there is no such point
    :raises StoredDataDamaged: its signature does not hold
    :raises CloudConnectError: anything else
    """
    channel.send(FrameKind.OPEN, request, encode_body(point=point))
    return believed(expect(channel.receive(), FrameKind.OPENED), keys, description, point)


def believed(
    opened: Frame, keys: RepositoryKeys, description: RepositoryDescription, point: bytes
) -> PointRecord:
    """The record in an OPENED, once it is known to be the tenant's own.

    :param point: what was asked for
    :raises StoredDataDamaged: its signature does not hold
    :raises ContextMismatch: it is of another restore point
    :raises ProtocolViolation: it cannot be used
    """
    body = decode_body(opened)
    encoded, signature = body.get("record"), body.get("signature")
    if not isinstance(encoded, bytes) or not isinstance(signature, bytes):
        raise ProtocolViolation("an OPENED does not have its fields")
    keys.signer(encoded, signature)
    record = PointRecord.decode(encoded)
    if record.point != point or record.repository != description.repository:
        raise ContextMismatch("the repository opened another restore point than was asked for")
    return record


def read_paths(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    points: Sequence[bytes],
    heads: Remembers | None = None,
) -> Iterator[tuple[bytes, tuple[bytes, ...]]]:
    """The source paths that each of ``points`` was made of; one whole dialogue.

    :param heads: what is known of the repository's past
    :raises StoredDataDamaged: a record was changed
    :raises CloudConnectError: the dialogue failed
    """
    try:
        greet(channel, keys, description, "read", heads)
        for request, point in enumerate(points, 1):
            record = fetch_record(channel, keys, description, point, request)
            yield point, keys.open_private(point, record.private)
        channel.finish()
        channel.expect_end()
    except BaseException as error:
        channel.abort(error if isinstance(error, Exception) else CloudConnectError("ended"))
        raise
