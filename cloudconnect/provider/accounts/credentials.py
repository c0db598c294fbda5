"""Layer 4: the accounts: what each machine of a tenant logs in with, and what it may do.

A tenant has one credential for each machine, which the log-in name tells apart: ``TENANT/LABEL``,
or ``TENANT`` alone for the one that is called ``default``. An *invitation* is a credential that is
good for one thing: making the machine's own one, once.

What proves a log-in is a login password, or the key of a certificate. While a machine changes from
one certificate to the next, there may be two credentials of the same label, both with one.
"""

from __future__ import annotations

import hmac
import os
import time
from collections.abc import Collection
from typing import Any, Final

import attrs
import sqlalchemy as sa

from cloudconnect.errors import LoginRefused, NotFound, UsageError
from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import credentials_table, tenants_table
from cloudconnect.settings import TOKEN_ITERATIONS_MIN
from cloudconnect.wire.login import DEFAULT_LABEL, Verifier, is_login_name, split_login

#: What a credential can allow: to back up; to list and restore; to delete, lock and say what is
#: kept; to make the repository and change its keys.
CAPABILITIES: Final = ("write", "read", "delete", "admin")
#: Most credentials that a tenant has at a time.
CREDENTIALS_MAX: Final = 1000
#: Most certificates of one label: the one of today, and the one that is to follow.
CERTIFICATES_MAX: Final = 2

_c = credentials_table.c


@attrs.frozen(kw_only=True)
class Credential:
    """One machine's way to log in.

    :ivar number: names it for all time
    :ivar label: names it among those of its tenant
    :ivar capabilities: of :data:`CAPABILITIES`
    :ivar verifier: proves its login password; None where it has none
    :ivar certificate: SHA-256 of the SubjectPublicKeyInfo of its certificate, 32 bytes, or None
    :ivar invitation: it is good for making the machine's own one, and for nothing else
    """

    number: int
    tenant: str
    label: str
    capabilities: frozenset[str]
    verifier: Verifier | None = attrs.field(repr=False)
    certificate: bytes | None = None
    invitation: bool = False


class CredentialAccounts(Database):
    """The credentials in the accounts data base."""

    def credential(self, login: str) -> Credential | None:
        """What proves who logs in under this name with a password; None where nothing does.

        :param login: ``TENANT`` or ``TENANT/LABEL``
        """
        found = [row for row in self._valid_rows(login) if row["certificate"] is None]
        return _credential(found[0]) if found else None

    def certified(self, login: str, certificate: bytes) -> Credential | None:
        """The credential of this log-in name with this certificate; None where there is none.

        :param login: ``TENANT`` or ``TENANT/LABEL``
        :param certificate: SHA-256 of its SubjectPublicKeyInfo
        """
        found = None
        for row in self._valid_rows(login):
            if hmac.compare_digest(row["certificate"] or b"", certificate):
                found = row
        return None if found is None else _credential(found)

    def _valid_rows(self, login: str) -> list[sa.RowMapping]:
        """What is valid of a log-in name, the newest first."""
        tenant, label = split_login(login)
        query = (
            sa.select(credentials_table)
            .where(_c.tenant == tenant, _c.label == label, *_valid(time.time()))
            .order_by(_c.id.desc())
        )
        with self._engine.connect() as connection:
            return list(connection.execute(query).mappings())

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
        proof: Verifier | bytes,
        capabilities: Collection[str] = CAPABILITIES,
        *,
        invitation: bool = False,
        expires: float | None = None,
    ) -> str:
        """Give a tenant another credential; its label.

        :param label: what it is called; None: what is free
        :param proof: what proves a log-in: of a password, or SHA-256 of the SubjectPublicKeyInfo of
            a certificate
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
            query = sa.select(_c.label, _c.certificate).where(_c.tenant == tenant, *_valid(now))
            valid = connection.execute(query).all()
            if len(valid) >= CREDENTIALS_MAX:
                raise UsageError(f"tenant {tenant} has {CREDENTIALS_MAX} credentials already")
            if label is None:
                label = _free_label(set(connection.execute(used).scalars()))
            else:
                _check_free(
                    tenant, label, [row.certificate for row in valid if row.label == label], proof
                )
            values = {"invitation": invitation, "expires": expires}
            add_credential(connection, tenant, proof, label, wanted, **values)
        return label

    def accept_invitation(self, number: int, proof: Verifier | bytes) -> Credential:
        """Spend an invitation: the machine's own credential takes its place, once.

        :param number: of the invitation
        :param proof: as for :meth:`add_credential`
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
                proof,
                spent_one.label,
                ",".join(sorted(spent_one.capabilities, key=CAPABILITIES.index)),
            )
        return _credential(self._valid_rows(f"{spent_one.tenant}/{spent_one.label}")[0])

    def revoke_credential(
        self, tenant: str, label: str, certificate: bytes | None = None
    ) -> list[int]:
        """End a credential at once; invitations too. The numbers of what has ended.

        :param certificate: only the one with this, SHA-256 of its SubjectPublicKeyInfo
        :raises NotFound: there is none of this name
        """
        mine = [_c.tenant == tenant, _c.label == label, _c.revoked.is_(None)]
        if certificate is not None:
            mine.append(_c.certificate == certificate)
        with self._writing() as connection:
            numbers = list(connection.execute(sa.select(_c.id).where(*mine)).scalars())
            if not numbers:
                such = "" if certificate is None else " with this certificate"
                raise NotFound(f"tenant {tenant} has no credential {label}{such}")
            connection.execute(credentials_table.update().where(*mine).values(revoked=time.time()))
        return numbers

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
                    "spki": _pin(row["certificate"]),
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
    proof: Verifier | bytes,
    label: str = DEFAULT_LABEL,
    capabilities: str = ",".join(CAPABILITIES),
    **values: Any,
) -> None:
    """Give a tenant a credential, in a transaction.

    :param proof: as for :meth:`CredentialAccounts.add_credential`
    """
    if isinstance(proof, bytes):
        values["certificate"] = proof
        # No password fits these: nobody has drawn the numbers from one.
        proof = Verifier(os.urandom(16), os.urandom(32), os.urandom(32), TOKEN_ITERATIONS_MIN)
    connection.execute(
        credentials_table.insert().values(
            tenant=tenant,
            label=label,
            created=time.time(),
            capabilities=capabilities,
            **attrs.asdict(proof),
            **values,
        )
    )


def _valid(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return _c.revoked.is_(None), sa.or_(_c.expires.is_(None), _c.expires > now)


def _check_free(
    tenant: str, label: str, there: Collection[bytes | None], proof: Verifier | bytes
) -> None:
    """Whether a credential may be called so, beside those that are.

    :param there: the certificates of those that are called so, None for a password
    :raises UsageError: the name is taken
    """
    if isinstance(proof, bytes) and proof in there:
        raise UsageError(f"the credential {label} of tenant {tenant} has this certificate already")
    certified = isinstance(proof, bytes) and None not in there
    if there and not (certified and len(there) < CERTIFICATES_MAX):
        raise UsageError(
            f"tenant {tenant} has a credential {label} already: revoke it first, or give "
            "this one another --label"
        )


def _pin(certificate: bytes | None) -> str | None:
    return None if certificate is None else f"SPKI-SHA256:{certificate.hex()}"


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
        verifier=Verifier(*proof) if row["certificate"] is None else None,
        certificate=row["certificate"],
        invitation=bool(row["invitation"]),
    )
