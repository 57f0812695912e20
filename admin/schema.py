"""The admin database's tables, as SQLAlchemy core knows them; `admin.migrations` makes them."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

from tenancy.schema import PeerText


@dataclass(frozen=True, slots=True)
class AdminTables:
    """All of them."""

    tokens: Table
    used_tokens: Table
    denied_tokens: Table
    denied_subjects: Table
    keys: Table
    audit: Table
    audit_head: Table


def admin_tables() -> AdminTables:
    """Make the tables' descriptions."""
    metadata = MetaData()
    return AdminTables(
        tokens=Table(
            "admin_tokens",
            metadata,
            Column("public_id", Text, primary_key=True),
            Column("hash", Text, nullable=False),
            Column("role", Text, nullable=False),
            Column("tenant_id", Text),
            Column("label", PeerText, nullable=False),
            Column("created_by", PeerText, nullable=False),
            Column("created_ms", BigInteger, nullable=False),
            Column("expires_ms", BigInteger, nullable=False),
            Column("revoked_ms", BigInteger),
            Column("revoked_by", PeerText),
        ),
        used_tokens=_until("admin_used_tokens", metadata),
        denied_tokens=_until("admin_denied_tokens", metadata),
        denied_subjects=Table(
            "admin_denied_subjects",
            metadata,
            Column("subject_hash", LargeBinary, primary_key=True),
            Column("before_ms", BigInteger, nullable=False),
            Column("until_ms", BigInteger, nullable=False),
        ),
        keys=Table(
            "admin_keys",
            metadata,
            Column("key_hash", LargeBinary, primary_key=True),
            Column("owner_hash", LargeBinary, nullable=False),
            Column("fingerprint", LargeBinary, nullable=False),
            Column("claim", LargeBinary, nullable=False),
            Column("began_ms", BigInteger, nullable=False),
            Column("status", Integer),
            Column("headers", Text),
            Column("body", LargeBinary),
        ),
        audit=Table(
            "admin_audit",
            metadata,
            Column("sequence", BigInteger, primary_key=True, autoincrement=False),
            Column("at", Text, nullable=False),
            Column("principal", Text, nullable=False),
            Column("credential", Text, nullable=False),
            Column("source", Text, nullable=False),
            Column("action", Text, nullable=False),
            Column("tenant_id", Text),
            Column("target", Text),
            Column("status", Integer, nullable=False),
            Column("request_id", Text, nullable=False),
            Column("detail", Text, nullable=False),
            Column("hash", LargeBinary, nullable=False),
        ),
        audit_head=Table(
            "admin_audit_head",
            metadata,
            Column("only_row", Integer, primary_key=True, autoincrement=False),
            Column("sequence", BigInteger, nullable=False),
            Column("hash", LargeBinary, nullable=False),
        ),
    )


def _until(name: str, metadata: MetaData) -> Table:
    return Table(
        name,
        metadata,
        Column("token_hash", LargeBinary, primary_key=True),
        Column("until_ms", BigInteger, nullable=False),
    )
