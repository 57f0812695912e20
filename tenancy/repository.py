"""The statements, for both backings. Each works on a connection whose transaction its caller begins and ends.

Where tenants share the tables, the connection has been given its tenant (`tenancy.postgres_store`), and row-level security
narrows every statement here to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import Column, Table, and_, bindparam, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.context import VersionInfo
from tenancy.ledger import Edit, Ledger
from tenancy.ledger_repository import ONLY_ROW, LedgerRepository, imported_origin
from tenancy.ledger_rows import LedgerRows
from tenancy.schema import TenantTables, tenant_tables
from tenancy.shared_repository import insert_into
from tenancy.store import (
    CallPlace,
    CallRow,
    NewVersion,
    StoredVersion,
    VersionContent,
    VersionKey,
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


def _names(table: Table) -> list[str]:
    return [column.name for column in table.c]
