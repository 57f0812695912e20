"""The tables, as SQLAlchemy core knows them; `tenancy.migrations` makes them.

Addresses and tenants' status are shared. What belongs to one tenant has the same columns in both backings; in Postgres,
where all tenants share a table, each row names its tenant besides. That column is never written or asked for: its
default is the session's tenant, and row-level security shows a session no other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import BigInteger, Column, DateTime, Dialect, Integer, MetaData, Table, Text, text
from sqlalchemy.types import TypeDecorator, TypeEngine


class Moment(TypeDecorator[datetime]):
    """A time with its zone: ISO 8601 text in SQLite, ``timestamptz`` (as UTC) in Postgres."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime] | TypeEngine[str]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | str | None:
        return value if value is None or dialect.name == "postgresql" else value.isoformat()

    def process_result_value(self, value: datetime | str | None, dialect: Dialect) -> datetime | None:
        del dialect
        return datetime.fromisoformat(value) if isinstance(value, str) else value and value.astimezone(UTC)


class PeerText(TypeDecorator[str]):
    """Text of a peer's, as the database can take it: no lone surrogates, and in Postgres no NUL."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        text = value.encode("utf-8", "replace").decode()
        return text.replace("\0", "?") if dialect.name == "postgresql" else text


class Words(TypeDecorator[frozenset[str]]):
    """A set of texts that have no spaces in them, in order."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: frozenset[str] | None, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else " ".join(sorted(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> frozenset[str] | None:
        del dialect
        return None if value is None else frozenset(value.split())


@dataclass(frozen=True, slots=True)
class SharedTables:
    """What is asked before the tenant is known."""

    tenants: Table
    addresses: Table
    config_changes: Table
    """The number of each tenant's latest change; see `tenancy.feed_repository`."""
    trials_due: Table


@dataclass(frozen=True, slots=True)
class TenantTables:
    """What belongs to one tenant."""

    config_versions: Table
    active_version: Table
    calls: Table
    placement: Table
    """SQLite's alone: whether the tenant is ``here`` or has left for ``postgres``; one row."""
    version_states: Table
    """What became of each version; see `tenancy.migrations.tenant.versions.v0004_lifecycle`."""
    trials: Table
    followed_file: Table
    config_log: Table
    scope: tuple[str, ...]
    """The columns that name the tenant, first in every key; none in a file of its own."""


def shared_tables() -> SharedTables:
    """The shared tables."""
    metadata = MetaData()
    return SharedTables(
        tenants=Table(
            "tenants",
            metadata,
            Column("tenant_id", Text, primary_key=True),
            Column("status", Text, nullable=False),
            Column("moved_to", Text),
        ),
        addresses=Table(
            "addresses",
            metadata,
            Column("address", Text, primary_key=True),
            Column("tenant_id", Text, nullable=False),
            Column("trunks", Words, nullable=False),
            Column("origins", Words, nullable=False),
        ),
        config_changes=Table(
            "config_changes",
            metadata,
            Column("tenant_id", Text, primary_key=True),
            Column("change", BigInteger, nullable=False),
        ),
        trials_due=Table(
            "trials_due",
            metadata,
            Column("tenant_id", Text, primary_key=True),
            Column("due_at_ms", BigInteger, nullable=False),
        ),
    )


def tenant_tables(scope: tuple[str, ...] = ()) -> TenantTables:
    """One tenant's tables; with ``scope`` (``("tenant_id",)``) as they are where tenants share them."""
    metadata = MetaData()
    return TenantTables(
        config_versions=Table(
            "config_versions",
            metadata,
            *_scope_columns(scope),
            Column("version", Integer, primary_key=True, autoincrement=False),
            Column("content_hash", Text, nullable=False),
            Column("schema_version", Integer, nullable=False),
            Column("author", PeerText, nullable=False),
            Column("reason", PeerText, nullable=False),
            Column("created_at", Moment, nullable=False),
            Column("body", Text, nullable=False),
        ),
        active_version=Table(
            "active_version",
            metadata,
            *_scope_columns(scope),
            Column("only_row", Integer, primary_key=True, autoincrement=False),
            Column("version", Integer, nullable=False),
        ),
        calls=Table(
            "calls",
            metadata,
            *_scope_columns(scope),
            Column("call_key", BigInteger, primary_key=True, autoincrement=True),
            Column("call_id", PeerText, nullable=False),
            Column("called", PeerText, nullable=False),
            Column("caller", PeerText, nullable=False),
            Column("config_version", Integer, nullable=False),
            Column("started_at", Moment, nullable=False),
            Column("ended_at", Moment, nullable=False),
            Column("cause", PeerText, nullable=False),
            Column("transcript", Text, nullable=False),
            Column("messages", Text, nullable=False),
            Column("providers", Text, nullable=False),
        ),
        placement=Table("placement", metadata, Column("store", Text, nullable=False)),
        version_states=Table(
            "version_states",
            metadata,
            *_scope_columns(scope),
            Column("version", Integer, primary_key=True, autoincrement=False),
            Column("state", Text, nullable=False),
            Column("restores", Integer),
            Column("changed_by", PeerText),
            Column("changed_reason", PeerText),
            Column("changed_at", Moment),
        ),
        trials=Table(
            "trials",
            metadata,
            *_scope_columns(scope),
            Column("version", Integer, primary_key=True, autoincrement=False),
            Column("baseline", Integer, nullable=False),
            Column("share", Integer, nullable=False),
            Column("ends_at_ms", BigInteger, nullable=False),
            Column("running", Integer, nullable=False),
            Column("body", Text, nullable=False),
        ),
        followed_file=Table(
            "followed_file",
            metadata,
            *_scope_columns(scope),
            Column("only_row", Integer, primary_key=True, autoincrement=False),
            Column("content_hash", Text, nullable=False),
        ),
        config_log=Table(
            "config_log",
            metadata,
            *_scope_columns(scope),
            Column("entry", BigInteger, primary_key=True, autoincrement=True),
            Column("at", Moment, nullable=False),
            Column("author", PeerText, nullable=False),
            Column("deed", Text, nullable=False),
            Column("version", Integer, nullable=False),
            Column("reason", PeerText, nullable=False),
        ),
        scope=scope,
    )


def _scope_columns(scope: tuple[str, ...]) -> list[Column[str]]:
    # The default is the table's; it is said here so that no statement gives the column a value.
    default = text("current_setting('app.tenant_id', true)")
    return [Column(name, Text, primary_key=True, server_default=default) for name in scope]
