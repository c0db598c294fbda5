"""The first catalogue: packs, blobs, points and their tags.

Written out and not taken from the tables of today: a revision never changes.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "repository",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("repository", sa.LargeBinary(16), nullable=False),
        sa.Column("format_version", sa.Integer, nullable=False),
        sa.Column("description", sa.LargeBinary, nullable=False),
        sa.Column("removals", sa.Integer, nullable=False),
    )
    op.create_table(
        "packs",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("blobs", sa.Integer, nullable=False),
        sa.Column("plain_length", sa.BigInteger, nullable=False),
        sa.Column("arrival_time", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "blobs",
        sa.Column("id", sa.LargeBinary(32), primary_key=True),
        sa.Column("pack", sa.Integer, nullable=False),
        sa.Column("offset", sa.Integer, nullable=False),
        sa.Column("stored_length", sa.Integer, nullable=False),
        sa.Column("plain_length", sa.Integer, nullable=False),
        sa.Column("coding", sa.SmallInteger, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("damaged", sa.Boolean, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "points",
        sa.Column("arrival", sa.Integer, primary_key=True),
        sa.Column("point", sa.String(32), nullable=False, unique=True),
        sa.Column("arrival_time", sa.Float, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("session", sa.LargeBinary(16), nullable=False),
        sa.Column("job_id", sa.LargeBinary(16), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("job", sa.String(255), nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("statistics", sa.JSON, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("finished_ns", sa.BigInteger, nullable=False),
        sa.Column("manifest_length", sa.BigInteger, nullable=False),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.Column("reference_count", sa.BigInteger, nullable=False),
        sa.Column("reference_digest", sa.LargeBinary(32), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("points_of_job", "points", ["host", "job", "arrival"])
    op.create_table(
        "point_tags",
        sa.Column("tag", sa.String(255), primary_key=True),
        sa.Column("arrival", sa.Integer, sa.ForeignKey("points.arrival"), primary_key=True),
    )


def downgrade() -> None:
    raise NotImplementedError("a repository's catalogue is never taken back to an older release")
