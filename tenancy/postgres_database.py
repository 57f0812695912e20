"""A Postgres database that several nodes share: its connections, its transactions, its errors in our words."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar

import psycopg
from sqlalchemy import URL, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnectionFree
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn

from config.node import PostgresConfig
from tenancy.database import unbroken
from tenancy.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreUnavailable
from tenancy.figures import StoreFigures

T = TypeVar("T")
Driver = psycopg.AsyncConnection[tuple[Any, ...]]
Work = Callable[[AsyncConnection], Awaitable[T]]

MAX_MESSAGE_CHARACTERS = 300
PING_AFTER_S: Final = 1.0
"""What was used this lately is taken for alive."""
_IDLE_SINCE: Final = "idle since"
# SQLSTATEs (https://www.postgresql.org/docs/current/errcodes-appendix.html)
_UNAVAILABLE: Final = ("08", "57P01", "57P02", "57P03", "53300", "25006")
_LOCKED: Final = ("55P03", "40P01", "40001", "57014", "25P03", "53400")
_FULL: Final = ("53100", "53200")
_CORRUPT: Final = ("XX001", "XX002")


class PostgresDatabase:
    """A pool of connections, which are made when they are needed.

    Raises `StoreError` for what is no URL, without the URL: it may hold a password.
    """

    def __init__(self, url: str, config: PostgresConfig) -> None:
        parsed = postgres_url(url, config.url_env)
        self.figures = StoreFigures()
        """How often somebody waited in vain."""
        self._engine = create_async_engine(
            parsed,
            pool_size=config.connections_kept,
            max_overflow=config.connections_max - config.connections_kept,
            pool_timeout=config.wait_ms / 1000,
            hide_parameters=True,
            # What calls ask needs no other: setting a level and taking it back costs more than what they ask.
            isolation_level="AUTOCOMMIT",
            connect_args={
                "application_name": "mediaserver",
                "connect_timeout": max(2, round(config.wait_ms / 1000)),
                "options": f"-c statement_timeout={2 * config.wait_ms} -c lock_timeout={config.wait_ms}"
                f" -c idle_in_transaction_session_timeout={4 * config.wait_ms}",
            },
        )
        self._pings = _Pings(self._engine)
        self._in_transactions = self._engine.execution_options(isolation_level="READ COMMITTED")
        self.place = f"postgres {parsed.host or parsed.query.get('host', 'local')}/{parsed.database}"
        """What errors call it."""
        self._closed = False

    async def close(self) -> None:
        """End every connection that is not in use; those that are end with it."""
        self._closed = True
        await unbroken(self._engine.dispose())

    async def read(self, work: Work[T]) -> T:
        """Do what only reads; each statement is a transaction of its own. Raises `StoreError`."""

        async def do() -> T:
            async with self.at_once() as connection:
                return await work(connection)

        return await unbroken(do())

    async def write(self, work: Work[T]) -> T:
        """Do all of it or nothing. Raises `StoreError`."""

        async def do() -> T:
            async with self.transaction() as connection:
                return await work(connection)

        return await unbroken(do())

    @contextlib.asynccontextmanager
    async def at_once(self) -> AsyncIterator[AsyncConnection]:
        """A connection on which each statement is a transaction of its own. As `transaction`."""
        with self._errors():
            async with self._engine.connect() as connection:
                yield connection

    async def fetch(self, work: Callable[[Driver], Awaitable[T]]) -> T:
        """Do what every call asks straight on the driver's connection; it only reads. Raises `StoreError`.

        Where the connection turns out to be lost, it is done once more on another.
        """

        async def do(*, once_more: bool) -> T:
            with self._errors():
                connection = await self._pings.spared(self._engine.raw_connection)
                driver = connection.driver_connection
                assert isinstance(driver, psycopg.AsyncConnection)
                try:
                    return await work(driver)
                except psycopg.Error as error:
                    lost = driver.broken or isinstance(_named(error, self.place), StoreUnavailable)
                    if not lost or not once_more:
                        raise
                    self._pings.doubt_all()
                    await greenlet_spawn(connection.invalidate)
                finally:
                    # Whatever transaction is left in it is rolled back.
                    await greenlet_spawn(connection.close)
            return await do(once_more=False)

        return await unbroken(do(once_more=True))

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """All of it or nothing. The caller sees to it that it is not cancelled (`unbroken`)."""
        with self._errors():
            async with self._in_transactions.begin() as connection:
                yield connection

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the driver's errors into `StoreError`, without what was to be written."""
        if self._closed:
            raise StoreError(f"{self.place}: the registry is closed")
        try:
            yield
        except NoConnectionFree:
            raise self._counted(StoreLocked(f"{self.place}: all of its connections are in use")) from None
        except DBAPIError as error:
            raise self._counted(postgres_error(error, self.place)) from None
        except psycopg.Error as error:
            raise self._counted(_named(error, self.place)) from None
        except SQLAlchemyError as error:
            raise StoreError(f"{self.place}: {type(error).__name__}") from error

    def _counted(self, error: StoreError) -> StoreError:
        """The error, which says that somebody waited in vain where it does."""
        if isinstance(error, StoreLocked):
            self.figures.was_locked()
        return error


class _Pings:
    """Asks a connection whether it lives, before somebody has it whose work would be lost with it.

    As the pool's own ``pool_pre_ping``; but who does his work again then is spared it for a connection that just lived: it
    doubles the round trips of a call.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._dialect = engine.sync_engine.dialect
        self._sparing: ContextVar[bool] = ContextVar("sparing", default=False)
        self._doubted_at = -math.inf
        event.listen(engine.sync_engine, "checkin", self._checked_in)
        event.listen(engine.sync_engine, "checkout", self._checked_out)

    def doubt_all(self) -> None:
        """One was lost: what ended it may have ended all that nobody has just now."""
        self._doubted_at = time.monotonic()

    async def spared(self, take: Callable[[], Awaitable[T]]) -> T:
        """Take a connection without asking it, where it was used lately and none was lost since."""
        token = self._sparing.set(True)
        try:
            return await take()
        finally:
            self._sparing.reset(token)

    def _checked_in(self, _: object, record: ConnectionPoolEntry) -> None:
        record.info[_IDLE_SINCE] = time.monotonic()

    def _checked_out(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        idle_since = record.info.get(_IDLE_SINCE)
        if idle_since is None:  # it was made just now
            return
        if self._sparing.get() and idle_since > max(self._doubted_at, time.monotonic() - PING_AFTER_S):
            return
        try:
            self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error as error:
            # The others are older than what ended this one: the pool makes all of them anew.
            raise InvalidatePoolError from error


def postgres_url(url: str, variable: str) -> URL:
    """The URL with our driver. Raises `StoreError`, without the URL: it may hold a password."""
    try:
        parsed = make_url(url.strip())
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername.partition("+")[0] not in ("postgresql", "postgres"):
        raise StoreError(
            f"{variable} is no URL of a Postgres database, such as postgresql://role:password@host:5432/database"
        ) from None
    return parsed.set(drivername="postgresql+psycopg")


def postgres_error(error: DBAPIError, place: str) -> StoreError:
    """Which error of ours it is. Only the first line is told: the others quote what was to be written."""
    return _named(error.orig, place, lost=error.connection_invalidated)


def _named(error: BaseException | None, place: str, *, lost: bool = False) -> StoreError:
    state = getattr(error, "sqlstate", None) or ""
    primary = getattr(getattr(error, "diag", None), "message_primary", None) or str(error)
    message = f"{place}: {primary.partition(chr(10))[0][:MAX_MESSAGE_CHARACTERS]}"
    if state.startswith(_UNAVAILABLE) or (not state and lost):
        return StoreUnavailable(message)
    if state.startswith(_LOCKED):
        return StoreLocked(message)
    if state.startswith(_FULL):
        return StoreFull(message)
    if state.startswith(_CORRUPT):
        return StoreCorrupt(message)
    # libpq has no SQLSTATE for a server that does not answer.
    if not state and type(error).__name__ == "OperationalError":
        return StoreUnavailable(message)
    return StoreError(message)
