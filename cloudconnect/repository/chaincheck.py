"""Layer 3: the descriptions and the chain of heads, held against the catalogue."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable

import attrs
import sqlalchemy as sa

from cloudconnect.content.description import DESCRIPTION_MAX, RepositoryDescription
from cloudconnect.content.heads import HeadKind, SignedHead
from cloudconnect.content.subkeys import verify_any
from cloudconnect.errors import NoSpace, NotFound, PeerError
from cloudconnect.interfaces import IBlobStore
from cloudconnect.repository.catalogue import Catalogue
from cloudconnect.repository.chain_files import rebuild_heads
from cloudconnect.repository.descriptions import (
    DESCRIPTION,
    DESCRIPTIONS,
    description_name,
    later_descriptions,
)
from cloudconnect.repository.findings import Finding, FindingKind
from cloudconnect.repository.heads import head_fields, holes, read_heads
from cloudconnect.repository.leases import PUBLISHING
from cloudconnect.repository.rewriting import rewrite
from cloudconnect.repository.tables import heads_table, repository_table
from cloudconnect.wire import canonical


class _NoBetter(Exception):
    """What was made again is not better than what was there."""


@attrs.define
class ChainChecker:
    """Looks at descriptions and heads once.

    :ivar lost: is given what is said of them
    """

    store: IBlobStore
    catalogue: Catalogue
    lost: Callable[[list[bytes], Finding], int]
    mended: int = 0

    def check(self) -> RepositoryDescription | None:
        """Look at them; the description that can be believed, or None."""
        with self.store.exclusive(PUBLISHING, wait=True):
            newest = self._check_descriptions()
            if newest is not None:
                self._check_heads(newest)
        return newest

    def _check_descriptions(self) -> RepositoryDescription | None:
        c = repository_table.c
        with self.catalogue.reading() as connection:
            query = sa.select(c.repository, c.description, c.description_revision)
            repository, encoded, revision = connection.execute(query).one()
            heads = read_heads(connection)
        in_row = _usable(encoded, repository)
        if in_row is not None and in_row.revision != revision:
            in_row = None
        first, problem = self._first(repository)
        problems: list[str] = []
        later = {
            description.revision: (description, head)
            for description, head in later_descriptions(self.store, repository, problems)
        }
        newest = in_row
        if newest is None:
            newest = later[revision][0] if revision in later else first if not revision else None
            self._mend_row(newest)
        if first is None or (revision == 0 and newest is not None and first != newest):
            mend = newest if revision == 0 else None
            self._mend_blob(DESCRIPTION, problem or "it is not the one in the catalogue", mend)
        known = {(head.encoded, head.signature) for head in heads}
        if newest is not None:
            with self.catalogue.reading() as connection:
                if _problems(connection, newest):
                    known = set()  # the files are what makes them right
        for number in range(1, revision + 1):
            found = later.get(number)
            right = found[0] if found is not None else None
            if number == revision and newest is not None:
                right = newest
            as_known = found is not None and (found[1].encoded, found[1].signature) in known
            if found is None or found[0] != right or (known and not as_known):
                self._mend_later(number, right, heads)
        return newest

    def _first(self, repository: bytes) -> tuple[RepositoryDescription | None, str]:
        try:
            size = min(self.store.size(DESCRIPTION), DESCRIPTION_MAX + 1)
            found = _usable(self.store.read(DESCRIPTION, 0, size), repository)
        except NotFound:
            return None, "it is not there"
        except OSError as error:
            return None, f"the system cannot read it: {error.strerror}"
        return found, "" if found is not None else "it was changed"

    def _mend_row(self, newest: RepositoryDescription | None) -> None:
        mended = False
        if newest is not None:
            with contextlib.suppress(NoSpace), self.catalogue.writing() as connection:
                values = {
                    "description": newest.encode(),
                    "description_revision": newest.revision,
                }
                connection.execute(sa.update(repository_table).values(**values))
                mended = True
        text = "the description in the catalogue was changed"
        self._say(FindingKind.CATALOGUE, "description", text, mended)

    def _mend_blob(self, name: str, text: str, right: RepositoryDescription | None) -> None:
        mended = right is not None and rewrite(self.store, name, right.encode())
        self._say(FindingKind.DESCRIPTION, name, text, mended)

    def _mend_later(
        self, number: int, right: RepositoryDescription | None, heads: list[SignedHead]
    ) -> None:
        name = description_name(number)
        text = "it was changed" if name in self.store.names(DESCRIPTIONS) else "it is not there"
        head = None
        if right is not None:
            digest = hashlib.sha256(right.encode()).digest()
            made = [
                each
                for each in heads
                if each.entry.kind is HeadKind.DESCRIPTION and each.entry.digest == digest
            ]
            head = made[-1] if made else None
        mended = False
        if right is not None and head is not None:
            fields = {"description": right.encode()} | head_fields(head)
            mended = rewrite(self.store, name, canonical.encode(fields))
        self._say(FindingKind.DESCRIPTION, name, text, mended)

    def _check_heads(self, newest: RepositoryDescription) -> None:
        with self.catalogue.reading() as connection:
            problems = _problems(connection, newest)
            count = len(read_heads(connection))
        if not problems:
            return
        mended = False
        try:
            with self.catalogue.writing() as connection:
                rebuild_heads(self.store, connection, newest, [])
                if _problems(connection, newest) or len(read_heads(connection)) < count:
                    raise _NoBetter
            mended = True
        except (_NoBetter, PeerError):
            pass
        self._say(FindingKind.HEADS, "heads", "; ".join(problems[:3]), mended)

    def _say(self, kind: FindingKind, name: str, text: str, mended: bool) -> None:
        self.mended += mended
        self.lost([], Finding(kind, name, text, mended=mended))


def _problems(connection: sa.Connection, newest: RepositoryDescription) -> list[str]:
    """What is wrong with the table of heads."""
    problems = []
    h = heads_table.c
    for row in connection.execute(sa.select(heads_table).order_by(h.number)):
        head = SignedHead(bytes(row.entry), bytes(row.signature))
        try:
            verify_any(newest.public_keys, head.signature, head.encoded, b"head")
            entry = head.entry
            said = (row.number, row.point, newest.repository)
            if (entry.number, entry.point.hex(), entry.repository) != said:
                problems.append(f"head {row.number} says something else than the catalogue")
        except PeerError as error:
            problems.append(f"head {row.number} was changed: {error}")
    if problems:
        return problems
    return holes(read_heads(connection))


def _usable(encoded: bytes, repository: bytes) -> RepositoryDescription | None:
    """The description in these bytes, if it is one of this repository whose signature holds."""
    try:
        found = RepositoryDescription.decode(bytes(encoded))
        found.verify_signature()
    except PeerError:
        return None
    return found if found.repository == repository else None
