"""The statements on what nodes look at instead of at every tenant; as in `tenancy.repository`, on its caller's transaction.

Rules:

- a change of what calls get takes the next number, which its tenant's only row then has: who has read up to a number finds
  all that came after it, and the table does not grow with changes;
- numbers are given in the order of commits: in Postgres one at a time, under a lock that is taken last, for else a reader
  would pass over a number that is committed late;
- a row of ``trials_due`` says when somebody has to look at a tenant's trial, at the latest. One too many costs a look. It goes
  only after a look that found no trial, by whoever has seen that very row.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Select, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.schema import SharedTables
from tenancy.store import Changes, DueTrial

MAX_READ: Final = 200
"""Rows at once, of either table."""
_LOCK: Final = 7_216_002
"""The advisory lock under which changes are numbered."""


class FeedRepository:
    """Whose configuration changed last, and whose trial is due."""

    def __init__(self, tables: SharedTables) -> None:
        self._changes = tables.config_changes
        self._due = tables.trials_due
        self.last_query: Select[Any] = select(func.coalesce(func.max(self._changes.c.change), 0))
        self.changes_query: Select[Any] = (
            select(self._changes.c.change, self._changes.c.tenant_id)
            .where(self._changes.c.change > bindparam("after"))
            .order_by(self._changes.c.change)
            .limit(MAX_READ)
        )
        self.due_query: Select[Any] = (
            select(self._due.c.tenant_id, self._due.c.due_at_ms)
            .where(self._due.c.due_at_ms <= bindparam("now_ms"))
            .order_by(self._due.c.due_at_ms, self._due.c.tenant_id)
            .limit(MAX_READ)
        )
        self._due_at: Select[Any] = select(self._due.c.due_at_ms).where(
            self._due.c.tenant_id == bindparam("tenant_id")
        )

    async def note(self, connection: AsyncConnection, tenant_id: str) -> None:
        """What calls of this tenant get has changed. The last thing that its transaction does."""
        if connection.dialect.name == "postgresql":
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        change = (await connection.execute(self.last_query)).scalar_one() + 1
        await self._put(connection, self._changes, tenant_id, {"change": change}, {"change": change})

    async def last_change(self, connection: AsyncConnection) -> int:
        """The number of the latest change; 0 before the first."""
        number: int = (await connection.execute(self.last_query)).scalar_one()
        return number

    async def changes(self, connection: AsyncConnection, after: int) -> Changes:
        """Those after a number, oldest first; at most `MAX_READ`."""
        return changes_of(tuple(await connection.execute(self.changes_query, {"after": after})), after)

    async def watch(self, connection: AsyncConnection, tenant_id: str, due_at_ms: int) -> None:
        """Have a tenant's trial looked at then, or earlier where that is noted already."""
        earlier = func.min if connection.dialect.name == "sqlite" else func.least
        due = earlier(self._due.c.due_at_ms, due_at_ms)
        await self._put(connection, self._due, tenant_id, {"due_at_ms": due_at_ms}, {"due_at_ms": due})

    async def due_at(self, connection: AsyncConnection, tenant_id: str) -> int | None:
        """When a tenant's trial has to be looked at; None: it has none."""
        found: int | None = (
            await connection.execute(self._due_at, {"tenant_id": tenant_id})
        ).scalar_one_or_none()
        return found

    async def due(self, connection: AsyncConnection, now_ms: int) -> tuple[DueTrial, ...]:
        """The trials to be looked at now, the longest due first; at most `MAX_READ`."""
        return tuple(DueTrial(*row) for row in await connection.execute(self.due_query, {"now_ms": now_ms}))

    async def looked_at(self, connection: AsyncConnection, seen: DueTrial, again_at_ms: int | None) -> None:
        """Note when to look again (None: not), unless somebody else has noted something meanwhile."""
        table = self._due
        same = (table.c.tenant_id == seen.tenant_id, table.c.due_at_ms == seen.due_at_ms)
        if again_at_ms is None:
            await connection.execute(delete(table).where(*same))
        else:
            await connection.execute(update(table).where(*same).values(due_at_ms=again_at_ms))

    @staticmethod
    async def _put(
        connection: AsyncConnection,
        table: Any,
        tenant_id: str,
        values: dict[str, int],
        changes: dict[str, Any],
    ) -> None:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        await connection.execute(
            insert(table)
            .values(tenant_id=tenant_id, **values)
            .on_conflict_do_update(index_elements=["tenant_id"], set_=changes)
        )


def changes_of(rows: tuple[Any, ...] | list[Any], after: int) -> Changes:
    """Rows of `FeedRepository.changes_query`."""
    return Changes(rows[-1][0] if rows else after, tuple(row[1] for row in rows), len(rows) == MAX_READ)
