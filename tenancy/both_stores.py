"""The store of a node whose tenants are being brought from SQLite to Postgres, or back, while it takes their calls.

Addresses and status are ``shared.db``'s. Where a tenant's own data are, its file says (`tenancy.migrations.tenant`), in the same
transaction in which what is in it was complete: so a tenant is asked for in its file first, always, and where that was left,
in Postgres. Before something is written there, the tenant is locked and its file is read again: it may have come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.database import unbroken
from tenancy.errors import StoreLocked, TenantElsewhere
from tenancy.figures import NodeMinute, NodeRow, StoreFigures
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.postgres_store import PostgresStore
from tenancy.sqlite_store import SqliteStore
from tenancy.store import (
    Address,
    CallPlace,
    CallRow,
    Changes,
    DueTrial,
    NewVersion,
    OwnedAddress,
    Serving,
    ServingTexts,
    Store,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)

T = TypeVar("T")
ATTEMPTS = 4
"""A tenant that goes back and forth in the time of so many writes is one that nobody moves in earnest."""


class _CameBackError(Exception):
    """The tenant is in its file again."""


class BothStores:
    """`tenancy.store.Store` over a node's files and the Postgres that tenants move to."""

    def __init__(self, files: SqliteStore, open_postgres: Callable[[], Awaitable[PostgresStore]]) -> None:
        self.files = files
        self._open_postgres = open_postgres
        self._opening = asyncio.Lock()
        self._postgres: PostgresStore | None = None

    async def postgres(self) -> PostgresStore:
        """Postgres, opened when the first tenant is there: one that is down costs those tenants alone."""
        async with self._opening:
            if self._postgres is None:
                self._postgres = await self._open_postgres()
            return self._postgres

    async def close(self) -> None:
        if self._postgres is not None:
            await self._postgres.close()
        await self.files.close()

    # -- shared ----------------------------------------------------------------------------------------

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        return await self.files.registered(addresses)

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        return await self.files.tenant(tenant_id)

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        return await self.files.tenant_ids(status)

    async def tenants(
        self, after: str, limit: int, status: TenantStatus | None = None
    ) -> tuple[TenantRow, ...]:
        return await self.files.tenants(after, limit, status)

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        return await self.files.addresses_of(tenant_id)

    async def set_status(
        self,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None = None,
        expected: TenantRow | None = None,
    ) -> bool:
        if await self.files.tenant(tenant_id) is None or await self.files.is_here(tenant_id):
            return await self.files.set_status(tenant_id, status, moved_to, expected)

        async def there() -> None:
            await (await self.postgres()).set_status(tenant_id, status, moved_to)

        # First, under the lock of the files' row: where it fails, or the tenant is not as expected, nothing is changed.
        return await self.files.set_status_after(tenant_id, status, moved_to, expected, there)

    async def import_version(self, new: NewVersion) -> int:
        return await self.files.import_with(new, self.active, self._add_version)

    async def last_change(self) -> int:
        return await self.files.last_change()

    async def changes(self, after: int) -> Changes:
        return await self.files.changes(after)

    async def watch_trial(self, tenant_id: str, due_at_ms: int) -> None:
        await self.files.watch_trial(tenant_id, due_at_ms)

    async def due_trials(self, now_ms: int) -> tuple[DueTrial, ...]:
        return await self.files.due_trials(now_ms)

    async def trial_looked_at(self, seen: DueTrial, again_at_ms: int | None) -> None:
        await self.files.trial_looked_at(seen, again_at_ms)

    async def _add_version(self, new: NewVersion) -> int:
        async def there(postgres: PostgresStore, connection: AsyncConnection) -> int:
            await postgres.shared.claim(connection, new.tenant_id, new.addresses)
            return await postgres.repository.add_version(connection, new)

        return await self._write(new.tenant_id, lambda: self.files.add_version(new), there)

    async def edit(
        self,
        tenant_id: str,
        change: Callable[[Ledger], Edit],
        addresses: tuple[Address, ...] | None = None,
    ) -> Edit:
        async def there(postgres: PostgresStore, connection: AsyncConnection) -> Edit:
            await postgres.shared.hold(connection, tenant_id)
            if addresses is not None:
                await postgres.shared.put_addresses(connection, tenant_id, addresses)
            return await postgres.repository.edit(connection, change)

        async def and_then() -> Edit:
            return await self._write(tenant_id, lambda: self.files.edit_versions(tenant_id, change), there)

        return await self.files.hold_for(tenant_id, addresses, and_then)

    # -- nodes -----------------------------------------------------------------------------------------

    @property
    def figures(self) -> StoreFigures:
        return self.files.figures

    async def keep_minutes(self, node: NodeRow, minutes: Sequence[NodeMinute]) -> int:
        return await self.files.keep_minutes(node, minutes)

    async def leave(self, node_id: str) -> None:
        await self.files.leave(node_id)

    async def known_nodes(self) -> tuple[NodeRow, ...]:
        return await self.files.known_nodes()

    async def minutes_since(self, minute: int) -> tuple[NodeMinute, ...]:
        return await self.files.minutes_since(minute)

    # -- one tenant ------------------------------------------------------------------------------------

    def place(self, tenant_id: str) -> str:
        return self.files.place(tenant_id)

    async def active(self, tenant_id: str) -> VersionKey | None:
        return await self._read(lambda store: store.active(tenant_id))

    async def serving(self, tenant_id: str) -> Serving | None:
        return await self._read(lambda store: store.serving(tenant_id))

    async def serving_texts(self, tenant_id: str, known: Sequence[str]) -> ServingTexts | None:
        return await self._read(lambda store: store.serving_texts(tenant_id, known))

    async def followed(self, tenant_id: str) -> str | None:
        return await self._read(lambda store: store.followed(tenant_id))

    async def ledger(self, tenant_id: str) -> Ledger:
        return await self._read(lambda store: store.ledger(tenant_id))

    async def trials(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[Canary, ...]:
        return await self._read(lambda store: store.trials(tenant_id, limit, before))

    async def config_log(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[LogLine, ...]:
        return await self._read(lambda store: store.config_log(tenant_id, limit, before))

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        return await self._read(lambda store: store.content(tenant_id, version))

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        return await self._read(lambda store: store.versions(tenant_id))

    async def newest_calls(
        self, tenant_id: str, limit: int, before: CallPlace | None = None
    ) -> tuple[CallRow, ...]:
        return await self._read(lambda store: store.newest_calls(tenant_id, limit, before))

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        async def there(postgres: PostgresStore, connection: AsyncConnection) -> None:
            await postgres.repository.add_calls(connection, (call,))

        await self._write(tenant_id, lambda: self.files.add_call(tenant_id, call), there, share=True)

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        async def there(postgres: PostgresStore, connection: AsyncConnection) -> Edit | None:
            edit = await postgres.repository.end_call(connection, call, observe)
            ended_there.append(edit is not None and edit.reaches_calls)
            return edit

        ended_there: list[bool] = []
        edit = await self._write(tenant_id, lambda: self.files.end_call(tenant_id, call, observe), there)
        if any(ended_there):
            await self.files.note_change(tenant_id)
        return edit

    async def _read(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        try:
            return await ask(self.files)
        except TenantElsewhere:
            return await ask(await self.postgres())

    async def _write(
        self,
        tenant_id: str,
        here: Callable[[], Awaitable[T]],
        there: Callable[[PostgresStore, AsyncConnection], Awaitable[T]],
        *,
        share: bool = False,
    ) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await here()
            except TenantElsewhere:
                postgres = await self.postgres()
            try:
                return await unbroken(self._write_there(tenant_id, postgres, there, share=share))
            except _CameBackError:
                continue
        raise StoreLocked(f"{self.place(tenant_id)}: the tenant is being moved to and fro")

    async def _write_there(
        self,
        tenant_id: str,
        postgres: PostgresStore,
        there: Callable[[PostgresStore, AsyncConnection], Awaitable[T]],
        *,
        share: bool,
    ) -> T:
        async with postgres.tenant_transaction(tenant_id) as connection:
            # Once, and as far as it is needed: of two who share a lock and then want more, each waits for the other.
            await postgres.shared.lock(connection, tenant_id, share=share)
            if await self.files.is_here(tenant_id):
                raise _CameBackError
            return await there(postgres, connection)
