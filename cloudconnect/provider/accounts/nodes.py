"""Layer 4: the accounts: the nodes of the provider's LAN, and who of them is let in."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import NoSpace, NotFound, Refused, UsageError
from cloudconnect.keys import EnrollmentToken
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import nodes_table

#: Size of what names a token, in bytes.
TOKEN_ID_SIZE: Final = 16


@attrs.frozen
class NodeToken:
    """A token that a node may be enrolled with.

    :ivar identifier: names it: 16 bytes, no secret
    """

    role: str
    name: str
    identifier: bytes
    secret: EnrollmentToken = attrs.field(repr=False)


@attrs.frozen
class KnownNode:
    """A node that may register.

    :ivar leaving: it gets no new sessions
    """

    role: str
    name: str
    leaving: bool


class NodeAccounts(Database):
    """The nodes in the accounts data base."""

    def invite_node(self, role: str, name: str, seconds: float) -> NodeToken:
        """Make a token for a node; one that it had before ends.

        :param role: as its certificate will say it
        :param seconds: how long it may be used
        :raises UsageError: such a node was enrolled already
        """
        token = NodeToken(role, name, os.urandom(TOKEN_ID_SIZE), EnrollmentToken.generate())
        values = {
            "token_id": token.identifier,
            "token": token.secret.reveal(),
            "token_until": time.time() + seconds,
        }
        with self._writing() as connection:
            row = connection.execute(sa.select(nodes_table).where(_is(role, name))).first()
            if row is not None and row.enrolled is not None and row.revoked is None:
                raise UsageError(
                    f"there is a node {name} of this role already: remove it first, or choose "
                    "another name"
                )
            if row is None:
                made = {"role": role, "name": name, "created": time.time(), **values}
                connection.execute(nodes_table.insert().values(**made))
            else:
                connection.execute(nodes_table.update().where(_is(role, name)).values(**values))
        return token

    def node_token(self, identifier: bytes) -> NodeToken | None:
        """The token of this name, while it may be used."""
        c = nodes_table.c
        query = sa.select(nodes_table).where(
            c.token_id == identifier, c.token.is_not(None), c.token_until > time.time()
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return NodeToken(row.role, row.name, identifier, EnrollmentToken(bytes(row.token)))

    def enroll_node(self, identifier: bytes, spki: str) -> None:
        """Spend a token: from now on the node with this key is let in.

        :param spki: fingerprint of the key of the certificate that it gets
        :raises Refused: it was spent, or its time is over
        """
        c = nodes_table.c
        spent = nodes_table.update().where(
            c.token_id == identifier, c.token.is_not(None), c.token_until > time.time()
        )
        values = _without_token(
            spki=spki, enrolled=time.time(), revoked=None, leaving=False, next_spki=None, ends=None
        )
        with self._writing() as connection:
            if connection.execute(spent.values(**values)).rowcount != 1:
                raise Refused("this token was used before, or its time is over")

    def note_node(self, role: str, name: str, spki: str, ends: float | None = None) -> None:
        """A node got a certificate by hand: it is let in with this one, and with no other.

        :param ends: when it ends, in seconds since 1970, where that is known
        :raises UsageError: its certificate was taken back
        """
        with self._writing() as connection:
            row = connection.execute(sa.select(nodes_table).where(_is(role, name))).first()
            values = _without_token(spki=spki, enrolled=time.time(), next_spki=None, ends=ends)
            if row is None:
                made = {"role": role, "name": name, "created": time.time(), **values}
                connection.execute(nodes_table.insert().values(**made))
            elif row.revoked is not None:
                raise UsageError(
                    f"node {name} was removed: enroll it with cloudconnect provider node enroll, "
                    "or choose another name"
                )
            else:
                connection.execute(nodes_table.update().where(_is(role, name)).values(**values))

    def admit_node(self, role: str, name: str, spki: str, ends: float | None = None) -> KnownNode:
        """Judge a node whose certificate our authority has issued.

        One that nobody has noted yet was enrolled by an older release: it is noted now. With the
        first line that shows a renewed certificate the one before it is worth nothing any more.

        :param spki: fingerprint of the key that it has proved
        :param ends: when its certificate ends, in seconds since 1970, or None: not known
        :raises Refused: its certificate was taken back, or another one was issued since
        """
        with self._engine.connect() as connection:
            row = connection.execute(sa.select(nodes_table).where(_is(role, name))).first()
        if row is None:
            self.note_node(role, name, spki, ends)
            return KnownNode(role, name, False)
        if row.revoked is not None or spki not in (row.spki, row.next_spki):
            raise Refused(f"the certificate of node {name} is not valid any more")
        shown: dict[str, Any] = {} if ends in (None, row.ends) else {"ends": ends}
        if spki != row.spki:
            shown |= {"spki": spki, "next_spki": None}
        if shown:
            with suppress(NoSpace):  # it is let in all the same
                self._change(role, name, shown)
        return KnownNode(role, name, bool(row.leaving))

    def renew_node(self, role: str, name: str, spki: str, shown: str) -> None:
        """A node gets another certificate: it is let in with that one too, until it shows it.

        A line may have been up for longer than the certificate that it shows has counted: whoever
        has it gets no other one.

        :param spki: fingerprint of the key of the new one
        :param shown: of the one that it has proved
        :raises Refused: its certificate was taken back, or another one was issued since
        """
        c = nodes_table.c
        present = nodes_table.update().where(_is(role, name), c.revoked.is_(None), c.spki == shown)
        with self._writing() as connection:
            if connection.execute(present.values(next_spki=spki)).rowcount != 1:
                raise Refused(f"the certificate of node {name} is not valid any more")

    def nodes(self) -> list[dict[str, Any]]:
        """Every node as a map for listings; no token in it."""
        c = nodes_table.c
        query = sa.select(nodes_table).order_by(c.role, c.name)
        with self._engine.connect() as connection:
            return [
                {
                    "role": row["role"],
                    "name": row["name"],
                    "created": row["created"],
                    "enrolled": row["enrolled"],
                    "revoked": row["revoked"],
                    "leaving": bool(row["leaving"]),
                    "invited_until": row["token_until"] if row["token"] else None,
                    "spki": row["spki"],
                    "ends": row["ends"],
                }
                for row in connection.execute(query).mappings()
            ]

    def change_node(self, role: str, name: str, leaving: bool) -> None:
        """Note whether a node is to get no new sessions.

        :raises NotFound: there is no such node
        """
        self._change(role, name, {"leaving": leaving})

    def revoke_node(self, role: str, name: str) -> None:
        """Take a node's certificate, or its token, back.

        :raises NotFound: there is no such node
        """
        self._change(role, name, _without_token(revoked=time.time()))

    def _change(self, role: str, name: str, values: dict[str, Any]) -> None:
        c = nodes_table.c
        change = nodes_table.update().where(_is(role, name), c.revoked.is_(None))
        with self._writing() as connection:
            if connection.execute(change.values(**values)).rowcount != 1:
                raise NotFound(f"there is no node {name} of this role")


def _is(role: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(nodes_table.c.role == role, nodes_table.c.name == name)


def _without_token(**values: Any) -> dict[str, Any]:
    return {"token_id": None, "token": None, "token_until": None, **values}
