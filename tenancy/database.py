"""One SQLite file: opened with the settings that concurrent use needs, brought to the present schema, one user at a time.

A statement runs in its connection's thread, and goes on when the task that awaits it is cancelled (a caller who hangs up
cancels the look-up of its number). So what was begun is carried out, and the cancellation follows: `unbroken`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy import Connection, Select, event
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from tenancy.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, TenantElsewhere
from tenancy.figures import StoreFigures
from tenancy.schema_history import SchemaHistory

BUSY_TIMEOUT_MS = 5_000
WAL_RETRY_S = 0.01
WRITES = "writes"
"""The execution option of a connection whose transaction takes the write lock at once."""

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ELSEWHERE = "the tenant is in postgres"
"""What a file's own triggers say (`tenancy.migrations.tenant`)."""

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What is done with a connection, within one transaction."""


def _primary_code(error: BaseException | None) -> int:
    """SQLite's result code without its extension; 0 for an error of the Python module's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


@contextmanager
def store_errors(path: Path, figures: StoreFigures | None = None) -> Iterator[None]:
    """Turn SQLite's errors into `StoreError` with the file's name, and without what was to be written."""
    try:
        yield
    except (sqlite3.Error, SQLAlchemyError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        primary = _primary_code(cause)
        if primary in _LOCKED:
            if figures is not None:
                figures.was_locked()
            raise StoreLocked(
                f"{path}: in use by another program for {BUSY_TIMEOUT_MS} ms: {cause}"
            ) from error
        if primary in _CORRUPT:
            raise StoreCorrupt(f"{path}: damaged, or not a database of ours: {cause}") from error
        if primary == sqlite3.SQLITE_FULL:
            raise StoreFull(f"{path}: no room is left on the disk: {cause}") from error
        if _ELSEWHERE in str(cause):
            raise TenantElsewhere(f"{path}: {cause}") from error
        raise StoreError(f"{path}: {cause}") from error


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
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
    return task.result()


@dataclass(frozen=True, slots=True)
class PreparedQuery:
    """A query's text and the names of its parameters, in order; its results are text and integers alone."""

    sql: str
    parameters: tuple[str, ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    """The parameters whose values are the query's own."""


def prepare(query: Select[Any]) -> PreparedQuery:
    """Compile a query once, for what every call asks."""
    compiled = query.compile(dialect=sqlite.dialect())
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return PreparedQuery(str(compiled), tuple(compiled.positiontup or ()), constants)


class Database:
    """A file and its connection; see `open_database`.

    What every call asks goes straight to the driver: SQLAlchemy's adapter visits the connection's thread five times for a
    query, and its engine takes longer to make than the file takes to open. The engine is made for what is asked less often.
    """

    def __init__(
        self, path: Path, connection: aiosqlite.Connection, figures: StoreFigures | None = None
    ) -> None:
        self.path = path
        self._figures = figures or StoreFigures()
        self._connection = connection
        self._engine: AsyncEngine | None = None
        self._using = asyncio.Lock()
        self._closed = False

    @property
    def engine(self) -> AsyncEngine:
        """The engine on the file's one connection."""
        if self._engine is None:
            self._engine = create_async_engine(
                "sqlite+aiosqlite:///a-file",  # The creator knows which.
                async_creator=self._the_connection,
                poolclass=StaticPool,
                hide_parameters=True,
            )
            event.listen(self._engine.sync_engine, "begin", _begin)
        return self._engine

    async def _the_connection(self) -> aiosqlite.Connection:
        return self._connection

    async def fetch(self, query: PreparedQuery, **values: str | int) -> list[sqlite3.Row]:
        """All rows of a query that has few, as of what is committed now. Raises `StoreError`.

        In one piece: a cursor that is left behind by a cancelled task would hold its connection at an old snapshot.
        """
        with self._errors():
            known = {**query.constants, **values}
            parameters = [known[name] for name in query.parameters]
            return list(await self._connection.execute_fetchall(query.sql, parameters))

    async def read(self, work: Work[T]) -> T:
        """Do what only reads. Each statement sees what was committed before it. Raises `StoreError`."""
        async with self._using:
            return await unbroken(self._read(work))

    async def write(self, work: Work[T]) -> T:
        """Do all of it or nothing, alone. Raises `StoreError`."""
        began = time.monotonic()
        async with self._using:
            return await unbroken(self._write(work, time.monotonic() - began))

    async def _read(self, work: Work[T]) -> T:
        with self._errors():
            async with self.engine.connect() as connection:
                return await work(connection)

    async def _write(self, work: Work[T], queued_s: float) -> T:
        with self._errors():
            async with self.engine.connect() as connection:
                await connection.execution_options(**{WRITES: True})
                # From here on: that an engine is made first is nobody's lock.
                asked = time.monotonic()
                async with connection.begin():
                    self._figures.waited((queued_s + time.monotonic() - asked) * 1_000)
                    return await work(connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"{self.path}: the registry is closed")
        with store_errors(self.path, self._figures):
            yield

    async def close(self) -> None:
        """Close the connection; waits for nobody."""
        self._closed = True
        await unbroken(self._close())

    async def _close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()
        # A second time does no harm; the engine has not seen the connection where nobody used it.
        await self._connection.close()


async def open_database(path: Path, history: SchemaHistory, figures: StoreFigures | None = None) -> Database:
    """Open a file, creating it and bringing its schema up to date; ``figures`` count its waits. Raises `StoreError`."""
    return await unbroken(_open_database(path, history, figures))


async def _open_database(path: Path, history: SchemaHistory, figures: StoreFigures | None) -> Database:
    with store_errors(path, figures):
        # Not `aiosqlite.connect`: all of it is one visit to the connection's thread.
        found: list[int] = []
        connection = await aiosqlite.Connection(
            partial(_connect_and_look, path, history, found), iter_chunk_size=64
        )
    database = Database(path, connection, figures)
    try:
        await _update(database, history, found[0])
    except BaseException:
        await database.close()
        raise
    return database


async def _update(database: Database, history: SchemaHistory, count: int) -> None:
    if count > history.head:
        raise StoreError(
            f"{database.path}: schema version {count} is newer than this program's {history.head}"
        )
    if count < history.head:
        # The history looks again under the lock: another process may have been faster.
        await database.write(lambda connection: connection.run_sync(history.upgrade, str(database.path)))


def _begin(connection: Connection) -> None:
    # The Python module's own transactions are off (isolation_level=None): they take the lock only with the first write,
    # where two can no longer wait for each other. A read needs none.
    if connection.get_execution_options().get(WRITES):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect_and_look(path: Path, history: SchemaHistory, found: list[int]) -> sqlite3.Connection:
    """A connection, to a file that has the history's schema if it is new; ``found`` gets its schema version."""
    connection = connect(path)
    try:
        ((count,),) = connection.execute("PRAGMA user_version").fetchall()
        if count == 0:
            history.create(connection)
            ((count,),) = connection.execute("PRAGMA user_version").fetchall()
    except BaseException:
        connection.close()
        raise
    found.append(int(count))
    return connection


def connect(path: Path) -> sqlite3.Connection:
    """A connection with our settings; blocks."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise sqlite3.OperationalError(f"{path.parent}: {error.strerror}") from error
    connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
    try:
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Turn to WAL, waiting for others who do the same with a new file.

    The change upgrades a read lock, where SQLite cannot let two wait for each other: it says "busy" at once, whatever
    ``busy_timeout`` is (https://sqlite.org/c3ref/busy_handler.html), so the waiting is done here.
    """
    give_up = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if _primary_code(error) not in _LOCKED or time.monotonic() >= give_up:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return
