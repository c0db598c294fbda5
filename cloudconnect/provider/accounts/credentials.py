"""Layer 4: the accounts: what each machine of a tenant logs in with, and what it may do.

A tenant has one credential for each machine, which the log-in name tells apart: ``TENANT/LABEL``,
or ``TENANT`` alone for the one that is called ``default``. An *invitation* is a credential that is
good for one thing: making the machine's own one, once.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import LoginRefused, NotFound, UsageError
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import credentials_table, tenants_table
from cloudconnect.wire.scram import DEFAULT_LABEL, Verifier, is_login_name, split_login

#: What a credential can allow: to back up; to list and restore; to delete, lock and say what is
#: kept; to make the repository and change its keys.
CAPABILITIES: Final = ("write", "read", "delete", "admin")
#: Most credentials that a tenant has at a time.
CREDENTIALS_MAX: Final = 1000

_c = credentials_table.c


@attrs.frozen(kw_only=True)
class Credential:
    """One machine's way to log in.

    :ivar number: names it for all time
    :ivar label: names it among those of its tenant
    :ivar capabilities: of :data:`CAPABILITIES`
    :ivar verifier: proves its login password
    :ivar invitation: it is good for making the machine's own one, and for nothing else
    """

    number: int
    tenant: str
    label: str
    capabilities: frozenset[str]
    verifier: Verifier = attrs.field(repr=False)
    invitation: bool = False


class CredentialAccounts(Database):
    """The credentials in the accounts data base."""

    def credential(self, login: str) -> Credential | None:
        """What proves who logs in under this name; None where nothing does.

        :param login: ``TENANT`` or ``TENANT/LABEL``
        """
        tenant, label = split_login(login)
        query = (
            sa.select(credentials_table)
            .where(_c.tenant == tenant, _c.label == label, *_valid(time.time()))
            .order_by(_c.id.desc())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _credential(row)

    def valid_credential(self, number: int) -> bool:
        """Whether a credential may be used now: it is neither revoked nor over."""
        query = sa.select(_c.id).where(_c.id == number, *_valid(time.time()))
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def verifier(self, login: str) -> Verifier | None:
        """What proves the login password under this name, or None."""
        found = self.credential(login)
        return None if found is None else found.verifier

    def add_credential(
        self,
        tenant: str,
        label: str | None,
        verifier: Verifier,
        capabilities: Collection[str] = CAPABILITIES,
        *,
        invitation: bool = False,
        expires: float | None = None,
    ) -> str:
        """Give a tenant another credential; its label.

        :param label: what it is called; None: what is free
        :param invitation: see :class:`Credential`
        :param expires: in seconds since 1970; None: never
        :raises NotFound: there is no such tenant
        :raises UsageError: a label that is taken or cannot be used, or such capabilities
        """
        wanted = check_credential(tenant, label, capabilities)
        now = time.time()
        with self._writing() as connection:
            known = sa.select(tenants_table.c.name).where(tenants_table.c.name == tenant)
            if connection.execute(known).first() is None:
                raise NotFound(f"there is no tenant {tenant}")
            used = sa.select(_c.label).where(_c.tenant == tenant)
            valid = set(connection.execute(used.where(*_valid(now))).scalars())
            if len(valid) >= CREDENTIALS_MAX:
                raise UsageError(f"tenant {tenant} has {CREDENTIALS_MAX} credentials already")
            if label is None:
                label = _free_label(set(connection.execute(used).scalars()))
            elif label in valid:
                raise UsageError(
                    f"tenant {tenant} has a credential {label} already: revoke it first, or give "
                    "this one another --label"
                )
            values = {"invitation": invitation, "expires": expires}
            add_credential(connection, tenant, verifier, label, wanted, **values)
        return label

    def accept_invitation(self, number: int, verifier: Verifier) -> Credential:
        """Spend an invitation: the machine's own credential takes its place, once.

        :param number: of the invitation
        :raises LoginRefused: it is spent, revoked or over
        """
        now = time.time()
        with self._writing() as connection:
            spent = connection.execute(
                credentials_table.update()
                .where(_c.id == number, _c.invitation, *_valid(now))
                .values(revoked=now)
            )
            if spent.rowcount != 1:
                raise LoginRefused("the invitation is spent, revoked or over: ask the provider")
            row = connection.execute(sa.select(credentials_table).where(_c.id == number))
            spent_one = _credential(row.mappings().one())
            add_credential(
                connection,
                spent_one.tenant,
                verifier,
                spent_one.label,
                ",".join(sorted(spent_one.capabilities, key=CAPABILITIES.index)),
            )
        made = self.credential(f"{spent_one.tenant}/{spent_one.label}")
        assert made is not None
        return made

    def revoke_credential(self, tenant: str, label: str) -> None:
        """End a credential at once; invitations too.

        :raises NotFound: there is none of this name
        """
        valid = credentials_table.update().where(
            _c.tenant == tenant, _c.label == label, _c.revoked.is_(None)
        )
        with self._writing() as connection:
            if connection.execute(valid.values(revoked=time.time())).rowcount == 0:
                raise NotFound(f"tenant {tenant} has no credential {label}")

    def change_verifier(self, name: str, verifier: Verifier) -> None:
        """Another login password for a tenant's ``default`` credential: the old one ends now."""
        mine = (_c.tenant == name, _c.label == DEFAULT_LABEL, _c.revoked.is_(None))
        with self._writing() as connection:
            query = sa.select(_c.capabilities).where(*mine, ~_c.invitation).order_by(_c.id.desc())
            before = connection.execute(query).scalar()
            connection.execute(credentials_table.update().where(*mine).values(revoked=time.time()))
            capabilities = before or ",".join(CAPABILITIES)
            add_credential(connection, name, verifier, DEFAULT_LABEL, capabilities)

    def credentials(self, tenant: str, after: int, limit: int) -> list[dict[str, Any]]:
        """A tenant's credentials as maps for listings, revoked ones too; no verifier in them."""
        query = (
            sa.select(credentials_table)
            .where(_c.tenant == tenant, _c.id > after)
            .order_by(_c.id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [
                {
                    "tenant": row["tenant"],
                    "label": row["label"],
                    "capabilities": row["capabilities"].split(","),
                    "created": row["created"],
                    "revoked": row["revoked"],
                    "expires": row["expires"],
                    "invitation": bool(row["invitation"]),
                    "cursor": row["id"],
                }
                for row in connection.execute(query).mappings()
            ]


def check_credential(tenant: str, label: str | None, capabilities: Collection[str]) -> str:
    """Capabilities as they are kept, in their usual order.

    :raises UsageError: none, or one that there is not; a label that cannot be used
    """
    if label is not None and not is_login_name(f"{tenant}/{label}"):
        raise UsageError(
            f"credential {label!r}: its name has 1 to 64 of a-z 0-9 . _ -, beginning with a "
            "letter or digit"
        )
    if not capabilities or not set(capabilities) <= set(CAPABILITIES):
        raise UsageError(f"a credential can {', '.join(CAPABILITIES)}: name one or more of these")
    return ",".join(name for name in CAPABILITIES if name in capabilities)


def add_credential(
    connection: sa.Connection,
    tenant: str,
    verifier: Verifier,
    label: str = DEFAULT_LABEL,
    capabilities: str = ",".join(CAPABILITIES),
    **values: Any,
) -> None:
    """Give a tenant a credential, in a transaction."""
    connection.execute(
        credentials_table.insert().values(
            tenant=tenant,
            label=label,
            created=time.time(),
            capabilities=capabilities,
            **attrs.asdict(verifier),
            **values,
        )
    )


def _valid(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return _c.revoked.is_(None), sa.or_(_c.expires.is_(None), _c.expires > now)


def _free_label(used: set[str]) -> str:
    """``default``, or else what no machine was ever called: its events keep their meaning."""
    if DEFAULT_LABEL not in used:
        return DEFAULT_LABEL
    number = 2
    while f"machine-{number}" in used:
        number += 1
    return f"machine-{number}"


def _credential(row: sa.RowMapping) -> Credential:
    proof = (row["salt"], row["stored_key"], row["server_key"], row["iterations"])
    return Credential(
        number=row["id"],
        tenant=row["tenant"],
        label=row["label"],
        capabilities=frozenset(row["capabilities"].split(",")),
        verifier=Verifier(*proof),
        invitation=bool(row["invitation"]),
    )
