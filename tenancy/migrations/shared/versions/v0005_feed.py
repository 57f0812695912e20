"""What nodes look at instead of at every tenant: whose configuration changed last, and whose trial has to be looked at when."""

from __future__ import annotations

from alembic.operations import Operations

revision = "shared_0005"
down_revision = "shared_0004"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Make the tables, of at most one row for each tenant."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    strict, integer = (" STRICT", "INTEGER") if sqlite else ("", "BIGINT")
    op.execute(
        f"CREATE TABLE config_changes (tenant_id TEXT PRIMARY KEY, change {integer} NOT NULL UNIQUE){strict}"
    )
    op.execute(f"CREATE TABLE trials_due (tenant_id TEXT PRIMARY KEY, due_at_ms {integer} NOT NULL){strict}")
    op.execute("CREATE INDEX trials_due_first ON trials_due (due_at_ms, tenant_id)")
