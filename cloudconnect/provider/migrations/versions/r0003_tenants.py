"""Credentials of each machine, invitations, soft quotas, bandwidth, and tenants in the bin."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "accounts_0003"
down_revision = "accounts_0002"
branch_labels = None
depends_on = None

_ADDED: dict[str, list[sa.Column[Any]]] = {
    "tenants": [
        sa.Column("soft_quota", sa.BigInteger),
        sa.Column("soft_warned", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("bandwidth", sa.BigInteger),
        sa.Column("expect_every", sa.Integer),
        sa.Column("removed", sa.Float),
        sa.Column("removal_left", sa.Float),
        sa.Column("removal_seen", sa.Float),
    ],
    "credentials": [
        sa.Column("invitation", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("expires", sa.Float),
        sa.Column("certificate", sa.LargeBinary(32)),
    ],
}


def upgrade() -> None:
    """Add the columns: nothing changes for what older releases made."""
    for table, columns in _ADDED.items():
        for column in columns:
            op.add_column(table, column)


def downgrade() -> None:
    """Refused: an invitation would become a credential, and what is removed would come back."""
    raise RuntimeError("the accounts data base cannot be taken back to before invitations")
