"""The tenants' SQLite files, a bounded number of them open."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from loguru import logger

from tenancy.database import Database, PreparedQuery, open_database, unbroken
from tenancy.errors import StoreError
from tenancy.figures import StoreFigures
from tenancy.glance import Glances, Look
from tenancy.schema_history import SchemaHistory
from tenancy.store import MAX_OPEN_SHARDS

RESERVE_MAX: Final = 8
"""Files that are closed at most before their room is asked for."""
LIMIT_FOR_EACH_RESERVED: Final = 16


@dataclass(slots=True)
class _Shard:
    """One tenant's file: its database while open, and who uses or awaits it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    database: Database | None = None
    file: tuple[int, int] | None = None
    """Which file it is that is open: device and inode."""
    users: int = 0
    working: bool = False


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Shards:
    """The tenants' databases, the most recently used of them open."""

    def __init__(
        self, directory: Path, limit: int = MAX_OPEN_SHARDS, figures: StoreFigures | None = None
    ) -> None:
        self._directory = directory
        self._figures = figures
        self._limit = limit
        self._kept = limit - min(RESERVE_MAX, limit // LIMIT_FOR_EACH_RESERVED)
        """So many stay open when nobody uses them: whoever needs another opened seldom waits for one to be closed."""
        self._making_room: asyncio.Task[None] | None = None
        self._history = SchemaHistory("tenant")
        self._glances = Glances(self._history.head)
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._permits = asyncio.Semaphore(limit)
        """One for each shard at work: who has one and needs a file opened finds an idle one to close."""
        self._opening = asyncio.Lock()
        self._open_count = 0
        self._closed = False

    @property
    def open_count(self) -> int:
        """Files that are open; never above the limit."""
        return self._open_count

    def path(self, tenant_id: str) -> Path:
        """The file of a tenant; its id is safe in a name by its schema."""
        return self._directory / f"client-{tenant_id}.db"

    async def fetch(self, tenant_id: str, query: PreparedQuery, **values: str | int) -> list[Any]:
        """All rows of a query on one tenant, as of what is committed now. Raises `StoreError`."""
        return (await self.look(tenant_id, query, **values)).rows

    async def look(self, tenant_id: str, query: PreparedQuery, **values: str | int) -> Look:
        """The same, and of which state of the file that is.

        A file that nobody has open is not opened for it, where that can be told.
        """
        if tenant_id not in self._shards:
            found = await self._glances.fetch(self.path(tenant_id), query, **values)
            if found is not None:
                return found
        async with self.use(tenant_id) as shard:
            return Look(await shard.fetch(query, **values))

    @asynccontextmanager
    async def use(self, tenant_id: str) -> AsyncIterator[Database]:
        """One tenant's database, to one user at a time."""
        async with self._alone(tenant_id) as shard:
            if shard.database is not None and shard.file != _identity(self.path(tenant_id)):
                # Another program has put a file in its place (a restore): the old one is nobody's.
                await unbroken(self._close(tenant_id, shard))
            if shard.database is None:
                await unbroken(self._open(tenant_id, shard))
            assert shard.database is not None
            yield shard.database

    @asynccontextmanager
    async def closed(self, tenant_id: str) -> AsyncIterator[Path]:
        """One tenant's file, closed and kept so meanwhile: for what replaces it."""
        async with self._alone(tenant_id) as shard:
            await unbroken(self._close(tenant_id, shard))
            yield self.path(tenant_id)

    @asynccontextmanager
    async def _alone(self, tenant_id: str) -> AsyncIterator[_Shard]:
        shard = self._shards.setdefault(tenant_id, _Shard())
        self._shards.move_to_end(tenant_id)
        shard.users += 1
        try:
            async with shard.lock, self._permits:
                shard.working = True
                try:
                    yield shard
                finally:
                    shard.working = False
        finally:
            shard.users -= 1
            self._forget_unused(tenant_id, shard)
            if self._open_count > self._kept and self._making_room is None and not self._closed:
                self._making_room = asyncio.create_task(self._make_room())

    async def _make_room(self) -> None:
        """Close files that have been idle for longest, beyond those that are kept."""
        try:
            while self._open_count > self._kept:
                # For each anew: who waits to open a file is let in between.
                async with self._opening:
                    idle = self._idle()
                    if idle is None:
                        return
                    await self._close(*idle)
        except sqlite3.Error as error:
            logger.warning("a tenant's file was not closed as it should be: {}", error)
        finally:
            self._making_room = None

    async def _open(self, tenant_id: str, shard: _Shard) -> None:
        async with self._opening:
            if self._closed:
                raise StoreError(f"{self.path(tenant_id)}: the registry is closed")
            while self._open_count >= self._limit:
                await self._close_one()
            await self._glances.ended(self.path(tenant_id))
            shard.database = await open_database(self.path(tenant_id), self._history, self._figures)
            shard.file = _identity(self.path(tenant_id))
            self._open_count += 1

    async def _close_one(self) -> None:
        """Close the file that has been idle for longest."""
        idle = self._idle()
        assert idle is not None  # Who opens has a permit, and so one of those that are open is not at work.
        await self._close(*idle)

    def _idle(self) -> tuple[str, _Shard] | None:
        return next(
            (
                (tenant_id, shard)
                for tenant_id, shard in self._shards.items()
                if shard.database is not None and not shard.working
            ),
            None,
        )

    async def _close(self, tenant_id: str, shard: _Shard) -> None:
        database, shard.database = shard.database, None
        if database is not None:
            try:
                await database.close()
            finally:
                self._open_count -= 1
        self._forget_unused(tenant_id, shard)

    def _forget_unused(self, tenant_id: str, shard: _Shard) -> None:
        if shard.users == 0 and shard.database is None and self._shards.get(tenant_id) is shard:
            del self._shards[tenant_id]

    async def close(self) -> None:
        """Close everything, each shard when its present user is done."""
        self._closed = True
        await unbroken(self._glances.close())
        if self._making_room is not None:
            await asyncio.wait([self._making_room])
        for tenant_id, shard in list(self._shards.items()):
            async with shard.lock:
                await self._close(tenant_id, shard)
