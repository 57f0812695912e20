"""The store of several nodes: one Postgres database, whose tables all tenants share.

A transaction that touches what is one tenant's begins with ``SET LOCAL app.tenant_id``; row-level security shows it that
tenant's rows and lets it write no others, whatever a statement asks. A role that may pass over row-level security is
refused.

What every call asks goes to the driver as SQL that SQLAlchemy has compiled once, the whole transaction in one round trip.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.ext.asyncio import AsyncConnection

from config.node import PostgresConfig
from tenancy.canary import Canary
from tenancy.context import VersionInfo
from tenancy.database import unbroken
from tenancy.errors import StoreError
from tenancy.figures import NodeMinute, NodeRow
from tenancy.ledger import Edit, Ledger, LogLine
from tenancy.ledger_repository import known_as, texts_of
from tenancy.node_repository import NodeRepository
from tenancy.postgres_database import Driver, PostgresDatabase
from tenancy.repository import TenantRepository
from tenancy.schema_history import SchemaHistory
from tenancy.shared_repository import SharedRepository, asked_for, owned_address
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
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
)

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

SCOPED_TABLES: Final = (
    "config_versions",
    "active_version",
    "calls",
    "version_states",
    "trials",
    "followed_file",
    "config_log",
)
_SET_TENANT: Final = b"SELECT set_config('app.tenant_id', %s, true)"
_MAY_PASS_OVER: Final = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


class PostgresStore:
    """`tenancy.store.Store` in a Postgres database."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._place = database.place
        self.figures = database.figures
        self.shared = SharedRepository()
        """The statements on addresses and status."""
        self.nodes = NodeRepository()
        self.repository = TenantRepository(("tenant_id",))
        """The statements on one tenant's rows, for `tenant_transaction`."""
        # SET LOCAL: it ends with the transaction, whoever has the connection next.
        self._set_tenant = select(func.set_config("app.tenant_id", bindparam("tenant_id"), True))
        self._registered = _compiled(self.shared.registered_query)
        self._texts = _compiled(self.repository.ledgers.texts_query)

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

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """All of it or nothing, on what is shared. The caller sees to it that it is not cancelled (`unbroken`)."""
        async with self._database.transaction() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def tenant_transaction(self, tenant_id: str) -> AsyncIterator[AsyncConnection]:
        """The same for what is shared and for one tenant's rows; no other's can be seen."""
        async with self.transaction() as connection:
            await connection.execute(self._set_tenant, {"tenant_id": tenant_id})
            yield connection

    async def _fetch(
        self, query: bytes, values: Mapping[str, str], tenant_id: str | None = None
    ) -> list[tuple[Any, ...]]:
        """All rows of a compiled query on what is shared, or on what is one tenant's."""

        async def work(driver: Driver) -> list[tuple[Any, ...]]:
            if tenant_id is None:
                return await (await driver.execute(query, values)).fetchall()
            return await _in_one_trip(driver, tenant_id, query, values)

        return await self._database.fetch(work)

    async def _of_tenant(self, tenant_id: str, work: Work[T]) -> T:
        async def do() -> T:
            async with self.tenant_transaction(tenant_id) as connection:
                return await work(connection)

        return await unbroken(do())

    # -- shared ----------------------------------------------------------------------------------------

    async def registered(self, addresses: Sequence[str]) -> tuple[OwnedAddress, ...]:
        return tuple(map(owned_address, await self._fetch(self._registered, asked_for(addresses))))

    async def tenant(self, tenant_id: str) -> TenantRow | None:
        return await self._database.read(lambda connection: self.shared.tenant(connection, tenant_id))

    async def tenant_ids(self, status: TenantStatus | None = None) -> tuple[str, ...]:
        return await self._database.read(lambda connection: self.shared.tenant_ids(connection, status))

    async def tenants(
        self, after: str, limit: int, status: TenantStatus | None = None
    ) -> tuple[TenantRow, ...]:
        return await self._database.read(
            lambda connection: self.shared.tenants(connection, after, limit, status)
        )

    async def addresses_of(self, tenant_id: str) -> tuple[Address, ...]:
        return await self._database.read(lambda connection: self.shared.addresses_of(connection, tenant_id))

    async def set_status(
        self,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None = None,
        expected: TenantRow | None = None,
    ) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            done = await self.shared.set_status(connection, tenant_id, status, moved_to, expected)
            if done:
                await self.shared.feed.note(connection, tenant_id)
            return done

        return await self._database.write(work)

    async def last_change(self) -> int:
        return await self._database.read(self.shared.feed.last_change)

    async def changes(self, after: int) -> Changes:
        return await self._database.read(lambda connection: self.shared.feed.changes(connection, after))

    async def watch_trial(self, tenant_id: str, due_at_ms: int) -> None:
        await self._database.write(
            lambda connection: self.shared.feed.watch(connection, tenant_id, due_at_ms)
        )

    async def due_trials(self, now_ms: int) -> tuple[DueTrial, ...]:
        return await self._database.read(lambda connection: self.shared.feed.due(connection, now_ms))

    async def trial_looked_at(self, seen: DueTrial, again_at_ms: int | None) -> None:
        await self._database.write(
            lambda connection: self.shared.feed.looked_at(connection, seen, again_at_ms)
        )

    async def import_version(self, new: NewVersion) -> int:
        async def work(connection: AsyncConnection) -> int:
            await self.shared.claim(connection, new.tenant_id, new.addresses, new_tenant=new.new_tenant)
            before = await self.repository.active(connection)
            version = await self.repository.add_version(connection, new)
            if before is None or before.version != version:
                await self.shared.feed.note(connection, new.tenant_id)
            return version

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
            edit = await self.repository.edit(connection, change)
            if edit.reaches_calls:
                await self.shared.feed.note(connection, tenant_id)
            return edit

        return await self._of_tenant(tenant_id, work)

    # -- nodes -----------------------------------------------------------------------------------------

    async def keep_minutes(self, node: NodeRow, minutes: Sequence[NodeMinute]) -> int:
        return await self._database.write(lambda connection: self.nodes.keep(connection, node, minutes))

    async def leave(self, node_id: str) -> None:
        await self._database.write(lambda connection: self.nodes.leave(connection, node_id))

    async def known_nodes(self) -> tuple[NodeRow, ...]:
        return await self._database.read(self.nodes.known)

    async def minutes_since(self, minute: int) -> tuple[NodeMinute, ...]:
        return await self._database.read(lambda connection: self.nodes.minutes_since(connection, minute))

    # -- one tenant ------------------------------------------------------------------------------------

    def place(self, tenant_id: str) -> str:
        return f"{self._place}: {tenant_id}"

    async def active(self, tenant_id: str) -> VersionKey | None:
        return await self._of_tenant(tenant_id, self.repository.active)

    async def serving(self, tenant_id: str) -> Serving | None:
        return await self._of_tenant(tenant_id, self.repository.ledgers.serving)

    async def serving_texts(self, tenant_id: str, known: Sequence[str]) -> ServingTexts | None:
        rows = await self._fetch(self._texts, known_as(known), tenant_id)
        return texts_of(rows[0]) if rows else None

    async def followed(self, tenant_id: str) -> str | None:
        return await self._of_tenant(tenant_id, self.repository.ledgers.followed)

    async def ledger(self, tenant_id: str) -> Ledger:
        return await self._of_tenant(tenant_id, self.repository.ledgers.ledger)

    async def trials(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[Canary, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.ledgers.trials(connection, limit, before)
        )

    async def config_log(self, tenant_id: str, limit: int, before: int | None = None) -> tuple[LogLine, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.ledgers.log(connection, limit, before)
        )

    async def end_call(
        self, tenant_id: str, call: CallRow | None, observe: Callable[[Ledger], Edit | None]
    ) -> Edit | None:
        async def work(connection: AsyncConnection) -> Edit | None:
            async def lock() -> None:
                await self.shared.lock(connection, tenant_id, key_share=True)

            # Where no trial runs, calls that end at once do not wait for each other.
            edit = await self.repository.end_call(connection, call, observe, lock)
            if edit is not None and edit.reaches_calls:
                await self.shared.feed.note(connection, tenant_id)
            return edit

        return await self._of_tenant(tenant_id, work)

    async def content(self, tenant_id: str, version: int) -> VersionContent | None:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.content(connection, version)
        )

    async def versions(self, tenant_id: str) -> tuple[VersionInfo, ...]:
        return await self._of_tenant(tenant_id, self.repository.versions)

    async def add_call(self, tenant_id: str, call: CallRow) -> None:
        await self._of_tenant(tenant_id, lambda connection: self.repository.add_calls(connection, (call,)))

    async def newest_calls(
        self, tenant_id: str, limit: int, before: CallPlace | None = None
    ) -> tuple[CallRow, ...]:
        return await self._of_tenant(
            tenant_id, lambda connection: self.repository.newest_calls(connection, limit, before)
        )


def _compiled(query: Select[Any]) -> bytes:
    return str(query.compile(dialect=PGDialect_psycopg())).encode()  # type: ignore[no-untyped-call] # SQLAlchemy's


async def _in_one_trip(
    driver: Driver, tenant_id: str, query: bytes, values: Mapping[str, str]
) -> list[tuple[Any, ...]]:
    """A transaction of one query on one tenant's rows, whose statements wait for no answer in between.

    The server executes them in order, and after one that fails none (https://www.postgresql.org/docs/current/
    libpq-pipeline-mode.html): no row is read before the tenant is set. Who has the connection next rolls back what failed.
    """
    async with driver.pipeline():
        await driver.execute(b"BEGIN READ ONLY")
        await driver.execute(_SET_TENANT, (tenant_id,))
        rows = await driver.execute(query, values)
        await driver.execute(b"COMMIT")
        return await rows.fetchall()
