"""The nodes that have the store open, and what each measured in each minute of the last day: for ``mediaserver doctor``."""

from __future__ import annotations

from alembic.operations import Operations

revision = "shared_0004"
down_revision = "shared_0003"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Make the tables. They name no tenant."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    strict, number = (" STRICT", "INTEGER") if sqlite else ("", "BIGINT")
    op.execute(
        f"""CREATE TABLE nodes (
            node_id TEXT PRIMARY KEY,
            host TEXT NOT NULL,
            pid {number} NOT NULL,
            started_ms {number} NOT NULL,
            seen_ms {number} NOT NULL
        ){strict}"""
    )
    op.execute(
        f"""CREATE TABLE node_minutes (
            node_id TEXT NOT NULL,
            minute {number} NOT NULL,
            slots {number} NOT NULL,
            calls_p95 {number} NOT NULL,
            calls_max {number} NOT NULL,
            writes {number} NOT NULL,
            write_wait_p95_ms {number} NOT NULL,
            write_wait_ms {number} NOT NULL,
            locked {number} NOT NULL,
            crossings {number} NOT NULL,
            crossing_ms {number} NOT NULL,
            crossed {number} NOT NULL,
            nodes {number} NOT NULL,
            PRIMARY KEY (minute, node_id)
        ){strict}"""
    )
