"""SQLite files: opened with the settings that concurrent use needs, migrated, bounded in number.

A statement runs in its connection's thread, in order, and goes on when the task that awaits it is cancelled (a caller
who hangs up cancels the look-up of its number). So what must not be left half done is undone by statements queued
behind it, and opening and closing are shielded.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiosqlite

from tenancy.errors import StoreCorrupt, StoreError, StoreLocked

BUSY_TIMEOUT_MS = 5_000
WAL_RETRY_S = 0.01
MAX_OPEN_SHARDS = 256
"""Shard connections open at a time; each is up to three file descriptors and a thread. More users wait."""

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

Migrations = tuple[tuple[str, ...], ...]
"""The statements that lead from each schema version to the next; a file's version is its ``user_version``."""

SHARED_MIGRATIONS: Migrations = (
    (
        """CREATE TABLE tenants (
            tenant_id TEXT PRIMARY KEY,
            status TEXT NOT NULL CHECK (status IN ('active', 'suspended'))
        ) STRICT""",
        """CREATE TABLE numbers (
            number TEXT PRIMARY KEY,
            tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id)
        ) STRICT""",
        "CREATE INDEX numbers_by_tenant ON numbers (tenant_id)",
    ),
)
SHARD_MIGRATIONS: Migrations = (
    (
        """CREATE TABLE config_versions (
            version INTEGER PRIMARY KEY,
            content_hash TEXT NOT NULL,
            schema_version INTEGER NOT NULL,
            author TEXT NOT NULL,
            reason TEXT NOT NULL,
            created_at TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT""",
        """CREATE TABLE active_version (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            version INTEGER NOT NULL REFERENCES config_versions (version)
        ) STRICT""",
        """CREATE TABLE calls (
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
        ) STRICT""",
        "CREATE INDEX calls_by_start ON calls (started_at)",
    ),
    (
        # A version is what calls were answered with: it stays as it was written.
        """CREATE TRIGGER config_versions_stay BEFORE UPDATE ON config_versions
        BEGIN SELECT RAISE (ABORT, 'configuration versions are immutable'); END""",
        """CREATE TRIGGER config_versions_remain BEFORE DELETE ON config_versions
        BEGIN SELECT RAISE (ABORT, 'configuration versions are immutable'); END""",
        # A SIP Call-ID is the caller's choice and may come again, at another time.
        "CREATE UNIQUE INDEX calls_once ON calls (call_id, started_at)",
    ),
)


def _primary_code(error: sqlite3.Error) -> int:
    """SQLite's result code without its extension; 0 for an error of the Python module's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into `StoreError` with the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        primary = _primary_code(error)
        if primary in _LOCKED:
            raise StoreLocked(
                f"{path}: in use by another program for {BUSY_TIMEOUT_MS} ms: {error}"
            ) from error
        if primary in _CORRUPT:
            raise StoreCorrupt(f"{path}: damaged, or not a database of ours: {error}") from error
        raise StoreError(f"{path}: {error}") from error


async def unbroken(work: Coroutine[Any, Any, None]) -> None:
    """Await to the end even when cancelled meanwhile; the cancellation follows then."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        # The work's own failure is retrieved here and gives way to the cancellation.
        raise cancelled from task.exception()
    task.result()


async def open_database(path: Path, migrations: Migrations) -> aiosqlite.Connection:
    """Open a file, creating and migrating it. Raises `StoreError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent}: {error.strerror}") from error
    with store_errors(path):
        connection = await aiosqlite.connect(path, isolation_level=None)
        try:
            await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            await _use_wal(connection)
            await connection.execute("PRAGMA synchronous = NORMAL")
            await connection.execute("PRAGMA foreign_keys = ON")
            await _migrate(connection, path, migrations)
        except BaseException:
            await connection.close()
            raise
    return connection


async def _use_wal(connection: aiosqlite.Connection) -> None:
    """Turn to WAL, waiting for others who do the same with a new file.

    The change upgrades a read lock, where SQLite cannot let two wait for each other: it says "busy" at once, whatever
    ``busy_timeout`` is (https://sqlite.org/c3ref/busy_handler.html), so the waiting is done here.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _primary_code(error) not in _LOCKED or loop.time() >= give_up:
                raise
            await asyncio.sleep(WAL_RETRY_S)
        else:
            return


async def _migrate(connection: aiosqlite.Connection, path: Path, migrations: Migrations) -> None:
    version = await _version(connection)
    while version < len(migrations):
        async with transaction(connection, path):
            # Read again under the lock: another process may have been faster.
            version = await _version(connection)
            if version < len(migrations):
                for statement in migrations[version]:
                    await connection.execute(statement)
                version += 1
                await connection.execute(f"PRAGMA user_version = {version}")
    if version > len(migrations):
        raise StoreError(f"{path}: schema version {version} is newer than this program's {len(migrations)}")


async def _version(connection: aiosqlite.Connection) -> int:
    return int((await fetch(connection, "PRAGMA user_version"))[0][0])


async def fetch(connection: aiosqlite.Connection, query: str, *values: object) -> list[sqlite3.Row]:
    """All rows of a query that has few.

    In one piece: a cursor that is left behind by a cancelled task would hold its connection at an old snapshot.
    """
    return list(await connection.execute_fetchall(query, values))


@asynccontextmanager
async def transaction(connection: aiosqlite.Connection, path: Path) -> AsyncIterator[None]:
    """All of it or nothing. The caller makes sure that nobody else uses the connection meanwhile."""
    with store_errors(path):
        try:
            await connection.execute("BEGIN IMMEDIATE")
            yield
            await connection.execute("COMMIT")
        except BaseException:
            await unbroken(_roll_back(connection))
            raise


async def _roll_back(connection: aiosqlite.Connection) -> None:
    # None is open where BEGIN itself failed, or where COMMIT was done though its task was cancelled.
    with suppress(sqlite3.Error):
        await connection.execute("ROLLBACK")


@dataclass(slots=True)
class _Shard:
    """One tenant's file: its connection while open, and who uses or awaits it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    connection: aiosqlite.Connection | None = None
    users: int = 0
    working: bool = False


class Shards:
    """The tenants' databases, the most recently used of them open."""

    def __init__(self, directory: Path, limit: int = MAX_OPEN_SHARDS) -> None:
        self._directory = directory
        self._limit = limit
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._permits = asyncio.Semaphore(limit)
        """One for each shard at work: who has one and needs a connection finds an idle one to close."""
        self._opening = asyncio.Lock()
        self._open_count = 0
        self._closed = False

    @property
    def open_count(self) -> int:
        """Connections that are open; never above the limit."""
        return self._open_count

    def path(self, tenant_id: str) -> Path:
        """The file of a tenant; its id is safe in a name by its schema."""
        return self._directory / f"client-{tenant_id}.db"

    @asynccontextmanager
    async def use(self, tenant_id: str) -> AsyncIterator[aiosqlite.Connection]:
        """One tenant's connection, to one user at a time."""
        shard = self._shards.setdefault(tenant_id, _Shard())
        self._shards.move_to_end(tenant_id)
        shard.users += 1
        try:
            async with shard.lock, self._permits:
                shard.working = True
                try:
                    if shard.connection is None:
                        await unbroken(self._open(tenant_id, shard))
                    assert shard.connection is not None
                    yield shard.connection
                finally:
                    shard.working = False
        finally:
            shard.users -= 1
            self._forget_unused(tenant_id, shard)

    async def _open(self, tenant_id: str, shard: _Shard) -> None:
        async with self._opening:
            if self._closed:
                raise StoreError(f"{self.path(tenant_id)}: the registry is closed")
            while self._open_count >= self._limit:
                await self._close_one()
            shard.connection = await open_database(self.path(tenant_id), SHARD_MIGRATIONS)
            self._open_count += 1

    async def _close_one(self) -> None:
        """Close the connection that has been idle for longest."""
        tenant_id, shard = next(
            (tenant_id, shard)
            for tenant_id, shard in self._shards.items()
            if shard.connection is not None and not shard.working
        )
        await self._close(tenant_id, shard)

    async def _close(self, tenant_id: str, shard: _Shard) -> None:
        connection, shard.connection = shard.connection, None
        if connection is not None:
            try:
                await connection.close()
            finally:
                self._open_count -= 1
        self._forget_unused(tenant_id, shard)

    def _forget_unused(self, tenant_id: str, shard: _Shard) -> None:
        if shard.users == 0 and shard.connection is None and self._shards.get(tenant_id) is shard:
            del self._shards[tenant_id]

    async def close(self) -> None:
        """Close everything, each shard when its present user is done."""
        self._closed = True
        for tenant_id, shard in list(self._shards.items()):
            async with shard.lock:
                await self._close(tenant_id, shard)
