"""What each tenant has of the events is counted by the hour: an index for it."""

from alembic import op

revision = "accounts_0008_history"
down_revision = "accounts_0007_untold"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_events_tenant_type", "events", ["tenant", "type"])


def downgrade() -> None:
    """Refused: an older release takes the days of untold warnings for others than they are."""
    raise RuntimeError("the accounts data base cannot be taken back to before the own clock")
