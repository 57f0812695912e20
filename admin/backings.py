"""Where the admin API's tables are: ``admin.db`` in the data folder, or the tenants' Postgres database."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from admin.errors import Unavailable
from admin.sql_store import SqlStore
from config.node import NodeConfig, PostgresConfig
from tenancy.database import Database, Work, open_database
from tenancy.errors import StoreError, StoreFull, StoreLocked, StoreUnavailable
from tenancy.schema_history import SchemaHistory

if TYPE_CHECKING:
    from tenancy.postgres_database import PostgresDatabase

T = TypeVar("T")

FILE: Final = "admin.db"
MIGRATIONS: Final = Path(__file__).parent / "migrations"
CONNECTIONS_MAX: Final = 4
"""Of Postgres, besides the tenants'."""


class SqliteFile:
    """`admin.sql_store.Backing` in a file. Two connections: who reads waits for no writer, and sees what is committed."""

    def __init__(self, path: Path, reader: Database, writer: Database) -> None:
        self._path = path
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, path: Path) -> SqliteFile:
        """Open the file, creating it (mode 0600) and its schema. Raises `StoreError`."""
        history = SchemaHistory("admin", MIGRATIONS)
        await asyncio.to_thread(_create, path)
        writer = await open_database(path, history)
        try:
            # A token that was revoked is still revoked after a power cut.
            await writer.read(lambda connection: connection.exec_driver_sql("PRAGMA synchronous = FULL"))
            reader = await open_database(path, history)
        except BaseException:
            await writer.close()
            raise
        return cls(path, reader, writer)

    @property
    def place(self) -> str:
        return str(self._path)

    async def read(self, work: Work[T]) -> T:
        return await self._reader.read(work)

    async def write(self, work: Work[T]) -> T:
        return await self._writer.write(work)

    async def close(self) -> None:
        await self._reader.close()
        await self._writer.close()

    def told(self, error: StoreError) -> str:
        # Which folder it is in is no client's business; the log has it, as the cause.
        return str(error).replace(f"{self._path.parent}{os.sep}", "")


class PostgresTables:
    """`admin.sql_store.Backing` in the tenants' Postgres database, on connections of its own."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    @classmethod
    async def open(cls, url: str, config: PostgresConfig) -> PostgresTables:
        """Connect and bring the schema up to date. Raises `StoreError`."""
        from tenancy.postgres_database import PostgresDatabase  # a node on SQLite does without the driver

        most = min(config.connections_max, CONNECTIONS_MAX)
        sizes = {"connections_kept": 1, "connections_max": most}
        opened = cls(PostgresDatabase(url, config.model_copy(update=sizes)))
        history = SchemaHistory("admin", MIGRATIONS)
        try:
            await opened.write(lambda connection: connection.run_sync(history.upgrade, opened.place))
        except BaseException:
            await opened.close()
            raise
        return opened

    @property
    def place(self) -> str:
        return self._database.place

    async def read(self, work: Work[T]) -> T:
        return await self.write(work)

    async def write(self, work: Work[T]) -> T:
        return await self._database.write(work)

    async def close(self) -> None:
        await self._database.close()

    def told(self, error: StoreError) -> str:
        # The driver's text names hosts and roles; the log has it, as the cause.
        match error:
            case StoreLocked():
                return "postgres: busy; trying again may help"
            case StoreFull():
                return "postgres: no room is left to write"
            case StoreUnavailable():
                return "postgres: cannot be reached"
            case _:
                return "postgres: cannot be used"


async def open_admin_store(config: NodeConfig, environ: Mapping[str, str]) -> SqlStore:
    """The store that a node's configuration names. Raises `Unavailable`, with the whole path of a file."""
    try:
        if config.store.kind == "postgres":
            postgres = config.store.postgres_or_default
            url = environ.get(postgres.url_env, "")
            if not url.strip():
                raise StoreError(f"the store is Postgres, and {postgres.url_env} is not set")
            return SqlStore(await PostgresTables.open(url, postgres))
        return SqlStore(await SqliteFile.open(Path(config.data_dir) / FILE))
    except StoreError as error:
        raise Unavailable(str(error)) from error


def _create(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # SQLite gives its -wal and -shm files the permissions of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
