"""Who asks, and whose data it may touch. Sans-IO."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from admin.errors import Forbidden, NotFound

NAME_CHARACTERS_MAX: Final = 200


class Role(StrEnum):
    """What somebody may do."""

    OPERATOR = "operator"
    """Everything on this node."""
    TENANT = "tenant"
    """The configuration, calls and keys of one tenant; nobody's addresses, status or trunks."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, as a verified token says."""

    subject: str
    """Whom the audit trail names; 1 to 128 printable characters, unique within ``issuer``."""
    role: Role
    tenant_id: str | None
    """Whose data it may touch; None for an operator, and for nobody else."""
    issuer: str = "local"
    """``local`` for API tokens, ``command line``, or the OIDC issuer's URL."""
    credential: str = ""
    """Which token it was: its public id or its ``jti``. Never the token."""

    def __post_init__(self) -> None:
        if (self.role is Role.TENANT) != (self.tenant_id is not None):
            raise ValueError("a tenant's principal has a tenant, and an operator's has none")

    @property
    def name(self) -> str:
        """For audit trails and as the author of versions; at most `NAME_CHARACTERS_MAX`, which all of them take."""
        name = self.subject if self.issuer == "local" else f"{self.subject} ({self.issuer})"
        if len(name) <= NAME_CHARACTERS_MAX:
            return name
        # Cut, and still another one for each.
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        return f"{name[: NAME_CHARACTERS_MAX - 18]}… {digest}"

    def check_operator(self) -> None:
        """Raises `Forbidden` for a tenant."""
        if self.role is not Role.OPERATOR:
            raise Forbidden("this needs the role operator")

    def check_tenant(self, tenant_id: str) -> None:
        """Raises `NotFound` for another tenant's: that it exists is none of this one's business."""
        if self.role is not Role.OPERATOR and self.tenant_id != tenant_id:
            raise NotFound(f"no tenant {tenant_id[:63]!r}")
