"""Layer 3: restore points' records: fetched, and believed only under the tenant's signature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudconnect.backup.dialogue import Remembers, expect, greet
from cloudconnect.content.atrest import RepositoryKeys
from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.points import PointRecord
from cloudconnect.errors import (
    CloudConnectError,
    ContextMismatch,
    ProtocolViolation,
    StoredDataDamaged,
)
from cloudconnect.wire.channel import FrameChannel
from cloudconnect.wire.frames import Frame, FrameKind, decode_body, encode_body


def fetch_record(
    channel: FrameChannel,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    point: bytes,
    request: int,
    heads: Remembers | None = None,
) -> PointRecord:
    """Ask for the record of one restore point, after the greeting.

    :param point: its 16 bytes
    :param request: number of the request
    :param heads: what is known of the repository's past
    :raises NotFound: there is no such point
    :raises StoredDataDamaged: its signature does not hold
    :raises CloudConnectError: anything else
    """
    channel.send(FrameKind.OPEN, request, encode_body(point=point))
    opened = expect(channel.receive(), FrameKind.OPENED)
    return believed(opened, keys, description, point, heads)


def believed(
    opened: Frame,
    keys: RepositoryKeys,
    description: RepositoryDescription,
    point: bytes,
    heads: Remembers | None = None,
) -> PointRecord:
    """The record in an OPENED, once it is known to be the tenant's own.

    Where the chain of heads has the point, it is believed with the record that stands there only.
    What an older master key has signed is believed nowhere else: in the chain it stands before the
    entry of the newer key, while its own signature says nothing of when it was made, and somebody
    else may have that key by now.

    :param point: what was asked for
    :param heads: what is known of the repository's past
    :raises StoredDataDamaged: its signature does not hold
    :raises ContextMismatch: it is of another restore point
    :raises ProtocolViolation: it cannot be used
    """
    body = decode_body(opened)
    encoded, signature = body.get("record"), body.get("signature")
    if not isinstance(encoded, bytes) or not isinstance(signature, bytes):
        raise ProtocolViolation("an OPENED does not have its fields")
    signer = keys.signer(encoded, signature)
    vouched = None if heads is None else heads.vouches(point, encoded)
    if vouched is False:
        raise StoredDataDamaged(
            f"the record of restore point {point.hex()[:8]} is another one than the chain of heads "
            "says: whoever has got hold of its key could have made it"
        )
    if signer is not keys and heads is not None and vouched is None:
        raise StoredDataDamaged(
            f"restore point {point.hex()[:8]} is signed with an older master key, and the chain of "
            "heads does not have it: whoever has got hold of that key could have made it"
        )
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
            record = fetch_record(channel, keys, description, point, request, heads)
            yield point, keys.open_private(point, record.private)
        channel.end()
    except BaseException as error:
        channel.abort(error if isinstance(error, Exception) else CloudConnectError("ended"))
        raise
