"""Bytes that sessions have reserved of the quota, and which job a pack was stored by."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ALTER TABLE, which costs the same however many rows there are.
    op.add_column("packs", sa.Column("job", sa.LargeBinary(16)))
    op.add_column(
        "packs", sa.Column("released", sa.Boolean, nullable=False, server_default=sa.false())
    )
    op.create_table(
        "reservations",
        sa.Column("lease", sa.String(64), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("packs", sa.JSON, nullable=False),
    )


def downgrade() -> None:
    raise NotImplementedError("a repository's catalogue is never taken back to an older release")
