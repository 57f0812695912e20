"""The Postgres that the configuration names: reached, its role kept to row-level security, its schema the program's.

In a transaction that may not write (``default_transaction_read_only``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from config.node import NodeConfig
from mediaserver.doctor.checks import Check, error, ok, warning
from tenancy.errors import StoreError
from tenancy.figures import NodeMinute, NodeRow
from tenancy.node_repository import NodeRepository
from tenancy.postgres_database import postgres_error, postgres_url
from tenancy.postgres_store import SCOPED_TABLES
from tenancy.schema_history import SchemaHistory

NAME: Final = "postgres"
_ROLE: Final = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
_FORCED: Final = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
    " AND relrowsecurity AND relforcerowsecurity"
)
_ROOM: Final = (
    "SELECT (SELECT count(*) FROM pg_stat_activity), current_setting('max_connections')::int, version()"
)


@dataclass(frozen=True, slots=True)
class Postgres:
    """What it says; empty where it cannot be read."""

    checks: list[Check]
    nodes: tuple[NodeRow, ...] = ()
    minutes: tuple[NodeMinute, ...] = ()


def postgres(config: NodeConfig, environ: Mapping[str, str], since_minute: int) -> Postgres:
    """Check the database, where the node uses one."""
    if config.store.kind != "postgres" and config.store.postgres is None:
        return Postgres([])
    settings = config.store.postgres_or_default
    url = environ.get(settings.url_env, "")
    if not url.strip():
        todo = "set it to postgresql://role:password@host:5432/database; see store.postgres.url_env"
        return Postgres([error(NAME, f"{settings.url_env} is not set", todo)])
    try:
        engine = create_engine(
            postgres_url(url, settings.url_env),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args={
                "application_name": "mediaserver doctor",
                "connect_timeout": max(2, round(settings.wait_ms / 1_000)),
                "options": f"-c default_transaction_read_only=on -c statement_timeout={2 * settings.wait_ms}",
            },
        )
    except StoreError as fault:
        return Postgres([error(NAME, str(fault), "correct the URL")])
    try:
        with engine.connect() as connection:
            return _look(connection, since_minute)
    except DBAPIError as fault:
        # The text never has the URL: it may hold a password.
        todo = "see whether the server runs and lets this role in; tenants that are there get no calls"
        return Postgres([error(NAME, str(postgres_error(fault, NAME)), todo)])
    except SQLAlchemyError as fault:
        return Postgres([error(NAME, type(fault).__name__, "see the server's log")])
    finally:
        engine.dispose()


def _look(connection: Connection, since_minute: int) -> Postgres:
    def asked(statement: str) -> list[Any]:
        return list(connection.exec_driver_sql(statement))

    used, most, version = asked(_ROOM)[0]
    said = f"{str(version).partition(' on ')[0]}, {used} of {most} connections"
    if asked(_ROLE)[0][0]:
        todo = "use a role of NOSUPERUSER NOBYPASSRLS: tenants would not be kept apart"
        return Postgres([error(NAME, f"{said}; its role may pass over row-level security", todo)])
    tables = {
        name
        for (name,) in asked(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace"
        )
    }
    if not {"shared_schema", "tenant_schema"} <= tables:
        todo = "start a node on it, or migrate a tenant: it makes the tables"
        return Postgres([warning(NAME, f"{said}; empty", todo)])
    unforced = sorted(set(SCOPED_TABLES) & tables - {name for (name,) in asked(_FORCED)})
    if unforced:
        todo = "; ".join(
            f"ALTER TABLE {each} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY" for each in unforced
        )
        return Postgres([error(NAME, f"row-level security is not forced on {', '.join(unforced)}", todo)])
    behind = []
    for name in ("shared", "tenant"):
        ((found,),) = asked(f"SELECT version_num FROM {name}_schema")
        if found != (head := SchemaHistory(name).newest):
            behind.append((name, found, head))
    nodes: tuple[NodeRow, ...] = ()
    minutes: tuple[NodeMinute, ...] = ()
    if "node_minutes" in tables:
        repository = NodeRepository()
        nodes = tuple(NodeRow(*row) for row in connection.execute(repository.nodes_query))
        rows = connection.execute(repository.minutes_query, {"since": since_minute})
        minutes = tuple(NodeMinute(*row) for row in rows)
    return Postgres([_schema(said, behind)], nodes, minutes)


def _schema(said: str, behind: list[tuple[str, str, str]]) -> Check:
    if not behind:
        return ok(NAME, f"{said}; row-level security forced, schema up to date")
    name, found, head = behind[0]
    if found > head:
        return error(NAME, f"{said}; {name} schema {found} is newer than {head}", "run the newer release")
    todo = "back it up and start the node: it brings the schema up to date"
    return warning(NAME, f"{said}; {name} schema {found}, this program's is {head}", todo)
