"""A tenant may have moved to another node; its status is kept for the case that it comes back."""

from __future__ import annotations

from alembic.operations import Operations

revision = "shared_0002"
down_revision = "shared_0001"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """Add the new node's address."""
    op.execute("ALTER TABLE tenants ADD COLUMN moved_to TEXT")
