"""When the certificates of nodes end, and the keys of those that will replace them."""

import sqlalchemy as sa
from alembic import op

revision = "accounts_0006_node_renewal"
down_revision = "accounts_0005_pools"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns: they are filled when nodes register and renew."""
    op.add_column("nodes", sa.Column("ends", sa.Float))
    op.add_column("nodes", sa.Column("next_spki", sa.String(64)))


def downgrade() -> None:
    """Refused: nodes that have just renewed their certificates would be shut out."""
    raise RuntimeError("the accounts data base cannot be taken back to before renewed nodes")
