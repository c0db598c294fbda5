"""Layer 3: the tenant's chain of heads, as the repository keeps and hands it out.

The repository cannot make an entry; it takes one only at the end of the chain, in the transaction
of what the entry is about. The files from which a chain is made again are the records of points and
the later descriptions, each with its entry (:mod:`cloudconnect.content.heads`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.content.description import RepositoryDescription
from cloudconnect.content.heads import NOTHING, Chain, HeadKind, SignedHead
from cloudconnect.errors import HeadMoved, ProtocolViolation, Refused, StoredDataDamaged
from cloudconnect.repository.tables import heads_table, points_table

#: Entries in one page of the chain.
PAGE_HEADS: Final = 256
#: Heads about which one question may ask.
ABOUT_MAX: Final = 256

_number = heads_table.c.number


@attrs.frozen
class PointState:
    """What became of the point of one head.

    :ivar number: the head's
    :ivar state: ``published``, ``deleted``, ``removed``, ``withdrawn``, ``description`` where it is
        of no point, or ``missing`` where there is no such point or head
    :ivar by: who deleted it, or empty
    :ivar time: when it arrived, in seconds since 1970, or 0
    """

    number: int
    state: str
    by: str
    time: float


@attrs.frozen
class HeadsPage:
    """A part of the chain, and its end.

    :ivar number: of the newest entry; 0 where there is none
    :ivar value: its hash, 32 bytes
    :ivar heads: entries in order
    :ivar live: bit n - 1 is set where the point of head n is published; empty where ``heads`` does
        not reach the newest entry
    :ivar about: what was asked about
    """

    number: int
    value: bytes
    heads: tuple[SignedHead, ...]
    live: bytes
    about: tuple[PointState, ...]


def read_heads(connection: sa.Connection) -> list[SignedHead]:
    """The whole chain."""
    rows = connection.execute(sa.select(heads_table).order_by(_number))
    return [SignedHead(bytes(row.entry), bytes(row.signature)) for row in rows]


def read_page(connection: sa.Connection, after: int, about: Sequence[int] = ()) -> HeadsPage:
    """At most 256 entries behind number ``after``.

    :param connection: one transaction, so that all of it is of one moment
    :param about: numbers of heads whose points' states are wanted
    """
    rows = connection.execute(
        sa.select(heads_table.c.entry, heads_table.c.signature)
        .where(_number > after)
        .order_by(_number)
        .limit(PAGE_HEADS)
    )
    heads = tuple(SignedHead(bytes(row.entry), bytes(row.signature)) for row in rows)
    number, value = _newest(connection)
    complete = after + len(heads) >= number
    live = _live(connection, number) if complete else b""
    return HeadsPage(number, value, heads, live, _about(connection, about))


def read_chain(connection: sa.Connection, description: RepositoryDescription) -> Chain:
    """Where the chain has come to.

    :param description: the newest one, whose key signs the next entry
    """
    number, value = _newest(connection)
    return Chain(
        repository=description.repository, key=description.public_key, number=number, value=value
    )


def check_point(chain: Chain, head: SignedHead, point: bytes, record: bytes) -> None:
    """Whether ``head`` continues ``chain`` with this point.

    :param record: the encoded record
    :raises HeadMoved: it continued an older state of the chain
    :raises Refused: it is of something else, or has no good signature
    """
    _check(chain, head, HeadKind.POINT, point, record)


def check_description(chain: Chain, head: SignedHead, encoded: bytes, key: bytes) -> None:
    """Whether ``head`` continues ``chain`` with this description.

    :param encoded: the description
    :param key: its public key
    :raises HeadMoved: it continued an older state of the chain
    :raises Refused: it is of something else, or has no good signature
    """
    _check(chain, head, HeadKind.DESCRIPTION, b"", encoded)
    if head.entry.key != key:
        raise Refused("the head names another key than the description")


def insert_heads(connection: sa.Connection, heads: Iterable[SignedHead]) -> None:
    """Keep entries that were checked.

    :raises HeadMoved: there is one with such a number
    """
    rows = [
        {
            "number": head.entry.number,
            "entry": head.encoded,
            "signature": head.signature,
            "point": head.entry.point.hex(),
        }
        for head in heads
    ]
    if not rows:
        return
    try:
        connection.execute(sa.insert(heads_table), rows)
    except sa.exc.IntegrityError as error:
        raise HeadMoved("another session has published meanwhile") from error


def head_of(connection: sa.Connection, point: str) -> SignedHead | None:
    """The entry of a point, or None.

    :param point: its id in hexadecimal
    """
    query = sa.select(heads_table).where(heads_table.c.point == point)
    row = connection.execute(query).first()
    return None if row is None else SignedHead(bytes(row.entry), bytes(row.signature))


def head_fields(head: SignedHead | None) -> dict[str, bytes]:
    """What stands of a head in the file of what it is about; nothing where there is none."""
    if head is None:
        return {}
    return {"head": head.encoded, "head_signature": head.signature}


def head_in(fields: dict[str, Any]) -> SignedHead | None:
    """The head in the fields of such a file, taken out of them, or None.

    :raises ProtocolViolation: half of one, or not octets
    """
    encoded, signature = fields.pop("head", None), fields.pop("head_signature", None)
    if encoded is None and signature is None:
        return None
    if type(encoded) is not bytes or type(signature) is not bytes:
        raise ProtocolViolation("a head without its signature, or the other way round")
    return SignedHead(encoded, signature)


def linked(heads: Iterable[SignedHead]) -> list[SignedHead]:
    """One chain out of entries that were found in files, in order.

    A session that was killed may have left the entry of a point that was never published, beside
    the one that got its number. Those count that the longest chain leads to; at its end the later.

    :param heads: in the order of arrival
    """
    by_number: dict[int, dict[bytes, SignedHead]] = {}
    for head in heads:
        by_number.setdefault(head.entry.number, {})[head.value] = head
    chosen: list[SignedHead] = []
    wanted = b""
    for number in range(max(by_number, default=0), 0, -1):
        candidates = by_number.get(number, {})
        found = candidates.get(wanted) or next(reversed(candidates.values()), None)
        wanted = b""
        if found is not None:
            chosen.append(found)
            wanted = found.entry.previous
    return chosen[::-1]


def holes(heads: Sequence[SignedHead]) -> list[str]:
    """One sentence for each place in which a chain does not hold together."""
    found = []
    number, value = 0, NOTHING
    for head in heads:
        entry = head.entry
        if (entry.number, entry.previous) != (number + 1, value):
            found.append(f"the heads between {number} and {entry.number} are lost")
        number, value = entry.number, head.value
    return found


def _check(chain: Chain, head: SignedHead, kind: HeadKind, point: bytes, about: bytes) -> None:
    try:
        entry = head.entry
        digest = hashlib.sha256(about).digest()
        if (entry.repository, entry.kind, entry.point, entry.digest) != (
            chain.repository,
            kind,
            point,
            digest,
        ):
            raise Refused("the head is of something else than what it came with")
        if (entry.number, entry.previous) != (chain.number + 1, chain.value):
            raise HeadMoved("another session has published meanwhile")
        chain.follow(head)
    except (StoredDataDamaged, ProtocolViolation) as error:
        raise Refused(f"the head cannot be taken: {error}") from error


def _newest(connection: sa.Connection) -> tuple[int, bytes]:
    row = connection.execute(
        sa.select(_number, heads_table.c.entry).order_by(_number.desc()).limit(1)
    ).first()
    if row is None:
        return 0, NOTHING
    return int(row.number), hashlib.sha256(row.entry).digest()


def _live(connection: sa.Connection, number: int) -> bytes:
    bits = bytearray((number + 7) // 8)
    published = sa.select(_number).where(
        heads_table.c.point == points_table.c.point, points_table.c.state == "published"
    )
    for live in connection.execute(published).scalars():
        bits[(live - 1) // 8] |= 1 << (live - 1) % 8
    return bytes(bits)


def _about(connection: sa.Connection, numbers: Sequence[int]) -> tuple[PointState, ...]:
    if not numbers:
        return ()
    t = points_table.c
    query = (
        sa.select(_number, heads_table.c.point, t.state, t.deleted_by, t.arrival_time)
        .select_from(
            heads_table.outerjoin(points_table, heads_table.c.point == points_table.c.point)
        )
        .where(_number.in_(list(numbers)))
    )
    rows = {row.number: row for row in connection.execute(query)}
    return tuple(_state(number, rows.get(number)) for number in numbers)


def _state(number: int, row: Any) -> PointState:
    if row is None or (row.point and row.state is None):
        return PointState(number, "missing", "", 0.0)
    if not row.point:
        return PointState(number, "description", "", 0.0)
    return PointState(number, str(row.state), row.deleted_by or "", float(row.arrival_time))
