"""A file may have been left for Postgres: from then on nothing is written into it, whoever tries.

In Postgres a tenant that was taken back is one that has moved (``tenants.moved_to``).
"""

from __future__ import annotations

from alembic.operations import Operations

revision = "tenant_0003"
down_revision = "tenant_0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Add the mark and what keeps to it."""
    if op.get_bind().dialect.name != "sqlite":
        return
    op.execute(
        """CREATE TABLE placement (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            store TEXT NOT NULL CHECK (store IN ('here', 'postgres'))
        ) STRICT"""
    )
    op.execute("INSERT INTO placement VALUES (1, 'here')")
    for table in ("config_versions", "active_version", "calls"):
        op.execute(
            f"""CREATE TRIGGER {table}_here BEFORE INSERT ON {table}
            WHEN (SELECT store FROM placement) <> 'here'
            BEGIN SELECT RAISE (ABORT, 'the tenant is in postgres'); END"""
        )
