"""What was agreed on how points are kept, and how they are encrypted, with each tenant."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0002"
down_revision = "accounts_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns: what older releases made is of mode ``tenant``."""
    # Plain ALTER TABLE: credentials refer to this table, which must not be made anew.
    for column in (
        sa.Column("mode", sa.String(16), nullable=False, server_default="tenant"),
        sa.Column("rules", sa.Text, nullable=False, server_default="{}"),
        sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("told", sa.Integer, nullable=False, server_default="0"),
    ):
        op.add_column("tenants", column)


def downgrade() -> None:
    """Refused: the repositories of these modes would be lost."""
    raise RuntimeError("the accounts data base cannot be taken back to before encryption modes")
