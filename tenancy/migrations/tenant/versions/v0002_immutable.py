"""A version is what calls were answered with: it stays as it was written. A call is kept once.

A SIP Call-ID is the caller's choice and may come again, at another time.
"""

from __future__ import annotations

from alembic.operations import Operations

revision = "tenant_0002"
down_revision = "tenant_0001"
branch_labels = None
depends_on = None

SQLITE = (
    """CREATE TRIGGER config_versions_stay BEFORE UPDATE ON config_versions
    BEGIN SELECT RAISE (ABORT, 'configuration versions are immutable'); END""",
    """CREATE TRIGGER config_versions_remain BEFORE DELETE ON config_versions
    BEGIN SELECT RAISE (ABORT, 'configuration versions are immutable'); END""",
    "CREATE UNIQUE INDEX calls_once ON calls (call_id, started_at)",
)
POSTGRES = (
    """CREATE FUNCTION config_versions_are_immutable() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'configuration versions are immutable'; END $$""",
    """CREATE TRIGGER config_versions_stay BEFORE UPDATE OR DELETE ON config_versions
    FOR EACH ROW EXECUTE FUNCTION config_versions_are_immutable()""",
    """CREATE TRIGGER config_versions_remain BEFORE TRUNCATE ON config_versions
    FOR EACH STATEMENT EXECUTE FUNCTION config_versions_are_immutable()""",
    "CREATE UNIQUE INDEX calls_once ON calls (tenant_id, call_id, started_at)",
)


def upgrade(op: Operations) -> None:
    """Add the triggers and the key."""
    for statement in SQLITE if op.get_bind().dialect.name == "sqlite" else POSTGRES:
        op.execute(statement)
