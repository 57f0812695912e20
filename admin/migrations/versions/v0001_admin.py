"""Tokens, what is known of JWTs, idempotency keys, and the audit trail."""

from __future__ import annotations

from alembic.operations import Operations

revision = "admin_0001"
down_revision = None
branch_labels = None
depends_on = None


def tables(*, blob: str, integer: str, end: str) -> tuple[str, ...]:
    """The tables, with a database's own types."""
    return (
        f"""CREATE TABLE admin_tokens (
            public_id TEXT PRIMARY KEY,
            hash TEXT NOT NULL,
            role TEXT NOT NULL CHECK (role IN ('operator', 'tenant')),
            tenant_id TEXT,
            label TEXT NOT NULL,
            created_by TEXT NOT NULL,
            created_ms {integer} NOT NULL,
            expires_ms {integer} NOT NULL,
            revoked_ms {integer},
            revoked_by TEXT,
            CHECK ((role = 'tenant') = (tenant_id IS NOT NULL)),
            CHECK ((revoked_ms IS NULL) = (revoked_by IS NULL))
        ){end}""",
        "CREATE INDEX admin_tokens_by_tenant ON admin_tokens (tenant_id, public_id)",
        f"""CREATE TABLE admin_used_tokens (
            token_hash {blob} PRIMARY KEY,
            until_ms {integer} NOT NULL
        ){end}""",
        "CREATE INDEX admin_used_tokens_by_end ON admin_used_tokens (until_ms)",
        f"""CREATE TABLE admin_denied_tokens (
            token_hash {blob} PRIMARY KEY,
            until_ms {integer} NOT NULL
        ){end}""",
        f"""CREATE TABLE admin_denied_subjects (
            subject_hash {blob} PRIMARY KEY,
            before_ms {integer} NOT NULL,
            until_ms {integer} NOT NULL
        ){end}""",
        f"""CREATE TABLE admin_keys (
            key_hash {blob} PRIMARY KEY,
            owner_hash {blob} NOT NULL,
            fingerprint {blob} NOT NULL,
            claim {blob} NOT NULL,
            began_ms {integer} NOT NULL,
            status INTEGER,
            headers TEXT,
            body {blob},
            CHECK ((status IS NULL) = (headers IS NULL) AND (status IS NULL) = (body IS NULL))
        ){end}""",
        "CREATE INDEX admin_keys_by_owner ON admin_keys (owner_hash)",
        "CREATE INDEX admin_keys_by_begin ON admin_keys (began_ms)",
        f"""CREATE TABLE admin_audit (
            sequence {integer} PRIMARY KEY,
            at TEXT NOT NULL,
            principal TEXT NOT NULL,
            credential TEXT NOT NULL,
            source TEXT NOT NULL,
            action TEXT NOT NULL,
            tenant_id TEXT,
            target TEXT,
            status INTEGER NOT NULL,
            request_id TEXT NOT NULL,
            detail TEXT NOT NULL,
            hash {blob} NOT NULL
        ){end}""",
        "CREATE INDEX admin_audit_by_tenant ON admin_audit (tenant_id, sequence)",
        f"""CREATE TABLE admin_audit_head (
            only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
            sequence {integer} NOT NULL,
            hash {blob} NOT NULL
        ){end}""",
    )


APPEND_ONLY = "the audit trail is append-only"
REVOKED = "a token can be revoked, once, and not be changed otherwise"
_SAME_TOKEN = " AND ".join(
    f"NEW.{name} = OLD.{name}"
    for name in ("public_id", "hash", "role", "label", "created_by", "created_ms", "expires_ms")
)
_IS_REVOKED = "OLD.revoked_ms IS NULL AND NEW.revoked_ms IS NOT NULL"

SQLITE = (
    # "INSERT OR REPLACE" deletes without the trigger for that; a sequence that is there already is refused before.
    f"""CREATE TRIGGER admin_audit_goes_on BEFORE INSERT ON admin_audit
    WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM admin_audit)
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_audit_stays BEFORE UPDATE ON admin_audit
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_audit_remains BEFORE DELETE ON admin_audit
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_audit_head_begins BEFORE INSERT ON admin_audit_head
    WHEN EXISTS (SELECT 1 FROM admin_audit_head)
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_audit_head_goes_on BEFORE UPDATE ON admin_audit_head
    WHEN NEW.sequence IS NOT OLD.sequence + 1
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_audit_head_remains BEFORE DELETE ON admin_audit_head
    BEGIN SELECT RAISE (ABORT, '{APPEND_ONLY}'); END""",
    f"""CREATE TRIGGER admin_tokens_stay BEFORE UPDATE ON admin_tokens
    WHEN NOT ({_SAME_TOKEN} AND NEW.tenant_id IS OLD.tenant_id AND {_IS_REVOKED})
    BEGIN SELECT RAISE (ABORT, '{REVOKED}'); END""",
    f"""CREATE TRIGGER admin_tokens_are_new BEFORE INSERT ON admin_tokens
    WHEN EXISTS (SELECT 1 FROM admin_tokens WHERE public_id = NEW.public_id)
    BEGIN SELECT RAISE (ABORT, '{REVOKED}'); END""",
)


def _function(name: str, body: str) -> str:
    return f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$"


POSTGRES = (
    _function("admin_audit_is_append_only", f"RAISE EXCEPTION '{APPEND_ONLY}';"),
    _function(
        "admin_audit_goes_on",
        "IF NEW.sequence IS DISTINCT FROM (SELECT coalesce(max(sequence), 0) + 1 FROM admin_audit) THEN"
        f" RAISE EXCEPTION '{APPEND_ONLY}'; END IF; RETURN NEW;",
    ),
    _function(
        "admin_audit_head_goes_on",
        f"IF NEW.sequence IS DISTINCT FROM OLD.sequence + 1 THEN RAISE EXCEPTION '{APPEND_ONLY}'; END IF; RETURN NEW;",
    ),
    _function(
        "admin_tokens_stay",
        f"IF NOT ({_SAME_TOKEN} AND NEW.tenant_id IS NOT DISTINCT FROM OLD.tenant_id AND {_IS_REVOKED}) THEN"
        f" RAISE EXCEPTION '{REVOKED}'; END IF; RETURN NEW;",
    ),
    "CREATE TRIGGER admin_audit_goes_on BEFORE INSERT ON admin_audit FOR EACH ROW EXECUTE FUNCTION admin_audit_goes_on()",
    "CREATE TRIGGER admin_audit_stays BEFORE UPDATE OR DELETE ON admin_audit"
    " FOR EACH ROW EXECUTE FUNCTION admin_audit_is_append_only()",
    "CREATE TRIGGER admin_audit_remains BEFORE TRUNCATE ON admin_audit"
    " FOR EACH STATEMENT EXECUTE FUNCTION admin_audit_is_append_only()",
    "CREATE TRIGGER admin_audit_head_goes_on BEFORE UPDATE ON admin_audit_head"
    " FOR EACH ROW EXECUTE FUNCTION admin_audit_head_goes_on()",
    "CREATE TRIGGER admin_audit_head_remains BEFORE DELETE ON admin_audit_head"
    " FOR EACH ROW EXECUTE FUNCTION admin_audit_is_append_only()",
    "CREATE TRIGGER admin_audit_head_stays BEFORE TRUNCATE ON admin_audit_head"
    " FOR EACH STATEMENT EXECUTE FUNCTION admin_audit_is_append_only()",
    "CREATE TRIGGER admin_tokens_stay BEFORE UPDATE ON admin_tokens"
    " FOR EACH ROW EXECUTE FUNCTION admin_tokens_stay()",
)


def upgrade(op: Operations) -> None:
    """Make the tables; the databases themselves refuse to change what was entered."""
    if op.get_bind().dialect.name == "sqlite":
        statements = (*tables(blob="BLOB", integer="INTEGER", end=" STRICT"), *SQLITE)
    else:
        statements = (*tables(blob="BYTEA", integer="BIGINT", end=""), *POSTGRES)
    for statement in statements:
        op.execute(statement)
