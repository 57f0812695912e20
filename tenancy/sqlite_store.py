"""The store of one machine: ``shared.db``, and one file per tenant.

What belongs to one tenant is in its own file, so that a damaged or busy file costs one tenant, and a tenant is moved or
erased with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Select, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.database import Database, Work, open_database, prepare
from tenancy.errors import TenantElsewhere
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.ledger_repository import serving_of
from tenancy.repository import SharedRepository, TenantRepository, tenant_of
from tenancy.schema_history import SchemaHistory
from tenancy.shards import Shards
from tenancy.store import (
    MAX_OPEN_SHARDS,
    CallRow,
    NewVersion,
    Serving,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)

T = TypeVar("T")


class SqliteStore:
    """`tenancy.store.Store` in files below one folder."""

    def __init__(self, directory: Path, *, reader: Database, writer: Database, max_open_shards: int) -> None:
        self._writer = writer
        # Look-ups have their own connection: on the writer's they would see what is not committed.
        self._reader = reader
        self._shared = SharedRepository()
        self.repository = TenantRepository()
        """The statements of one tenant's file."""
        self.shards = Shards(directory / "tenants", max_open_shards)
        self._owner = prepare(self._shared.owner_query)
        self._tenant = prepare(self._shared.tenant_query)
        self._content = prepare(self.repository.content_query)
        self._followed = prepare(self.repository.ledgers.followed_query)
        self._trial = prepare(self.repository.ledgers.trial_query)
        self._placement, self._active, self._serving = (
            prepare(query) for query in _placement_queries(self.repository)
        )

    @classmethod
    async def open(cls, directory: Path, max_open_shards: int = MAX_OPEN_SHARDS) -> SqliteStore:
        """Open or create the databases in a folder. Raises `StoreError`."""
        path, history = directory / "shared.db", SchemaHistory("shared")
        writer = await open_database(path, history)
        try:
            reader = await open_database(path, history)
        except BaseException:
            await writer.close()
            raise
        return cls(directory, reader=reader, writer=writer, max_open_shards=max_open_shards)

    async def close(self) -> None:
        """Close every file, each when its present user is done."""
        await self.shards.close()
        await self._reader.close()
        await self._writer.close()

    # -- shared ----------------------------------------------------------------------------------------

    async def owner_of(self, number: str) -> TenantRow | None:
        return tenant_of(await self._reader.fetch(self._owner, number=number))

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        return tenant_of(await self._reader.fetch(self._tenant, tenant_id=tenant_id))

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        return await self._reader.read(lambda connection: self._shared.tenant_ids(connection, status))

    async def numbers_of(self, tenant_id: str) -> tuple[str, ...]:
        return await self._reader.read(lambda connection: self._shared.numbers_of(connection, tenant_id))

    async def set_status(self, tenant_id: str, status: TenantStatus, moved_to: str | None = None) -> bool:
        return await self._writer.write(
            lambda connection: self._shared.set_status(connection, tenant_id, status, moved_to)
        )

    async def suspended(self, tenant_id: str) -> bool:
        """Whether it is, or was before it moved."""
        rows = await self._reader.fetch(self._tenant, tenant_id=tenant_id)
        return any(status == TenantStatus.SUSPENDED for _, status, _ in rows)

    async def import_version(self, new: NewVersion) -> int:
        return await self.claim_for(new.tenant_id, new.numbers, lambda: self.add_version(new))

    async def claim_for(
        self, tenant_id: str, numbers: tuple[str, ...], and_then: Callable[[], Awaitable[T]]
    ) -> T:
        """Give a tenant exactly these numbers once something else is committed.

        In this order, a crash in between leaves numbers that the next import sets right, never a number without a
        configuration.
        """

        async def work(connection: AsyncConnection) -> T:
            await self._shared.claim(connection, tenant_id, numbers)
            return await and_then()

        return await self._writer.write(work)

    async def edit(
        self,
        tenant_id: str,
        change: Callable[[Ledger], Edit],
        numbers: tuple[str, ...] | None = None,
    ) -> Edit:
        async def of_tenant() -> Edit:
            async with self.shards.use(tenant_id) as shard:
                return await shard.write(lambda connection: self._edit(connection, tenant_id, change))

        async def work(connection: AsyncConnection) -> Edit:
            # The row is held meanwhile: a tenant that moves away takes all of its history along, or none of this.
            await self._shared.hold(connection, tenant_id)
            if numbers is not None:
                await self._shared.claim(connection, tenant_id, numbers)
            return await of_tenant()

        return await self._writer.write(work)

    async def _edit(
        self, connection: AsyncConnection, tenant_id: str, change: Callable[[Ledger], Edit]
    ) -> Edit:
        store = (await connection.exec_driver_sql(self._placement.sql)).scalar_one()
        self._check_placement(store, tenant_id)
        return await self.repository.edit(connection, change)

    # -- one tenant ------------------------------------------------------------------------------------

    def place(self, tenant_id: str) -> str:
        return str(self.shards.path(tenant_id))

    async def active(self, tenant_id: str) -> VersionKey | None:
        async with self.shards.use(tenant_id) as shard:
            ((store, version, content_hash),) = await shard.fetch(self._active)
        self._check_placement(store, tenant_id)
        return None if version is None else VersionKey(version, content_hash)

    async def serving(self, tenant_id: str) -> Serving | None:
        async with self.shards.use(tenant_id) as shard:
            ((store, *row),) = await shard.fetch(self._serving)
        self._check_placement(store, tenant_id)
        return None if row[0] is None else serving_of(*row)

    async def followed(self, tenant_id: str) -> str | None:
        async with self.shards.use(tenant_id) as shard:
            rows = await shard.fetch(self._followed)
        return str(rows[0][0]) if rows else None

    async def ledger(self, tenant_id: str) -> Ledger:
        return await self._read(tenant_id, self.repository.ledgers.ledger)

    async def trials(self, tenant_id: str, limit: int) -> tuple[Canary, ...]:
        return await self._read(
            tenant_id, lambda connection: self.repository.ledgers.trials(connection, limit)
        )

    async def config_log(self, tenant_id: str, limit: int) -> tuple[LogLine, ...]:
        return await self._read(tenant_id, lambda connection: self.repository.ledgers.log(connection, limit))

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        async with self.shards.use(tenant_id) as shard:
            if call is None and not await shard.fetch(self._trial):
                return None
            return await shard.write(lambda connection: self.repository.end_call(connection, call, observe))

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        async with self.shards.use(tenant_id) as shard:
            rows = await shard.fetch(self._content, number=version)
            ((store,),) = await shard.fetch(self._placement)
        self._check_placement(store, tenant_id)
        return VersionContent(*rows[0]) if rows else None

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        return await self._read(tenant_id, self.repository.versions)

    async def add_version(self, new: NewVersion) -> int:
        """The tenant's part of `import_version`."""

        async def work(connection: AsyncConnection) -> int:
            store = (await connection.exec_driver_sql(self._placement.sql)).scalar_one()
            self._check_placement(store, new.tenant_id)
            return await self.repository.add_version(connection, new)

        async with self.shards.use(new.tenant_id) as shard:
            # A node that starts finds most of its tenants as they are.
            ((store, version, content_hash),) = await shard.fetch(self._active)
            if store == "here" and content_hash == new.content_hash:
                noted = [each for (each,) in await shard.fetch(self._followed)] if new.followed else []
                if not new.followed or noted == [new.content_hash]:
                    return int(version)
            return await shard.write(work)

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        async with self.shards.use(tenant_id) as shard:
            # The file's own triggers refuse it where the tenant has left.
            await shard.write(lambda connection: self.repository.add_calls(connection, (call,)))

    async def newest_calls(self, tenant_id: str, limit: int) -> tuple[CallRow, ...]:
        return await self._read(tenant_id, lambda connection: self.repository.newest_calls(connection, limit))

    async def _read(self, tenant_id: str, work: Work[T]) -> T:
        async with self.shards.use(tenant_id) as shard:
            result = await shard.read(work)
            # Afterwards: what was read before the tenant left was true then.
            ((store,),) = await shard.fetch(self._placement)
        self._check_placement(store, tenant_id)
        return result

    def _check_placement(self, store: str, tenant_id: str) -> None:
        if store != "here":
            raise TenantElsewhere(
                f"{self.place(tenant_id)}: the tenant is in Postgres, which store.postgres does not name"
            )


def _placement_queries(repository: TenantRepository) -> tuple[Select[Any], Select[Any], Select[Any]]:
    """Where the tenant is; the same with its active version, if it has one; and with the version on trial besides."""
    tables = repository.tables
    placement, active, versions = tables.placement, tables.active_version, tables.config_versions
    both = select(placement.c.store, versions.c.version, versions.c.content_hash).select_from(
        placement.outerjoin(active, true()).outerjoin(versions, active.c.version == versions.c.version)
    )
    columns = repository.ledgers.serving_columns
    serving = select(placement.c.store, *columns).select_from(
        placement.outerjoin(repository.ledgers.joined, literal_column("1") == literal_column("1"))
    )
    return select(placement.c.store), both, serving
