"""The nodes' Postgres database as the vault takes it: its own connections, few, and errors in the vault's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection

from config.node import PostgresConfig
from tenancy.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreUnavailable
from tenancy.postgres_database import PostgresDatabase
from tenancy.schema_history import SchemaHistory
from vault import VaultStoreCorrupt, VaultStoreError, VaultStoreLocked
from vault.errors import VaultStoreFull, VaultStoreUnavailable

CONNECTIONS_MAX: Final = 4
"""Besides the tenants' store's, at most: a call reads its keys in less time than it takes to ring."""
_NAMED: Final = (
    (StoreUnavailable, VaultStoreUnavailable),
    (StoreLocked, VaultStoreLocked),
    (StoreFull, VaultStoreFull),
    (StoreCorrupt, VaultStoreCorrupt),
)


class VaultDatabase:
    """`vault.postgres.Database`. Raises `VaultStoreError` for what is no URL, without the URL."""

    def __init__(self, url: str, config: PostgresConfig) -> None:
        few = min(config.connections_max, CONNECTIONS_MAX)
        # All stay open: a call asks for its keys at once, and making a connection takes longer than reading them.
        sizes = {"connections_max": few, "connections_kept": few}
        with _vaults_errors():
            self._database = PostgresDatabase(url, config.model_copy(update=sizes))

    @property
    def place(self) -> str:
        """What errors call it."""
        return self._database.place

    async def upgrade(self, history: str, revisions: Path) -> None:
        """Apply what is missing of a schema's history."""
        schema = SchemaHistory(history, revisions)
        async with self.transaction() as connection:
            await connection.run_sync(schema.upgrade, self.place)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """All of it or nothing."""
        with _vaults_errors():
            async with self._database.transaction() as connection:
                yield connection

    async def close(self) -> None:
        """End every connection that is not in use; those that are end with it."""
        await self._database.close()


@contextmanager
def _vaults_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        named = next((theirs for ours, theirs in _NAMED if isinstance(error, ours)), VaultStoreError)
        # The cause is left out as the store's own errors leave it out: it may quote what was to be written.
        raise named(str(error)) from None
