"""Layer 4: the tables of the accounts data base, as the newest migration leaves them.

A test compares them with what ``provider/migrations`` makes. Plain SQL types only.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

#: Concurrent tasks of a tenant where its admin set nothing.
MAX_TASKS_DEFAULT: Final = 4

#: The newest revision of the data base; a test compares it with the migrations.
REVISION: Final = "accounts_0008_history"

metadata = sa.MetaData()

settings_table = sa.Table(
    "provider",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

tenants_table = sa.Table(
    "tenants",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("group_id", sa.LargeBinary(16), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("lease_end", sa.String(10)),
    sa.Column("quota", sa.BigInteger),
    sa.Column("max_tasks", sa.Integer, nullable=False, default=MAX_TASKS_DEFAULT),
    sa.Column("modes", sa.String(64), nullable=False, default="tenant"),
    sa.Column("repository", sa.LargeBinary(16)),
    # The repository's encryption mode, what holds for its points, and whether nothing may go.
    sa.Column("mode", sa.String(16), nullable=False, server_default="tenant"),
    sa.Column("rules", sa.Text, nullable=False, server_default="{}"),
    sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    # Up to which of the events it was told what was found in its repository.
    sa.Column("told", sa.Integer, nullable=False, server_default="0"),
    # Bytes: with more stored than this the tenant and the provider are warned.
    sa.Column("soft_quota", sa.BigInteger),
    sa.Column("soft_warned", sa.Boolean, nullable=False, server_default=sa.false()),
    # Bytes a second over all its sessions, and seconds in which a backup is due.
    sa.Column("bandwidth", sa.BigInteger),
    sa.Column("expect_every", sa.Integer),
    # Which gateways it uses.
    sa.Column("pool", sa.String(64), nullable=False, server_default="default"),
    # In the bin: since when, the seconds that are left, and when those were last counted.
    sa.Column("removed", sa.Float),
    sa.Column("removal_left", sa.Float),
    sa.Column("removal_seen", sa.Float),
)

credentials_table = sa.Table(
    "credentials",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("label", sa.String(64), nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("stored_key", sa.LargeBinary, nullable=False),
    sa.Column("server_key", sa.LargeBinary, nullable=False),
    sa.Column("iterations", sa.Integer, nullable=False),
    sa.Column("capabilities", sa.String(64), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float),
    # Good for one log-in, which makes the machine's own credential; and its end.
    sa.Column("invitation", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("expires", sa.Float),
    # SHA-256 of the SubjectPublicKeyInfo of the certificate that it logs in with; then nothing
    # proves a password.
    sa.Column("certificate", sa.LargeBinary(32)),
)

sessions_table = sa.Table(
    "sessions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("session", sa.String(32), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("job_id", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("job", sa.String(255), nullable=False),
    sa.Column("peer", sa.String(64), nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("state", sa.String(24), nullable=False),
    sa.Column("key_a", sa.String(64), nullable=False),
    sa.Column("key_b", sa.String(16), nullable=False, default=""),
    sa.Column("summary", sa.Text, nullable=False, default="{}"),
)

events_table = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("type", sa.String(8), nullable=False),
    sa.Column("name", sa.String(48), nullable=False, index=True),
    sa.Column("session", sa.String(32), nullable=False, index=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("reported_by", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
    sa.Index("ix_events_tenant_type", "tenant", "type"),
)

untold_table = sa.Table(
    "untold",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("job", sa.String(32), nullable=False),
    sa.Column("session", sa.String(32), nullable=False),
    sa.Column("kind", sa.String(48), nullable=False),
    # By the provider's own clock.
    sa.Column("kept", sa.Float, nullable=False),
    # As JSON.
    sa.Column("warning", sa.Text, nullable=False),
    sa.Index("ix_untold_tenant_job", "tenant", "job"),
)

nodes_table = sa.Table(
    "nodes",
    metadata,
    # As its certificate says both.
    sa.Column("role", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("created", sa.Float, nullable=False),
    # The token that it may be enrolled with, until then; it is gone once it was used.
    sa.Column("token_id", sa.LargeBinary(16)),
    sa.Column("token", sa.LargeBinary(32)),
    sa.Column("token_until", sa.Float),
    # The fingerprint of its certificate's key.
    sa.Column("spki", sa.String(64)),
    sa.Column("enrolled", sa.Float),
    sa.Column("revoked", sa.Float),
    sa.Column("leaving", sa.Boolean, nullable=False, server_default=sa.false()),
    # When its certificate ends, as it was seen last; the key of one that it has asked for since.
    sa.Column("ends", sa.Float),
    sa.Column("next_spki", sa.String(64)),
)
