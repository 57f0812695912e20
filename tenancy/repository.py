"""The statements, for both backings. Each works on a connection whose transaction its caller begins and ends.

Where tenants share the tables, the connection has been given its tenant (`tenancy.postgres_store`), and row-level security
narrows every statement here to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from sqlalchemy import Column, Table, and_, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.context import VersionInfo
from tenancy.errors import NumberTaken, TenantChanged, TenantExists, TenantMoved, UnknownTenant
from tenancy.feed_repository import FeedRepository
from tenancy.ledger import Edit, Ledger
from tenancy.ledger_repository import ONLY_ROW, LedgerRepository, imported_origin
from tenancy.ledger_rows import LedgerRows
from tenancy.schema import SharedTables, TenantTables, shared_tables, tenant_tables
from tenancy.store import (
    MAX_ASKED,
    Address,
    CallPlace,
    CallRow,
    NewVersion,
    OwnedAddress,
    StoredVersion,
    TenantRow,
    TenantStatus,
    VersionContent,
    VersionKey,
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


class TenantRepository:
    """Configuration versions, which of them is active, and calls: of the connection's tenant."""

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        self.tables: TenantTables = tenant_tables(scope)
        versions, active = self.tables.config_versions, self.tables.active_version
        self.active_query = select(versions.c.version, versions.c.content_hash).join_from(
            active, versions, active.c.version == versions.c.version
        )
        self.ledgers = LedgerRepository(self.tables)
        """What becomes of versions."""
        self.rows = LedgerRows(self.tables)
        """The same, for what takes it elsewhere."""
        self.content_query = select(versions.c.content_hash, versions.c.body).where(
            versions.c.version == bindparam("number")
        )

    async def active(self, connection: AsyncConnection) -> VersionKey | None:
        """The active version."""
        row = (await connection.execute(self.active_query)).one_or_none()
        return None if row is None else VersionKey(*row)

    async def content(self, connection: AsyncConnection, version: int) -> VersionContent | None:
        """What a version says."""
        row = (await connection.execute(self.content_query, {"number": version})).one_or_none()
        return None if row is None else VersionContent(*row)

    async def stored_versions(
        self, connection: AsyncConnection, *, version: int | None = None
    ) -> tuple[StoredVersion, ...]:
        """One version, or all, oldest first."""
        table, states = self.tables.config_versions, self.tables.version_states
        query = (
            select(*_columns(table, self.tables.scope), *_columns(states, (*self.tables.scope, "version")))
            .select_from(table.outerjoin(states, states.c.version == table.c.version))
            .order_by(table.c.version)
        )
        if version is not None:
            query = query.where(table.c.version == version)
        return tuple(StoredVersion(*row) for row in await connection.execute(query))

    async def version_hashes(self, connection: AsyncConnection) -> dict[int, str]:
        """Every version's content hash."""
        table = self.tables.config_versions
        rows = await connection.execute(select(table.c.version, table.c.content_hash))
        return {row.version: row.content_hash for row in rows}

    async def versions(self, connection: AsyncConnection) -> tuple[VersionInfo, ...]:
        """All versions, newest first."""
        versions, active = self.tables.config_versions, self.tables.active_version
        rows = await connection.execute(
            select(
                versions.c.version,
                versions.c.content_hash,
                versions.c.schema_version,
                versions.c.author,
                versions.c.reason,
                versions.c.created_at,
                active.c.version.is_not(None),
            )
            .join_from(versions, active, active.c.version == versions.c.version, isouter=True)
            .order_by(versions.c.version.desc())
        )
        return tuple(VersionInfo(*row) for row in rows)

    async def add_version(self, connection: AsyncConnection, new: NewVersion) -> int:
        """Make a version the active one, unless its content is active already; returns its number."""
        if new.followed:
            await self.ledgers.follow(connection, new.content_hash)
        present = await self.active(connection)
        if present is not None and present.content_hash == new.content_hash:
            return present.version
        before = await self.ledgers.ledger(connection)
        origin = imported_origin(new.author, new.reason, new.created_at)
        edit = before.publish(new.content_hash, new.schema_version, new.body, origin)
        await self.ledgers.write(connection, before, edit)
        return edit.version.version

    async def edit(self, connection: AsyncConnection, change: Callable[[Ledger], Edit]) -> Edit:
        """Change what becomes of the versions; what ``change`` raises is raised before anything is written."""
        before = await self.ledgers.ledger(connection)
        edit = change(before)
        await self.ledgers.write(connection, before, edit)
        return edit

    async def end_call(
        self,
        connection: AsyncConnection,
        call: CallRow | None,
        observe: Callable[[Ledger], Edit | None],
        lock: Callable[[], Awaitable[None]] | None = None,
    ) -> Edit | None:
        """Keep a call, and have it observed where a trial runs, once; ``lock`` keeps others from that meanwhile."""
        if call is not None and not await self._add_call(connection, call):
            return None
        if await self.ledgers.running_trial(connection) is None:
            return None
        if lock is not None:
            await lock()
        before = await self.ledgers.ledger(connection)
        edit = observe(before)
        if edit is not None:
            await self.ledgers.write(connection, before, edit)
        return edit

    async def _add_call(self, connection: AsyncConnection, call: CallRow) -> bool:
        """Whether it was not kept already."""
        added = await connection.execute(
            insert_into(connection, self.tables.calls)
            .on_conflict_do_nothing(index_elements=[*self.tables.scope, "call_id", "started_at"])
            .values(values_of(call))
            .returning(self.tables.calls.c.call_key)
        )
        return added.one_or_none() is not None

    async def put_versions(self, connection: AsyncConnection, stored: Sequence[StoredVersion]) -> None:
        """Write versions as they are."""
        if stored:
            rows = [values_of(each) for each in stored]
            names = set(_names(self.tables.config_versions))
            await connection.execute(
                insert_into(connection, self.tables.config_versions),
                [{name: value for name, value in row.items() if name in names} for row in rows],
            )
            names = {"version", *_names(self.tables.version_states)}
            for row in rows:
                if row["state"] is not None:
                    state = {name: value for name, value in row.items() if name in names}
                    await self.ledgers.put_state(connection, state)

    async def activate(self, connection: AsyncConnection, version: int) -> None:
        """Make a version that is there the active one."""
        active = self.tables.active_version
        statement = insert_into(connection, active).values(only_row=ONLY_ROW, version=version)
        await connection.execute(
            statement.on_conflict_do_update(
                index_elements=[*self.tables.scope, "only_row"], set_={"version": version}
            )
        )

    async def add_calls(self, connection: AsyncConnection, calls: Sequence[CallRow]) -> None:
        """Keep calls, but for those that are kept already."""
        if calls:
            await connection.execute(
                insert_into(connection, self.tables.calls).on_conflict_do_nothing(
                    index_elements=[*self.tables.scope, "call_id", "started_at"]
                ),
                [values_of(each) for each in calls],
            )

    async def newest_calls(
        self, connection: AsyncConnection, limit: int, before: CallPlace | None = None
    ) -> tuple[CallRow, ...]:
        """The newest calls, latest first; of those that come after ``before``."""
        table = self.tables.calls
        query = select(*_columns(table, (*self.tables.scope, "call_key")))
        if before is not None:
            began, call_id = before
            query = query.where(
                or_(
                    table.c.started_at < began,
                    and_(table.c.started_at == began, table.c.call_id < call_id),
                )
            )
        rows = await connection.execute(
            query.order_by(table.c.started_at.desc(), table.c.call_id.desc()).limit(limit)
        )
        return tuple(CallRow(*row) for row in rows)

    async def calls_after(
        self, connection: AsyncConnection, key: int, limit: int
    ) -> tuple[tuple[int, CallRow], ...]:
        """Calls in the order in which they were kept, from after a key on; each with its own."""
        table = self.tables.calls
        columns = _columns(table, (*self.tables.scope, "call_key"))
        rows = await connection.execute(
            select(table.c.call_key, *columns)
            .where(table.c.call_key > key)
            .order_by(table.c.call_key)
            .limit(limit)
        )
        return tuple((row[0], CallRow(*row[1:])) for row in rows)

    async def calls_like(self, connection: AsyncConnection, calls: Sequence[CallRow]) -> tuple[CallRow, ...]:
        """What is kept under the ids and starts of these calls, in order."""
        table = self.tables.calls
        rows = await connection.execute(
            select(*_columns(table, (*self.tables.scope, "call_key")))
            .where(
                tuple_(table.c.call_id, table.c.started_at).in_(
                    [(each.call_id, each.started_at) for each in calls]
                )
            )
            .order_by(table.c.started_at, table.c.call_id)
        )
        return tuple(CallRow(*row) for row in rows)

    async def counts(self, connection: AsyncConnection) -> tuple[int, int]:
        """How many versions and calls there are."""
        versions, calls = self.tables.config_versions, self.tables.calls
        return (
            (await connection.execute(select(func.count()).select_from(versions))).scalar_one(),
            (await connection.execute(select(func.count()).select_from(calls))).scalar_one(),
        )


def values_of(row: StoredVersion | CallRow) -> dict[str, object]:
    """A row's columns."""
    return {name: getattr(row, name) for name in row.__slots__}


def _columns(table: Table, without: Sequence[str]) -> list[Column[Any]]:
    return [column for column in table.c if column.name not in without]


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


def _names(table: Table) -> list[str]:
    return [column.name for column in table.c]


def tenant_of(rows: Sequence[Sequence[Any]]) -> TenantRow | None:
    """The tenant of a row of `SharedRepository`'s queries, if there is one."""
    for tenant_id, status, moved_to in rows:
        if moved_to is not None:
            return TenantRow(tenant_id, TenantStatus.MOVED, moved_to)
        return TenantRow(tenant_id, TenantStatus(status))
    return None
