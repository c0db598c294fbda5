"""Warnings of a job's sessions that its tenant was not told yet."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0007_untold"
down_revision = "accounts_0006_node_renewal"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table: an older release had them in memory only."""
    op.create_table(
        "untold",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("job", sa.String(32), nullable=False),
        sa.Column("session", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(48), nullable=False),
        sa.Column("kept", sa.Float, nullable=False),
        sa.Column("warning", sa.Text, nullable=False),
    )
    op.create_index("ix_untold_tenant_job", "untold", ["tenant", "job"])


def downgrade() -> None:
    """Refused: an older release lets nobody in with a certificate, and would forget warnings."""
    raise RuntimeError("the accounts data base cannot be taken back to before untold warnings")
