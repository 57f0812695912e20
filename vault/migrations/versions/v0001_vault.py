"""The vault's tables, as ``vault.db`` has them, and what keeps to them.

A session sees and writes the data keys and secrets of the tenant in ``app.tenant_id``, and of all where ``app.vault_scope``
is ``every tenant``: rotation of key-encryption keys and moves between stores ask for that. The audit trail is one chain
through all tenants' entries, which nobody could append to or verify who sees a part of it.

Texts are ordered octet by octet, whatever the database's locale, as in the file.
"""

from __future__ import annotations

from alembic.operations import Operations

revision = "vault_0001"
down_revision = None
branch_labels = None
depends_on = None

SCOPED = ("vault_data_keys", "vault_secrets")
TABLES = (
    """CREATE TABLE vault_data_keys (
        tenant_id TEXT COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
        generation BIGINT NOT NULL CHECK (generation >= 1),
        kek_id TEXT NOT NULL,
        wrapped BYTEA NOT NULL CHECK (octet_length(wrapped) <= 2048),
        made_at TEXT NOT NULL,
        PRIMARY KEY (tenant_id, generation)
    )""",
    """CREATE TABLE vault_secrets (
        tenant_id TEXT COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
        name TEXT COLLATE "C" NOT NULL,
        version BIGINT NOT NULL CHECK (version >= 1),
        sealed BYTEA CHECK (octet_length(sealed) <= 8225),
        generation BIGINT,
        fingerprint TEXT NOT NULL,
        put_at TEXT NOT NULL,
        put_by TEXT NOT NULL,
        revoked_at TEXT,
        PRIMARY KEY (tenant_id, name),
        FOREIGN KEY (tenant_id, generation) REFERENCES vault_data_keys (tenant_id, generation),
        CHECK ((sealed IS NULL) = (generation IS NULL) AND (sealed IS NULL) = (revoked_at IS NOT NULL))
    )""",
    "CREATE INDEX vault_secrets_by_data_key ON vault_secrets (tenant_id, generation)",
    """CREATE TABLE vault_audit (
        sequence BIGINT PRIMARY KEY,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        tenant_id TEXT NOT NULL,
        name TEXT,
        version BIGINT,
        kek_id TEXT,
        hash BYTEA NOT NULL CHECK (octet_length(hash) = 32)
    )""",
    """CREATE TABLE vault_audit_head (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        sequence BIGINT NOT NULL,
        hash BYTEA NOT NULL,
        mac BYTEA NOT NULL
    )""",
    """CREATE TABLE vault_placement (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        place TEXT NOT NULL CHECK (place IN ('here', 'elsewhere'))
    )""",
    "INSERT INTO vault_placement VALUES (1, 'here')",
)
GUARDS = (
    """CREATE FUNCTION vault_refuses() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '%', TG_ARGV[0]; END $$""",
    """CREATE FUNCTION vault_audit_grows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.sequence <> (SELECT coalesce(max(sequence), 0) + 1 FROM vault_audit) THEN
            RAISE EXCEPTION 'audit entries are appended one after the other';
        END IF;
        RETURN NEW;
    END $$""",
    """CREATE TRIGGER audit_stays BEFORE UPDATE ON vault_audit
    FOR EACH ROW EXECUTE FUNCTION vault_refuses('audit entries are not changed')""",
    """CREATE TRIGGER audit_remains BEFORE DELETE ON vault_audit
    FOR EACH ROW EXECUTE FUNCTION vault_refuses('audit entries are not deleted')""",
    """CREATE TRIGGER audit_is_kept BEFORE TRUNCATE ON vault_audit
    FOR EACH STATEMENT EXECUTE FUNCTION vault_refuses('audit entries are not deleted')""",
    """CREATE TRIGGER audit_grows BEFORE INSERT ON vault_audit
    FOR EACH ROW EXECUTE FUNCTION vault_audit_grows()""",
    """CREATE TRIGGER audit_head_advances BEFORE UPDATE ON vault_audit_head
    FOR EACH ROW WHEN (NEW.sequence <= OLD.sequence)
    EXECUTE FUNCTION vault_refuses('the head of the audit trail goes forward only')""",
    """CREATE TRIGGER audit_head_remains BEFORE DELETE ON vault_audit_head
    FOR EACH ROW EXECUTE FUNCTION vault_refuses('the head of the audit trail is not deleted')""",
    """CREATE TRIGGER audit_head_is_kept BEFORE TRUNCATE ON vault_audit_head
    FOR EACH STATEMENT EXECUTE FUNCTION vault_refuses('the head of the audit trail is not deleted')""",
    """CREATE TRIGGER versions_advance BEFORE UPDATE ON vault_secrets
    FOR EACH ROW WHEN (NEW.version < OLD.version)
    EXECUTE FUNCTION vault_refuses('versions of secrets go forward only')""",
    """CREATE TRIGGER versions_remain BEFORE DELETE ON vault_secrets
    FOR EACH ROW EXECUTE FUNCTION vault_refuses('secrets are revoked, not deleted')""",
    """CREATE TRIGGER versions_are_kept BEFORE TRUNCATE ON vault_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION vault_refuses('secrets are revoked, not deleted')""",
)
_OWN = (
    "(tenant_id = current_setting('app.tenant_id', true)"
    " OR current_setting('app.vault_scope', true) = 'every tenant')"
)


def upgrade(op: Operations) -> None:
    """Make the tables, their triggers and their policies."""
    for statement in (*TABLES, *GUARDS):
        op.execute(statement)
    for table in SCOPED:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        # The owner of a table is above its policies unless this is said.
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY own_tenant ON {table} USING {_OWN} WITH CHECK {_OWN}")
