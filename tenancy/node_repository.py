"""The statements on nodes and what they measure, for both backings: see `tenancy.figures`.

They are kept in the store and not beside it because that is where all nodes of it meet, and a doctor finds them there while
the node runs and after. It costs the store one short transaction a minute, which is no call's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Final

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from tenancy.figures import MINUTE_MS, NodeMinute, NodeRow
from tenancy.gate import KEPT_MINUTES
from tenancy.schema import shared_tables
from tenancy.shared_repository import insert_into

SEEN_WITHIN_MS: Final = 3 * MINUTE_MS
"""A node says each minute that it is there; one that has missed two of them is gone."""
KEPT_MS: Final = KEPT_MINUTES * MINUTE_MS
MAX_NODES: Final = 1_000
MAX_MINUTES: Final = 10 * KEPT_MINUTES
"""Rows read at once, the newest: a day of ten nodes."""


class NodeRepository:
    """Which nodes there are, and their minutes."""

    def __init__(self) -> None:
        metadata = MetaData()
        numbers = [name for name in NodeMinute.__slots__ if name not in ("node_id", "minute")]
        self.nodes = Table(
            "nodes",
            metadata,
            Column("node_id", Text, primary_key=True),
            Column("host", Text, nullable=False),
            *(Column(name, BigInteger, nullable=False) for name in ("pid", "started_ms", "seen_ms")),
        )
        self.minutes = Table(
            "node_minutes",
            metadata,
            Column("node_id", Text, primary_key=True),
            Column("minute", BigInteger, primary_key=True, autoincrement=False),
            *(Column(name, BigInteger, nullable=False) for name in numbers),
        )
        tenants = shared_tables().tenants
        self.nodes_query = (
            select(self.nodes).order_by(self.nodes.c.started_ms, self.nodes.c.node_id).limit(MAX_NODES)
        )
        self.minutes_query = (
            select(self.minutes)
            .where(self.minutes.c.minute >= bindparam("since"))
            .order_by(self.minutes.c.minute.desc(), self.minutes.c.node_id)
            .limit(MAX_MINUTES)
        )
        self._seen = select(func.count()).where(self.nodes.c.seen_ms > bindparam("since_ms"))
        self._elsewhere = select(func.count(func.distinct(tenants.c.moved_to)))

    async def keep(self, connection: AsyncConnection, node: NodeRow, minutes: Sequence[NodeMinute]) -> int:
        """Say that a node is there, keep its minutes, and forget what is older than a day.

        Returns how many nodes there are: those that were seen lately, and the addresses that tenants have moved to.
        """
        values = asdict(node)
        await connection.execute(
            insert_into(connection, self.nodes)
            .values(values)
            .on_conflict_do_update(index_elements=["node_id"], set_=values)
        )
        since_ms = node.seen_ms - SEEN_WITHIN_MS
        count = int((await connection.execute(self._seen, {"since_ms": since_ms})).scalar_one())
        count += int((await connection.execute(self._elsewhere)).scalar_one())
        if minutes:
            rows = [asdict(replace(each, nodes=count)) for each in minutes]
            await connection.execute(insert_into(connection, self.minutes).on_conflict_do_nothing(), rows)
        await self._forget(connection, node.seen_ms - KEPT_MS)
        return count

    async def _forget(self, connection: AsyncConnection, before_ms: int) -> None:
        await connection.execute(delete(self.minutes).where(self.minutes.c.minute < before_ms // MINUTE_MS))
        await connection.execute(delete(self.nodes).where(self.nodes.c.seen_ms < before_ms))

    async def leave(self, connection: AsyncConnection, node_id: str) -> None:
        """A node ends in order; its minutes stay."""
        await connection.execute(delete(self.nodes).where(self.nodes.c.node_id == node_id))

    async def known(self, connection: AsyncConnection) -> tuple[NodeRow, ...]:
        """Nodes that have not ended in order, in the order of their starts."""
        return tuple(NodeRow(*row) for row in await connection.execute(self.nodes_query))

    async def minutes_since(self, connection: AsyncConnection, minute: int) -> tuple[NodeMinute, ...]:
        """The newest `MAX_MINUTES` from a minute on, newest first."""
        rows = await connection.execute(self.minutes_query, {"since": minute})
        return tuple(NodeMinute(**row._mapping) for row in rows)
