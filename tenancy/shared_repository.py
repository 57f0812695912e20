"""The statements on what tenants share, for both backings: addresses and status. As `tenancy.repository`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table, bindparam, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.errors import NumberTaken, TenantChanged, TenantExists, TenantMoved, UnknownTenant
from tenancy.feed_repository import FeedRepository
from tenancy.schema import SharedTables, shared_tables
from tenancy.store import (
    MAX_ASKED,
    Address,
    OwnedAddress,
    TenantRow,
    TenantStatus,
)

_ASKED: Final = tuple(f"address_{n}" for n in range(MAX_ASKED))


def insert_into(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An insert with its dialect's ``ON CONFLICT``."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


class SharedRepository:
    """Addresses and the tenants' status."""

    def __init__(self) -> None:
        self._tables: SharedTables = shared_tables()
        self.feed = FeedRepository(self._tables)
        """The statements on what has changed, and on trials that are due."""
        tenants, addresses = self._tables.tenants, self._tables.addresses
        columns = (tenants.c.tenant_id, tenants.c.status, tenants.c.moved_to)
        self.registered_query = (
            select(addresses.c.address, addresses.c.trunks, addresses.c.origins, *columns)
            .join_from(addresses, tenants, addresses.c.tenant_id == tenants.c.tenant_id)
            .where(addresses.c.address.in_([bindparam(name) for name in _ASKED]))
        )
        self.tenant_query = select(*columns).where(tenants.c.tenant_id == bindparam("tenant_id"))

    async def registered(
        self, connection: AsyncConnection, addresses: Sequence[str]
    ) -> tuple[OwnedAddress, ...]:
        """Those of some addresses that somebody has."""
        return tuple(
            owned_address(row)
            for row in await connection.execute(self.registered_query, asked_for(addresses))
        )

    async def tenant(self, connection: AsyncConnection, tenant_id: str) -> TenantRow | None:
        """The tenant of an id."""
        return tenant_of(tuple(await connection.execute(self.tenant_query, {"tenant_id": tenant_id})))

    async def tenant_ids(
        self, connection: AsyncConnection, status: TenantStatus | None = None
    ) -> tuple[str, ...]:
        """The tenants with a status, in order."""
        tenants = self._tables.tenants
        query = select(tenants.c.tenant_id).order_by(tenants.c.tenant_id)
        if status is TenantStatus.MOVED:
            query = query.where(tenants.c.moved_to.is_not(None))
        elif status is not None:
            query = query.where(tenants.c.moved_to.is_(None), tenants.c.status == status)
        return tuple((await connection.execute(query)).scalars())

    async def tenants(
        self, connection: AsyncConnection, after: str, limit: int, status: TenantStatus | None = None
    ) -> tuple[TenantRow, ...]:
        """Tenants with a status whose ids come after that one, in order."""
        tenants = self._tables.tenants
        query = (
            select(tenants.c.tenant_id, tenants.c.status, tenants.c.moved_to)
            .where(tenants.c.tenant_id > after)
            .order_by(tenants.c.tenant_id)
            .limit(limit)
        )
        if status is TenantStatus.MOVED:
            query = query.where(tenants.c.moved_to.is_not(None))
        elif status is not None:
            query = query.where(tenants.c.moved_to.is_(None), tenants.c.status == status)
        rows = tuple(await connection.execute(query))
        return tuple(row for each in rows if (row := tenant_of((each,))) is not None)

    async def addresses_of(self, connection: AsyncConnection, tenant_id: str) -> tuple[Address, ...]:
        """A tenant's addresses, in order."""
        table = self._tables.addresses
        rows = await connection.execute(
            select(table.c.address, table.c.trunks, table.c.origins)
            .where(table.c.tenant_id == tenant_id)
            .order_by(table.c.address)
        )
        return tuple(Address(*row) for row in rows)

    async def set_status(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        status: TenantStatus,
        moved_to: str | None,
        expected: TenantRow | None = None,
    ) -> bool:
        """Whether there is such a tenant. What it was before it moved stays noted."""
        if (status is TenantStatus.MOVED) != (moved_to is not None):
            raise ValueError("a tenant that has moved has an address, and no other has one")
        await self.check_expected(connection, tenant_id, expected)
        tenants = self._tables.tenants
        changes: dict[str, str | None] = {"moved_to": moved_to}
        if status is not TenantStatus.MOVED:
            changes["status"] = status.value
        done = await connection.execute(
            update(tenants).where(tenants.c.tenant_id == tenant_id).values(changes)
        )
        return done.rowcount == 1

    async def check_expected(
        self, connection: AsyncConnection, tenant_id: str, expected: TenantRow | None
    ) -> None:
        """Lock a tenant that is what its author saw. Raises `TenantChanged` where it is something else by now."""
        if expected is None:
            return
        found = await self.lock(connection, tenant_id)
        if found is not None and found != expected:
            raise TenantChanged(f"{tenant_id} is {found.status.value} by now, not {expected.status.value}")

    async def lock(
        self, connection: AsyncConnection, tenant_id: str, *, share: bool = False, key_share: bool = False
    ) -> TenantRow | None:
        """Wait until nobody changes a tenant, and let nobody until the transaction ends (SQLite: nobody does anyway).

        With ``share``, others may lock it in the same way. With ``key_share``, others may add rows that refer to it: of two
        that have done so and then lock it, neither waits for the other's row.
        """
        query = self.tenant_query.with_for_update(read=share, key_share=key_share)
        return tenant_of(tuple(await connection.execute(query, {"tenant_id": tenant_id})))

    async def hold(self, connection: AsyncConnection, tenant_id: str) -> None:
        """Keep others from changing this tenant until the transaction ends. Raises `UnknownTenant`, `TenantMoved`."""
        row = await self.lock(connection, tenant_id, key_share=True)
        if row is None:
            raise UnknownTenant(f"no tenant {tenant_id!r}")
        if row.moved_to is not None:
            raise TenantMoved(tenant_id, row.moved_to)

    async def suspended(self, connection: AsyncConnection, tenant_id: str) -> bool:
        """Whether it is, or was before it moved."""
        rows = await connection.execute(self.tenant_query, {"tenant_id": tenant_id})
        return any(row.status == TenantStatus.SUSPENDED for row in rows)

    async def put_tenant(self, connection: AsyncConnection, row: TenantRow, *, suspended: bool) -> None:
        """Write a tenant as it is."""
        status = TenantStatus.SUSPENDED if suspended else TenantStatus.ACTIVE
        changes = {"status": status.value, "moved_to": row.moved_to}
        await connection.execute(
            insert_into(connection, self._tables.tenants)
            .values(tenant_id=row.tenant_id, **changes)
            .on_conflict_do_update(index_elements=["tenant_id"], set_=changes)
        )

    async def all_addresses(self, connection: AsyncConnection) -> dict[str, tuple[str, Address]]:
        """Whose every address is, and how it is reached."""
        table = self._tables.addresses
        rows = await connection.execute(
            select(table.c.address, table.c.tenant_id, table.c.trunks, table.c.origins)
        )
        return {row.address: (row.tenant_id, Address(row.address, row.trunks, row.origins)) for row in rows}

    async def release(self, connection: AsyncConnection, some: Sequence[str]) -> None:
        """Take addresses from whoever has them."""
        table = self._tables.addresses
        await connection.execute(delete(table).where(table.c.address.in_(some)))

    async def claim(
        self,
        connection: AsyncConnection,
        tenant_id: str,
        wanted: Sequence[Address],
        *,
        new_tenant: bool = False,
    ) -> None:
        """Give a tenant, new or known, exactly these addresses.

        Raises `NumberTaken`, `TenantMoved`; `TenantExists` where it was to be a ``new_tenant``.
        """
        tenants = self._tables.tenants
        made = await connection.execute(
            insert_into(connection, tenants)
            .values(tenant_id=tenant_id, status=TenantStatus.ACTIVE.value)
            .on_conflict_do_nothing()
        )
        if new_tenant and made.rowcount == 0:
            raise TenantExists(f"there is a tenant {tenant_id!r} already")
        # Of two who import one tenant at once, the second waits here (SQLite: at its BEGIN).
        await self.hold(connection, tenant_id)
        await self.put_addresses(connection, tenant_id, wanted)

    async def put_addresses(
        self, connection: AsyncConnection, tenant_id: str, wanted: Sequence[Address]
    ) -> None:
        """Give a tenant that is there exactly these addresses. Raises `NumberTaken`."""
        table = self._tables.addresses
        names = [each.address for each in wanted]
        # All that are there, in one order: of two who want what the other has, one waits here and has nothing yet.
        await connection.execute(
            select(table.c.address)
            .where(or_(table.c.tenant_id == tenant_id, table.c.address.in_(names)))
            .order_by(table.c.address)
            .with_for_update()
        )
        await connection.execute(
            delete(table).where(table.c.tenant_id == tenant_id, table.c.address.not_in(names))
        )
        if wanted:
            # In one order, so that no two who want the same addresses wait for each other.
            rows = [
                {
                    "address": each.address,
                    "tenant_id": tenant_id,
                    "trunks": each.trunks,
                    "origins": each.origins,
                }
                for each in sorted(wanted, key=lambda each: each.address)
            ]
            await connection.execute(insert_into(connection, table).on_conflict_do_nothing(), rows)
        await self._put_reach(connection, tenant_id, wanted)
        taken = await connection.execute(
            select(table.c.address, table.c.tenant_id)
            .where(table.c.address.in_(names), table.c.tenant_id != tenant_id)
            .order_by(table.c.address)
        )
        for address, owner in taken:
            raise NumberTaken(f"{address} belongs to {owner}; {tenant_id} cannot have it")

    async def _put_reach(
        self, connection: AsyncConnection, tenant_id: str, wanted: Sequence[Address]
    ) -> None:
        """Give addresses that the tenant has had before the trunks and pages that they have now.

        Apart from the insert, whose ``DO UPDATE`` would lock other tenants' rows, too.
        """
        present = {each.address: each for each in await self.addresses_of(connection, tenant_id)}
        table = self._tables.addresses
        for each in wanted:
            if present.get(each.address, each) != each:
                await connection.execute(
                    update(table)
                    .where(table.c.address == each.address, table.c.tenant_id == tenant_id)
                    .values(trunks=each.trunks, origins=each.origins)
                )


def asked_for(addresses: Sequence[str]) -> dict[str, str]:
    """The values of `SharedRepository.registered_query`, which asks for a fixed number of addresses."""
    if not 0 < len(addresses) <= MAX_ASKED:
        raise ValueError(f"1 to {MAX_ASKED} addresses, not {len(addresses)}")
    return {name: addresses[min(n, len(addresses) - 1)] for n, name in enumerate(_ASKED)}


def owned_address(row: Sequence[Any]) -> OwnedAddress:
    """A row of `SharedRepository.registered_query`; straight from the driver, the sets are texts."""
    address, trunks, origins, tenant_id, status, moved_to = row
    tenant = tenant_of(((tenant_id, status, moved_to),))
    assert tenant is not None
    sets = (frozenset(each.split()) if isinstance(each, str) else each for each in (trunks, origins))
    return OwnedAddress(Address(address, *sets), tenant)


def tenant_of(rows: Sequence[Sequence[Any]]) -> TenantRow | None:
    """The tenant of a row of `SharedRepository`'s queries, if there is one."""
    for tenant_id, status, moved_to in rows:
        if moved_to is not None:
            return TenantRow(tenant_id, TenantStatus.MOVED, moved_to)
        return TenantRow(tenant_id, TenantStatus(status))
    return None
