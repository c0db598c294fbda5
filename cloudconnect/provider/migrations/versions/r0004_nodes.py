"""Nodes of the provider's LAN: their tokens, certificates, and which of them are to stop."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0004_nodes"
down_revision = "accounts_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table: nodes that were enrolled before are noted when they register."""
    op.create_table(
        "nodes",
        sa.Column("role", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("token_id", sa.LargeBinary(16)),
        sa.Column("token", sa.LargeBinary(32)),
        sa.Column("token_until", sa.Float),
        sa.Column("spki", sa.String(64)),
        sa.Column("enrolled", sa.Float),
        sa.Column("revoked", sa.Float),
        sa.Column("leaving", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def downgrade() -> None:
    """Refused: nodes whose certificates were taken back would be let in again."""
    raise RuntimeError("the accounts data base cannot be taken back to before its table of nodes")
