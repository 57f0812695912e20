"""What tenants, keys and actors may be called, and how times are given."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from vault.errors import BadInput

TENANT_ID_MAX: Final = 63
KEY_NAME_MAX: Final = 64
ACTOR_MAX: Final = 200
VERSION_MAX: Final = 2**31 - 1
_TENANT_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_KEY_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")


def check_tenant(tenant_id: str) -> None:
    """Raise `BadInput` for what is no tenant's id."""
    if not _TENANT_ID.fullmatch(tenant_id):
        raise BadInput(
            f"{_shown(tenant_id)} is no tenant id: 1 to {TENANT_ID_MAX} lower-case letters, digits and inner hyphens"
        )


def check_name(name: str) -> None:
    """Raise `BadInput` for what is no name of a key."""
    if not _KEY_NAME.fullmatch(name):
        raise BadInput(
            f"{_shown(name)} is no name of a key: 1 to {KEY_NAME_MAX} lower-case letters and digits, "
            "with '.', '_' and '-' inside"
        )


def check_actor(actor: str) -> None:
    """Raise `BadInput` for what the audit trail cannot name somebody by."""
    if not (1 <= len(actor) <= ACTOR_MAX and actor.isprintable()):
        raise BadInput(f"an actor must be 1 to {ACTOR_MAX} printable characters")


def timestamp(at: datetime) -> str:
    """RFC 3339 in UTC with microseconds: texts of this form sort as their times do. Raises `BadInput` without a zone."""
    if at.utcoffset() is None:
        raise BadInput("a time must have a time zone")
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def _shown(text: str) -> str:
    """A short form: somebody may paste a key where its name belongs, so that no more than its length is told."""
    return f"a text of {len(text)} characters"
