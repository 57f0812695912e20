"""Beside numbers: SIP addresses and site keys, each with the trunks and web pages that reach its tenant by it."""

from __future__ import annotations

from alembic.operations import Operations

revision = "shared_0003"
down_revision = "shared_0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    """What is there are numbers, of tenants that name no trunk."""
    op.execute("ALTER TABLE numbers RENAME TO addresses")
    op.execute("ALTER TABLE addresses RENAME COLUMN number TO address")
    op.execute("ALTER TABLE addresses ADD COLUMN trunks TEXT NOT NULL DEFAULT 'any'")
    op.execute("ALTER TABLE addresses ADD COLUMN origins TEXT NOT NULL DEFAULT ''")
