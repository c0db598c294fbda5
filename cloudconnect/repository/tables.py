"""Layer 3: the tables of a repository's catalogue, as the newest migration leaves them.

A test compares them with what ``repository/migrations`` makes. Plain SQL types only: SQLite now,
PostgreSQL where there is more than one host.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

repository_table = sa.Table(
    "repository",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),  # one row, number 1
    sa.Column("repository", sa.LargeBinary(16), nullable=False),
    sa.Column("format_version", sa.Integer, nullable=False),
    sa.Column("description", sa.LargeBinary, nullable=False),
    # Counts the occasions on which blobs ceased to be stored: see points.publish.
    sa.Column("removals", sa.Integer, nullable=False),
)

packs_table = sa.Table(
    "packs",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("blobs", sa.Integer, nullable=False),
    sa.Column("plain_length", sa.BigInteger, nullable=False),
    sa.Column("arrival_time", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)

blobs_table = sa.Table(
    "blobs",
    metadata,
    sa.Column("id", sa.LargeBinary(32), primary_key=True),
    sa.Column("pack", sa.Integer, nullable=False),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("stored_length", sa.Integer, nullable=False),
    sa.Column("plain_length", sa.Integer, nullable=False),
    sa.Column("coding", sa.SmallInteger, nullable=False),
    sa.Column("kind", sa.SmallInteger, nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    # Its stored bytes were seen to be damaged: as if it were not there, until it is sent again.
    sa.Column("damaged", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)

points_table = sa.Table(
    "points",
    metadata,
    sa.Column("arrival", sa.Integer, primary_key=True),
    sa.Column("point", sa.String(32), nullable=False, unique=True),  # hexadecimal, for prefixes
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
    sa.Index("points_of_job", "host", "job", "arrival"),
    sqlite_autoincrement=True,
)

point_tags_table = sa.Table(
    "point_tags",
    metadata,
    sa.Column("tag", sa.String(255), primary_key=True),
    sa.Column("arrival", sa.Integer, sa.ForeignKey("points.arrival"), primary_key=True),
)
