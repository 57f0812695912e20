"""Who was to serve a call, why, and what became of it: a JSON array in the call's record; empty in older ones."""

from __future__ import annotations

from alembic.operations import Operations

revision = "tenant_0005"
down_revision = "tenant_0004"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Add the column."""
    op.execute("ALTER TABLE calls ADD COLUMN providers TEXT NOT NULL DEFAULT '[]'")
