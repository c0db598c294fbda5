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
    # Which of the descriptions in the blob store this one is: see repository.descriptions.
    sa.Column("description_revision", sa.Integer, nullable=False, server_default="0"),
    # Nothing is deleted, expired, collected or removed while this is set.
    sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    # Counts fences: see repository.leases.
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
    # The expiry clock: the time of day when it was last looked at, and the seconds it has counted.
    sa.Column("clock_seen", sa.Float, nullable=False, server_default="0"),
    sa.Column("clock_passed", sa.Float, nullable=False, server_default="0"),
    # What the provider demands and allows: see repository.rules.
    sa.Column("rules", sa.JSON, nullable=False, server_default="{}"),
    # Bytes that are live, in the bin, and neither, when they were last counted.
    sa.Column("measured", sa.JSON, nullable=False, server_default="{}"),
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
    # The fence behind which it was indexed, and that behind which it has nothing that is needed.
    sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("retired", sa.BigInteger),
    # When its bytes were last read and compared, in seconds since 1970.
    sa.Column("scrubbed", sa.Float),
    # The job run that stored it; and whether that was refused: then it is not kept for another try.
    sa.Column("job", sa.LargeBinary(16)),
    sa.Column("released", sa.Boolean, nullable=False, server_default=sa.false()),
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
    # The fence behind which nobody may count on it any more; 0: it stays.
    sa.Column("condemned", sa.BigInteger, nullable=False, server_default="0"),
    sqlite_with_rowid=False,
)
sa.Index(
    "blobs_condemned",
    blobs_table.c.condemned,
    sqlite_where=blobs_table.c.condemned > 0,
    postgresql_where=blobs_table.c.condemned > 0,
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
    # Bytes that its session added to packs.
    sa.Column("bytes_stored", sa.BigInteger, nullable=False, server_default="0"),
    # The bin: since when, by whom, until when by the time of day and by the expiry clock.
    sa.Column("deleted_time", sa.Float),
    sa.Column("deleted_by", sa.String(16)),
    sa.Column("bin_until", sa.Float),
    sa.Column("bin_clock", sa.Float),
    # The lock: until when, likewise.
    sa.Column("locked_until", sa.Float),
    sa.Column("locked_clock", sa.Float),
    # When it left for good; the row stays to say so.
    sa.Column("removed_time", sa.Float),
    sa.Index("points_of_job", "host", "job", "arrival"),
    sqlite_autoincrement=True,
)

point_tags_table = sa.Table(
    "point_tags",
    metadata,
    sa.Column("tag", sa.String(255), primary_key=True),
    sa.Column("arrival", sa.Integer, sa.ForeignKey("points.arrival"), primary_key=True),
)

heads_table = sa.Table(
    "heads",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    sa.Column("signature", sa.LargeBinary(64), nullable=False),
    sa.Column("point", sa.String(32), nullable=False),  # hexadecimal; empty: of a description
)

retention_table = sa.Table(
    "retention",
    metadata,
    # Empty: of every host, of every job.
    sa.Column("host", sa.String(255), primary_key=True),
    sa.Column("job", sa.String(255), primary_key=True),
    sa.Column("policy", sa.JSON(none_as_null=True)),  # none: keep everything
    sa.Column("set_time", sa.Float, nullable=False),
    # What takes its place, from when by the time of day and by the expiry clock.
    sa.Column("has_pending", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("pending", sa.JSON(none_as_null=True)),
    sa.Column("pending_time", sa.Float),
    sa.Column("pending_clock", sa.Float),
)

reservations_table = sa.Table(
    "reservations",
    metadata,
    # A session's lease, the bytes that it may still store, packs that it is about to index.
    sa.Column("lease", sa.String(64), primary_key=True),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("packs", sa.JSON, nullable=False),
)

orphans_table = sa.Table(
    "orphans",
    metadata,
    # Names in the blob store that no row knew when the fence was raised.
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)
