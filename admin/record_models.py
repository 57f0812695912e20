"""What is told of calls, of who changed what, and of tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from admin.api_tokens import TokenInfo
from admin.models import Given, Told
from admin.principals import Role
from config.tenant import TenantId
from tenancy.context import CallRecord


class Call(Told):
    """What stays of a call."""

    call_id: str
    called: str
    caller: str
    config_version: int
    started_at: datetime
    ended_at: datetime
    cause: str
    transcript: list[dict[str, Any]]
    messages: list[dict[str, Any]]

    @classmethod
    def of(cls, record: CallRecord) -> Call:
        """A record of the store."""
        return cls(**{name: getattr(record, name) for name in cls.model_fields})


class Calls(Told):
    """A page of calls, the latest first."""

    items: list[Call]
    next_cursor: str | None


class AuditEntry(Told):
    """A line of the trail: what was done or refused, by whom."""

    sequence: int
    at: datetime
    principal: str
    credential: str
    source: str
    action: str
    tenant_id: str | None
    target: str | None
    status: int
    """Of the answer; 102: it was about to be carried out."""
    request_id: str
    detail: str
    hash: str


class AuditEntries(Told):
    """A page of the trail, in order."""

    items: list[AuditEntry]
    next_cursor: str | None


class NewToken(Given):
    """An API token to be made."""

    role: Role
    tenant_id: TenantId | None = None
    label: str = Field(min_length=1, max_length=64)
    life_days: int | None = Field(default=None, ge=1, le=3_650)


class Token(Told):
    """What may be told of a token."""

    public_id: str
    role: Role
    tenant_id: str | None
    label: str
    created_by: str
    created_ms: int
    expires_ms: int
    revoked_ms: int | None
    revoked_by: str | None

    @classmethod
    def of(cls, info: TokenInfo) -> Token:
        """The store's."""
        return cls(**{name: getattr(info, name) for name in TokenInfo.__slots__})


class TokenOnce(Token):
    """A token that was just made; it is not shown again."""

    token: str


class Tokens(Told):
    """A page of tokens, by their ids."""

    items: list[Token]
    next_cursor: str | None
