"""Tenants and whose number is whose."""

from __future__ import annotations

from alembic.operations import Operations

revision = "shared_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Make the tables."""
    strict = " STRICT" if op.get_bind().dialect.name == "sqlite" else ""
    op.execute(
        f"""CREATE TABLE tenants (
            tenant_id TEXT PRIMARY KEY,
            status TEXT NOT NULL CHECK (status IN ('active', 'suspended'))
        ){strict}"""
    )
    op.execute(
        f"""CREATE TABLE numbers (
            number TEXT PRIMARY KEY,
            tenant_id TEXT NOT NULL REFERENCES tenants (tenant_id)
        ){strict}"""
    )
    op.execute("CREATE INDEX numbers_by_tenant ON numbers (tenant_id)")
