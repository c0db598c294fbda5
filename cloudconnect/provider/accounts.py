"""Layer 4: the service's own data base: tenants, credentials, sessions, events.

Only the Cloud Connect service holds it; movers have the catalogue of each repository instead
(:mod:`cloudconnect.repository.catalogue`). Everything is SQLAlchemy Core with Alembic migrations;
nothing here assumes SQLite. All methods block: the service calls them in its accounts thread.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import attrs
import sqlalchemy as sa
from alembic import command as alembic_command
from alembic.config import Config as AlembicConfig
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from cloudconnect.errors import LeaseEnded, NoSpace, NotFound, UsageError, WarningKind
from cloudconnect.events import SecurityWarning, SessionEvent
from cloudconnect.wire.scram import Verifier

#: A tenant's name: what SCRAM, SQL, file names and labels can all carry.
TENANT_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
#: Concurrent tasks of a tenant where its admin set nothing.
MAX_TASKS_DEFAULT = 4

#: What SQLite says where it has no room for the files that it keeps beside an open data base.
_NO_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)

metadata = sa.MetaData()

settings_table = sa.Table(
    "provider",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

tenants_table = sa.Table(
    "tenants",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("group_id", sa.LargeBinary(16), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False, default=False),
    sa.Column("lease_end", sa.String(10)),
    sa.Column("quota", sa.BigInteger),
    sa.Column("max_tasks", sa.Integer, nullable=False, default=MAX_TASKS_DEFAULT),
    sa.Column("modes", sa.String(64), nullable=False, default="tenant"),
    sa.Column("repository", sa.LargeBinary(16)),
    # The repository's encryption mode, what holds for its points, and whether nothing may go.
    sa.Column("mode", sa.String(16), nullable=False, server_default="tenant"),
    sa.Column("rules", sa.Text, nullable=False, server_default="{}"),
    sa.Column("frozen", sa.Boolean, nullable=False, server_default=sa.false()),
    # Up to which of the events it was told what was found in its repository.
    sa.Column("told", sa.Integer, nullable=False, server_default="0"),
)

credentials_table = sa.Table(
    "credentials",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.String(64), sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("label", sa.String(64), nullable=False),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("stored_key", sa.LargeBinary, nullable=False),
    sa.Column("server_key", sa.LargeBinary, nullable=False),
    sa.Column("iterations", sa.Integer, nullable=False),
    sa.Column("capabilities", sa.String(64), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("revoked", sa.Float),
)

sessions_table = sa.Table(
    "sessions",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("session", sa.String(32), nullable=False, unique=True),
    sa.Column("tenant", sa.String(64), nullable=False, index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("job_id", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("job", sa.String(255), nullable=False),
    sa.Column("peer", sa.String(64), nullable=False),
    sa.Column("started", sa.Float, nullable=False),
    sa.Column("ended", sa.Float),
    sa.Column("state", sa.String(24), nullable=False),
    sa.Column("key_a", sa.String(64), nullable=False),
    sa.Column("key_b", sa.String(16), nullable=False, default=""),
    sa.Column("summary", sa.Text, nullable=False, default="{}"),
)

events_table = sa.Table(
    "events",
    metadata,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("time", sa.Float, nullable=False),
    sa.Column("type", sa.String(8), nullable=False),
    sa.Column("name", sa.String(48), nullable=False, index=True),
    sa.Column("session", sa.String(32), nullable=False, index=True),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("reported_by", sa.String(16), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("fields", sa.Text, nullable=False),
)


@attrs.frozen(kw_only=True)
class Tenant:
    """What the provider agreed with one tenant.

    :ivar group: opaque 16 bytes that a gateway may share bandwidth by
    :ivar lease_end: last day of the lease, ``YYYY-MM-DD``, or None
    :ivar quota: bytes that may be stored, or None
    :ivar modes: at-rest modes that the tenant may choose from
    :ivar repository: its repository's 16 bytes, or None until it connects
    :ivar mode: the repository's encryption mode
    :ivar rules: what the provider demands and allows of how points are kept, as a map
        (:class:`cloudconnect.repository.rules.Rules`); empty: the defaults
    :ivar frozen: whether nothing may be deleted, expire or be collected
    """

    name: str
    group: bytes
    disabled: bool
    lease_end: str | None
    quota: int | None
    max_tasks: int
    modes: tuple[str, ...]
    repository: bytes | None
    mode: str = "tenant"
    rules: dict[str, Any] = attrs.field(factory=dict)
    frozen: bool = False

    @property
    def repository_rules(self) -> dict[str, Any]:
        """The rules as the repository gets them: where its admin set no size, the bin holds as much
        as the quota allows. Without any, who deletes, backs up and takes back in turn would make a
        provider store more and more beside the quota.
        """
        if self.rules.get("bin_bytes") is None and self.quota:
            return {**self.rules, "bin_bytes": self.quota}
        return self.rules

    def check_active(
        self,
        today: datetime.date,
        forbidden: str = "no new backups, restores go on for a grace time",
    ) -> None:
        """Whether new backups may start, and points be deleted.

        :param forbidden: what an ended lease does not allow, for the text
        :raises LeaseEnded: the lease has ended, or the tenant is disabled
        """
        if self.disabled:
            raise LeaseEnded(f"the provider has disabled tenant {self.name}; ask the provider")
        if self.lease_end is not None and today > datetime.date.fromisoformat(self.lease_end):
            raise LeaseEnded(
                f"the lease of tenant {self.name} ended on {self.lease_end}: {forbidden}; ask the "
                "provider"
            )


class Accounts:
    """The accounts data base.

    :param url: SQLAlchemy URL, such as ``sqlite:////srv/backup/accounts.sqlite``
    :raises UsageError: it was written by a newer release
    :raises NoSpace: the disk is so full that it cannot be opened
    """

    def __init__(self, url: str) -> None:
        read_only = _read_only(url)
        self._engine = sa.create_engine(read_only or url)
        if self._engine.dialect.name == "sqlite" and not read_only:
            sa.event.listen(self._engine, "connect", _durable_sqlite)
        try:
            self._migrate()
        except sa.exc.DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF not in _NO_ROOM:
                raise
            raise NoSpace(
                "the accounts data base cannot be opened: is the provider's disk full to the last "
                "byte?"
            ) from error

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write.

        :raises NoSpace: the disk is full or read-only
        """
        try:
            with self._engine.begin() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
            if code == sqlite3.SQLITE_FULL:
                raise NoSpace("the provider's disk is full") from error
            if code == sqlite3.SQLITE_READONLY:
                raise NoSpace("the provider's disk is read-only") from error
            raise

    def _migrate(self) -> None:
        config = AlembicConfig()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
        known = ScriptDirectory.from_config(config)
        with self._engine.connect() as connection:
            current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {s.revision for s in known.walk_revisions()}:
            raise UsageError(
                f"the accounts data base is of revision {current}, which this release does not "
                "know: it was written by a newer cloudconnect; upgrade this one"
            )
        if current != known.get_current_head():
            with self._engine.begin() as connection:
                config.attributes["connection"] = connection
                alembic_command.upgrade(config, "head")

    # --- the provider's own values ---------------------------------------------------------------

    def provider_value(self, name: str, size: int) -> bytes:
        """``size`` random bytes under ``name``: made at the first call, the same ever after."""
        query = sa.select(settings_table.c.value).where(settings_table.c.name == name)
        with self._engine.connect() as connection:
            value = connection.execute(query).scalar()
        if value is None:
            with self._writing() as connection:
                value = connection.execute(query).scalar()
                if value is None:
                    value = secrets.token_bytes(size)
                    connection.execute(settings_table.insert().values(name=name, value=value))
        return bytes(value)

    def value(self, name: str) -> bytes | None:
        """What :meth:`keep_value` has kept under ``name``, or None."""
        query = sa.select(settings_table.c.value).where(settings_table.c.name == name)
        with self._engine.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else bytes(found)

    def keep_value(self, name: str, value: bytes) -> None:
        """Keep ``value`` under ``name``, in the place of what is there."""
        t = settings_table
        with self._writing() as connection:
            change = t.update().where(t.c.name == name).values(value=value)
            if connection.execute(change).rowcount == 0:
                connection.execute(t.insert().values(name=name, value=value))

    # --- tenants ---------------------------------------------------------------------------------

    def add_tenant(
        self,
        name: str,
        verifier: Verifier,
        *,
        quota: int | None = None,
        lease_end: str | None = None,
        max_tasks: int = MAX_TASKS_DEFAULT,
        modes: tuple[str, ...] = ("tenant",),
    ) -> None:
        """Make a tenant with one credential that may do everything.

        :raises UsageError: a name that cannot be used, or that is taken; a date that is none
        """
        if not TENANT_NAME.match(name):
            raise UsageError(
                f"tenant name {name!r}: 1 to 64 of a-z 0-9 . _ -, beginning with a letter or digit"
            )
        _check_limits({"lease_end": lease_end, "max_tasks": max_tasks, "quota": quota})
        with self._writing() as connection:
            taken = sa.select(tenants_table.c.name).where(tenants_table.c.name == name)
            if connection.execute(taken).scalar() is not None:
                raise UsageError(f"there is a tenant {name} already")
            connection.execute(
                tenants_table.insert().values(
                    name=name,
                    group_id=secrets.token_bytes(16),
                    created=time.time(),
                    disabled=False,
                    lease_end=lease_end,
                    quota=quota,
                    max_tasks=max_tasks,
                    modes=",".join(modes),
                )
            )
            _add_credential(connection, name, verifier)

    def change_tenant(self, name: str, values: dict[str, Any]) -> None:
        """Change what is agreed with a tenant.

        :param values: of ``quota``, ``lease_end``, ``max_tasks``, ``modes``, ``rules``, ``frozen``
        :raises NotFound: there is no such tenant
        :raises UsageError: a value that cannot be used
        """
        _check_limits(values)
        columns = dict(values)
        if "modes" in columns:
            columns["modes"] = ",".join(columns["modes"])
        if "rules" in columns:
            columns["rules"] = json.dumps(columns["rules"], sort_keys=True)
        t = tenants_table
        with self._writing() as connection:
            change = t.update().where(t.c.name == name).values(columns or {"name": name})
            if connection.execute(change).rowcount != 1:
                raise NotFound(f"there is no tenant {name}")

    def change_verifier(self, name: str, verifier: Verifier) -> None:
        """Another login password for a tenant: those that it had end now."""
        t = credentials_table
        valid = t.update().where(t.c.tenant == name, t.c.revoked.is_(None))
        with self._writing() as connection:
            connection.execute(valid.values(revoked=time.time()))
            _add_credential(connection, name, verifier)

    def owner(self, repository: bytes) -> Tenant | None:
        """The tenant whose repository this is."""
        query = sa.select(tenants_table).where(tenants_table.c.repository == repository)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _tenant(row)

    def untold(self, tenant: str, limit: int) -> list[tuple[int, SecurityWarning]]:
        """The first warnings of what was found in a tenant's repository that it was not told yet.

        :return: each with the number to give to :meth:`tell`
        """
        e, t = events_table.c, tenants_table.c
        query = (
            sa.select(e.seq, e.fields)
            .join(tenants_table, t.name == e.tenant)
            .where(e.tenant == tenant, e.type == "warning", e.session == "", e.seq > t.told)
            .where(e.name == WarningKind.STORED_DATA_DAMAGED.value)
            .order_by(e.seq)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [(row.seq, SecurityWarning.from_dict(json.loads(row.fields))) for row in rows]

    def tell(self, tenant: str, number: int) -> None:
        """Note that a tenant has been told of everything up to this number."""
        t = tenants_table
        with self._writing() as connection:
            connection.execute(
                t.update().where(t.c.name == tenant, t.c.told < number).values(told=number)
            )

    def tenant(self, name: str) -> Tenant:
        """The tenant of this name.

        :raises NotFound: there is none
        """
        query = sa.select(tenants_table).where(tenants_table.c.name == name)
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            raise NotFound(f"there is no tenant {name}")
        return _tenant(row)

    def tenants(self) -> list[dict[str, Any]]:
        """Every tenant as a map for listings; no verifier in it."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(tenants_table).order_by(tenants_table.c.name))
            return [
                {
                    "name": row["name"],
                    "created": row["created"],
                    "disabled": bool(row["disabled"]),
                    "lease_end": row["lease_end"],
                    "quota": row["quota"],
                    "max_tasks": row["max_tasks"],
                    "modes": row["modes"].split(","),
                    "repository": row["repository"].hex() if row["repository"] else None,
                    "encryption": row["mode"] if row["repository"] else None,
                    "frozen": bool(row["frozen"]),
                }
                for row in rows.mappings()
            ]

    def verifier(self, tenant: str) -> Verifier | None:
        """What proves the tenant's login password, or None for an unknown tenant."""
        c = credentials_table.c
        query = (
            sa.select(c.salt, c.stored_key, c.server_key, c.iterations)
            .where(c.tenant == tenant, c.revoked.is_(None))
            .order_by(c.id.desc())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None else Verifier(*row)

    def set_repository(self, tenant: str, repository: bytes, mode: str = "tenant") -> None:
        """Note that ``repository`` is the tenant's.

        :param mode: its encryption mode
        :raises UsageError: the tenant has another one already, or it is another tenant's
        """
        t = tenants_table
        with self._writing() as connection:
            owner = sa.select(t.c.name).where(t.c.repository == repository)
            if connection.execute(owner).first() is not None:
                raise UsageError("that repository belongs to a tenant already")
            done = connection.execute(
                t.update()
                .where(t.c.name == tenant, t.c.repository.is_(None))
                .values(repository=repository, mode=mode)
            )
            if done.rowcount != 1:
                raise UsageError(f"tenant {tenant} has a repository already")

    # --- sessions --------------------------------------------------------------------------------

    def session_started(self, **values: Any) -> None:
        """Keep a new session: the columns of the table ``sessions`` by name."""
        with self._writing() as connection:
            connection.execute(sessions_table.insert().values(state="started", **values))

    def session_ended(self, session: str, state: str, summary: dict[str, Any]) -> None:
        """Keep how a session ended; the first word stands."""
        t = sessions_table
        with self._writing() as connection:
            connection.execute(
                t.update()
                .where(t.c.session == session, t.c.ended.is_(None))
                .values(ended=time.time(), state=state, summary=json.dumps(summary))
            )

    def abandon_sessions(self) -> None:
        """After a restart: no session of the last process is still running."""
        t = sessions_table
        with self._writing() as connection:
            connection.execute(
                t.update().where(t.c.ended.is_(None)).values(ended=time.time(), state="interrupted")
            )

    def sessions(self, tenant: str, after: int, limit: int) -> list[dict[str, Any]]:
        """Sessions in the order they started, from the one after ``after``."""
        t = sessions_table
        query = sa.select(t).where(t.c.seq > after).order_by(t.c.seq).limit(limit)
        if tenant:
            query = query.where(t.c.tenant == tenant)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return [
                {**row, "cursor": row["seq"], "summary": json.loads(row["summary"])} for row in rows
            ]

    # --- events ----------------------------------------------------------------------------------

    def keep_event(self, event: SessionEvent, tenant: str, reported_by: str) -> None:
        """Keep one step of a session; the identifier of its Key B with the session itself."""
        if event.name == "key_b_received":
            t = sessions_table
            with self._writing() as connection:
                connection.execute(
                    t.update()
                    .where(t.c.session == event.session)
                    .values(key_b=str(event.fields.get("key", ""))[:16])
                )
        values = {
            "time": event.time,
            "type": "event",
            "name": event.name,
            "session": event.session,
            "text": event.text,
            "fields": json.dumps(event.fields),
        }
        self._keep(tenant, reported_by, values)

    def keep_warning(self, warning: SecurityWarning, reported_by: str) -> None:
        """Keep a security warning."""
        values = {
            "time": warning.time,
            "type": "warning",
            "name": warning.kind.value,
            "session": warning.session,
            "text": warning.text,
            "fields": json.dumps(warning.as_dict()),
        }
        self._keep(warning.tenant, reported_by, values)

    def _keep(self, tenant: str, reported_by: str, values: dict[str, Any]) -> None:
        with self._writing() as connection:
            connection.execute(
                events_table.insert().values(tenant=tenant, reported_by=reported_by, **values)
            )

    def events(self, filters: dict[str, str], after: int, limit: int) -> list[dict[str, Any]]:
        """Events and warnings as they came, from the one after ``after``.

        :param filters: ``tenant``, ``session``, ``type``, ``name``: equal to, where given
        """
        t = events_table
        query = sa.select(t).where(t.c.seq > after).order_by(t.c.seq).limit(limit)
        for name in ("tenant", "session", "type", "name"):
            if filters.get(name):
                query = query.where(t.c[name] == filters[name])
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings()
            return [
                {**row, "cursor": row["seq"], "fields": json.loads(row["fields"])} for row in rows
            ]


def _tenant(row: sa.RowMapping) -> Tenant:
    return Tenant(
        name=row["name"],
        group=bytes(row["group_id"]),
        disabled=bool(row["disabled"]),
        lease_end=row["lease_end"],
        quota=row["quota"],
        max_tasks=row["max_tasks"],
        modes=tuple(row["modes"].split(",")),
        repository=None if row["repository"] is None else bytes(row["repository"]),
        mode=row["mode"],
        rules=json.loads(row["rules"]),
        frozen=bool(row["frozen"]),
    )


def _check_limits(values: dict[str, Any]) -> None:
    lease_end = values.get("lease_end")
    if lease_end is not None:
        try:
            datetime.date.fromisoformat(lease_end)
        except (TypeError, ValueError):
            raise UsageError(f"lease end {lease_end!r}: want YYYY-MM-DD") from None
    quota = values.get("quota")
    if values.get("max_tasks", 1) < 1 or (quota is not None and quota < 0):
        raise UsageError("a tenant has at least 1 task and a quota of at least 0 bytes")


def _add_credential(connection: sa.Connection, tenant: str, verifier: Verifier) -> None:
    connection.execute(
        credentials_table.insert().values(
            tenant=tenant,
            label="default",
            created=time.time(),
            capabilities="write,read,delete,admin",
            **attrs.asdict(verifier),
        )
    )


def _read_only(url: str) -> str | None:
    """The URL for reading only, where SQLite's file lies on a file system that is read-only."""
    made = sa.make_url(url)
    path = made.database
    if made.get_backend_name() != "sqlite" or not path or not Path(path).exists():
        return None
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return None
    # A file that nobody can write needs no lock, and its directory no room for one.
    immutable = not Path(f"{path}-wal").exists()
    query = {"uri": "true", "mode": "ro", **({"immutable": "1"} if immutable else {})}
    return made.set(database=f"file:{quote(path)}", query=query).render_as_string()


def _durable_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA busy_timeout=30000")
    cursor.close()
