"""SQLite files: opened with the settings that concurrent readers need, migrated, bounded in number."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiosqlite

from tenancy.errors import StoreError

BUSY_TIMEOUT_MS = 5_000
MAX_OPEN_SHARDS = 256
"""Shard connections kept open; each is a file descriptor or three and a thread."""

SHARED_MIGRATIONS = (
    """
    CREATE TABLE tenants (
        tenant_id TEXT PRIMARY KEY,
        status TEXT NOT NULL CHECK (status IN ('active', 'suspended'))
    ) STRICT;
    CREATE TABLE numbers (
        number TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id)
    ) STRICT;
    CREATE INDEX numbers_by_tenant ON numbers (tenant_id);
    """,
)
SHARD_MIGRATIONS = (
    """
    CREATE TABLE config_versions (
        version INTEGER PRIMARY KEY,
        content_hash TEXT NOT NULL,
        schema_version INTEGER NOT NULL,
        author TEXT NOT NULL,
        reason TEXT NOT NULL,
        created_at TEXT NOT NULL,
        body TEXT NOT NULL
    ) STRICT;
    CREATE TABLE active_version (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        version INTEGER NOT NULL REFERENCES config_versions (version)
    ) STRICT;
    CREATE TABLE calls (
        call_key INTEGER PRIMARY KEY,
        call_id TEXT NOT NULL,
        called TEXT NOT NULL,
        caller TEXT NOT NULL,
        config_version INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        ended_at TEXT NOT NULL,
        cause TEXT NOT NULL,
        transcript TEXT NOT NULL,
        messages TEXT NOT NULL
    ) STRICT;
    CREATE INDEX calls_by_start ON calls (started_at);
    """,
)


async def open_database(path: Path, migrations: tuple[str, ...]) -> aiosqlite.Connection:
    """Open a file, creating and migrating it; raises `StoreError` that names it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = await aiosqlite.connect(path, isolation_level=None)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be opened: {error}") from error
    try:
        await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = NORMAL")
        await connection.execute("PRAGMA foreign_keys = ON")
        await _migrate(connection, path, migrations)
    except sqlite3.Error as error:
        await connection.close()
        raise StoreError(f"{path}: {error}") from error
    except StoreError:
        await connection.close()
        raise
    return connection


async def _migrate(connection: aiosqlite.Connection, path: Path, migrations: tuple[str, ...]) -> None:
    row = await (await connection.execute("PRAGMA user_version")).fetchone()
    version = int(row[0]) if row else 0
    if version > len(migrations):
        raise StoreError(f"{path}: schema version {version} is newer than this program's {len(migrations)}")
    for number, script in enumerate(migrations[version:], start=version + 1):
        # One script, one transaction: a crash leaves the old schema or the new one.
        await connection.executescript(f"BEGIN IMMEDIATE;{script}PRAGMA user_version = {number};COMMIT;")


@asynccontextmanager
async def transaction(connection: aiosqlite.Connection, path: Path) -> AsyncIterator[None]:
    """All of it or nothing; SQLite's errors become `StoreError`."""
    try:
        await connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            await connection.execute("ROLLBACK")
            raise
        await connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error


class Shards:
    """The tenants' databases, the most recently used of them open."""

    def __init__(self, directory: Path, limit: int = MAX_OPEN_SHARDS) -> None:
        self._directory = directory
        self._limit = limit
        self._open: OrderedDict[str, aiosqlite.Connection] = OrderedDict()
        self._in_use: dict[str, int] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def path(self, tenant_id: str) -> Path:
        """The file of a tenant; its id is safe in a name by its schema."""
        return self._directory / f"client-{tenant_id}.db"

    @asynccontextmanager
    async def use(self, tenant_id: str) -> AsyncIterator[aiosqlite.Connection]:
        """One tenant's connection, to one user at a time."""
        lock = self._locks.setdefault(tenant_id, asyncio.Lock())
        self._in_use[tenant_id] = self._in_use.get(tenant_id, 0) + 1
        try:
            async with lock:
                connection = self._open.pop(tenant_id, None)
                if connection is None:
                    connection = await open_database(self.path(tenant_id), SHARD_MIGRATIONS)
                self._open[tenant_id] = connection
                yield connection
        finally:
            self._in_use[tenant_id] -= 1
            if self._in_use[tenant_id] == 0:
                del self._in_use[tenant_id]
                self._locks.pop(tenant_id, None)
            await self._close_excess()

    async def _close_excess(self) -> None:
        idle = [tenant_id for tenant_id in self._open if tenant_id not in self._in_use]
        for tenant_id in idle[: max(0, len(self._open) - self._limit)]:
            await self._open.pop(tenant_id).close()

    async def close(self) -> None:
        """Close everything."""
        while self._open:
            _, connection = self._open.popitem()
            await connection.close()
