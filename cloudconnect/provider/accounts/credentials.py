"""Layer 4: the accounts: what each machine of a tenant logs in with."""

from __future__ import annotations

import time

import attrs
import sqlalchemy as sa

from cloudconnect.provider.accounts.database import Database
from cloudconnect.provider.accounts.tables import credentials_table
from cloudconnect.wire.scram import Verifier


class CredentialAccounts(Database):
    """The credentials in the accounts data base."""

    def change_verifier(self, name: str, verifier: Verifier) -> None:
        """Another login password for a tenant: those that it had end now."""
        t = credentials_table
        valid = t.update().where(t.c.tenant == name, t.c.revoked.is_(None))
        with self._writing() as connection:
            connection.execute(valid.values(revoked=time.time()))
            add_credential(connection, name, verifier)

    def verifier(self, tenant: str) -> Verifier | None:
        """What proves the tenant's login password, or None for an unknown tenant."""
        c = credentials_table.c
        query = (
            sa.select(c.salt, c.stored_key, c.server_key, c.iterations)
            .where(c.tenant == tenant, c.revoked.is_(None))
            .order_by(c.id.desc())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Verifier(*row)


def add_credential(connection: sa.Connection, tenant: str, verifier: Verifier) -> None:
    """Give a tenant a credential that may do everything, in a transaction."""
    connection.execute(
        credentials_table.insert().values(
            tenant=tenant,
            label="default",
            created=time.time(),
            capabilities="write,read,delete,admin",
            **attrs.asdict(verifier),
        )
    )
