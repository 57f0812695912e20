"""What became of versions, row by row: for what takes a tenant from one database to another as it is.

As in `tenancy.repository`, on its caller's transaction. The log has no key that means anything elsewhere: a line is known by
its place in the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.schema import TenantTables


@dataclass(frozen=True, slots=True)
class StateRow:
    """What became of a version; see `tenancy.versions.ConfigVersion`."""

    version: int
    state: str
    restores: int | None
    changed_by: str | None
    changed_reason: str | None
    changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as it is kept."""

    version: int
    baseline: int
    share: int
    ends_at_ms: int
    running: int
    body: str
    """`tenancy.canary.TRIAL`."""


@dataclass(frozen=True, slots=True)
class LogRow:
    """A line of the log; see `tenancy.ledger.LogLine`."""

    at: datetime
    author: str
    deed: str
    version: int
    reason: str


class LedgerRows:
    """Rows of the connection's tenant."""

    def __init__(self, tables: TenantTables) -> None:
        self._tables = tables

    async def states(self, connection: AsyncConnection) -> tuple[StateRow, ...]:
        """Those of the versions that have one, oldest first."""
        table = self._tables.version_states
        rows = await connection.execute(
            select(*(table.c[name] for name in StateRow.__slots__)).order_by(table.c.version)
        )
        return tuple(StateRow(*row) for row in rows)

    async def trials(self, connection: AsyncConnection) -> tuple[TrialRow, ...]:
        """All, of the oldest version first."""
        table = self._tables.trials
        rows = await connection.execute(
            select(*(table.c[name] for name in TrialRow.__slots__)).order_by(table.c.version)
        )
        return tuple(TrialRow(*row) for row in rows)

    async def log_after(
        self, connection: AsyncConnection, key: int, limit: int
    ) -> tuple[tuple[int, LogRow], ...]:
        """Lines in their order, from after a key on; each with its own."""
        table = self._tables.config_log
        rows = await connection.execute(
            select(table.c.entry, *(table.c[name] for name in LogRow.__slots__))
            .where(table.c.entry > key)
            .order_by(table.c.entry)
            .limit(limit)
        )
        return tuple((row[0], LogRow(*row[1:])) for row in rows)

    async def log(self, connection: AsyncConnection) -> tuple[LogRow, ...]:
        """All lines, oldest first."""
        table = self._tables.config_log
        rows = await connection.execute(
            select(*(table.c[name] for name in LogRow.__slots__)).order_by(table.c.entry)
        )
        return tuple(LogRow(*row) for row in rows)

    async def put_states(self, connection: AsyncConnection, rows: Iterable[StateRow]) -> None:
        """Write the states of versions that are there."""
        await self._put(connection, self._tables.version_states, list(rows))

    async def put_trials(self, connection: AsyncConnection, rows: Iterable[TrialRow]) -> None:
        """Write trials of versions that are there."""
        # Those that are over first: only one runs at a time.
        await self._put(connection, self._tables.trials, sorted(rows, key=lambda row: row.running))

    async def add_log(self, connection: AsyncConnection, rows: Sequence[LogRow]) -> None:
        """Add lines, oldest first."""
        for row in rows:
            await connection.execute(_insert(connection, self._tables.config_log).values(_values(row)))

    async def _put(
        self, connection: AsyncConnection, table: Table, rows: Sequence[StateRow] | Sequence[TrialRow]
    ) -> None:
        for row in rows:
            values = _values(row)
            await connection.execute(
                _insert(connection, table)
                .values(values)
                .on_conflict_do_update(index_elements=[*self._tables.scope, "version"], set_=values)
            )


def _values(row: StateRow | TrialRow | LogRow) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__slots__}


def _insert(connection: AsyncConnection, table: Table) -> sqlite.Insert | postgresql.Insert:
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
