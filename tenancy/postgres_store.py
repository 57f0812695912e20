"""The store of several nodes: one Postgres database, whose tables all tenants share.

A transaction that touches what is one tenant's begins with ``SET LOCAL app.tenant_id``; row-level security shows it that
tenant's rows and lets it write no others, whatever a statement asks. A role that may pass over row-level security is
refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from config.node import PostgresConfig
from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.database import unbroken
from tenancy.errors import StoreError
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.postgres_database import PostgresDatabase, Work
from tenancy.repository import SharedRepository, TenantRepository
from tenancy.schema_history import SchemaHistory
from tenancy.store import (
    Address,
    CallRow,
    NewVersion,
    OwnedAddress,
    Serving,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)

T = TypeVar("T")

SCOPED_TABLES: Final = (
    "config_versions",
    "active_version",
    "calls",
    "version_states",
    "trials",
    "followed_file",
    "config_log",
)
_MAY_PASS_OVER: Final = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


class PostgresStore:
    """`tenancy.store.Store` in a Postgres database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._place = database.place
        self.shared = SharedRepository()
        """The statements on addresses and status."""
        self.repository = TenantRepository(("tenant_id",))
        """The statements on one tenant's rows, for `tenant_transaction`."""
        # SET LOCAL: it ends with the transaction, whoever has the connection next.
        self._set_tenant = select(func.set_config("app.tenant_id", bindparam("tenant_id"), True))

    @classmethod
    async def open(cls, url: str, config: PostgresConfig) -> PostgresStore:
        """Connect and bring the schema up to date. Raises `StoreError`, without the URL: it may hold a password."""
        store = cls(PostgresDatabase(url, config))
        try:
            await unbroken(store._prepare())
        except BaseException:
            await store.close()
            raise
        return store

    async def _prepare(self) -> None:
        async with self.transaction() as connection:
            if (await connection.exec_driver_sql(_MAY_PASS_OVER)).scalar_one():
                raise StoreError(
                    f"{self._place}: its role may pass over row-level security (SUPERUSER or BYPASSRLS);"
                    " tenants would not be kept apart. Use a role of NOSUPERUSER NOBYPASSRLS"
                )
            for name in ("shared", "tenant"):
                await connection.run_sync(SchemaHistory(name).upgrade, self._place)
            for table in SCOPED_TABLES:
                if not (await connection.execute(select(func.row_security_active(table)))).scalar_one():
                    raise StoreError(f"{self._place}: row-level security of {table} is off")

    async def close(self) -> None:
        """End every connection that is not in use; those that are end with it."""
        await self._database.close()

    # -- transactions ----------------------------------------------------------------------------------

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """All of it or nothing, on what is shared. The caller sees to it that it is not cancelled (`unbroken`)."""
        return self._database.transaction()

    @asynccontextmanager
    async def tenant_transaction(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """The same for what is shared and for one tenant's rows; no other's can be seen."""
        async with self.transaction() as connection:
            await connection.execute(self._set_tenant, {"tenant_id": tenant_id})
            yield connection

    async def _shared_read(self, work: Work[T]) -> T:
        return await self._database.read(work)

    async def _shared_write(self, work: Work[T]) -> T:
        return await self._database.write(work)

    async def _of_tenant(self, tenant_id: str, work: Work[T]) -> T:
        async def do() -> T:
            async with self.tenant_transaction(tenant_id) as connection:
                return await work(connection)

        return await unbroken(do())

    # -- shared ----------------------------------------------------------------------------------------

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        return await self._shared_read(lambda connection: self.shared.registered(connection, addresses))

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        return await self._shared_read(lambda connection: self.shared.tenant(connection, tenant_id))

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        return await self._shared_read(lambda connection: self.shared.tenant_ids(connection, status))

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        return await self._shared_read(lambda connection: self.shared.addresses_of(connection, tenant_id))

    async def set_status(self, tenant_id: str, status: TenantStatus, moved_to: str | None = None) -> bool:
        return await self._shared_write(
            lambda connection: self.shared.set_status(connection, tenant_id, status, moved_to)
        )

    async def import_version(self, new: NewVersion) -> int:
        async def work(connection: AsyncConnection) -> int:
            await self.shared.claim(connection, new.tenant_id, new.addresses)
            return await self.repository.add_version(connection, new)

        return await self._of_tenant(new.tenant_id, work)

    async def edit(
        self,
        tenant_id: str,
        change: Callable[[Ledger], Edit],
        addresses: tuple[Address, ...] | None = None,
    ) -> Edit:
        async def work(connection: AsyncConnection) -> Edit:
            await self.shared.hold(connection, tenant_id)
            if addresses is not None:
                await self.shared.put_addresses(connection, tenant_id, addresses)
            return await self.repository.edit(connection, change)

        return await self._of_tenant(tenant_id, work)

    # -- one tenant ------------------------------------------------------------------------------------

    def place(self, tenant_id: str) -> str:
        return f"{self._place}: {tenant_id}"

    async def active(self, tenant_id: str) -> VersionKey | None:
        return await self._of_tenant(tenant_id, self.repository.active)

    async def serving(self, tenant_id: str) -> Serving | None:
        return await self._of_tenant(tenant_id, self.repository.ledgers.serving)

    async def followed(self, tenant_id: str) -> str | None:
        return await self._of_tenant(tenant_id, self.repository.ledgers.followed)

    async def ledger(self, tenant_id: str) -> Ledger:
        return await self._of_tenant(tenant_id, self.repository.ledgers.ledger)

    async def trials(self, tenant_id: str, limit: int) -> tuple[Canary, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.ledgers.trials(connection, limit)
        )

    async def config_log(self, tenant_id: str, limit: int) -> tuple[LogLine, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.ledgers.log(connection, limit)
        )

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        async def work(connection: AsyncConnection) -> Edit | None:
            async def lock() -> None:
                await self.shared.lock(connection, tenant_id, key_share=True)

            # Where no trial runs, calls that end at once do not wait for each other.
            return await self.repository.end_call(connection, call, observe, lock)

        return await self._of_tenant(tenant_id, work)

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.content(connection, version)
        )

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        return await self._of_tenant(tenant_id, self.repository.versions)

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        await self._of_tenant(tenant_id, lambda connection: self.repository.add_calls(connection, (call,)))

    async def newest_calls(self, tenant_id: str, limit: int) -> tuple[CallRow, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.newest_calls(connection, limit)
        )
