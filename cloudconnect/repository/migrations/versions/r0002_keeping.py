"""What keeping and removing needs: heads, the bin, locks, retention, fences, the expiry clock."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ADDED: dict[str, list[sa.Column[Any]]] = {
    "repository": [
        sa.Column("description_revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("clock_seen", sa.Float, nullable=False, server_default="0"),
        sa.Column("clock_passed", sa.Float, nullable=False, server_default="0"),
        sa.Column("rules", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("measured", sa.JSON, nullable=False, server_default="{}"),
    ],
    "packs": [
        sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("retired", sa.BigInteger),
        sa.Column("scrubbed", sa.Float),
    ],
    "blobs": [sa.Column("condemned", sa.BigInteger, nullable=False, server_default="0")],
    "points": [
        sa.Column("bytes_stored", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("deleted_time", sa.Float),
        sa.Column("deleted_by", sa.String(16)),
        sa.Column("bin_until", sa.Float),
        sa.Column("bin_clock", sa.Float),
        sa.Column("locked_until", sa.Float),
        sa.Column("locked_clock", sa.Float),
        sa.Column("removed_time", sa.Float),
    ],
}


def upgrade() -> None:
    # Plain ALTER TABLE, which costs the same however many rows there are.
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, column)
    condemned = sa.text("condemned > 0")
    op.create_index(
        "blobs_condemned",
        "blobs",
        ["condemned"],
        sqlite_where=condemned,
        postgresql_where=condemned,
    )
    op.create_table(
        "heads",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.Column("point", sa.String(32), nullable=False),
    )
    op.create_table(
        "retention",
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("job", sa.String(255), primary_key=True),
        sa.Column("policy", sa.JSON(none_as_null=True)),
        sa.Column("set_time", sa.Float, nullable=False),
        sa.Column("has_pending", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("pending", sa.JSON(none_as_null=True)),
        sa.Column("pending_time", sa.Float),
        sa.Column("pending_clock", sa.Float),
    )
    op.create_table(
        "orphans",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a repository's catalogue is never taken back to an older release")
