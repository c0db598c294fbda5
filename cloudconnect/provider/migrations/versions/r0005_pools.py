"""The pool of gateways that each tenant uses."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0005_pools"
down_revision = "accounts_0004_nodes"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: tenants of older releases are of the default pool."""
    op.add_column(
        "tenants", sa.Column("pool", sa.String(64), nullable=False, server_default="default")
    )


def downgrade() -> None:
    """Refused: tenants would be led through gateways that are not theirs."""
    raise RuntimeError("the accounts data base cannot be taken back to before pools of gateways")
